"""What one pass of a graph through AOTAutograd shows: the call around the compiled parts, and what was
assumed of symbolic sizes on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from braze._torch import aot_metadata, shape_envs, trace_state
from braze._torch.aot_metadata import CallFacts, OutputFacts
from braze.artifact.call_spec import (
    AliasOfInput,
    AliasOfResult,
    Backward,
    CallSpec,
    CopyBack,
    Fresh,
    Output,
    Place,
    SameAsInput,
    Tangent,
)
from braze.compile.fx_compile import GraphKind
from braze.errors import ExpressionError
from braze.frontend.dynamo_key import DynamoKey
from braze.frontend.views import DynamoViews, places
from braze.runtime.expr import Expr, Symbol
from braze.runtime.guard import BoolExpr
from braze.symbolic.from_sympy import SymbolTable, to_guard

__all__ = ["Capture", "named_guards"]


class Capture:
    """What one pass of a graph through AOTAutograd shows. Made before it begins, in the state that the key
    was made in; `note` is called from the compile callbacks, before the graphs change.

    ``reason`` tells why there will be no entry, None as long as there may be one."""

    def __init__(self, key: DynamoKey | str, gm: GraphModule) -> None:
        self.reason: str | None = key if isinstance(key, str) else None
        self._key = key
        own = len(trace_state.own_tensors(gm))
        self._inputs = own + len(gm.graph.find_nodes(op="placeholder"))
        self._views = DynamoViews(gm, own)
        self._places: Mapping[int, Place] = {}
        self._autocast = trace_state.autocast_enabled()
        self._aot_guards = aot_metadata.guards_of_aot()
        self._env = trace_state.traced_env()
        self._mark = None if self._env is None else shape_envs.mark_guards(self._env)
        self._facts: CallFacts | None = None
        self._returned: tuple[Any, ...] = ()
        self._gradients: tuple[bool, ...] | None = None
        self._differentiable = False  # a forward was compiled, and no inference graph

    def note(self, kind: GraphKind, part: GraphModule, inputs: Sequence[Any]) -> None:
        """One of the parts is about to be compiled."""
        if self.reason is not None:
            return
        results = tuple(part.graph.output_node().args[0])  # type: ignore[arg-type]
        if kind == "backward":
            self._gradients = tuple(result is not None for result in results)
            return
        if self._facts is not None:
            self.reason = "it was split into several graphs"
            return
        facts = aot_metadata.call_facts()
        if isinstance(facts, str):
            self.reason = facts
        elif len(facts.inputs) != self._inputs or len(inputs) != self._inputs:
            self.reason = "inputs that share memory are written to"
        elif aot_metadata.guards_of_aot() != self._aot_guards:
            self.reason = "AOTAutograd guards which inputs share memory"
        else:
            self._facts = facts
            self._differentiable = kind == "forward"
            self._returned = tuple(_traced(result) for result in results)
            found = places(facts, inputs, self._returned, self._views)
            if isinstance(found, str):
                self.reason = found
            else:
                self._places = found

    @property
    def complete(self) -> bool:
        """Whether all parts of the function have been compiled."""
        if self.reason is not None or self._facts is None:
            return False
        return not self._differentiable or self._gradients is not None

    def spec(self) -> CallSpec | str:
        """The call around the compiled parts, or why there is none."""
        if self.reason is not None:
            return self.reason
        if self._facts is None:
            return "nothing was compiled"
        if not self._differentiable:
            return _call_spec(self._facts, self._places, self._autocast, None)
        if self._gradients is None:
            return "its backward was not compiled"
        kept = self._returned[_returned(self._facts) :]
        backward = _backward(self._facts, len(kept), self._gradients)
        return _call_spec(self._facts, self._places, self._autocast, backward)

    def guards(self) -> tuple[str, ...] | str:
        """What has been assumed of the symbols since the key was made, or why that cannot be told."""
        if isinstance(self._key, str):
            return self._key
        if self._env is None or self._mark is None:
            return ()
        names = self.names()
        key_ranges = self._key.ranges

        def bounds(name: str) -> tuple[int, int | None]:
            lower, upper = key_ranges.get(names.get(name, ""), (None, None))
            return -(1 << 62) if lower is None else lower, upper

        table = SymbolTable(bounds)
        found: list[BoolExpr] = []
        for condition in shape_envs.guards_added(self._env, self._mark):
            strange = sorted(str(s) for s in condition.free_symbols if str(s) not in names)
            if strange:
                return f"a guard is over {strange[0]}, which is no size of an input"
            try:
                guard = to_guard(condition, table)
            except ExpressionError as error:
                return f"a guard cannot be stored: {error}"
            found.append(guard)
        return named_guards(found, names)

    def names(self) -> dict[str, str]:
        """The key's names of the trace's symbols."""
        if isinstance(self._key, str):
            return {}
        return {str(symbol): name for name, symbol in self._key.symbols.items()}


def named_guards(guards: Iterable[BoolExpr], names: Mapping[str, str]) -> tuple[str, ...]:
    """Guards over the trace's symbols, printed with the key's names for these."""
    printed = [str(g.substitute({s: _numbered(s, names) for s in g.free_symbols})) for g in guards]
    return tuple(dict.fromkeys(printed))


def _numbered(symbol: Symbol, names: Mapping[str, str]) -> Expr:
    return Symbol(names[symbol.name], symbol.lower, symbol.upper).expr


def _traced(value: Any) -> Any:
    return value.meta.get("val") if isinstance(value, torch.fx.Node) else value


# -- the spec -----------------------------------------------------------------------------------------------
def _returned(facts: CallFacts) -> int:
    return sum(i.copied_back for i in facts.inputs) + len(facts.outputs) + facts.bases


def _call_spec(
    facts: CallFacts, places: Mapping[int, Place], autocast: bool, backward: Backward | str | None
) -> CallSpec | str:
    if isinstance(backward, str):
        return backward
    if backward is None and facts.bases:
        return "an inference graph returns views of extra results"
    return CallSpec(
        inputs=len(facts.inputs),
        outputs=tuple([_output(o, len(facts.outputs), places.get(i)) for i, o in enumerate(facts.outputs)]),
        copied_back=tuple(
            [
                CopyBack(i, one.leaf, one.requires_grad)
                for i, one in enumerate(facts.inputs)
                if one.copied_back
            ]
        ),
        written=tuple([i for i, one in enumerate(facts.inputs) if one.written and one.seen]),
        dynamic=tuple([(i, one.dynamic) for i, one in enumerate(facts.outputs) if one.dynamic]),
        autocast=autocast,
        grad_mode=facts.grad_mode,
        backward=backward,
    )


def _output(facts: OutputFacts, outputs: int, place: Place | None) -> Output:
    base = facts.base or 0
    if facts.kind == "input":
        return SameAsInput(base)
    if facts.kind == "alias":
        return AliasOfInput(base, facts.requires_grad, place or Place())
    if facts.kind in ("result_alias", "output_alias"):
        base += outputs if facts.kind == "result_alias" else 0
        return AliasOfResult(base, facts.requires_grad, place or Place())
    return Fresh(facts.requires_grad, facts.kind == "hidden_view")


def _backward(facts: CallFacts, kept: int, gradients: Sequence[bool]) -> Backward | str:
    if len(gradients) != len(facts.inputs):
        return "its backward returns something besides gradients"
    copied = [one for one in facts.inputs if one.copied_back]
    places = [i for i, one in enumerate(copied) if one.requires_grad]
    places += [len(copied) + i for i, one in enumerate(facts.outputs) if one.tangent]
    places += range(len(copied) + len(facts.outputs), len(copied) + len(facts.outputs) + facts.bases)
    if len(places) != len(facts.tangents):
        return "it is not clear which gradients its backward takes"
    tangents = [
        Tangent(place, t.sizes, t.strides, t.memory_format)
        for place, t in zip(places, facts.tangents, strict=True)
    ]
    detached = [
        i
        for i, (one, has) in enumerate(zip(facts.inputs, gradients, strict=True))
        if not has and one.requires_grad and not one.leaf
    ]
    return Backward(
        saved=kept - facts.unchecked - facts.numbers,
        unchecked=facts.unchecked,
        numbers=facts.numbers,
        bases=facts.bases,
        tangents=tuple(tangents),
        detached=tuple(detached),
        inputs_need_grad=any(one.requires_grad for one in facts.inputs),
        nondeterministic=not facts.deterministic,
    )
