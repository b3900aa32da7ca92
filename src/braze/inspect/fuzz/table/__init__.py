"""The operators that programs are made of, by name."""

from __future__ import annotations

from collections.abc import Mapping

from braze.inspect.fuzz.operators import Operator, outside_the_table
from braze.inspect.fuzz.table import (
    elementwise,
    indexing,
    integers,
    layers,
    models,
    products,
    reductions,
    shapes,
    writes,
)

__all__ = ["OPERATORS", "known_of"]

_FAMILIES = (elementwise, reductions, shapes, indexing, products, layers, writes, integers, models)

OPERATORS: Mapping[str, Operator] = {row.name: row for family in _FAMILIES for row in family.ROWS}


def known_of(name: str) -> Operator:
    """The row of an operator, or what is assumed of one that has none."""
    return OPERATORS[name] if name in OPERATORS else outside_the_table(name)
