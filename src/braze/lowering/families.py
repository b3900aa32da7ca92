"""Every family of lowerings. Importing this fills the registry."""

from __future__ import annotations

from braze.lowering import (
    bessel,
    casts,
    compare_logic,
    concat,
    creation,
    externs,
    indexing,
    inplace,
    losses,
    operations,
    pointwise_arith,
    pointwise_math,
    random,
    reductions,
    scalars,
    scan,
    scatter,
    search,
    variances,
    views,
)

__all__ = [
    "bessel",
    "casts",
    "compare_logic",
    "concat",
    "creation",
    "externs",
    "indexing",
    "inplace",
    "losses",
    "operations",
    "pointwise_arith",
    "pointwise_math",
    "random",
    "reductions",
    "scalars",
    "scan",
    "scatter",
    "search",
    "variances",
    "views",
]
