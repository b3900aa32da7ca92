"""The launch plan's verifier: what must hold of a plan before it is turned into a function."""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from dataclasses import dataclass, field

from braze.errors import InternalError
from braze.runtime.expr import Expr
from braze.runtime.guard import BoolExpr
from braze.runtime.plan import (
    Allocate,
    Arg,
    Assert,
    BindItem,
    BindSize,
    BindThreads,
    CallExtern,
    CheckTensor,
    Free,
    Instruction,
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

__all__ = ["PlanError", "verify"]


class PlanError(InternalError):
    """A launch plan breaks a rule of its own language."""


@dataclass
class _Scope:
    """What is known at one point. ``home`` leads from a slice, or a view of one, to its workspace."""

    numbers: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    workspaces: dict[str, int | None] = field(default_factory=dict)
    home: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)


def verify(plan: Plan) -> None:
    """Check a plan. Raises `PlanError`, naming the instruction, for the first rule that does not hold:

    every name is defined once, before its use, and not used after it was freed; expressions use numbers only;
    sizes and strides agree in length; a slice lies inside its workspace (where the numbers are known) and
    neither it nor a view of it is returned; tensor properties are of the closed set; the plan ends with its
    only `Return`.
    """
    scope = _Scope()
    for name in plan.inputs:
        _define(scope, name, number=name in plan.numbers)
    if stray := set(plan.numbers) - set(plan.inputs):
        raise PlanError(f"plan {plan.name}: {sorted(stray)} are numbers and no inputs")
    ids = [error.id for error in plan.errors]
    if len(set(ids)) != len(ids) or any(i <= 0 for i in ids):
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
        raise PlanError(f"{name!r} is no name: an identifier that begins with a letter")
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
            raise PlanError(f"{symbol.name} in {value} is no number that is known here")


def _use_args(scope: _Scope, values: Iterable[Arg]) -> Iterable[str]:
    for value in values:
        if isinstance(value, Ref):
            _use(scope, value.name)
            yield value.name
        elif isinstance(value, Expr):
            _use_exprs(scope, [value])
        elif isinstance(value, tuple):
            yield from _use_args(scope, value)


def _shape(scope: _Scope, sizes: tuple[Expr | None, ...], strides: tuple[Expr | None, ...]) -> None:
    if len(sizes) != len(strides):
        raise PlanError(f"{len(sizes)} sizes and {len(strides)} strides")
    _use_exprs(scope, sizes)
    _use_exprs(scope, strides)


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
        raise PlanError(f"{one.workspace} is no workspace")
    _shape(scope, one.sizes, one.strides)
    _use_exprs(scope, [one.offset])
    offset, size = one.offset.constant, one.dtype.itemsize
    if offset is not None and (offset < 0 or offset % size):
        raise PlanError(f"offset {offset} is negative or no multiple of {size}")
    nbytes = scope.workspaces[one.workspace]
    sizes = [s.constant for s in one.sizes]
    strides = [s.constant for s in one.strides]
    if nbytes is not None and offset is not None and None not in sizes and None not in strides:
        extent = (
            sum((n or 0) - 1 and ((n or 0) - 1) * (s or 0) for n, s in zip(sizes, strides, strict=True)) + 1
        )
        if 0 not in sizes and offset + extent * size > nbytes:
            raise PlanError(f"it ends at byte {offset + extent * size} of {nbytes}")
    _define(scope, one.out)
    scope.home[one.out] = one.workspace


def _check(scope: _Scope, one: Instruction) -> None:
    match one:
        case BindSize():
            _use(scope, one.tensor)
            if one.kind not in ("size", "stride", "storage_offset") or one.dim < 0:
                raise PlanError(f"a tensor has no {one.kind} {one.dim}")
            _define(scope, one.out, number=True)
        case BindItem():
            _use(scope, one.source)
            _define(scope, one.out, number=one.as_int)
        case BindThreads():
            _define(scope, one.out, number=True)
        case CheckTensor():
            _use(scope, one.tensor)
            _shape(scope, one.sizes, one.strides)
        case Restride():
            _use(scope, one.tensor)
            _shape(scope, one.sizes, one.strides)
        case LoadConstant():
            _define(scope, one.out)
        case Allocate():
            _shape(scope, one.sizes, one.strides)
            _define(scope, one.out)
        case Workspace():
            _use_exprs(scope, [one.nbytes])
            _define(scope, one.out)
            scope.objects.discard(one.out)
            scope.workspaces[one.out] = one.nbytes.constant
        case Slice():
            _check_slice(scope, one)
        case View():
            _use(scope, one.base)
            _shape(scope, one.sizes, one.strides)
            _use_exprs(scope, [one.offset])
            _define(scope, one.out)
            if one.base in scope.home:
                scope.home[one.out] = scope.home[one.base]
        case RunSegment():
            for buffer in one.buffers:
                if buffer.name not in scope.workspaces:
                    _use(scope, buffer.name)
                if buffer.name in scope.numbers:
                    raise PlanError(f"{buffer.name} is a number, not a buffer")
                _use_exprs(scope, [buffer.offset])
            _use_exprs(scope, [*one.sizes, one.work])
            if one.threads is not None and one.threads not in scope.numbers:
                raise PlanError(f"{one.threads} is no number of threads")
        case CallExtern():
            if "::" not in one.target:
                raise PlanError(f"{one.target!r} is no operator's qualified name")
            list(_use_args(scope, [*one.args, *(value for _, value in one.kwargs)]))
            _define_pattern(scope, one.outs)
        case Assert():
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
