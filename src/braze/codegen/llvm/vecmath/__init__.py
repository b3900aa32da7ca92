"""Vector math, emitted inline for any number of lanes.

``FUNCTIONS`` maps (operation, element type) to an emitter: a function of a builder and values, all of one
type, that appends instructions and returns the result. Whatever the number of lanes, the instructions are the
same, so a value does not depend on its position in a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from braze.codegen.llvm.builder import FunctionBuilder, IRBuildError, Value
from braze.codegen.llvm.vecmath import (
    error_function,
    exponential,
    hyperbolic,
    incomplete_gamma,
    inverse_trigonometric,
    logarithm,
    power,
    recurrence,
    trigonometric,
    trigonometric_f64,
)
from braze.codegen.llvm.vecmath.common import through_double
from braze.codegen.llvm.vecmath.sleef import SLEEF_F64, sleef

__all__ = ["FUNCTIONS", "MissingFunctionError", "emit", "supports"]

Emitter = Callable[..., Value]


class MissingFunctionError(IRBuildError):
    """There is no vector function for this operation on this element type."""


def _sleef(op: str) -> Emitter:
    def emitter(fb: FunctionBuilder, *args: Value) -> Value:
        return sleef(fb, op, *args)

    return emitter


_BOTH: dict[str, Emitter] = {
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "sigmoid": exponential.sigmoid,
    "tanh": exponential.tanh,
    "log": logarithm.log,
    "log1p": logarithm.log1p,
    "log2": logarithm.log2,
    "erf": error_function.erf,
    "sqrt": power.sqrt,
    "rsqrt": power.rsqrt,
    **recurrence.FUNCTIONS,
}

_SINGLE: dict[str, Emitter] = {
    "log10": logarithm.log10,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
    "tan": trigonometric.tan,
    "asin": inverse_trigonometric.asin,
    "acos": inverse_trigonometric.acos,
    "atan": inverse_trigonometric.atan,
    "atan2": inverse_trigonometric.atan2,
    "sinh": hyperbolic.sinh,
    "cosh": hyperbolic.cosh,
    "asinh": hyperbolic.asinh,
    "acosh": hyperbolic.acosh,
    "atanh": hyperbolic.atanh,
    "erfc": error_function.erfc,
    "erfinv": error_function.erfinv,
    "lgamma": through_double(_sleef("lgamma")),
    "pow": power.power,
    "hypot": power.hypot,
    "igamma": incomplete_gamma.igamma,
    "igammac": incomplete_gamma.igammac,
}

FUNCTIONS: Mapping[tuple[str, str], Emitter] = MappingProxyType(
    {(op, elem): emitter for op, emitter in _BOTH.items() for elem in ("float", "double")}
    | {(op, "float"): emitter for op, emitter in _SINGLE.items()}
    | {(op, "double"): _sleef(op) for op in SLEEF_F64}
    | {
        ("sin", "double"): trigonometric_f64.sin_f64,
        ("cos", "double"): trigonometric_f64.cos_f64,
        ("tan", "double"): trigonometric_f64.tan_f64,
        ("asinh", "double"): hyperbolic.asinh_f64,
        ("acosh", "double"): hyperbolic.acosh_f64,
        ("erfinv", "double"): error_function.erfinv_f64,
        ("igamma", "double"): incomplete_gamma.igamma_f64,
        ("igammac", "double"): incomplete_gamma.igammac_f64,
    }
)
"""Every vector function, by (operation, element type)."""


def supports(op: str, elem: str) -> bool:
    """Whether :func:`emit` has ``op`` on values of this element type (``float`` or ``double``)."""
    return (op, elem) in FUNCTIONS


def emit(fb: FunctionBuilder, op: str, *values: Value) -> Value:
    """Append ``op`` on ``values`` (one type, any number of lanes) and return the result.

    The current block may change: some functions branch to a slow path where a lane needs it.

    Raises:
        MissingFunctionError: no such operation for this element type.
    """
    emitter = FUNCTIONS.get((op, values[0].type.elem)) if values else None
    if emitter is None:
        kind = values[0].type.elem if values else "no operand"
        raise MissingFunctionError(f"no vector function for {op} on {kind}")
    return emitter(fb, *values)
