"""The operators that programs are made of, by name."""

from __future__ import annotations

from collections.abc import Mapping

from braze.inspect.fuzz.operators import Operator
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

__all__ = ["OPERATORS"]

_FAMILIES = (elementwise, reductions, shapes, indexing, products, layers, writes, integers, models)

OPERATORS: Mapping[str, Operator] = {row.name: row for family in _FAMILIES for row in family.ROWS}
