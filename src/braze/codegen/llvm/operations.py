"""Operations of the vocabulary on values in registers: arithmetic, logic, comparison, conversion, and the
calls into vector math."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from braze.codegen.llvm.builder import FunctionBuilder, Value, constant
from braze.codegen.llvm.convert import convert, register_type
from braze.codegen.llvm.math_ops import emit_math
from braze.codegen.llvm.vecmath.integer import divide, floor_divide, greatest_divisor
from braze.codegen.program.grammar import Const
from braze.errors import CodegenError
from braze.ops.dtypes import HALF_TYPES, is_float

__all__ = ["compute", "literal"]

_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_BITS = {"bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
         "logical_and": "and", "logical_or": "or", "logical_xor": "xor"}  # fmt: skip

_Simple = Callable[[FunctionBuilder, Value, Value, Value], Value]


def _isinf(fb: FunctionBuilder, a: Value, _b: Value, _c: Value) -> Value:
    return fb.fcmp("oeq", fb.fabs(a), float("inf"))


def _signbit(fb: FunctionBuilder, a: Value, _b: Value, _c: Value) -> Value:
    return fb.icmp("slt", fb.bitcast(a, a.type.with_elem(f"i{a.type.bits}")), 0)


_SIMPLE_FLOAT: dict[str, _Simple] = {
    "add": lambda fb, a, b, c: fb.fadd(a, b),
    "sub": lambda fb, a, b, c: fb.fsub(a, b),
    "mul": lambda fb, a, b, c: fb.fmul(a, b),
    "truediv": lambda fb, a, b, c: fb.fdiv(a, b),
    "fma": lambda fb, a, b, c: fb.fma(a, b, c),
    "neg": lambda fb, a, b, c: fb.fneg(a),
    "abs": lambda fb, a, b, c: fb.fabs(a),
    "sqrt": lambda fb, a, b, c: fb.sqrt(a),
    "floor": lambda fb, a, b, c: fb.floor(a),
    "ceil": lambda fb, a, b, c: fb.ceil(a),
    "trunc": lambda fb, a, b, c: fb.ftrunc(a),
    "round": lambda fb, a, b, c: fb.roundeven(a),
    "copysign": lambda fb, a, b, c: fb.copysign(a, b),
    "isnan": lambda fb, a, b, c: fb.fcmp("uno", a, a),
    "isinf": _isinf,
    "signbit": _signbit,
}
_SIMPLE_INT: dict[str, _Simple] = {
    "add": lambda fb, a, b, c: fb.add(a, b),
    "sub": lambda fb, a, b, c: fb.sub(a, b),
    "mul": lambda fb, a, b, c: fb.mul(a, b),
    "neg": lambda fb, a, b, c: fb.sub(fb.zero(a.type), a),
}


def literal(value: Const) -> Value:
    """A literal in every lane."""
    type = register_type(value.dtype, value.lanes)
    if value.dtype in HALF_TYPES:
        bits = int(torch.tensor(value.value, dtype=value.dtype).view(torch.int16).item())
        return constant(type, bits)
    return constant(type, value.value)


def compute(
    fb: FunctionBuilder, op: str, dtype: torch.dtype, args: Sequence[Value], result: torch.dtype
) -> Value:
    """The operation on values that all have the same number of lanes, their elements of type ``dtype``.
    Raises ``CodegenError`` for an operation that has no machine form here."""
    if op == "to_dtype":
        return convert(fb, args[0], dtype, result)
    if op == "bitcast":
        return fb.bitcast(args[0], register_type(result, args[0].type.lanes))
    if op == "where":
        return fb.select(args[0], args[1], args[2])
    simple = _SIMPLE_FLOAT.get(op) if is_float(dtype) else _SIMPLE_INT.get(op)
    if simple is not None:
        a, b, c = (*args, *args[:1], *args[:1])[:3]
        return simple(fb, a, b, c)
    if op == "abs":
        return args[0] if dtype is torch.uint8 else _int_abs(fb, args[0])
    if op in _FLOAT_COMPARE:
        return _compare(fb, op, args, dtype)
    if op in _BITS:
        return fb.binary(_BITS[op], args[0], args[1])
    if op in ("bitwise_not", "logical_not"):
        return fb.not_(args[0])
    if op in ("minimum", "maximum"):
        return _extremum(fb, op == "minimum", args[0], args[1], dtype)
    if op in ("floordiv", "truncdiv", "mod", "fmod"):
        return _float_division(fb, op, args) if is_float(dtype) else _int_division(fb, op, args, dtype)
    if op in ("shl", "shr"):
        return _shift(fb, op, args, dtype)
    if op == "gcd":
        return greatest_divisor(fb, *args, signed=dtype is not torch.uint8)
    if op in ("rand", "randn", "randint64") or is_float(dtype):
        return emit_math(fb, op, args)
    raise CodegenError(f"no machine code for {op} of {dtype}", node=op)


def _int_abs(fb: FunctionBuilder, a: Value) -> Value:
    return fb.select(fb.icmp("slt", a, 0), fb.sub(fb.zero(a.type), a), a)


def _compare(fb: FunctionBuilder, op: str, args: Sequence[Value], dtype: torch.dtype) -> Value:
    if is_float(dtype):
        return fb.fcmp(_FLOAT_COMPARE[op], args[0], args[1])
    sign = "u" if dtype in (torch.uint8, torch.bool) else "s"
    return fb.icmp(op if op in ("eq", "ne") else sign + op, args[0], args[1])


def _extremum(fb: FunctionBuilder, least: bool, a: Value, b: Value, dtype: torch.dtype) -> Value:
    """Minimum or maximum; NaN where either is NaN."""
    if dtype is torch.bool:
        return fb.and_(a, b) if least else fb.or_(a, b)
    if not is_float(dtype):
        sign = "u" if dtype is torch.uint8 else "s"
        return fb.integer_minmax(sign + ("min" if least else "max"), a, b)
    # minps and maxps give the second operand where one is NaN, so only the first has to be looked at.
    chosen = fb.select(fb.fcmp("olt" if least else "ogt", a, b), a, b)
    return fb.select(fb.fcmp("uno", a, a), a, chosen)


def _float_division(fb: FunctionBuilder, op: str, args: Sequence[Value]) -> Value:
    a, b = args
    if op == "truncdiv":
        return fb.ftrunc(fb.fdiv(a, b))
    if op == "fmod":
        return emit_math(fb, "fmod", args)
    rest = emit_math(fb, "fmod", args)
    # the remainder takes the divisor's sign: one more divisor where the signs differ
    differ = fb.and_(fb.fcmp("une", rest, 0.0), fb.xor(fb.fcmp("olt", rest, 0.0), fb.fcmp("olt", b, 0.0)))
    if op == "mod":
        return fb.select(differ, fb.fadd(rest, b), rest)
    quotient = fb.fdiv(fb.fsub(a, rest), b)
    quotient = fb.select(differ, fb.fsub(quotient, 1.0), quotient)
    down = fb.floor(quotient)
    down = fb.select(fb.fcmp("ogt", fb.fsub(quotient, down), 0.5), fb.fadd(down, 1.0), down)
    zero = fb.copysign(fb.zero(a.type), fb.fdiv(a, b))
    whole = fb.select(fb.fcmp("oeq", quotient, 0.0), zero, down)
    return fb.select(fb.fcmp("oeq", b, 0.0), fb.fdiv(a, b), whole)


def _int_division(fb: FunctionBuilder, op: str, args: Sequence[Value], dtype: torch.dtype) -> Value:
    a, b = args
    zero = fb.icmp("eq", b, 0)  # a masked lane may hold anything; checked lanes never hold 0
    safe = fb.select(zero, 1, b)
    if dtype is torch.uint8:
        quotient, rest = divide(fb, a, safe, signed=False)
    elif op in ("truncdiv", "fmod"):
        quotient, rest = divide(fb, a, safe)
    else:
        quotient, rest = floor_divide(fb, a, safe)
    return quotient if op in ("floordiv", "truncdiv") else rest


def _shift(fb: FunctionBuilder, op: str, args: Sequence[Value], dtype: torch.dtype) -> Value:
    a, count = args
    bits = 8 * dtype.itemsize
    far = fb.icmp("ugt", count, bits - 1)
    near = fb.select(far, bits - 1, count)
    if op == "shl":
        return fb.select(far, 0, fb.shl(a, near))
    if dtype is torch.uint8:
        return fb.select(far, 0, fb.lshr(a, near))
    return fb.ashr(a, near)
