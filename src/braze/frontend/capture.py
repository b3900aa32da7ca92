"""What one pass of a graph through AOTAutograd shows: the call around the compiled parts, and what was
assumed of symbolic sizes on the way.

A file of its own: what a trace shows is one subject, how it is recorded another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch.fx import GraphModule

from braze._torch import shape_envs, trace_state
from braze.errors import ExpressionError
from braze.frontend.call_capture import CallCapture
from braze.frontend.dynamo_key import DynamoKey
from braze.frontend.views import DynamoViews
from braze.runtime.guard import BoolExpr
from braze.symbolic.from_sympy import SymbolTable, condition_from_sympy

__all__ = ["Capture", "named_guards"]


class Capture(CallCapture):
    """What one pass of a graph through AOTAutograd shows. Made before it begins, in the state that the key
    was made in; `note` is called from the compile callbacks, before the graphs change.

    ``reason`` tells why there will be no entry, None as long as there may be one."""

    def __init__(self, key: DynamoKey | str, gm: GraphModule) -> None:
        own = len(trace_state.own_tensors(gm))
        inputs = own + len(gm.graph.find_nodes(op="placeholder"))
        super().__init__(inputs, DynamoViews(gm, own), key if isinstance(key, str) else None)
        self._key = key
        self._env = trace_state.traced_env()
        self._mark = None if self._env is None else shape_envs.mark_guards(self._env)

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
                return f"a guard is over {strange[0]}, which is not a size of an input"
            try:
                guard = condition_from_sympy(condition, table)
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
    return tuple(dict.fromkeys(str(guard.renamed(names)) for guard in guards))
