"""The call around compiled parts, seen while AOTAutograd makes them: from its notes to a `CallSpec`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from braze._torch import aot_metadata, trace_state
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
from braze.errors import Refused
from braze.frontend.second_order import curved_inputs
from braze.frontend.views import Views, places, views_made_inside

__all__ = ["CallCapture"]


class CallCapture:
    """What one pass of a function through AOTAutograd shows of the call around the compiled parts. Made
    before it begins, in the state in which the function is traced; `note` is called from the compile
    callbacks, before the graphs change. ``inputs``: how many the parts take.

    ``reason`` tells why there will be no spec, None as long as there may be one."""

    def __init__(self, inputs: int, views: Views) -> None:
        self.reason: str | None = None
        self._inputs = inputs
        self._views = views
        self._places: Mapping[int, Place] = {}
        self._autocast = trace_state.autocast_enabled()
        self._aot_guards = aot_metadata.guards_of_aot()
        self._facts: CallFacts | None = None
        self._returned: tuple[Any, ...] = ()
        self._gradients: tuple[bool, ...] | None = None
        self._curved: tuple[int, ...] = ()
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
        try:
            self._note_forward(kind, part, inputs, results)
        except Refused as refusal:
            self.reason = refusal.reason

    def _note_forward(
        self, kind: GraphKind, part: GraphModule, inputs: Sequence[Any], results: Sequence[Any]
    ) -> None:
        facts = aot_metadata.call_facts()
        if len(facts.inputs) != self._inputs or len(inputs) != self._inputs:
            raise Refused("inputs that share memory are written to")
        if aot_metadata.guards_of_aot() != self._aot_guards:
            raise Refused("AOTAutograd guards which inputs share memory")
        if kind == "forward" and views_made_inside(part):
            raise Refused("it returns several views of an input that one operator makes")
        self._facts = facts
        self._differentiable = kind == "forward"
        if self._differentiable:
            self._curved = curved_inputs(part, _returned(facts))
        self._returned = tuple([_traced(result) for result in results])
        self._places = places(facts, inputs, self._returned, self._views)

    @property
    def complete(self) -> bool:
        """Whether all parts of the function have been compiled."""
        if self.reason is not None or self._facts is None:
            return False
        return not self._differentiable or self._gradients is not None

    def spec(self) -> CallSpec:
        """The call around the compiled parts. Raises `Refused` where there is none."""
        if self.reason is not None:
            raise Refused(self.reason)
        if self._facts is None:
            raise Refused("nothing was compiled")
        if not self._differentiable:
            return _call_spec(self._facts, self._places, self._autocast, None)
        if self._gradients is None:
            raise Refused("its backward was not compiled")
        kept = self._returned[_returned(self._facts) :]
        backward = _backward(self._facts, len(kept), self._gradients, self._curved)
        return _call_spec(self._facts, self._places, self._autocast, backward)


def _traced(value: Any) -> Any:
    return value.meta.get("val") if isinstance(value, torch.fx.Node) else value


# -- the spec -----------------------------------------------------------------------------------------------
def _returned(facts: CallFacts) -> int:
    return sum(i.copied_back for i in facts.inputs) + len(facts.outputs) + facts.bases


def _call_spec(
    facts: CallFacts, places: Mapping[int, Place], autocast: bool, backward: Backward | None
) -> CallSpec:
    if backward is None and facts.bases:
        raise Refused("an inference graph returns views of extra results")
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
        changed=tuple([i for i, one in enumerate(facts.inputs) if one.written or one.copied_back]),
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


def _backward(facts: CallFacts, kept: int, gradients: Sequence[bool], curved: tuple[int, ...]) -> Backward:
    if len(gradients) != len(facts.inputs):
        raise Refused("its backward returns something besides gradients")
    copied = [one for one in facts.inputs if one.copied_back]
    places = [i for i, one in enumerate(copied) if one.requires_grad]
    places += [len(copied) + i for i, one in enumerate(facts.outputs) if one.tangent]
    places += range(len(copied) + len(facts.outputs), len(copied) + len(facts.outputs) + facts.bases)
    if len(places) != len(facts.tangents):
        raise Refused("it is not clear which gradients its backward takes")
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
        curved=curved,
    )
