"""The math functions of the vocabulary by name."""

from __future__ import annotations

from collections.abc import Sequence

from braze.codegen.llvm.builder import FunctionBuilder, Value
from braze.codegen.llvm.vecmath import exponential

__all__ = ["emit_math", "has_math"]


def has_math(op: str) -> bool:
    """Whether vector math has ``op``."""
    return hasattr(exponential, op)


def emit_math(fb: FunctionBuilder, op: str, args: Sequence[Value]) -> Value:
    """``op`` of values with equal lanes."""
    return getattr(exponential, op)(fb, *args)
