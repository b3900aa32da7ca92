"""Elementwise operators in terms of the few that are lowered."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from braze.frontend.decomps.common import Table, computation
from braze.frontend.decomps.layouts import is_row_major

__all__ = ["TABLE", "multiply_add"]

aten = torch.ops.aten


def pow_scalar(x: Tensor, exponent: Any) -> Any:
    """The powers that eager computes without `pow`, in the same way."""
    if isinstance(exponent, (torch.SymInt, torch.SymFloat)) or x.is_complex() or x.dtype is torch.bool:
        return NotImplemented
    if isinstance(exponent, float) and not x.is_floating_point():
        x = x.to(torch.get_default_dtype())
    wide = computation(x)
    if exponent == 1:
        return wide.clone().to(x.dtype)
    if exponent == 2:
        return (wide * wide).to(x.dtype)
    if exponent == 3:
        return (wide * wide * wide).to(x.dtype)
    if not x.is_floating_point():
        return NotImplemented
    if x.dtype is torch.float16 and abs(exponent) == 0.5:
        return NotImplemented  # eager calls `pow`, which knows no negative zero
    if exponent == 0.5:
        return torch.sqrt(x)
    if exponent == -0.5:
        return torch.rsqrt(x)
    if exponent == -1:
        return torch.reciprocal(x)
    if exponent == -2:
        return torch.reciprocal(wide * wide).to(x.dtype)
    return NotImplemented


def pow_of_number(base: Any, exponent: Tensor) -> Any:
    """base ** exponent: row-major in eager, whatever the exponents are."""
    ordered = exponent.contiguous()
    if ordered is exponent or is_row_major(exponent):  # of no elements, any strides are contiguous
        return NotImplemented
    return aten.pow.Scalar(base, ordered)


def _result_dtype(*operands: Tensor) -> torch.dtype:
    """What `torch.result_type` says of two tensors, of any number: those without dimensions count where they
    are of a higher category (bool, integer, floating, complex) than those with."""
    solid = [t.dtype for t in operands if t.ndim]
    loose = [t.dtype for t in operands if not t.ndim]
    if not solid or not loose:
        return functools.reduce(torch.promote_types, solid or loose)
    first, second = (functools.reduce(torch.promote_types, types) for types in (solid, loose))
    return torch.promote_types(first, second) if _category(second) > _category(first) else first


def _category(dtype: torch.dtype) -> int:
    if dtype.is_complex or dtype.is_floating_point:
        return 3 if dtype.is_complex else 2
    return 0 if dtype is torch.bool else 1


def _is_one(value: Any) -> bool:
    """Whether a number is 1, and known to be."""
    return isinstance(value, (int, float, complex)) and value == 1


def addcdiv(x: Tensor, first: Tensor, second: Tensor, *, value: float = 1) -> Any:
    """x + value * first / second, for floating types."""
    if not all(t.is_floating_point() for t in (x, first, second)):
        return NotImplemented
    dtype = _result_dtype(x, first, second)
    numerator = computation(first) if _is_one(value) else computation(first) * value
    return (computation(x) + numerator / computation(second)).to(dtype)


def add(x: Any, other: Any, *, alpha: Any = 1) -> Any:
    """x + alpha * other, where `other` is a number that only the running graph knows: the product apart,
    because PyTorch's pass that makes tensors of such numbers forgets ``alpha``."""
    if not isinstance(other, torch.SymFloat) or _is_one(alpha):
        return NotImplemented
    return x + other * alpha


def sub(x: Any, other: Any, *, alpha: Any = 1) -> Any:
    """x - alpha * other, likewise."""
    if not isinstance(other, torch.SymFloat) or _is_one(alpha):
        return NotImplemented
    return x - other * alpha


def rsub(x: Tensor, other: Any, alpha: Any = 1) -> Any:
    """other - alpha * x."""
    if isinstance(other, torch.SymFloat) and not _is_one(alpha):
        return other - x * alpha
    return torch.sub(other, x, alpha=alpha)


def multiply_add(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c."""
    return a * b + c


def scalar_tensor(
    value: float,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
) -> Tensor:
    """A constant without dimensions."""
    return torch.full([], value, dtype=dtype or torch.get_default_dtype(), layout=layout, device=device)


def copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    """`source` with the dtype, device and shape of `x`, in memory of its own. Where `x` is not row-major the
    operator stays: its result has the strides of `x`, gaps included."""
    if not is_row_major(x):
        return NotImplemented
    moved = source.to(device=x.device, dtype=x.dtype)
    same = moved is source
    expanded = moved.expand(x.shape)
    return expanded.clone(memory_format=torch.contiguous_format) if same else expanded.contiguous()


def fill(x: Tensor, value: Any) -> Any:
    """A constant with the shape and strides of `x`: what a write in place leaves of it."""
    if isinstance(value, Tensor):
        return aten.copy.default(x, value)
    if is_row_major(x):
        return torch.full(x.shape, value, dtype=x.dtype, device=x.device)
    return aten.copy.default(x, torch.full([], value, dtype=x.dtype, device=x.device))


def zero(x: Tensor) -> Any:
    """Zeros in place of `x`."""
    return fill(x, 0)


def full_like(
    x: Tensor,
    value: Any,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,
    device: torch.device | None = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = None,
) -> Any:
    """A constant of the shape of `x`: it does not depend on what `x` holds, and `full` says so."""
    if memory_format not in (None, torch.preserve_format, torch.contiguous_format):
        return NotImplemented
    if memory_format is not torch.contiguous_format and not x.is_contiguous():
        return NotImplemented
    return torch.full(
        x.shape, value, dtype=dtype or x.dtype, layout=layout or x.layout, device=device or x.device
    )


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), of x clamped to [eps, 1 - eps] where eps is given."""
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    x = x.to(dtype)
    if eps is not None:
        x = torch.clamp(x, eps, 1 - eps)  # in the type of x: in half types, 1 - eps may be 1
    wide = computation(x)
    return torch.log(wide / (1 - wide)).to(dtype)


def sgn(x: Tensor) -> Any:
    """The sign, for real tensors."""
    return NotImplemented if x.is_complex() else torch.sign(x)


TABLE: Table = {
    aten.add.Tensor: add,
    aten.add.Scalar: add,
    aten.sub.Tensor: sub,
    aten.sub.Scalar: sub,
    aten.rsub.Tensor: rsub,
    aten.rsub.Scalar: rsub,
    aten.logit.default: logit,
    aten.pow.Tensor_Scalar: pow_scalar,
    aten.pow.Scalar: pow_of_number,
    aten.addcdiv.default: addcdiv,
    aten.scalar_tensor.default: scalar_tensor,
    aten.copy.default: copy,
    aten.fill.Scalar: fill,
    aten.fill.Tensor: fill,
    aten.zero.default: zero,
    aten.full_like.default: full_like,
    aten.sgn.default: sgn,
}
