"""Functions of nodes, by their names in the vocabulary. What Python has an operator or a word of its own for
(``abs``, ``round``), nodes do themselves.

A number among the operands becomes a constant of the type of the first node, which says what numbers can be
(:meth:`braze.ops.dag.Node.like`).
"""

from __future__ import annotations

from collections.abc import Callable

from braze.errors import InternalError
from braze.ops.dag import Node, NodeLike


def _of_one(name: str) -> Callable[[Node], Node]:
    return lambda x: x.dag.op(name, x)


def _of_two(name: str) -> Callable[[Node, NodeLike], Node]:
    return lambda x, y: x.dag.op(name, x, _beside(x, y))


def _beside(x: Node, value: NodeLike) -> Node:
    return value if isinstance(value, Node) else x.like(value)


acos = _of_one("acos")
ceil = _of_one("ceil")
cos = _of_one("cos")
erfc = _of_one("erfc")
exp = _of_one("exp")
exp2 = _of_one("exp2")
floor = _of_one("floor")
isinf = _of_one("isinf")
isnan = _of_one("isnan")
log = _of_one("log")
log1p = _of_one("log1p")
rsqrt = _of_one("rsqrt")
signbit = _of_one("signbit")
sin = _of_one("sin")
sqrt = _of_one("sqrt")
hypot = _of_two("hypot")
trunc = _of_one("trunc")
maximum = _of_two("maximum")
minimum = _of_two("minimum")


def fma(x: Node, y: NodeLike, z: NodeLike) -> Node:
    """``x * y + z``, rounded once."""
    return x.dag.op("fma", x, _beside(x, y), _beside(x, z))


def where(condition: Node, a: NodeLike, b: NodeLike) -> Node:
    """``a`` where ``condition`` (bool) holds, else ``b``; at least one of them is a node."""
    like = a if isinstance(a, Node) else b
    if not isinstance(like, Node):
        raise InternalError(f"where({condition}, {a}, {b}): two numbers, of a type that nobody says")
    return condition.dag.where(condition, _beside(like, a), _beside(like, b))
