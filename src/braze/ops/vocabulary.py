"""The closed vocabulary of scalar operations that a loop body may use.

Every operation is one row: how many operands, which operand types, what type comes out, and a rough cost (in
simple vector instructions for each vector) that fusion decisions use. Handlers cover exactly this table.

What the table leaves open, torch's function of the same name decides, and these rules:

- A masked-off load gives 0 and touches no memory. ``check_index`` gives 0 where the index is out of
  range, else the (wrapped) index, and ``check_nonzero`` 1 where the value is 0, masked or not; a mask only
  keeps the failure from being recorded. ``check`` gives its value, whatever it is; a guard becomes part of
  its condition. Where an index expression contains an index into 0 elements, which no check can pass, a load
  gives 0, a store does nothing, and neither touches memory.
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
- The recurrences of orthogonal polynomials are those of :mod:`braze.ops.recurrences`, whose sums are rounded
  once; n is rounded towards zero, and no value depends on how many steps others take.
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
    node). ``flops``: operations of floating-point arithmetic on one element, an fma being two; those of a
    function are counted in the instructions that a float32 takes, and a float64 takes somewhat more; of a
    recurrence, one step counts.
    Comparing, selecting and converting is free.
    """

    name: str
    arity: tuple[int, int]
    domain: Domain
    result: Result
    cost: int
    flops: int
    meaning: str


def _rows() -> list[OpDef]:
    rows: list[OpDef] = []

    def row(
        names: str,
        arity: int | tuple[int, int],
        domain: Domain,
        result: Result,
        cost: int,
        flops: int = 0,
        meaning: str = "",
    ) -> None:
        span = (arity, arity) if isinstance(arity, int) else arity
        rows.extend(OpDef(name, span, domain, result, cost, flops, meaning) for name in names.split())

    # leaves
    row("constant", 0, "any", "explicit", 0, 0, "attrs: (value,)")
    row("index_expr", 0, "any", "explicit", 1, 0, "attrs: (Expr,); an index expression as a value")
    row("load", (0, 1), "any", "explicit", 1, 0, "attrs: (buffer, Expr); optional mask: 0 where it is false")
    # checks
    safe = "attrs: (size, wrap, error); safe index, failure recorded"
    row("check_index", (1, 2), "int", "explicit", 3, 0, safe)
    safe = "attrs: (error,); 1 where the value was 0, failure recorded"
    row("check_nonzero", (1, 2), "int", "same", 2, 0, safe)
    safe = (
        "args: (value, condition); attrs: (error,); the value, failure recorded where the condition is false"
    )
    row("check", 2, "any", "explicit", 2, 0, safe)
    # arithmetic
    row("add sub mul", 2, "number", "same", 1, 1)
    row("truediv", 2, "float", "same", 4, 1)
    row(
        "floordiv truncdiv mod fmod",
        2,
        "number",
        "same",
        10,
        2,
        "floor/trunc quotient; remainder like //, like C",
    )
    row("neg abs", 1, "number", "same", 1, 1)
    row("minimum maximum", 2, "any", "same", 1, 1, "NaN if either is NaN")
    row("fma", 3, "float", "same", 1, 2, "a*b + c rounded once")
    row("copysign nextafter", 2, "float", "same", 4)
    row("hypot", 2, "float", "same", 4, 4)
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
        0,
        "shr is arithmetic on signed types; a shift >= width gives 0 or the sign",
    )
    row("where", 3, "any", "explicit", 1, 0, "args: (condition, if true, if false)")
    # conversion
    row("to_dtype", 1, "any", "explicit", 1, 0, "attrs: (); converts as torch does")
    row("bitcast", 1, "any", "explicit", 0, 0, "the same bits as another type of the same width")
    # rounding and classes
    row("floor ceil trunc round", 1, "float", "same", 1, 1, "round: to nearest, ties to even")
    row("isnan isinf signbit", 1, "float", "bool", 1)
    # math
    row("sqrt", 1, "float", "same", 6, 1)
    row("rsqrt", 1, "float", "same", 8, 2)
    row("exp2", 1, "float", "same", 14, 17)
    row("exp sigmoid", 1, "float", "same", 14, 24)
    row("expm1", 1, "float", "same", 14, 37)
    row("tanh", 1, "float", "same", 14, 50)
    row("log log2 log10", 1, "float", "same", 16, 30)
    row("log1p", 1, "float", "same", 16, 37)
    row("erf", 1, "float", "same", 22, 50)
    row("erfc", 1, "float", "same", 22, 57)
    row("erfinv", 1, "float", "same", 22, 95)
    row("asin acos atan cosh", 1, "float", "same", 22, 24)
    row("sin cos tan", 1, "float", "same", 22, 30)
    row("sinh asinh acosh atanh", 1, "float", "same", 22, 37)
    row("lgamma", 1, "float", "same", 60, 57)
    row("digamma", 1, "float", "same", 60, 95)
    row("pow", 2, "float", "same", 40, 57)
    row("atan2", 2, "float", "same", 40, 24)
    row("igamma igammac", 2, "float", "same", 300, 400, "incomplete gamma functions P and Q of (a, x)")
    row("gcd", 2, "int", "same", 60, 0, "Euclid's algorithm on absolute values; of two zeros, 0")
    steps = "args: (x, p_1, n); p_n of the recurrence, n < 2^63; p_1 up to n = 1; the first NaN stays"
    row("chebyshev hermite_he", 3, "float", "same", 60, 4, steps)
    row("hermite_h", 3, "float", "same", 60, 6, steps)
    row("laguerre legendre", 3, "float", "same", 60, 9, steps)
    # random: Philox-4x32-10, args (seed, offset), both int64
    row("rand", 2, "int", "explicit", 30, 0, "float32 from Philox(seed, offset): uniform [0, 1)")
    row("randn", 2, "int", "explicit", 30, 57, "float32 from Philox(seed, offset): normal")
    row("randint64", 4, "int", "explicit", 30, 0, "args: (seed, offset, low, high); int64 in [low, high)")
    # over loop variables: what an element counts is the kind's
    row("reduction", (1, 2), "any", "explicit", 2, 0, "attrs: (kind, component, rvars)")
    row("scan", 1, "any", "explicit", 2, 0, "attrs: (kind, var); inclusive, along one loop variable")
    return rows


OPS: dict[str, OpDef] = {d.name: d for d in _rows()}

COMPLEX = "complex"
NODES: dict[str, OpDef] = {
    **OPS,
    COMPLEX: OpDef(COMPLEX, (2, 2), "float", "explicit", 0, 0, "a complex number: real part, imaginary part"),
}
"""What nodes may be while loops are made. A kernel has no complex values: loops store one as two numbers."""


@dataclass(frozen=True)
class ReductionDef:
    """A kind of reduction: the names of its components, and the flops of each element that it takes in."""

    components: tuple[str, ...]
    flops: int


REDUCTIONS: dict[str, ReductionDef] = {
    "sum": ReductionDef(("sum",), 1),
    "prod": ReductionDef(("product",), 1),
    "max": ReductionDef(("maximum",), 1),
    "min": ReductionDef(("minimum",), 1),
    "argmax": ReductionDef(("position",), 1),
    "argmin": ReductionDef(("position",), 1),
    "any": ReductionDef(("any",), 0),
    "all": ReductionDef(("all",), 0),
    "welford": ReductionDef(("mean", "m2", "count"), 7),
}
"""argmax and argmin take (value, position) and give the least position of an extremum, a NaN counting as the
extremum, as torch does."""

SCANS = {"sum": 1, "prod": 1, "max": 1, "min": 1, "last_max": 1, "last_min": 1, "logsumexp": 64}
"""The kinds of scans, with the flops of each element. last_max and last_min give the position along the
scan of the last extremum so far, a NaN being the extremum: what cummax and cummin do."""
COMBINING = {"atomic_add": "add", "atomic_mul": "mul", "atomic_max": "maximum", "atomic_min": "minimum"}
"""The modes of stores to what is there already, with the operation that combines the two."""
STORE_MODES = ("set", *COMBINING)
