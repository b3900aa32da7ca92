"""A graph of operators, and what it was called with, as a program: it can be judged, shrunk and printed."""

from __future__ import annotations

import keyword
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from msgspec.structs import replace
from torch.fx import GraphModule, Node

from braze._torch.devices import in_host_memory
from braze._torch.fakes import is_plain
from braze._torch.native import storage_id
from braze._torch.provenance import source_of
from braze._torch.schema import is_operator
from braze.dtypes import torch_name
from braze.errors import Refused
from braze.inspect.fuzz.program import (
    Argument,
    DType,
    Group,
    Input,
    Mode,
    Name,
    Number,
    Product,
    Program,
    Size,
    Statement,
    Tensor,
)
from braze.runtime.spec import same_strides, span

__all__ = ["MOST_VALUES", "program_of", "tensor_of"]

MOST_VALUES = 4096
"""Of a tensor with more elements not all values are kept, but the first `FEW`, again and again."""
FEW = 1021

_TAKEN = frozenset({"F", "braze", "filled", "inputs", "program", "torch"})
_SIZES: Mapping[Any, str] = {
    operator.add: "({0} + {1})",
    operator.sub: "({0} - {1})",
    operator.mul: "({0} * {1})",
    operator.floordiv: "({0} // {1})",
    operator.mod: "({0} % {1})",
    operator.truediv: "({0} / {1})",
    operator.pow: "({0} ** {1})",
    operator.neg: "(-{0})",
    operator.eq: "({0} == {1})",
    operator.ne: "({0} != {1})",
    operator.lt: "({0} < {1})",
    operator.le: "({0} <= {1})",
    operator.gt: "({0} > {1})",
    operator.ge: "({0} >= {1})",
    operator.getitem: "{0}[{1}]",
    torch.sym_max: "max({0}, {1})",
    torch.sym_min: "min({0}, {1})",
    torch.sym_int: "int({0})",
    torch.sym_float: "float({0})",
    torch.sym_not: "(not {0})",
    math.floor: "int({0} // 1)",
}
_PLACES = (torch.device, torch.layout, torch.memory_format)


def program_of(
    gm: GraphModule, values: Sequence[Any], names: Sequence[str], mode: Mode, origin: str
) -> Program:
    """The program. ``values``: what the placeholders are given; ``names``: what they may be called.

    Raises `Refused` for what a program has no place for."""
    return _Translation(gm).program(values, names, mode, origin)


class _Translation:
    def __init__(self, gm: GraphModule) -> None:
        self._gm = gm
        self._values: dict[Node, Argument] = {}
        self._lists: dict[Node, tuple[str, ...]] = {}
        self._names: set[str] = set()
        self._inputs: dict[str, tuple[Input, Any]] = {}
        self._statements: list[Statement] = []

    def program(self, values: Sequence[Any], names: Sequence[str], mode: Mode, origin: str) -> Program:
        outputs: list[str] = []
        given = iter(zip(values, names))
        for node in self._gm.graph.nodes:
            if node.op == "placeholder":
                value, name = next(given)
                self._values[node] = self._input(self._free(_short(name)), value)
            elif node.op == "get_attr":
                value = operator.attrgetter(node.target)(self._gm)
                if not isinstance(value, torch.Tensor):
                    raise Refused(f"the graph holds a {type(value).__name__}")
                self._values[node] = self._input(self._free("constant"), value.detach())
            elif node.op == "output":
                returned = node.args[0]
                for result in returned if isinstance(returned, (tuple, list)) else (returned,):
                    value = self._values.get(result) if isinstance(result, Node) else None
                    if isinstance(value, Name) and value.name not in outputs:
                        outputs.append(value.name)
            else:
                self._call(node)
        inputs = tuple(given for given, _ in self._inputs.values())
        return Program(origin, mode, inputs, tuple(self._statements), tuple(outputs))

    def _free(self, name: str) -> str:
        number, base = 1, name if not keyword.iskeyword(name) and name not in _TAKEN else f"{name}_"
        name = base
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    # -- inputs -----------------------------------------------------------------------------------------
    def _input(self, name: str, value: Any) -> Argument:
        if value is None:
            return None
        if type(value) in (bool, int, float):
            self._inputs[name] = Number(name, (value,)), value
            return Name(name)
        if not isinstance(value, torch.Tensor):
            raise Refused(f"an input is a {type(value).__name__}")
        for other, (given, owner) in self._inputs.items():
            alike = isinstance(owner, torch.Tensor) and owner.dtype is value.dtype and value.numel()
            if alike and storage_id(owner) == storage_id(value) and getattr(given, "shares", 0) is None:
                self._inputs[name] = tensor_of(name, value, shares=other), value
                return Name(name)
        self._inputs[name] = tensor_of(name, value), value
        return Name(name)

    # -- calls ------------------------------------------------------------------------------------------
    def _call(self, node: Node) -> None:
        target: Any = node.target
        if target is operator.getitem and node.args[0] in self._lists:
            self._values[node] = Name(self._lists[node.args[0]][node.args[1]])  # type: ignore[index]
            return
        if target is torch.ops.aten.sym_size.int:
            tensor, dim = node.args
            found = self._values[tensor]  # type: ignore[index]
            self._values[node] = Size(found.name, dim)  # type: ignore[union-attr, arg-type]
            return
        if target is operator.mul and isinstance(node.meta.get("val"), torch.SymInt):
            factors = [self._argument(a) for a in node.args]
            parts = [f.factors if isinstance(f, Product) else (f,) for f in factors]
            flat = tuple(f for part in parts for f in part)
            if all(isinstance(f, Size) or type(f) is int for f in flat):
                self._values[node] = Product(flat)  # type: ignore[arg-type]
                return
        self._values[node] = self._statement(node)

    def _statement(self, node: Node) -> Argument:
        target: Any = node.target
        arguments: list[Argument] = []
        if is_operator(target):
            parts = [self._placed(value, "", arguments) for value in node.args]
            parts += [self._placed(value, f"{name}=", arguments) for name, value in node.kwargs.items()]
            form, known_as = f"torch.ops.{target}({', '.join(parts)})", str(target)
        elif target in _SIZES and not node.kwargs:
            arguments = [self._argument(value) for value in node.args]
            form, known_as = _SIZES[target], getattr(target, "__name__", "size")
            for place, argument in enumerate(arguments):
                if isinstance(argument, (Product, int, float)):  # a product, or a sign, binds otherwise
                    form = form.replace(f"{{{place}}}", f"({{{place}}})")
        else:
            raise Refused(f"the graph calls {getattr(target, '__name__', target)}")
        value = node.meta.get("val")
        results: tuple[str, ...]
        if isinstance(value, (tuple, list)):
            results = tuple(self._free(f"{node.name}_{place}") for place in range(len(value)))
            form += "[0]" if len(value) == 1 else ""
            self._lists[node] = results
        else:
            results = () if value is None and not node.users else (self._free(node.name),)
        self._statements.append(Statement(known_as, form, tuple(arguments), results, source_of(node)))
        return Name(results[0]) if results else None

    def _placed(self, value: Any, prefix: str, arguments: list[Argument]) -> str:
        """An argument's text in the form: its place, or what is the same in every program."""
        if isinstance(value, torch.device):
            return f"{prefix}torch.device({str(value)!r})"
        if isinstance(value, _PLACES):
            return f"{prefix}{value}"
        arguments.append(self._argument(value))
        return f"{prefix}{{{len(arguments) - 1}}}"

    def _argument(self, value: Any) -> Argument:
        if isinstance(value, Node):
            if value in self._lists:
                return Group(tuple(map(Name, self._lists[value])))
            return self._values[value]
        if isinstance(value, (list, tuple)):
            return Group(tuple(map(self._argument, value)))
        if isinstance(value, torch.dtype):
            return DType(torch_name(value))
        if value is None or type(value) in (bool, int, float, str):
            return value  # type: ignore[no-any-return]
        raise Refused(f"an argument is a {type(value).__name__}")


def _short(name: str) -> str:
    """What a graph calls an input, without what Dynamo puts around it."""
    text = name.removeprefix("L_").removeprefix("l_").removeprefix("self_").strip("_").lower()
    for word in ("modules_", "parameters_", "buffers_"):
        text = text.replace(word, "")
    return text if text.isidentifier() and len(text) <= 24 else "x"


def tensor_of(name: str, value: torch.Tensor, *, shares: str | None = None) -> Tensor:
    """A tensor as an input of a program. Raises `Refused` for one that has no plain memory."""
    if not is_plain(value) or value.layout is not torch.strided or not in_host_memory(value):
        raise Refused(
            f"there is a {value.layout} tensor of the class {type(value).__name__} on {value.device}"
        )
    if value.dtype.is_complex or value.is_quantized or value.is_conj() or value.is_neg():
        raise Refused(f"there is a tensor of {torch_name(value.dtype)}")
    shape, stride, offset = tuple(value.shape), tuple(value.stride()), int(value.storage_offset())
    order, gaps, expanded = _layout(shape, stride)
    grad = value.requires_grad and value.dtype.is_floating_point
    made = Tensor(
        name, torch_name(value.dtype), (shape,), order, gaps, offset, expanded, _kept(value), grad, shares
    )
    exact = not value.numel() or same_strides(shape, made.strides(0), stride)
    return made if exact else replace(made, steps=(stride,))


def _kept(value: torch.Tensor) -> tuple[bool | int | float, ...]:
    """The values of the memory that a tensor lies in: all of it, if it is small."""
    memory = value.untyped_storage().nbytes() // value.itemsize
    reach = value.storage_offset() + span(tuple(value.shape), tuple(value.stride()))
    kept = memory if memory <= MOST_VALUES else reach if reach <= MOST_VALUES else FEW
    values = tuple(value.detach().as_strided((kept,), (1,), 0).tolist())
    return values[:1] or (0,) if len(set(map(repr, values))) <= 1 else values


def _layout(
    shape: Sequence[int], stride: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Order, gaps and expanded dimensions, as a program's tensor has them, if they can say the strides."""
    ranks = range(len(shape))
    expanded = tuple(dim for dim in ranks if stride[dim] == 0 and shape[dim] > 1)
    order = tuple(sorted(ranks, key=lambda dim: (-stride[dim] if shape[dim] > 1 else 0, dim)))
    if all(n <= 1 or stride[d] for d, n in enumerate(shape)) and _dense(shape, stride, tuple(ranks)):
        order = tuple(ranks)
    gaps, step = [1] * len(shape), 1
    for dim in reversed(order):
        if dim not in expanded:
            if shape[dim] > 1:
                gaps[dim] = max(stride[dim] // step, 1)
            step *= max(shape[dim], 1) * gaps[dim]
    return order, tuple(gaps), expanded


def _dense(shape: Sequence[int], stride: Sequence[int], order: Sequence[int]) -> bool:
    step = 1
    for dim in reversed(order):
        if shape[dim] > 1 and stride[dim] != step:
            return False
        step *= max(shape[dim], 1)
    return True
