"""What kernels and extern calls have to do at least: bytes to move and arithmetic to carry out.

*Bytes*: every element of a buffer that a kernel touches is read once and written once, whatever the caches
make of it. Elements are counted from the index expressions: as many as their variables have values together,
and no more than lie between the least and the greatest index. What is masked off, or is looked up through an
index in memory, counts as far as it could be touched. Scratch memory of a kernel counts nothing.

*Flops*: operations on floating-point values, each as often as the loop variables that it depends on have
values; the vocabulary says how many each is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from braze.ir.externs import ExternKernel
from braze.ops.dag import IndirectSymbol, Node
from braze.ops.dtypes import is_float
from braze.ops.kernel import Kernel, Stage
from braze.ops.vocabulary import OPS, REDUCTIONS, SCANS
from braze.runtime.expr import Expr, ExprLike, Symbol, as_expr

__all__ = ["Cost", "extern_cost", "kernel_cost"]

Sizes = Mapping[str, int]
"""The values of size symbols, by name."""


@dataclass(frozen=True)
class Cost:
    """``bytes`` to move to and from memory, ``flops`` to carry out."""

    bytes: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.flops + other.flops)


# -- kernels ----------------------------------------------------------------------------------------------
def kernel_cost(kernel: Kernel, sizes: Sizes) -> Cost:
    """The cost of one run of a kernel. ``sizes`` has a value for each of ``kernel.sizes``; one that it lacks
    is taken at its lower bound."""
    known: dict[Symbol, int] = {s: sizes.get(s.name, s.lower) for s in kernel.sizes}
    flops = sum(_stage_flops(kernel, stage, known) for stage in kernel.stages)
    return Cost(_kernel_bytes(kernel, known), flops)


def _extent(var: Symbol, known: Mapping[Symbol, int]) -> int:
    """How many values a loop variable has."""
    value = var.size.substitute(known)
    return max(0, _number(value))


def _number(e: Expr) -> int:
    """The value, or the greatest that is known where a size came up that nobody knows."""
    if e.constant is not None:
        return e.constant
    low, high = e.bounds()
    return high if high is not None else low if low is not None else 1


def _points(variables: Iterable[Symbol], known: Mapping[Symbol, int]) -> int:
    return math.prod(_extent(v, known) for v in variables)


def _loops(kernel: Kernel, stage: Stage) -> frozenset[Symbol]:
    return frozenset((*kernel.outer, *stage.vars, *stage.rvars))


def _stage_flops(kernel: Kernel, stage: Stage, known: Mapping[Symbol, int]) -> int:
    loops = _loops(kernel, stage)
    total = 0
    for node in stage.nodes:
        if node.op in ("reduction", "scan"):
            value = node.args[0]
            if is_float(value.dtype):
                along = frozenset(node.attrs[2]) if node.op == "reduction" else frozenset()  # type: ignore[call-overload]
                points = _points((value.free | node.free | along) & loops, known)
                kind = str(node.attrs[0])
                total += (SCANS[kind] if node.op == "scan" else REDUCTIONS[kind].flops) * points
        elif is_float(node.dtype):
            total += OPS[node.op].flops * _points(node.free & loops, known)
    for store in stage.stores:
        if store.mode != "set" and is_float(store.value.dtype):
            total += _points(loops, known)
    return total


def _kernel_bytes(kernel: Kernel, known: Mapping[Symbol, int]) -> int:
    read: dict[str, set[_Region]] = {}
    written: dict[str, set[_Region]] = {}
    for stage in kernel.stages:
        loops = _loops(kernel, stage)
        for load in stage.loads:
            read.setdefault(load.buffer, set()).add(_region(load.index, loops, known))
        for store in stage.stores:
            region = _region(store.index, loops, known)
            written.setdefault(store.buffer, set()).add(region)
            if store.mode != "set":
                read.setdefault(store.buffer, set()).add(region)
    total = 0
    for buffer in kernel.buffers:
        room = _number(buffer.numel.substitute(known))
        if buffer.role in ("in", "inout"):
            total += buffer.dtype.itemsize * _elements(read.get(buffer.name, ()), room)
        if buffer.role in ("out", "inout"):
            total += buffer.dtype.itemsize * _elements(written.get(buffer.name, ()), room)
    return total


@dataclass(frozen=True)
class _Region:
    """The elements that one access touches: ``count`` of them between ``low`` and ``high``; ``shape`` tells
    apart regions with the same bounds. ``count`` 0: none."""

    count: int
    low: int
    high: int
    shape: object


def _region(index: Expr, loops: frozenset[Symbol], known: Mapping[Symbol, int]) -> _Region:
    """The region of ``index`` over the loops of its stage."""
    values: dict[Symbol, ExprLike] = dict(known)
    extents: dict[Symbol, int] = {}
    for symbol in index.free_symbols:
        if isinstance(symbol, IndirectSymbol):
            size = max(0, _number(symbol.size.substitute(known)))
            extents[symbol] = min(size, _lookups(symbol.node, loops, known))
            values[symbol] = Symbol(symbol.name, 0, max(0, size - 1)).expr
        elif symbol in loops:
            extents[symbol] = _extent(symbol, known)
            values[symbol] = Symbol(symbol.name, 0, max(0, extents[symbol] - 1)).expr
    count = math.prod(extents.values())
    if count == 0:
        return _Region(0, 0, 0, None)
    placed = index.substitute(values)
    low, high = placed.bounds()
    least, greatest = low or 0, high if high is not None else (low or 0) + count - 1
    shape = _affine_shape(placed) or str(placed)
    return _Region(min(count, greatest - least + 1), least, greatest, shape)


def _lookups(node: Node, loops: frozenset[Symbol], known: Mapping[Symbol, int]) -> int:
    """How many values an index that is computed at run time can have, by the loops that it depends on."""
    return _points(node.free & loops, known)


def _affine_shape(index: Expr) -> tuple[tuple[int, int], ...] | None:
    """The steps of an affine index as (stride, extent), least stride first, joined where one continues the
    other: equal for accesses to the same elements through other loops. None if it is not affine."""
    steps: list[tuple[int, int]] = []
    rest = index
    for symbol in index.free_symbols:
        split = rest.coefficient(symbol)
        stride = None if split is None else split[0].constant
        if split is None or stride is None:
            return None
        steps.append((abs(stride), _number(symbol.size)))
        rest = split[1]
    if rest.constant is None:
        return None
    joined: list[tuple[int, int]] = []
    for stride, extent in sorted(steps):
        if joined and stride == joined[-1][0] * joined[-1][1]:
            joined[-1] = (joined[-1][0], joined[-1][1] * extent)
        else:
            joined.append((stride, extent))
    return tuple(joined)


def _elements(regions: Iterable[_Region], room: int) -> int:
    """The elements of all the regions together, at most."""
    some = [r for r in regions if r.count]
    if not some:
        return 0
    span = max(r.high for r in some) - min(r.low for r in some) + 1
    return min(sum(r.count for r in some), span, max(room, 0))


# -- externs ----------------------------------------------------------------------------------------------
def extern_cost(op: ExternKernel, sizes: Sizes) -> Cost:
    """The cost of an extern call: every tensor that it takes read once, every result written once; flops of
    products, convolutions and attention, 0 for others."""
    arguments = list({id(r.buffer): r for r in op.refs()}.values())
    shapes = [_shape(r.layout.sizes, sizes) for r in op.refs()]
    results = [_shape(b.layout.sizes, sizes) for b in op.results]
    moved = sum(r.layout.dtype.itemsize * math.prod(_shape(r.layout.sizes, sizes)) for r in arguments)
    moved += sum(b.dtype.itemsize * math.prod(s) for b, s in zip(op.results, results, strict=True))
    formula = _FORMULAS.get(op.qualified_name.split(".")[1] if "." in op.qualified_name else "")
    return Cost(moved, 0 if formula is None else formula(shapes, results, op))


def _shape(size: Sequence[Expr], sizes: Sizes) -> tuple[int, ...]:
    known = {s: sizes.get(s.name, s.lower) for e in size for s in e.free_symbols}
    return tuple(_number(as_expr(e).substitute(known)) for e in size)


Shapes = Sequence[tuple[int, ...]]


def _product(shapes: Shapes, results: Shapes, op: ExternKernel) -> int:
    """The last two tensors are multiplied, batched or not; one before them is added."""
    left, right = shapes[-2:]
    inner, columns = left[-1], right[-1] if len(right) > 1 else 1
    rows = math.prod(left[:-1])
    return 2 * rows * inner * columns + (rows * columns if len(shapes) > 2 else 0)


def _linear(shapes: Shapes, results: Shapes, op: ExternKernel) -> int:
    rows, outputs = math.prod(shapes[0][:-1]), math.prod(shapes[1][:-1])
    return 2 * rows * shapes[0][-1] * outputs + (rows * outputs if len(shapes) > 2 else 0)


def _convolution(shapes: Shapes, results: Shapes, op: ExternKernel) -> int:
    """2 for each weight and each place that it is put to, of the output, or of the input if transposed."""
    image, weight = shapes[:2]
    places = image if _transposed(op.args) else results[0]
    return 2 * math.prod(weight) * places[0] * math.prod(places[2:])


def _convolution_backward(shapes: Shapes, results: Shapes, op: ExternKernel) -> int:
    """As much as the convolution, for each of the two gradients that is asked for."""
    gradient, image, weight = shapes[:3]
    places = image if _transposed(op.args) else gradient
    wanted = [m for m in op.args if isinstance(m, (list, tuple)) and m and all(type(x) is bool for x in m)]
    asked = sum(wanted[-1][:2]) if wanted else 2
    return asked * 2 * math.prod(weight) * places[0] * math.prod(places[2:])


def _transposed(args: Sequence[object]) -> bool:
    return any(a is True for a in args)


def _attention(shapes: Shapes, results: Shapes, op: ExternKernel) -> int:
    """Two products: queries with keys, weights with values."""
    query, key, value = shapes[:3]
    pairs = math.prod(query[:-1]) * key[-2]
    return 2 * pairs * (query[-1] + value[-1])


def _attention_backward(shapes: Shapes, results: Shapes, op: ExternKernel) -> int:
    """Five products: the scores again, and the gradients of values, weights, queries and keys."""
    query, key, value = shapes[1:4]
    pairs = math.prod(query[:-1]) * key[-2]
    return 2 * pairs * (3 * query[-1] + 2 * value[-1])


_FORMULAS: Final[Mapping[str, Callable[[Shapes, Shapes, ExternKernel], int]]] = {
    **dict.fromkeys("mm bmm mv dot vdot addmm addmv baddbmm".split(), _product),
    "linear": _linear,
    "_linear_pointwise": _linear,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}
