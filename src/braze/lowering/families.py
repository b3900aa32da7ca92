"""Every family of lowerings. Importing this fills the registry."""

from __future__ import annotations

from braze.lowering import (
    casts,
    compare_logic,
    concat,
    creation,
    externs,
    indexing,
    inplace,
    pointwise_arith,
    pointwise_math,
    random,
    reductions,
    scalars,
    scan,
    scatter,
    views,
)

__all__ = [
    "casts",
    "compare_logic",
    "concat",
    "creation",
    "externs",
    "indexing",
    "inplace",
    "pointwise_arith",
    "pointwise_math",
    "random",
    "reductions",
    "scalars",
    "scan",
    "scatter",
    "views",
]
