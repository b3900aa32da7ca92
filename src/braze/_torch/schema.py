"""What is known of an operator: its arguments, what its results alias, and what a call of it does besides
giving results."""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._higher_order_ops import effects
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import node as fx_node

__all__ = [
    "Argument",
    "Effect",
    "OperatorInfo",
    "bind",
    "effects_of",
    "foreign_signature",
    "is_higher_order",
    "is_operator",
    "is_ordered_call",
    "operator_info",
]


@dataclass(frozen=True)
class Argument:
    """One argument or result. `type` is as PyTorch prints it ("Tensor", "List[Tensor]", "List[int]",
    "Optional[float]"). `alias` names the storages that it shares with others of the same call; `written`: the
    call writes to it. `keyword_only`: it has no place among the positional ones."""

    name: str
    type: str
    default: object
    has_default: bool
    alias: frozenset[str]
    written: bool
    keyword_only: bool


class Effect(enum.Flag):
    """What a call does besides giving results that follow from its arguments. Decided here alone; whether a
    call may be dropped, merged with another or moved follows from it."""

    NONE = 0
    WRITE = enum.auto()
    """It writes to an argument."""
    DRAW = enum.auto()
    """It advances a random generator."""
    CHECK = enum.auto()
    """It may raise for what tensors hold, or gives a size or number by what they hold, of which other nodes
    speak by name."""
    OUTSIDE = enum.auto()
    """It meets other processes, or has an effect of which PyTorch was told."""
    UNSET = enum.auto()
    """Its result is memory that holds anything: two of them are two tensors."""

    KEPT = WRITE | CHECK | OUTSIDE
    """A call stays even where nobody reads its results. So do draws if later ones have to be eager's."""
    ORDERED = DRAW | OUTSIDE
    """Such calls stay in the order in which the program makes them."""
    ALL = KEPT | ORDERED


@dataclass(frozen=True)
class OperatorInfo:
    """An operator's schema. `is_view`: a result shares storage with an argument and nothing is written.
    `shown`: the effects that the schema shows; `effects_of` knows all."""

    name: str
    arguments: tuple[Argument, ...]
    returns: tuple[Argument, ...]
    is_view: bool
    shown: Effect

    @property
    def mutates(self) -> bool:
        """Whether it writes to an argument."""
        return Effect.WRITE in self.shown


def is_operator(target: object) -> bool:
    """Whether a node's target is an operator with a schema (an ATen operator, or one of a library)."""
    return isinstance(target, OpOverload)


def is_higher_order(target: object) -> bool:
    """Whether a node's target takes graphs or functions: `cond`, `while_loop`, `auto_functionalized`, ..."""
    return isinstance(target, HigherOrderOperator)


def is_ordered_call(target: object) -> bool:
    """Whether a node's target calls an operator with effects, its second argument, in order: the first is a
    token, and so is the first result."""
    return is_higher_order(target) and getattr(target, "__name__", "") == "with_effects"


_COLLECTIVES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "symm_mem"})


_UNINITIALISED = frozenset(
    {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
)


def effects_of(target: Any) -> Effect:
    """The effects of a call of ``target``. What takes graphs or functions may have any: nothing is known of
    these."""
    if is_higher_order(target):
        return Effect.ALL
    shown = operator_info(target).shown if is_operator(target) else Effect.NONE
    return shown | Effect.OUTSIDE if _acts_outside(target) else shown


def _acts_outside(target: Any) -> bool:
    """Whether ``target`` was registered with PyTorch as having side effects, which can happen at any time, or
    meets other processes."""
    if target in fx_node._side_effectful_functions:
        return True
    if not isinstance(target, OpOverload):
        return False
    if target.namespace in _COLLECTIVES:
        return True
    # `profiler`'s and other operators' registration names the packet
    return target.overloadpacket in fx_node._side_effectful_functions or _is_ordered(target)


def _is_ordered(operator: OpOverload) -> bool:
    """Whether the operator was given an effect by its library (``torch.library._register_effectful_op``)."""
    find = getattr(effects, "_get_effect", None) or getattr(effects, "get_effect_key", None)
    if find is None:
        return False
    return (find(operator) if find.__name__ == "_get_effect" else find(operator, (), {})) is not None


@functools.cache
def operator_info(operator: Any) -> OperatorInfo:
    """The schema of an `OpOverload`. Computed once for each operator."""
    schema = operator._schema
    arguments = tuple(_argument(a) for a in schema.arguments)
    returns = tuple(_argument(r) for r in schema.returns)
    return OperatorInfo(
        name=str(operator),
        arguments=arguments,
        returns=returns,
        # a list of views names its storage at the argument only
        is_view=not schema.is_mutable and any(a.alias for a in (*arguments, *returns)),
        shown=_shown(operator, schema),
    )


def _shown(operator: Any, schema: Any) -> Effect:
    tags = operator.tags
    by_data = torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags
    shown = Effect.NONE
    if schema.is_mutable:
        shown |= Effect.WRITE
    if torch.Tag.nondeterministic_seeded in tags:
        shown |= Effect.DRAW
    if by_data or not schema.returns:  # without results it is there to check something
        shown |= Effect.CHECK
    if operator.overloadpacket.__name__ in _UNINITIALISED:
        shown |= Effect.UNSET
    return shown


def foreign_signature(target: Any) -> str | None:
    """Schema and tags of an operator that is not PyTorch's own, whose name does not tell them: somebody may
    define it anew. None for anything else."""
    if not isinstance(target, OpOverload) or target.namespace in ("aten", "prims"):
        return None
    return " ".join([str(target._schema), *sorted(str(tag) for tag in target.tags)])


def _argument(argument: Any) -> Argument:
    alias = argument.alias_info
    return Argument(
        name=argument.name,
        type=str(argument.type),
        default=argument.default_value if argument.has_default_value() else None,
        has_default=bool(argument.has_default_value()),
        alias=frozenset() if alias is None else frozenset(alias.before_set) | frozenset(alias.after_set),
        written=alias is not None and bool(alias.is_write),
        keyword_only=bool(argument.kwarg_only),
    )


def bind(operator: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Values by argument name, defaults filled in.

    Raises TypeError where an argument without default is missing, or one has no such place.
    """
    info = operator_info(operator)
    bound: dict[str, Any] = {}
    if len(args) > len(info.arguments):
        raise TypeError(f"{info.name} takes {len(info.arguments)} arguments, not {len(args)}")
    for position, argument in enumerate(info.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        elif argument.has_default:
            bound[argument.name] = argument.default
        else:
            raise TypeError(f"{info.name} lacks its argument {argument.name!r}")
    unknown = kwargs.keys() - bound.keys()
    if unknown:
        raise TypeError(f"{info.name} has no argument {sorted(unknown)[0]!r}")
    return bound
