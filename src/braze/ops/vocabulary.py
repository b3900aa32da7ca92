"""The closed vocabulary of scalar operations that a loop body may use.

Every operation is one row: how many operands, which operand types, what type comes out, and a rough cost (in
simple vector instructions for each vector) that fusion decisions use. Handlers cover exactly this table.

What the table leaves open, torch's function of the same name decides, and these rules:

- A masked-off load gives 0 and touches no memory. ``check_index`` gives 0 where the index is out of range,
else the
  (wrapped) index, and ``check_nonzero`` 1 where the value is 0, masked or not; a mask only keeps the failure
  from being recorded. ``check`` gives its value, whatever it is; a guard becomes part of its condition.
  Where an index expression contains an index into 0 elements, which no check can pass, a load gives 0, a
  store does nothing, and neither touches memory.
- Integer arithmetic wraps, also in the quotient of the least integer and -1. A shift by a negative amount is
  one by the type's width. Converting a NaN or a value out of range to an integer type gives anything, as in
  torch.
- ``minimum``, ``maximum`` and the reductions and scans of these names give NaN if any operand is NaN. Which
  of two zeros is the greater is open, and so are the sign of a sum of zeros and that of a NaN.
- A reduction over nothing gives its identity: 0, 1, False, True, the extreme value of the type (an infinity
  for floating types), position 0.
- Sums and products may be associated in any way, but in one way that does not depend on the number of
  threads.
- All values of a stage are computed, at each point, before its stores; the stores then happen in order.
- Random operations are defined in :mod:`braze.ops.random`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Domain = Literal["any", "number", "float", "int", "bool", "bits"]
Result = Literal["same", "bool", "explicit"]


@dataclass(frozen=True)
class OpDef:
    """One operation. ``result``: ``same`` type as the operands, ``bool``, or ``explicit`` (given by the
    node).
    """

    name: str
    arity: tuple[int, int]
    domain: Domain
    result: Result
    cost: int
    meaning: str


def _rows() -> list[OpDef]:
    rows: list[OpDef] = []

    def row(
        names: str, arity: int | tuple[int, int], domain: Domain, result: Result, cost: int, meaning: str = ""
    ) -> None:
        span = (arity, arity) if isinstance(arity, int) else arity
        rows.extend(OpDef(name, span, domain, result, cost, meaning) for name in names.split())

    # leaves
    row("constant", 0, "any", "explicit", 0, "attrs: (value,)")
    row("index_expr", 0, "any", "explicit", 1, "attrs: (Expr,); an index expression as a value")
    row("load", (0, 1), "any", "explicit", 1, "attrs: (buffer, Expr); optional mask: 0 where it is false")
    # checks
    row(
        "check_index",
        (1, 2),
        "int",
        "explicit",
        3,
        "attrs: (size, wrap, error); safe index, failure recorded",
    )
    row(
        "check_nonzero",
        (1, 2),
        "int",
        "same",
        2,
        "attrs: (error,); 1 where the value was 0, failure recorded",
    )
    row(
        "check",
        2,
        "any",
        "explicit",
        2,
        "args: (value, condition); attrs: (error,); the value, failure recorded where the condition is false",
    )
    # arithmetic
    row("add sub mul", 2, "number", "same", 1)
    row("truediv", 2, "float", "same", 4)
    row(
        "floordiv truncdiv mod fmod",
        2,
        "number",
        "same",
        10,
        "floor/trunc quotient; remainder like //, like C",
    )
    row("neg abs", 1, "number", "same", 1)
    row("minimum maximum", 2, "any", "same", 1, "NaN if either is NaN")
    row("fma", 3, "float", "same", 1, "a*b + c rounded once")
    row("copysign nextafter hypot", 2, "float", "same", 4)
    # comparison and logic
    row("eq ne lt le gt ge", 2, "any", "bool", 1)
    row("logical_and logical_or logical_xor", 2, "bool", "same", 1)
    row("logical_not", 1, "bool", "same", 1)
    row("bitwise_and bitwise_or bitwise_xor", 2, "bits", "same", 1)
    row("bitwise_not", 1, "bits", "same", 1)
    row(
        "shl shr",
        2,
        "int",
        "same",
        1,
        "shr is arithmetic on signed types; a shift >= width gives 0 or the sign",
    )
    row("where", 3, "any", "explicit", 1, "args: (condition, if true, if false)")
    # conversion
    row("to_dtype", 1, "any", "explicit", 1, "attrs: (); converts as torch does")
    row("bitcast", 1, "any", "explicit", 0, "the same bits as another type of the same width")
    # rounding and classes
    row("floor ceil trunc round", 1, "float", "same", 1, "round: to nearest, ties to even")
    row("isnan isinf signbit", 1, "float", "bool", 1)
    # math
    row("sqrt", 1, "float", "same", 6)
    row("rsqrt", 1, "float", "same", 8)
    row("exp exp2 expm1 sigmoid tanh", 1, "float", "same", 14)
    row("log log1p log2 log10", 1, "float", "same", 16)
    row("erf erfc erfinv", 1, "float", "same", 22)
    row("sin cos tan asin acos atan sinh cosh asinh acosh atanh", 1, "float", "same", 22)
    row("lgamma digamma", 1, "float", "same", 60)
    row("pow atan2", 2, "float", "same", 40)
    # random: Philox-4x32-10, args (seed, offset), both int64
    row("rand randn", 2, "int", "explicit", 30, "float32 from Philox(seed, offset): uniform [0, 1); normal")
    row("randint64", 4, "int", "explicit", 30, "args: (seed, offset, low, high); int64 in [low, high)")
    # over loop variables
    row("reduction", (1, 2), "any", "explicit", 2, "attrs: (kind, component, rvars)")
    row("scan", 1, "any", "explicit", 2, "attrs: (kind, var); inclusive, along one loop variable")
    return rows


OPS: dict[str, OpDef] = {d.name: d for d in _rows()}

ReductionKind = Literal["sum", "prod", "max", "min", "argmax", "argmin", "any", "all", "welford"]

REDUCTIONS: dict[str, tuple[str, ...]] = {
    "sum": ("sum",),
    "prod": ("product",),
    "max": ("maximum",),
    "min": ("minimum",),
    "argmax": ("position",),
    "argmin": ("position",),
    "any": ("any",),
    "all": ("all",),
    "welford": ("mean", "m2", "count"),
}
"""Each kind of reduction and the names of its components. argmax and argmin take (value, position) and give
the least position of an extremum, a NaN counting as the extremum, as torch does."""

SCANS = ("sum", "prod", "max", "min")
STORE_MODES = ("set", "atomic_add")
