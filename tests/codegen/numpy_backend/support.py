"""What generated numpy source calls: memory by its address, half types, checks, reductions."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

STORED = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "uint16",
    "bool": "bool",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u8": "uint8",
}
"""How elements of a type lie in memory, by Braze's short names."""

HELD = {**STORED, "bf16": "float32"}
"""What a value of a type is in a computation."""


def memory(address: int, kind: str, numel: int) -> Array:
    """``numel`` elements at an address."""
    dtype = np.dtype(STORED[kind])
    if not numel:
        return np.empty(0, dtype)
    return np.frombuffer((ctypes.c_char * (numel * dtype.itemsize)).from_address(address), dtype)


def _widened(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _narrowed(value: Array) -> Array:
    """The bits of bfloat16 values, rounded to nearest, ties to even."""
    bits = np.atleast_1d(value.astype(np.float32)).view(np.uint32).reshape(value.shape)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(value), np.uint16(0x7FC0), rounded)


def convert(value: Any, kind: str) -> Array:
    """A value in another type."""
    with np.errstate(all="ignore"):
        array = np.asarray(value)
        if kind == "bf16":
            return _widened(_narrowed(array))
        if kind == "bool":
            return array != 0
        if array.dtype.kind == "f" and np.dtype(HELD[kind]).kind in "iu":
            return np.trunc(np.nan_to_num(array)).astype(np.int64).astype(HELD[kind])
        return array.astype(HELD[kind])


def places(index: Any, mask: Any, size: int) -> tuple[Array, Array]:
    """Indices and which of them count, of one shape."""
    index, active = np.broadcast_arrays(np.asarray(index), np.asarray(mask))
    if bool((active & ((index < 0) | (index >= size))).any()):
        raise AssertionError("an access out of bounds")
    return index, active


def load(data: Array, kind: str, index: Any, mask: Any) -> Array:
    """Elements, 0 where they do not count."""
    index, active = places(index, mask, data.size)
    result = np.zeros(index.shape, data.dtype)
    result[active] = data[index[active]]
    return _widened(result) if kind == "bf16" else result


def store(
    data: Array, kind: str, shape: tuple[int, ...], index: Any, mask: Any, value: Any, op: str | None
) -> None:
    """Write elements, or join them to what is there."""
    index, active = places(index, mask, data.size)
    value = convert(value, kind)
    if kind == "bf16":
        value = _narrowed(value)
    index, active, value = (np.broadcast_to(x, shape) for x in (index, active, value))
    if op is None:
        data[index[active]] = value[active]
        return
    join = {"add": np.add, "mul": np.multiply, "minimum": np.minimum, "maximum": np.maximum}[op]
    if kind == "bf16":
        wide = _widened(data)
        join.at(wide, index[active], _widened(value[active]))
        data[:] = _narrowed(wide)
    else:
        join.at(data, index[active], value[active])


def fail(words: int, number: int, failed: Any, value: Any, size: Any) -> None:
    """Report the first of the points that failed, unless something was reported before."""
    error = (ctypes.c_int64 * 4).from_address(words)
    failed, value, size = np.broadcast_arrays(failed, value, size)
    if not error[0] and failed.any():
        where = tuple(axis[0] for axis in np.nonzero(failed))
        error[1], error[2], error[0] = int(value[where]), int(size[where]), number


def check_index(words: int, number: int, value: Any, size: Any, wrap: bool, mask: Any) -> Array:
    """An index that is surely right, a wrong one reported."""
    value, size = np.asarray(value), np.asarray(size)
    wrapped = np.where(value < 0, value + size, value) if wrap else value
    bad = (wrapped < 0) | (wrapped >= size)
    fail(words, number, bad & mask, value, size)
    return np.where(bad, 0, wrapped)


def check_nonzero(words: int, number: int, value: Any, mask: Any) -> Array:
    """A divisor that is not 0, a 0 reported."""
    zero = np.asarray(value) == 0
    fail(words, number, zero & mask, value, value)
    return np.where(zero, np.asarray(1, np.asarray(value).dtype), value)


def check(words: int, number: int, value: Any, condition: Any) -> Array:
    """A value, a broken condition reported."""
    fail(words, number, ~np.asarray(condition), 0, 0)
    return np.asarray(value)


def rows(value: Any, kept: int, order: list[int], lengths: list[int]) -> Array:
    """The reduced dimensions flattened into the last one."""
    value = np.asarray(value)
    value = value.reshape([1] * (kept + len(order) - value.ndim) + list(value.shape))
    lead = list(value.shape[:kept])
    value = np.broadcast_to(value.transpose([*range(kept), *order]), [*lead, *lengths])
    return value.reshape([*lead, math.prod(lengths)])


def reduce(kind: str, component: int, x: Array, position: Array | None) -> Array:
    """A reduction over the last dimension."""
    with np.errstate(all="ignore"):
        if kind in ("argmax", "argmin"):
            return np.asarray(_position(kind, x, position))
        if kind == "welford":
            mean = x.mean(-1)
            parts = (mean, ((x - mean[..., None]) ** 2).sum(-1), np.full(mean.shape, float(x.shape[-1])))
            return parts[component].astype(x.dtype)
        if kind == "online_softmax":
            top = x.max(-1)
            return top if component == 0 else np.exp(x - top[..., None]).sum(-1).astype(x.dtype)
        table: dict[str, Callable[..., Any]] = {
            "sum": lambda: x.sum(-1, dtype=x.dtype),
            "prod": lambda: x.prod(-1, dtype=x.dtype),
            "max": lambda: x.max(-1),
            "min": lambda: x.min(-1),
            "any": lambda: x.any(-1),
            "all": lambda: x.all(-1),
            "xor_sum": lambda: np.bitwise_xor.reduce(x, -1),
        }
        return np.asarray(table[kind]())


def _position(kind: str, x: Array, position: Array | None) -> Array:
    extreme = (x.max if kind == "argmax" else x.min)(-1)
    found = (x == extreme[..., None]) | (x != x)
    where = np.arange(x.shape[-1]) if position is None else np.broadcast_to(position, x.shape)
    return np.where(found, where, np.iinfo(np.int64).max).min(-1)


def scan(kind: str, value: Any, shape: list[int], axis: int) -> Array:
    """Prefixes along one dimension."""
    x = np.broadcast_to(value, shape)
    if kind.startswith("last"):
        return _last(kind, x, axis)
    table = {
        "sum": np.add,
        "prod": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
        "logsumexp": np.logaddexp,
    }
    return table[kind].accumulate(x, axis, dtype=x.dtype)


def _last(kind: str, x: Array, axis: int) -> Array:
    """Where the last extremum is up to each element, a NaN being one."""
    best = (np.maximum if kind == "last_max" else np.minimum).accumulate(x, axis)
    shape = [-1 if k == axis else 1 for k in range(x.ndim)]
    here = np.arange(x.shape[axis]).reshape(shape)
    return np.maximum.accumulate(np.where((x == best) | (x != x), here, -1), axis)


def of_each(function: Callable[[float], float]) -> Callable[[Any], Array]:
    """A function of Python's on each element."""
    return lambda x: np.vectorize(function, otypes=[np.asarray(x).dtype])(x)


erf, erfc, lgamma = of_each(math.erf), of_each(math.erfc), of_each(math.lgamma)
