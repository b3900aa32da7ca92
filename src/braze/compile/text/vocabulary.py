"""The words of the text: types of elements, layouts, memory formats, and functions that are no operators."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from braze._torch.operators import find_operator, qualified_name
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
    found = {d: str(d).removeprefix("torch.") for d in vars(torch).values() if isinstance(d, torch.dtype)}
    return {**found, **SHORT, torch.complex32: "c32", torch.complex64: "c64", torch.complex128: "c128"}


DTYPE_WORDS: Mapping[torch.dtype, str] = _dtype_words()
DTYPES: Mapping[str, torch.dtype] = {word: dtype for dtype, word in DTYPE_WORDS.items()}

ATTRIBUTE_WORDS: Mapping[Any, str] = {
    value: str(value).removeprefix("torch.")
    for value in vars(torch).values()
    if isinstance(value, (torch.layout, torch.memory_format))
}
ATTRIBUTES: Mapping[str, Any] = {word: value for value, word in ATTRIBUTE_WORDS.items()}
"""Layouts and memory formats, by the names that PyTorch gives them."""

_OPERATOR = """
    abs add and_ eq floordiv ge getitem gt inv invert le lshift lt mod mul ne neg not_ or_ pos pow rshift sub
    truediv xor
"""
_BUILTINS = "bool float int max min round"
_MATH = "ceil floor sqrt trunc"
_TORCH = """
    sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum _sym_acos _sym_asin _sym_atan _sym_cos
    _sym_cosh _sym_log2 _sym_sin _sym_sinh _sym_sqrt _sym_tan _sym_tanh
"""


def _functions() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    spaces: tuple[tuple[str, Any, str], ...] = (
        ("py", operator, _OPERATOR),
        ("py", builtins, _BUILTINS),
        ("math", math, _MATH),
        ("torch", torch, _TORCH),
    )
    for space, module, names in spaces:
        for name in names.split():
            if hasattr(module, name):
                found[f"{space}::{name}"] = getattr(module, name)
    for function in prims.METAS:
        found[f"braze::{function.__name__}"] = function
    return found


_FUNCTIONS: Mapping[str, Callable[..., Any]] = _functions()
_FUNCTION_WORDS: dict[Any, str] = {f: word for word, f in reversed(list(_FUNCTIONS.items()))}


def function_word(target: Any) -> str | None:
    """What a graph calls a function by: `aten::mm.default`, `higher_order::cond`, `py::getitem`,
    `braze::rand`. None where it has no such name."""
    return _FUNCTION_WORDS.get(target) or qualified_name(target)


def function_named(word: str) -> Any:
    """The function of that name; None where there is none."""
    return _FUNCTIONS.get(word) or find_operator(word)
