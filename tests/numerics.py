"""The one numerical rule, where tests look for it; it is `braze.ops.numerics`."""

from __future__ import annotations

from braze.ops.numerics import (
    FACTOR,
    TOLERANCES,
    Disagreement,
    assert_agrees,
    difference,
    in_float64,
    leaves,
    map_tensors,
    scaled_error,
    zip_leaves,
)

__all__ = [
    "FACTOR",
    "TOLERANCES",
    "Disagreement",
    "assert_agrees",
    "difference",
    "in_float64",
    "leaves",
    "map_tensors",
    "scaled_error",
    "zip_leaves",
]
