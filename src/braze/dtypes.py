"""Types of elements by name: torch's own name, Braze's short one, and that of the safetensors format.

Names are text here, and torch is loaded when one of its types is asked for: the command line knows them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SHORT_NAMES: Final[Mapping[str, str]] = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "u8",
    "bool": "bool",
}
"""Short names of the types that Braze compiles, by torch's name."""

SAFETENSORS: Final[Mapping[str, str]] = {
    **{name: short.upper() for name, short in SHORT_NAMES.items()},
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
"""What safetensors, in every version, calls a type, by torch's name. It has no complex ones."""

COMPLEX_PARTS: Final[Mapping[str, str]] = {
    "complex128": "float64",
    "complex64": "float32",
    "complex32": "float16",
}
"""The type of the two parts of a complex number, both by torch's name."""


def torch_name(value: object) -> str:
    """What torch calls a dtype, a layout or a memory format, without the ``torch.``; other values as text."""
    return str(value).removeprefix("torch.")


def torch_values(kind: type[T]) -> dict[str, T]:
    """All that torch has of ``torch.dtype``, ``torch.layout`` or ``torch.memory_format``, by `torch_name`."""
    return {torch_name(v): v for v in vars(import_module("torch")).values() if isinstance(v, kind)}


def dtype_named(name: str) -> torch.dtype:
    """The type with this `torch_name`. Raises `KeyError` where this version of torch has none."""
    found: torch.dtype = _dtypes()[name]
    return found


@cache
def _dtypes() -> dict[str, Any]:
    return torch_values(import_module("torch").dtype)


def name_dtype(value: object) -> str:
    """A dtype as JSON has it. Raises ``TypeError`` for anything else."""
    if type(value).__name__ != "dtype":
        raise TypeError(f"a {type(value).__name__} has no place here")
    return torch_name(value)


def read_dtype(kind: type, value: object) -> Any:
    """The dtype of a name that JSON has. Raises ``ValueError`` where it is none, or something else is
    wanted."""
    if kind.__name__ != "dtype":
        raise ValueError(f"{value!r} has no place here")
    try:
        return dtype_named(str(value))
    except KeyError:
        raise ValueError(f"{value!r} is not a dtype") from None
