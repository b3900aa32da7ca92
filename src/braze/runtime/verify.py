"""The launch plan's verifier: what must hold of a plan before it is turned into a function."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import torch

from braze._torch.integers import LEAST
from braze._torch.number_functions import NUMBER_FUNCTIONS
from braze.dtypes import torch_name
from braze.errors import InternalError
from braze.runtime.checks import EXCEPTIONS
from braze.runtime.expr import Expr
from braze.runtime.guard import BoolExpr
from braze.runtime.plan import (
    SEGMENTS,
    Allocate,
    Arg,
    Assert,
    BindItem,
    BindSize,
    BindStream,
    BindThreads,
    BufferArg,
    CallExtern,
    CheckRange,
    CheckSizes,
    CheckTensor,
    Compute,
    Free,
    Hold,
    Instruction,
    Launch,
    LoadConstant,
    Pattern,
    Plan,
    Ref,
    Restride,
    Return,
    RunSegment,
    Slice,
    View,
    Workspace,
)
from braze.runtime.spec import TensorSpec

__all__ = ["RESERVED", "PlanError", "verify"]


class PlanError(InternalError):
    """A launch plan breaks a rule of its own language."""


RESERVED: Final = frozenset("AssertionError Exception RuntimeError int locals max min str".split())
"""Names that generated code takes to mean what Python means by them; its own begin with an underscore."""

_SYMBOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")
_OPERATOR: Final = re.compile(r"[A-Za-z_]\w*::[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", re.ASCII)
_DEVICE: Final = re.compile(r"[a-z]+(:[0-9]{1,3})?")
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MOST: Final = 1 << 62
"""No size, stride, offset or number of bytes is as large as this."""
_MOST_DIMS: Final = 64


@dataclass
class _Scope:
    """What is known at one point. ``home`` leads from a slice, or a view of one, to its workspace;
    ``threads`` are numbers of threads, ``streams`` those of a backend; ``extent`` is how many bytes
    surely follow a tensor's begin, where that is known, and ``dtype`` what they are."""

    numbers: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    workspaces: dict[str, int | None] = field(default_factory=dict)
    home: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    threads: set[str] = field(default_factory=set)
    streams: dict[str, str] = field(default_factory=dict)
    extent: dict[str, int] = field(default_factory=dict)
    dtype: dict[str, torch.dtype] = field(default_factory=dict)


def verify(plan: Plan) -> None:
    """Check a plan. Raises `PlanError`, naming the instruction, for the first rule that does not hold:

    every name is an identifier that means nothing else in generated code, defined once, before its use, and
    not used after it was freed; expressions use numbers only; sizes, strides and offsets agree in length and
    are not negative; slices, views and pointers into tensors lie inside what they are taken from (where the
    numbers are known), and neither a slice nor a view of one is returned; symbols, operators, keywords,
    devices and tensor properties are names of their kind; the plan ends with its only `Return`.
    """
    scope = _Scope()
    if not plan.name.isprintable():
        raise PlanError(f"{plan.name!r} is not the name of a plan")
    for name in plan.inputs:
        _define(scope, name, number=name in plan.numbers)
    if stray := set(plan.numbers) - set(plan.inputs):
        raise PlanError(f"plan {plan.name}: {sorted(stray)} are numbers and no inputs")
    ids = [error.id for error in plan.errors]
    if len(set(ids)) != len(ids) or any(not 0 < i < _MOST for i in ids):
        raise PlanError(f"plan {plan.name}: error ids must be positive and differ: {ids}")
    for position, instruction in enumerate(plan.instructions):
        try:
            if isinstance(instruction, Return) != (position == len(plan.instructions) - 1):
                raise PlanError("a plan has one return, at its end")
            _check(scope, instruction)
        except PlanError as error:
            where = f"plan {plan.name}, instruction {position}: {instruction}"
            raise PlanError(error.what, node=where) from None
    if not plan.instructions:
        raise PlanError(f"plan {plan.name}: a plan has one return, at its end")


def _define(scope: _Scope, name: str, *, number: bool = False) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise PlanError(f"{name!r} is not a name: an identifier that begins with a letter")
    if name in RESERVED or not (name.isascii() or unicodedata.is_normalized("NFKC", name)):
        raise PlanError(f"{name!r} means something else in generated code")
    if name in scope.numbers or name in scope.objects or name in scope.workspaces or name in scope.ended:
        raise PlanError(f"{name} is defined twice")
    (scope.numbers if number else scope.objects).add(name)


def _use(scope: _Scope, name: str) -> None:
    if name in scope.ended or scope.home.get(name) in scope.ended:
        raise PlanError(f"{name} is used after it was freed")
    if name not in scope.numbers and name not in scope.objects:
        raise PlanError(f"{name} is not defined")


def _use_exprs(scope: _Scope, values: Iterable[Expr | None]) -> None:
    for value in values:
        if value is not None:
            _use_numbers(scope, value)


def _use_numbers(scope: _Scope, value: Expr | BoolExpr) -> None:
    for symbol in value.free_symbols:
        if symbol.name not in scope.numbers:
            raise PlanError(f"{symbol.name} in {value} is not a number that is known here")


def _use_args(scope: _Scope, values: Iterable[Arg]) -> Iterable[str]:
    for value in values:
        if isinstance(value, Ref):
            _use(scope, value.name)
            yield value.name
        elif isinstance(value, Expr):
            _use_exprs(scope, [value])
        elif isinstance(value, tuple):
            yield from _use_args(scope, value)


def _shape(scope: _Scope, spec: TensorSpec[Expr] | TensorSpec[Expr | None]) -> int | None:
    """Check a geometry; the elements from its first to its last, where that is known."""
    sizes, strides = spec.sizes, spec.strides
    if len(sizes) != len(strides):
        raise PlanError(f"{len(sizes)} sizes and {len(strides)} strides")
    if len(sizes) > _MOST_DIMS:
        raise PlanError(f"{len(sizes)} dimensions")
    if not _DEVICE.fullmatch(spec.device):
        raise PlanError(f"{spec.device!r} is not a device")
    _amount(scope, spec.offset)
    last: int | None = 0
    empty = False
    for size, stride in zip(sizes, strides, strict=True):
        n = None if size is None else _amount(scope, size)
        step = None if stride is None else _amount(scope, stride)
        empty = empty or n == 0
        if n != 1:
            last = None if last is None or n is None or step is None else last + (n - 1) * step
    if empty:
        return 0
    if last is not None and last >= _MOST:
        raise PlanError(f"a tensor of {last} elements")
    return None if last is None else last + 1


def _amount(scope: _Scope, value: Expr) -> int | None:
    """Check a size, stride, offset or number of bytes; its value, where that is known."""
    constant = value.constant
    if constant is None:
        _use_numbers(scope, value)
        upper = value.bounds()[1]
        if upper is not None and upper < 0:
            raise PlanError(f"{value} is always negative")
    elif not 0 <= constant < _MOST:
        raise PlanError(f"{constant} is {'negative' if constant < 0 else 'too large'}")
    return constant


def _know(scope: _Scope, name: str, dtype: torch.dtype, span: int | None) -> None:
    """Remember what a tensor is, and how many elements follow its begin."""
    scope.extent.pop(name, None)
    scope.dtype[name] = dtype
    if span is not None:
        scope.extent[name] = span * dtype.itemsize


def _check_device(device: str) -> None:
    if not _DEVICE.fullmatch(device):
        raise PlanError(f"{device!r} is not a device")


def _define_pattern(scope: _Scope, pattern: Pattern) -> None:
    if isinstance(pattern, str):
        _define(scope, pattern)
    elif pattern is not None:
        for part in pattern:
            _define_pattern(scope, part)


def _check_slice(scope: _Scope, one: Slice) -> None:
    if one.workspace in scope.ended:
        raise PlanError(f"{one.workspace} is used after it was freed")
    if one.workspace not in scope.workspaces:
        raise PlanError(f"{one.workspace} is not a workspace")
    span = _shape(scope, one.spec)
    offset, size = _amount(scope, one.offset), one.spec.dtype.itemsize
    if offset is not None and offset % size:
        raise PlanError(f"offset {offset} is not a multiple of {size}")
    nbytes = scope.workspaces[one.workspace]
    if nbytes is not None and offset is not None and span and offset + span * size > nbytes:
        raise PlanError(f"it ends at byte {offset + span * size} of {nbytes}")
    _define(scope, one.out)
    _know(scope, one.out, one.spec.dtype, span)
    scope.home[one.out] = one.workspace


def _check_view(scope: _Scope, one: View) -> None:
    _use(scope, one.base)
    if one.base in scope.numbers:
        raise PlanError(f"{one.base} is a number, not a tensor")
    span = _shape(scope, one.spec)
    dtype, offset = one.spec.dtype, one.spec.offset.constant
    if not one.reinterprets and scope.dtype.get(one.base, dtype) is not dtype:
        raise PlanError(f"{one.base} is of {torch_name(scope.dtype[one.base])}, and so are views of it")
    extent = scope.extent.get(one.base)
    if extent is not None and offset is not None and span:
        end = (offset + span) * dtype.itemsize
        if end > extent:
            raise PlanError(f"it ends at byte {end} of {extent}")
    _define(scope, one.out)
    _know(scope, one.out, dtype, span)
    if one.base in scope.home:
        scope.home[one.out] = scope.home[one.base]


def _check_buffer(scope: _Scope, one: BufferArg) -> None:
    if one.name not in scope.workspaces:
        _use(scope, one.name)
    if one.name in scope.numbers:
        raise PlanError(f"{one.name} is a number, not a buffer")
    offset = _amount(scope, one.offset)
    known = scope.workspaces[one.name] if one.name in scope.workspaces else scope.extent.get(one.name)
    if offset is not None and known is not None and offset > known:
        raise PlanError(f"{one} lies beyond the {known} bytes that there are")


def _check_segment(scope: _Scope, one: RunSegment) -> None:
    for entry in (one.entry, *[kernel.entry for kernel in one.kernels]):
        if not _SYMBOL.fullmatch(entry):
            raise PlanError(f"{entry!r} is not a symbol")
    for buffer in one.buffers:
        _check_buffer(scope, buffer)
    _use_exprs(scope, [*one.sizes, one.work])
    if one.threads is not None and one.threads not in scope.threads:
        raise PlanError(f"{one.threads} is not a number of threads")


def _check_kind(kind: str) -> None:
    if not _KIND.fullmatch(kind):
        raise PlanError(f"{kind!r} is not a backend")


def _check_launch(scope: _Scope, one: Launch) -> None:
    _check_kind(one.kind)
    if one.kind == SEGMENTS:
        raise PlanError(f"the code of {one.kind} runs in segments")
    if not _SYMBOL.fullmatch(one.entry):
        raise PlanError(f"{one.entry!r} is not a symbol")
    for buffer in one.buffers:
        _check_buffer(scope, buffer)
    _use_exprs(scope, [*one.sizes, one.work])
    for extent in one.grid:
        _amount(scope, extent)
    if one.stream is not None and scope.streams.get(one.stream) != one.kind:
        raise PlanError(f"{one.stream} is not a stream of {one.kind}")


def _check_extern(scope: _Scope, one: CallExtern) -> None:
    if not one.target.startswith("python::") and not _OPERATOR.fullmatch(one.target):
        raise PlanError(f"{one.target!r} is not an operator's qualified name")
    seen: set[str] = set()
    for key, _ in one.kwargs:
        if not key.isidentifier() or keyword.iskeyword(key) or key in seen:
            raise PlanError(f"{key!r} is not a keyword of an operator, or is there twice")
        seen.add(key)
    for _ in _use_args(scope, [*one.args, *(value for _, value in one.kwargs)]):
        pass
    _define_pattern(scope, one.outs)


def _check(scope: _Scope, one: Instruction) -> None:
    match one:
        case BindSize():
            _use(scope, one.tensor)
            if one.kind not in ("size", "stride", "storage_offset") or not 0 <= one.dim < _MOST_DIMS:
                raise PlanError(f"a tensor has no {one.kind} {one.dim}")
            if not 0 < abs(one.factor) < _MOST:
                raise PlanError(f"nothing follows from {one.factor} times a number")
            _use_numbers(scope, one.rest)
            _define(scope, one.out, number=True)
        case BindItem():
            _use(scope, one.source)
            _define(scope, one.out, number=one.as_int)
        case BindThreads():
            _define(scope, one.out, number=True)
            scope.threads.add(one.out)
        case CheckRange():
            if one.symbol not in scope.numbers:
                raise PlanError(f"{one.symbol} is not a number that is known here")
            if one.lower == LEAST and one.upper is None:
                raise PlanError(f"{one.symbol} has no bounds to check")
        case CheckSizes():
            _use_numbers(scope, one.condition)
        case CheckTensor():
            _use(scope, one.tensor)
            _know(scope, one.tensor, one.spec.dtype, _shape(scope, one.spec))
        case Restride():
            _use(scope, one.tensor)
            _know(scope, one.tensor, one.spec.dtype, _shape(scope, one.spec))
        case LoadConstant():
            _define(scope, one.out)
        case Allocate():
            span = _shape(scope, one.spec)
            _define(scope, one.out)
            _know(scope, one.out, one.spec.dtype, span)
        case Workspace():
            _check_device(one.device)
            nbytes = _amount(scope, one.nbytes)
            _define(scope, one.out)
            scope.objects.discard(one.out)
            scope.workspaces[one.out] = nbytes
        case Slice():
            _check_slice(scope, one)
        case View():
            _check_view(scope, one)
        case RunSegment():
            _check_segment(scope, one)
        case BindStream():
            _check_kind(one.kind)
            _define(scope, one.out)
            scope.streams[one.out] = one.kind
        case Launch():
            _check_launch(scope, one)
        case CallExtern():
            _check_extern(scope, one)
        case Compute():
            if one.function not in NUMBER_FUNCTIONS:
                raise PlanError(f"{one.function!r} is not a function on numbers")
            for _ in _use_args(scope, one.args):
                pass
            _define(scope, one.out)
        case Hold():
            _use(scope, one.number)
            _define(scope, one.out)
            _know(scope, one.out, one.dtype, 1)
        case Assert():
            if one.exception not in EXCEPTIONS:
                raise PlanError(f"no check raises {one.exception!r}")
            _use_numbers(scope, one.condition)
        case Free():
            for name in one.names:
                if name in scope.workspaces:
                    del scope.workspaces[name]
                else:
                    _use(scope, name)
                    scope.objects.discard(name)
                    scope.numbers.discard(name)
                scope.ended.add(name)
        case Return():
            for name in _use_args(scope, one.values):
                if name in scope.home:
                    raise PlanError(f"{name} lies in a workspace and is returned")
