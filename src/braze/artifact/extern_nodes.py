"""The extern calls of a launch plan as ``ExternKernelNodes``: JSON in `torch.export`'s own schema.

Whoever has PyTorch can read from it which operators a compiled graph calls, with which arguments, and what
the tensors between them are. Nothing of Braze reads it back: the launch plan is what runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from braze._torch import serde
from braze._torch.integers import LEAST
from braze.artifact.graph_call import GRAPHS_OF, GraphCall
from braze.errors import UnserializableError
from braze.runtime.expr import Atom, Expr, FloorDiv, Min, Mod, Symbol
from braze.runtime.plan import (
    Allocate,
    Arg,
    CallExtern,
    CheckTensor,
    Pattern,
    Plan,
    Ref,
    Return,
    Slice,
    View,
)
from braze.runtime.spec import TensorSpec

__all__ = ["extern_nodes", "srepr"]


def extern_nodes(
    plan: Plan, hints: Mapping[str, int] | None = None, calls: Mapping[str, GraphCall] | None = None
) -> str:
    """The JSON document: ``nodes``, and beside them ``tensor_values`` and ``sym_int_values``, which give the
    type, sizes and strides of every tensor, and the expression of every integer, that a node names, and
    ``range_constraints``, the bounds of the symbols in them.

    A result that an operator writes into memory given as ``out=`` has a name of its own, ``<memory>_filled``.
    ``hints``: examples of the sizes, by symbol. ``calls``: those that take graphs, by their keys in the plan;
    a graph is an argument, of which the nodes are the operators that it calls.

    Raises `UnserializableError` for a call of what is not an operator, or of one with an argument that the
    schema has no place for.
    """
    return _Writer(plan, hints or {}, calls or {}).document()


class _Writer:
    def __init__(self, plan: Plan, hints: Mapping[str, int], calls: Mapping[str, GraphCall]) -> None:
        self.plan = plan
        self.hints = hints
        self.calls = calls
        self.layouts = _layouts(plan)
        self.tensors: dict[str, Any] = {}
        self.sizes: dict[str, Any] = {}
        self.size_names: dict[Expr, str] = {}
        self.ranges: dict[str, tuple[int | None, int | None]] = {}
        self.taken = {*self.layouts, *plan.inputs}

    def document(self) -> str:
        return serde.document(self._nodes(), self.tensors, self.sizes, self.ranges)

    def _nodes(self) -> list[Any]:
        return [self._node(i) for i in self.plan.instructions if isinstance(i, CallExtern)]

    def _node(self, call: CallExtern) -> Any:
        if call.target.startswith("python::"):
            name = call.target.removeprefix("python::")
            if name not in self.calls:
                raise UnserializableError(f"{name} is not an operator", where=call.where)
            return self._graph_call(self.calls[name], call)
        args = [self._argument(a) for a in call.args]
        kwargs = {name: self._argument(a) for name, a in call.kwargs}
        outputs = self._outputs(call.outs) if call.outs is not None else self._filled(call)
        name = next(_names(outputs), call.target.replace("::", "."))
        return serde.extern_node(name, call.target, args, kwargs, outputs, call.where)

    def _graph_call(self, of: GraphCall, call: CallExtern) -> Any:
        arguments: list[Any] = list(call.args)
        for number, (place, graph) in enumerate(zip(GRAPHS_OF[of.operator], of.graphs, strict=True)):
            inner = _Writer(graph.info.variants[0].plan, self.hints, graph.calls)
            arguments.insert(place, inner.graph(f"{of.name}_{number}", of.single[number]))
        encoded = [self._argument(leaf) for leaf in _leaves(arguments)]
        outputs = self._outputs(_tensors_in(call.outs, self.layouts))
        name = next(_names(outputs), of.name)
        return serde.graph_call_node(name, of.operator, encoded, outputs, call.where)

    def graph(self, name: str, single: bool) -> Any:
        """The plan's calls of operators as a graph that is an argument."""
        nodes = self._nodes()
        last = self.plan.instructions[-1]
        assert isinstance(last, Return)
        results = [self._result(value) for value in last.values]
        inputs = [self._argument(Ref(n)) for n in self.plan.inputs if n in self.layouts]
        return serde.graph(name, inputs, results, nodes, self.tensors, self.sizes, single)

    def _result(self, value: Arg) -> Any:
        if isinstance(value, Ref) and value.name not in self.layouts:  # a number out of a tensor
            return serde.SizeName(value.name)
        return self._argument(value)

    # -- arguments --------------------------------------------------------------------------------------
    def _argument(self, value: Arg) -> Any:
        if isinstance(value, tuple):
            return tuple([self._argument(v) for v in value])
        if isinstance(value, Ref):
            return serde.TensorName(self._tensor(value.name))
        if isinstance(value, Expr):
            return value.constant if value.constant is not None else self._size(value)
        return value

    def _tensor(self, name: str) -> str:
        if name not in self.tensors:
            layout = self.layouts.get(name)
            if layout is None:
                raise UnserializableError(f"the plan does not say what tensor {name} is")
            self.tensors[name] = serde.tensor_meta(
                layout.dtype,
                [self._sym_int(e) for e in layout.sizes],
                [self._sym_int(e) for e in layout.strides],
                layout.device,
            )
        return name

    def _sym_int(self, e: Expr) -> Any:
        """A size in the layout of a tensor; the symbols in it get names."""
        if e.constant is not None:
            return serde.sym_int(e.constant)
        for symbol in sorted(e.free_symbols, key=lambda s: s.name):
            self._declare(symbol.name, symbol.expr)
            lower, upper = symbol.expr.bounds()
            self.ranges[symbol.name] = None if lower == LEAST else lower, upper
        return serde.sym_int(srepr(e), self._hint(e))

    def _declare(self, name: str, e: Expr) -> None:
        if name not in self.sizes:
            self.sizes[name] = serde.sym_int(srepr(e), self._hint(e))

    def _size(self, e: Expr) -> serde.SizeName:
        """An integer argument: what is computed from symbols gets a name, and comes after them."""
        value = self._sym_int(e)
        name = self.size_names.get(e)
        if name is None:
            name = self._fresh(f"size{len(self.size_names)}") if e.symbol is None else e.symbol.name
            self.size_names[e] = name
            self.sizes.setdefault(name, value)
        return serde.SizeName(name)

    def _hint(self, e: Expr) -> int | None:
        known = all(s.name in self.hints for s in e.free_symbols)
        return e.evaluate(self.hints) if known else None

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    # -- results ----------------------------------------------------------------------------------------
    def _outputs(self, pattern: Pattern) -> serde.Outputs:
        if isinstance(pattern, tuple):
            return tuple([self._outputs(p) for p in pattern])
        return None if pattern is None else self._tensor(pattern)

    def _filled(self, call: CallExtern) -> serde.Outputs:
        """The results of an operator that writes them into memory that it is given."""
        given = next((value for name, value in call.kwargs if name == "out"), None)
        if not isinstance(given, Ref):
            return None
        layout = self.layouts.get(given.name)
        if layout is None:
            raise UnserializableError(f"the plan does not say what tensor {given.name} is")
        name = self._fresh(f"{given.name}_filled")
        self.layouts[name] = layout
        return self._tensor(name)


def _tensors_in(pattern: Pattern, known: Collection[str]) -> Pattern:
    """A pattern of results with None for the numbers among them."""
    if isinstance(pattern, tuple):
        return tuple([_tensors_in(p, known) for p in pattern])
    return pattern if pattern in known else None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _names(outputs: serde.Outputs) -> Any:
    if isinstance(outputs, tuple):
        for part in outputs:
            yield from _names(part)
    elif outputs is not None:
        yield outputs


def _layouts(plan: Plan) -> dict[str, TensorSpec[Expr]]:
    """What each tensor of the plan is."""
    found = dict(plan.layouts)
    for one in plan.instructions:
        match one:
            case CheckTensor(origin="input"):
                found[one.tensor] = cast(TensorSpec[Expr], one.spec)  # an input's says all there is
            case Allocate() | Slice() | View():
                found[one.out] = one.spec
            case _:
                pass
    return found


def srepr(e: Expr) -> str:
    """The expression as ``sympy.srepr`` would write PyTorch's form of it. Symbols are positive where their
    bounds say so, as PyTorch declares the sizes of its graphs."""
    terms = [_product([*map(_atom, factors)], c) for factors, c in e.terms]
    if not terms:
        return "Integer(0)"
    return terms[0] if len(terms) == 1 else f"Add({', '.join(terms)})"


def _product(factors: Sequence[str], coefficient: int) -> str:
    if coefficient != 1 or not factors:
        factors = [f"Integer({coefficient})", *factors]
    return factors[0] if len(factors) == 1 else f"Mul({', '.join(factors)})"


def _atom(atom: Atom) -> str:
    if isinstance(atom, Symbol):
        sign = ", positive=True" if atom.lower > 0 else ", nonnegative=True" if atom.lower == 0 else ""
        return f"Symbol({atom.name!r}, integer=True{sign})"
    function = {FloorDiv: "FloorDiv", Mod: "PythonMod", Min: "Min"}.get(type(atom), "Max")
    return f"{function}({', '.join(map(srepr, atom.parts))})"
