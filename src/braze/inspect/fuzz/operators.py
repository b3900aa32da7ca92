"""What is known of an operator that programs are made of."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from braze.inspect.fuzz.operands import Operand

__all__ = ["CannotDraw", "Gives", "Operator", "Rounding", "outside_the_table"]

Gives = Literal["promoted", "float", "same", "sum", "bool", "int64", "argument", "any", "nothing"]
Rounding = Literal["exact", "ieee", "cast", "loose"]


class CannotDraw(Exception):
    """There is no argument of the kind that an operator asks for."""


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Attributes:
        name: of the row.
        form: the call as Python, with ``{0}``, ``{1}``, ... for its arguments; ``F`` is torch.nn.functional.
        operands: how each argument is drawn.
        gives: the element type of what it returns: ``promoted`` of its operands; ``float``: the same, and
            float32 where that is no floating type; ``same`` as its first operand; ``sum``: the same, and
            int64 for integers; the ``argument`` that is a type; ``nothing``: it only writes to its operand.
        rounding: what it does to floating-point values. ``exact``: it takes or moves them; ``ieee``: every
            implementation rounds alike; ``cast``: the same, and into a type that is asked for; ``loose``: by
            an approximation, or in an order, of its own.
        results: how many tensors it returns.
        sharp: it is discontinuous, so it is given values only on which all implementations agree.
        writes: it writes to its first operand.
        bits: it sees values as their bits.
        multiplies: it multiplies many numbers, in an order of its own.
        torn: its derivative where there is NaN is one in eager PyTorch's vectors and another beside them, so
            with gradients it is given none.
        weight: how often it is drawn, relative to others.
    """

    name: str
    form: str
    operands: tuple[Operand, ...]
    gives: Gives = "same"
    rounding: Rounding = "exact"
    results: int = 1
    sharp: bool = False
    writes: bool = False
    bits: bool = False
    multiplies: bool = False
    torn: bool = False
    weight: float = 1.0


_MOVES = frozenset(
    "_unsafe_view alias as_strided cat clone constant_pad_nd detach diagonal expand flip gather index "
    "index_select masked_fill permute repeat roll select slice split split_with_sizes squeeze stack t "
    "transpose unbind unfold unsqueeze view where".split()
)
_DECIDES = frozenset(
    "argmax argmin argsort bucketize ceil cummax cummin floor floor_divide fmod "
    "frexp heaviside histc isclose isfinite isinf isnan kthvalue logical_and logical_not logical_or "
    "logical_xor eq ge gt le lt ne nonzero remainder round searchsorted sgn sign signbit sort topk trunc "
    "unique_consecutive unique_dim _unique2".split()
)


@functools.cache
def outside_the_table(name: str) -> Operator:
    """What is assumed of an operator that the table has no row of: ``aten.NAME.OVERLOAD``, or a function on
    sizes."""
    base = name.removeprefix("aten.").partition(".")[0]
    sharp = base in _DECIDES
    exact = base in _MOVES or sharp or not name.startswith("aten.")
    return Operator(
        name,
        "",
        (),
        "any",
        "exact" if exact else "loose",
        sharp=sharp,
        writes=base.endswith("_") and not base.startswith("_"),
        bits=base == "view" and name.endswith(".dtype"),
        multiplies=base in ("prod", "cumprod"),
    )
