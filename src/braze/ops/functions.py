"""Functions of nodes, by their names in the vocabulary. What Python has an operator or a word of its own for
(``abs``, ``round``), nodes do themselves.

A number among the operands becomes a constant of the type of the first node, which says what numbers can be
(:meth:`braze.ops.dag.Node.like`).
"""

from __future__ import annotations

from collections.abc import Callable

from braze.errors import InternalError
from braze.ops.dag import Node, NodeLike

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "copysign",
    "cos",
    "cosh",
    "digamma",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "fma",
    "fmod",
    "hypot",
    "isinf",
    "isnan",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "maximum",
    "minimum",
    "nextafter",
    "pow",
    "rsqrt",
    "sigmoid",
    "signbit",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    "where",
]


def _of_one(name: str) -> Callable[[Node], Node]:
    return lambda x: x.dag.op(name, x)


def _of_two(name: str) -> Callable[[Node, NodeLike], Node]:
    return lambda x, y: x.dag.op(name, x, _beside(x, y))


def _beside(x: Node, value: NodeLike) -> Node:
    return value if isinstance(value, Node) else x.like(value)


acos = _of_one("acos")
acosh = _of_one("acosh")
asin = _of_one("asin")
asinh = _of_one("asinh")
atan = _of_one("atan")
atanh = _of_one("atanh")
ceil = _of_one("ceil")
cos = _of_one("cos")
cosh = _of_one("cosh")
digamma = _of_one("digamma")
erf = _of_one("erf")
erfc = _of_one("erfc")
erfinv = _of_one("erfinv")
exp = _of_one("exp")
exp2 = _of_one("exp2")
expm1 = _of_one("expm1")
floor = _of_one("floor")
isinf = _of_one("isinf")
isnan = _of_one("isnan")
lgamma = _of_one("lgamma")
log = _of_one("log")
log10 = _of_one("log10")
log1p = _of_one("log1p")
log2 = _of_one("log2")
rsqrt = _of_one("rsqrt")
sigmoid = _of_one("sigmoid")
signbit = _of_one("signbit")
sin = _of_one("sin")
sinh = _of_one("sinh")
sqrt = _of_one("sqrt")
tan = _of_one("tan")
tanh = _of_one("tanh")
trunc = _of_one("trunc")
atan2 = _of_two("atan2")
copysign = _of_two("copysign")
fmod = _of_two("fmod")
hypot = _of_two("hypot")
maximum = _of_two("maximum")
minimum = _of_two("minimum")
nextafter = _of_two("nextafter")
pow = _of_two("pow")


def fma(x: Node, y: NodeLike, z: NodeLike) -> Node:
    """``x * y + z``, rounded once."""
    return x.dag.op("fma", x, _beside(x, y), _beside(x, z))


def where(condition: Node, a: NodeLike, b: NodeLike) -> Node:
    """``a`` where ``condition`` (bool) holds, else ``b``; at least one of them is a node."""
    like = a if isinstance(a, Node) else b
    if not isinstance(like, Node):
        raise InternalError(f"where({condition}, {a}, {b}): two numbers, of a type that nobody says")
    return condition.dag.where(condition, _beside(like, a), _beside(like, b))
