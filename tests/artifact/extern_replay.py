"""Extern nodes read back by PyTorch's own deserialiser, and run beside the calls that they describe."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import sympy
import torch
from torch._export.serde import schema
from torch._export.serde.serialize import GraphModuleDeserializer, _dataclass_to_dict, _dict_to_dataclass
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils._sympy import functions
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from braze._torch import native
from braze.artifact.extern_nodes import extern_nodes
from braze.runtime.expr import Expr
from braze.runtime.plan import CallExtern, Plan, Ref

FUNCTIONS = {name: getattr(functions, name) for name in ("FloorDiv", "PythonMod", "Min", "Max")}


class Mismatch(AssertionError):
    """A rebuilt call is not the call that it was made from."""


@dataclass
class Call:
    """One call of an extern as it happened: arguments before and after, result, generator state before."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rng: torch.Tensor
    result: Any = None
    after: Any = None


@dataclass
class Recorder:
    """Stands in for one operator in a compiled call, and remembers its calls."""

    operator: Callable[..., Any]
    calls: list[Call] = field(default_factory=list)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = Call(_copies(args), _copies(kwargs), torch.get_rng_state())
        result = self.operator(*args, **kwargs)
        call.result, call.after = _copies(result), _copies((args, kwargs))
        self.calls.append(call)
        return result


@contextlib.contextmanager
def recording() -> Iterator[list[Recorder]]:
    """Every operator that a plan binds in this block is recorded; one recorder for each, in binding order."""
    recorders: list[Recorder] = []
    fast = native.fast_operator

    def bind(name: str) -> Recorder:
        recorders.append(Recorder(fast(name)))
        return recorders[-1]

    with mock.patch.object(native, "fast_operator", bind):
        yield recorders


def _copies(tree: Any) -> Any:
    return tree_map(lambda x: _copy(x) if isinstance(x, torch.Tensor) else x, tree)


def _copy(x: torch.Tensor) -> torch.Tensor:
    """With all of its storage: an operator may look beyond the tensor."""
    with torch.no_grad():
        if x.is_conj():
            return _copy(x.conj()).conj()
        storage = x.untyped_storage().clone()
        return torch.empty(0, dtype=x.dtype).set_(storage, x.storage_offset(), x.shape, x.stride())


@dataclass(frozen=True)
class Rebuilt:
    """One call as PyTorch rebuilt it: `module` takes the values of `sizes`, which are expressions, and then
    the tensors of these names, whose own sizes are expressions."""

    module: torch.fx.GraphModule
    sizes: list[sympy.Expr]
    tensors: dict[str, list[sympy.Expr]]


def rebuild(text: str) -> list[Rebuilt]:
    """Every node of a document, each in a graph of its own. Reading the nodes and writing them again gives
    the same JSON."""
    document = json.loads(text)
    nodes = _dict_to_dataclass(schema.ExternKernelNodes, document)
    assert _dataclass_to_dict(nodes)["nodes"] == document["nodes"]
    tensors = _dict_to_dataclass(dict[str, schema.TensorMeta], document["tensor_values"])
    sizes = _dict_to_dataclass(dict[str, schema.SymInt], document["sym_int_values"])
    ranges = {
        name: ValueRanges(
            -int_oo if r["min_val"] is None else r["min_val"],
            int_oo if r["max_val"] is None else r["max_val"],
        )
        for name, r in document["range_constraints"].items()
    }
    return [_rebuild(extern.node, tensors, sizes, ranges) for extern in nodes.nodes]


def _rebuild(
    node: Any, tensors: dict[str, Any], sizes: dict[str, Any], ranges: dict[str, ValueRanges[Any]]
) -> Rebuilt:
    arguments = [leaf for given in node.inputs for leaf in _leaves(given.arg)]
    taken = tuple(dict.fromkeys(a.name for a in arguments if isinstance(a, schema.TensorArgument)))
    given = [leaf.name for out in node.outputs for leaf in _leaves(out)]
    inputs = [
        *[schema.Argument.create(as_sym_int=schema.SymIntArgument.create(as_name=n)) for n in sizes],
        *[schema.Argument.create(as_tensor=schema.TensorArgument(name=n)) for n in taken],
    ]
    outputs = [schema.Argument.create(as_tensor=schema.TensorArgument(name=n)) for n in given]
    graph = schema.Graph(
        inputs=inputs,
        outputs=outputs,
        nodes=[node],
        tensor_values={n: tensors[n] for n in (*taken, *given)},
        sym_int_values=sizes,
        sym_bool_values={},
    )
    signature = schema.GraphSignature(
        input_specs=[schema.InputSpec.create(user_input=schema.UserInputSpec(arg=a)) for a in inputs],
        output_specs=[schema.OutputSpec.create(user_output=schema.UserOutputSpec(arg=a)) for a in outputs],
    )
    whole = schema.GraphModule(graph=graph, signature=signature, module_call_graph=[])
    module = GraphModuleDeserializer().deserialize(whole, {}, {}, symbol_name_to_range=ranges).graph_module
    return Rebuilt(
        module, [_expr(s) for s in sizes.values()], {n: [_expr(s) for s in tensors[n].sizes] for n in taken}
    )


def _expr(size: Any) -> sympy.Expr:
    return sympy.sympify(size.value if size.type == "as_int" else size.value.expr_str, locals=FUNCTIONS)


def _leaves(argument: Any) -> Iterator[Any]:
    """The arguments for one tensor or integer that have a name."""
    for value in argument.value if isinstance(argument.value, list) else [argument.value]:
        if isinstance(value, schema.OptionalTensorArgument):
            value = value.value
        if isinstance(value, (schema.TensorArgument, schema.SymIntArgument)):
            yield value


def check(plan: Plan, recorders: Sequence[Recorder], hints: dict[str, int] | None = None) -> int:
    """Rebuild every extern of a plan that has run, run it on what it was given, and compare, bit for bit, its
    results and what it wrote. ``hints`` are the values of the plan's symbols in that run. Returns how many
    calls were compared."""
    calls = [i for i in plan.instructions if isinstance(i, CallExtern)]
    rebuilt = rebuild(extern_nodes(plan, hints))
    assert len(calls) == len(rebuilt) == len(recorders)
    compared = 0
    for extern, graph, recorder in zip(calls, rebuilt, recorders):
        for call in recorder.calls:
            _check(extern, graph, call, hints or {})
            compared += 1
    return compared


def _check(extern: CallExtern, graph: Rebuilt, call: Call, hints: dict[str, int]) -> None:
    tensors, symbols = _values(extern, call.args, call.kwargs)
    symbols = {**hints, **symbols}
    for name, sizes in graph.tensors.items():
        for e, n in zip(sizes, tensors[name].shape):
            symbols.setdefault(str(e), n)
    # a symbol that this call says nothing of is one of other calls'
    sizes = [int(e.subs({s: symbols.get(str(s), 2) for s in e.free_symbols})) for e in graph.sizes]
    arguments = _copies([tensors[name] for name in graph.tensors])
    torch.set_rng_state(call.rng)
    with torch.no_grad():
        results = graph.module(*sizes, *arguments)
    _compare(extern, tree_leaves(call.result), tree_leaves(results))
    written, _ = _values(extern, *call.after)
    _compare(extern, [written[name] for name in graph.tensors], arguments)


def _values(
    extern: CallExtern, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """What a call was given, by the names in the plan: tensors and symbols."""
    tensors: dict[str, torch.Tensor] = {}
    symbols: dict[str, int] = {}
    pairs = [*zip(extern.args, args), *[(value, kwargs[name]) for name, value in extern.kwargs]]
    while pairs:
        pattern, value = pairs.pop()
        if isinstance(pattern, tuple):
            pairs += zip(pattern, value)
        elif isinstance(pattern, Ref):
            tensors[pattern.name] = value
        elif isinstance(pattern, Expr) and pattern.symbol is not None:
            symbols[pattern.symbol.name] = value
    return tensors, symbols


def _compare(extern: CallExtern, expected: list[Any], actual: list[Any]) -> None:
    expected = [x for x in expected if isinstance(x, torch.Tensor)]
    actual = [x for x in actual if isinstance(x, torch.Tensor)]
    if len(expected) != len(actual):
        raise Mismatch(f"{extern.target}: {len(actual)} tensors instead of {len(expected)}")
    for one, other in zip(expected, actual):
        same = one.dtype == other.dtype and one.shape == other.shape and one.stride() == other.stride()
        if not same or not torch.equal(_bits(one), _bits(other)):
            raise Mismatch(f"{extern}: {other} instead of {one}")


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8) if x.numel() else x
