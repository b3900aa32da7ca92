"""Value ranges: between which numbers an integer or boolean value must lie, whatever the inputs hold.

What bounds checks that cannot fail and 32-bit index arithmetic are recognised by. Ranges are inclusive, and
those of false and true are 0 and 1. Where an operation could wrap, its range is its type's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

import torch

from braze.ops.dag import Node, topological
from braze.ops.dtypes import integer_limits, is_float
from braze.runtime import intervals
from braze.runtime.expr import Expr, Symbol

Range = tuple[int, int]
BOOLEAN: Range = (0, 1)


def value_range(node: Node) -> Range | None:
    """The range of ``node``; ``None`` for a floating-point value. Linear in the nodes below it."""
    return value_ranges([node]).get(node.id)


def value_ranges(roots: Iterable[Node]) -> dict[int, Range]:
    """The ranges of all integer and boolean nodes below ``roots``, by node id."""
    known: dict[int, Range] = {}
    for node in topological(roots):
        if not is_float(node.dtype):
            known[node.id] = _fitting(_range(node, known), node.dtype)
    return known


def _fitting(found: Range | None, dtype: torch.dtype) -> Range:
    low, high = integer_limits(dtype)
    return found if found is not None and low <= found[0] <= found[1] <= high else (low, high)


def _range(node: Node, known: dict[int, Range]) -> Range | None:
    if node.op == "constant":
        value = int(node.attrs[0])  # type: ignore[call-overload]
        return value, value
    if node.op == "index_expr":
        return _of_expr(node.index)
    if node.op == "check_index":
        size = _of_expr(node.attrs[0])
        return None if size is None else (0, max(0, size[1] - 1))
    if node.op in ("reduction", "scan"):
        return _over_loops(node, known)
    if node.op == "bitcast" or any(is_float(a.dtype) for a in node.args):
        return None
    rule = _RULES.get(node.op)
    return None if rule is None else rule(*[known[a.id] for a in node.args])


def _of_expr(e: object) -> Range | None:
    assert isinstance(e, Expr)
    low, high = e.bounds()
    return None if low is None or high is None else (low, high)


# -- operations ---------------------------------------------------------------------------------------------
def _union(*ranges: Range) -> Range:
    return min(r[0] for r in ranges), max(r[1] for r in ranges)


def _corners(op: Callable[[int, int], int], a: Range, b: Range) -> Range:
    """The range of an operation whose extremes lie at the ends of its operands' ranges."""
    values = [op(x, y) for x, y in product(a, b)]
    return min(values), max(values)


def _truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _quotient(op: Callable[[int, int], int]) -> Callable[[Range, Range], Range | None]:
    return lambda a, b: None if b[0] <= 0 <= b[1] else _corners(op, a, b)


def _mod(a: Range, b: Range) -> Range | None:
    """A remainder with the sign of the divisor."""
    if b[0] > 0:
        return 0, min(a[1], b[1] - 1) if a[0] >= 0 else b[1] - 1
    return (b[0] + 1, 0) if b[1] < 0 else None


def _fmod(a: Range, b: Range) -> Range | None:
    """A remainder with the sign of the dividend, no larger than it, and smaller than the divisor."""
    if b[0] <= 0 <= b[1]:
        return None
    most = max(abs(b[0]), abs(b[1])) - 1
    return -min(most, max(0, -a[0])), min(most, max(0, a[1]))


def _abs(a: Range) -> Range:
    low = 0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1]))
    return low, max(abs(a[0]), abs(a[1]))


def _and(a: Range, b: Range) -> Range | None:
    highs = [r[1] for r in (a, b) if r[0] >= 0]
    return (0, min(highs)) if highs else None


def _or(a: Range, b: Range) -> Range | None:
    if a[0] < 0 or b[0] < 0:
        return None
    return max(a[0], b[0]), (1 << max(a[1].bit_length(), b[1].bit_length())) - 1


def _xor(a: Range, b: Range) -> Range | None:
    joined = _or(a, b)
    return None if joined is None else (0, joined[1])


def _shr(a: Range, b: Range) -> Range:
    # A negative count shifts by the width, as 64 does in every type.
    return _corners(
        lambda x, n: x >> n, a, (0 if b[0] < 0 else min(b[0], 64), 64 if b[0] < 0 else min(b[1], 64))
    )


def _shl(a: Range, b: Range) -> Range | None:
    return None if b[0] < 0 or b[1] > 63 else _union((0, 0), _corners(lambda x, n: x << n, a, b))


def _decided(always: bool, never: bool) -> Range:
    return int(always), int(not never)


_RULES: dict[str, Callable[..., Range | None]] = {
    "check_nonzero": lambda a, *mask: _union(a, (1, 1)) if a[0] <= 0 <= a[1] else a,
    "check": lambda a, condition: a,
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": lambda a, b: _corners(lambda x, y: x * y, a, b),
    "floordiv": _quotient(lambda x, y: x // y),
    "truncdiv": _quotient(_truncated),
    "mod": _mod,
    "fmod": _fmod,
    "neg": lambda a: (-a[1], -a[0]),
    "abs": _abs,
    "minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "eq": lambda a, b: _decided(a[0] == a[1] == b[0] == b[1], a[1] < b[0] or b[1] < a[0]),
    "ne": lambda a, b: _decided(a[1] < b[0] or b[1] < a[0], a[0] == a[1] == b[0] == b[1]),
    "lt": lambda a, b: _decided(a[1] < b[0], a[0] >= b[1]),
    "le": lambda a, b: _decided(a[1] <= b[0], a[0] > b[1]),
    "gt": lambda a, b: _decided(a[0] > b[1], a[1] <= b[0]),
    "ge": lambda a, b: _decided(a[0] >= b[1], a[1] < b[0]),
    "logical_and": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "logical_or": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "logical_not": lambda a: (1 - a[1], 1 - a[0]),
    "bitwise_and": _and,
    "bitwise_or": _or,
    "bitwise_xor": _xor,
    "shl": _shl,
    "shr": _shr,
    "where": lambda c, a, b: a if c == (1, 1) else b if c == (0, 0) else _union(a, b),
    "to_dtype": lambda a: a,
    "randint64": lambda seed, offset, low, high: (low[0], high[1] - 1),
}


# -- loops --------------------------------------------------------------------------------------------------
def _iterations(loops: Iterable[Symbol]) -> Range | None:
    """How many points the loops have together."""
    low, high = intervals.product([v.size.bounds() for v in loops])
    return None if low is None or high is None else (max(0, low), max(0, high))


def _sum(a: Range, count: Range | None) -> Range | None:
    return None if count is None else _corners(lambda x, n: x * n, a, count)


def _over_loops(node: Node, known: dict[int, Range]) -> Range | None:
    kind = node.attrs[0]
    if node.op == "scan":
        assert isinstance(node.attrs[1], Expr)
        loop = node.attrs[1].symbol
        most = None if loop is None else _iterations([loop])
        if kind in ("last_max", "last_min"):
            return None if most is None else (0, max(0, most[1] - 1))
        arg = known[node.args[0].id]
        if kind == "sum":
            return None if most is None else _sum(arg, (1, max(1, most[1])))
        return arg if kind in ("max", "min") else None
    count = _iterations(node.attrs[2])  # type: ignore[arg-type]
    if kind in ("argmax", "argmin"):
        if len(node.args) == 2:
            return _union((0, 0), known[node.args[1].id])
        return None if count is None else (0, max(0, count[1] - 1))
    if is_float(node.args[0].dtype):
        return None
    arg = known[node.args[0].id]
    if kind == "sum":
        return _sum(arg, count)
    if kind in ("max", "min"):
        return arg if count is not None and count[0] > 0 else None
    return None
