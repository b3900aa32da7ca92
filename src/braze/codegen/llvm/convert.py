"""Conversions between element types, as torch makes them on x86.

Registers hold half types as their 16 bits, booleans as ``i1``, everything else as itself; a value's
signedness is known from its torch type only.
"""

from __future__ import annotations

import torch

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value
from braze.errors import CodegenError
from braze.ops.dtypes import HALF_TYPES, is_float

__all__ = ["convert", "float_from_half", "half_from_float"]


def float_from_half(fb: FunctionBuilder, value: Value, dtype: torch.dtype) -> Value:
    """16 bits of float16 or bfloat16 as float32, exact."""
    if dtype is torch.float16:
        return fb.fpext(fb.bitcast(value, value.type.with_elem("half")), "float")
    wide = fb.shl(fb.zext(value, "i32"), 16)
    return fb.bitcast(wide, wide.type.with_elem("float"))


def half_from_float(fb: FunctionBuilder, value: Value, dtype: torch.dtype) -> Value:
    """float32 (or float64) rounded to nearest even, as 16 bits; a NaN stays one."""
    if dtype is torch.float16:
        if value.type.elem == "double":
            value = fb.fptrunc(value, "float")
        return fb.bitcast(fb.fptrunc(value, "half"), value.type.with_elem("i16"))
    if value.type.elem == "double":
        value = fb.fptrunc(value, "float")
    bits = fb.bitcast(value, value.type.with_elem("i32"))
    odd = fb.and_(fb.lshr(bits, 16), 1)
    rounded = fb.lshr(fb.add(fb.add(bits, odd), 0x7FFF), 16)
    nan = fb.fcmp("uno", value, value)
    return fb.trunc(fb.select(nan, 0x7FC0, rounded), "i16")


def _float_to_int(fb: FunctionBuilder, value: Value, dtype: torch.dtype) -> Value:
    """Towards zero. Out of range, x86's conversion instructions decide: narrow types take the low bits of
    int32 (int64 for uint8 of a large value is unspecified in torch too), int32 and int64 give their least
    value."""
    wide = "i64" if dtype is torch.int64 else "i32"
    least = -(2.0**63) if wide == "i64" else -(2.0**31)
    # fptosi is poison out of range; the comparison is what keeps the result defined.
    inside = fb.and_(fb.fcmp("oge", value, least), fb.fcmp("olt", value, -least))
    safe = fb.select(inside, value, 0.0)
    whole = fb.fptosi(safe, wide)
    whole = fb.select(inside, whole, int(least))
    return fb.trunc(whole, _int_elem(dtype))


def _int_elem(dtype: torch.dtype) -> str:
    return f"i{8 * dtype.itemsize}"


def convert(fb: FunctionBuilder, value: Value, source: torch.dtype, target: torch.dtype) -> Value:
    """``value`` of type ``source`` as ``target`` (``Tensor.to``)."""
    if source is target:
        return value
    if source in HALF_TYPES:
        return convert(fb, float_from_half(fb, value, source), torch.float32, target)
    if target in HALF_TYPES:
        if not is_float(source):
            value = convert(fb, value, source, torch.float32)
        return half_from_float(fb, value, target)
    if target is torch.bool:
        return fb.fcmp("une", value, 0.0) if is_float(source) else fb.icmp("ne", value, 0)
    if source is torch.bool:
        if is_float(target):
            return fb.uitofp(value, "float" if target is torch.float32 else "double")
        return fb.zext(value, _int_elem(target))
    if is_float(source):
        if not is_float(target):
            return _float_to_int(fb, value, target)
        return fb.fptrunc(value, "float") if target is torch.float32 else fb.fpext(value, "double")
    if is_float(target):
        elem = "float" if target is torch.float32 else "double"
        return fb.uitofp(value, elem) if source is torch.uint8 else fb.sitofp(value, elem)
    if target.itemsize <= source.itemsize:
        return fb.trunc(value, _int_elem(target))
    return fb.zext(value, _int_elem(target)) if source is torch.uint8 else fb.sext(value, _int_elem(target))


def register_type(dtype: torch.dtype, lanes: int) -> Type:
    """The LLVM type of ``lanes`` elements in a register."""
    if dtype is torch.bool:
        return Type("i1", lanes)
    if dtype in HALF_TYPES or not is_float(dtype):
        return Type(_int_elem(dtype), lanes)
    if dtype is torch.float32:
        return Type("float", lanes)
    if dtype is torch.float64:
        return Type("double", lanes)
    raise CodegenError(f"no register type for {dtype}")
