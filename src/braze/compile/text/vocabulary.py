"""The words of the text: types of elements, layouts, memory formats, and functions that are no operators."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from braze._torch.number_functions import NUMBER_FUNCTIONS
from braze._torch.operators import find_operator, qualified_name
from braze.dtypes import torch_values
from braze.ir import prims
from braze.ops.dtypes import SHORT

__all__ = [
    "ATTRIBUTES",
    "ATTRIBUTE_WORDS",
    "DTYPES",
    "DTYPE_WORDS",
    "FORMAT",
    "function_named",
    "function_word",
]

FORMAT = "braze graph 1"
"""The first line of every text: what it is, and the version of its grammar."""


def _dtype_words() -> dict[torch.dtype, str]:
    found = {dtype: name for name, dtype in torch_values(torch.dtype).items()}
    return {**found, **SHORT, torch.complex32: "c32", torch.complex64: "c64", torch.complex128: "c128"}


DTYPE_WORDS: Mapping[torch.dtype, str] = _dtype_words()
DTYPES: Mapping[str, torch.dtype] = {word: dtype for dtype, word in DTYPE_WORDS.items()}

ATTRIBUTES: Mapping[str, Any] = {**torch_values(torch.layout), **torch_values(torch.memory_format)}
"""Layouts and memory formats, by the names that PyTorch gives them."""

ATTRIBUTE_WORDS: Mapping[Any, str] = {value: word for word, value in ATTRIBUTES.items()}

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **NUMBER_FUNCTIONS,
    "py::getitem": operator.getitem,
    **{f"braze::{function.__name__}": function for function in prims.METAS},
}
_FUNCTION_WORDS: dict[Any, str] = {f: word for word, f in reversed(list(_FUNCTIONS.items()))}


def function_word(target: Any) -> str | None:
    """What a graph calls a function by: `aten::mm.default`, `higher_order::cond`, `py::getitem`,
    `braze::rand`. None where it has no such name."""
    return _FUNCTION_WORDS.get(target) or qualified_name(target)


def function_named(word: str) -> Any:
    """The function of that name; None where there is none."""
    return _FUNCTIONS.get(word) or find_operator(word)
