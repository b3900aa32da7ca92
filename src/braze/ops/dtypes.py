"""Element types: short names, categories, promotion, and the type in which each is computed."""

from __future__ import annotations

import torch

from braze.dtypes import SHORT_NAMES, dtype_named

SHORT: dict[torch.dtype, str] = {dtype_named(name): short for name, short in SHORT_NAMES.items()}
"""The element types that Braze compiles; tensors of any other type are handed to eager operators."""

BY_SHORT: dict[str, torch.dtype] = {name: dtype for dtype, name in SHORT.items()}
HALF_TYPES = frozenset({torch.float16, torch.bfloat16})
PARTS: dict[torch.dtype, torch.dtype] = {torch.complex64: torch.float32, torch.complex128: torch.float64}
"""The complex types that Braze compiles, as two elements of the type named here, real part first."""

COMPLEX_SHORT: dict[torch.dtype, str] = {torch.complex64: "c64", torch.complex128: "c128"}


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which values stored as ``dtype`` are computed: float32 for half types, else itself."""
    return torch.float32 if dtype in HALF_TYPES else dtype


def short_name(dtype: torch.dtype) -> str:
    """The short name of ``dtype``; torch's, with the ``torch.``, for one that Braze does not compile."""
    return SHORT.get(dtype) or COMPLEX_SHORT.get(dtype, str(dtype))


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of the elements that kernels find in the memory of a tensor of ``dtype``."""
    return PARTS.get(dtype, dtype)


def is_float(dtype: torch.dtype) -> bool:
    """Whether ``dtype`` is one of the real floating-point types."""
    return dtype.is_floating_point


def is_integer(dtype: torch.dtype) -> bool:
    """Whether ``dtype`` is an integer type; bool is not."""
    return not dtype.is_floating_point and not dtype.is_complex and dtype is not torch.bool


def is_supported(dtype: torch.dtype) -> bool:
    """Whether Braze generates code for tensors of ``dtype``."""
    return dtype in SHORT


def integer_limits(dtype: torch.dtype) -> tuple[int, int]:
    """The least and greatest value of an integer type (0 and 1 for bool)."""
    if dtype is torch.bool:
        return 0, 1
    info = torch.iinfo(dtype)
    return info.min, info.max
