"""Which operator is lowered by which function. Filled at import by the family modules, read-only
afterwards. Of what people register for operators of their own, externs are found here, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from braze._torch.schema import is_operator, operator_info
from braze.extensions.registry import registered

Lowering = Callable[..., Any]
F = TypeVar("F", bound=Lowering)

LOWERINGS: dict[Any, Lowering] = {}
"""Operator (an ``OpOverload``, or one of ``braze.ir.prims``) -> function ``(ctx, *args, **kwargs)`` that
returns a TensorBox, an Expr, or a tuple or list of them. No operator that a decomposition always takes apart
is among them."""


COMPLEX_LOWERINGS: dict[Any, Lowering] = {}
"""The same for calls with complex tensors, of which other lowerings know nothing."""

ALIKE: set[Any] = set()
"""Operators whose ordinary lowering is right for complex tensors, too: it does the same to both parts."""


@dataclass(frozen=True)
class Extern:
    """An operator that is called whole by design: why, and its variant that writes into given memory, where
    that variant really does so (many out-variants compute and copy). ``instead`` may call something better
    for the current node, and returns ``None`` where there is nothing better."""

    reason: str
    out: Any = None
    instead: Lowering | None = None


EXTERNS: dict[Any, Extern] = {}
"""Operators that are called whole by design, unless their lowering takes the call; they are no fallbacks. By
the operator, or by a name (``aten::sort``) for all of its overloads that write to no argument."""


def lowers(*operators: Any) -> Callable[[F], F]:
    """Register the decorated function as the lowering of ``operators``. It may raise ``Refused`` to
    decline."""

    def register(fn: F) -> F:
        for operator in operators:
            if operator in LOWERINGS:
                raise ValueError(f"{operator} has a lowering already")
            LOWERINGS[operator] = fn
        return fn

    return register


def lowers_complex(*operators: Any) -> Callable[[F], F]:
    """Register the decorated function as the lowering of calls of ``operators`` with complex tensors."""

    def register(fn: F) -> F:
        for operator in operators:
            if operator in COMPLEX_LOWERINGS:
                raise ValueError(f"{operator} has a lowering of complex tensors already")
            COMPLEX_LOWERINGS[operator] = fn
        return fn

    return register


def same_for_complex(*operators: Any) -> None:
    """Declare that the ordinary lowering of ``operators`` is right for complex tensors, too."""
    ALIKE.update(operators)


def calls_whole(reason: str, *operators: Any, out: Any = None, instead: Lowering | None = None) -> None:
    """Declare operators, or names, that are externs by design; ``out`` is the out-variant of a single one."""
    for operator in operators:
        if operator in EXTERNS:
            raise ValueError(f"{operator} is an extern already")
        EXTERNS[operator] = Extern(reason, out, instead)


def extern_of(target: Any) -> Extern | None:
    """Why a node's target is called whole by design, if it is."""
    found = EXTERNS.get(target)
    if found is not None or not is_operator(target):
        return found
    theirs = registered("extern", target)
    if theirs is not None:
        return Extern(theirs.reason, theirs.out)
    named = EXTERNS.get(target.name().partition(".")[0])
    return None if named is None or operator_info(target).mutates else named


def always_whole(target: Any) -> bool:
    """Whether a node's target is called whole by design, whatever its arguments are."""
    return not has_lowering(target) and extern_of(target) is not None


def has_lowering(target: Any) -> bool:
    """Whether there is a lowering of a node's target, ours or one that somebody registered."""
    return target in LOWERINGS or registered("lowering", target) is not None


def lowering_of(target: Any, *, of_complex: bool = False) -> Lowering | None:
    """The lowering of a node's target; ``of_complex``: where there are complex tensors."""
    if of_complex and target not in ALIKE:
        return COMPLEX_LOWERINGS.get(target)
    return LOWERINGS.get(target)
