"""The words of the text: types of elements, layouts, memory formats, and the functions that graphs call."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from keyword import iskeyword
from typing import Any

import torch

from braze._torch.number_functions import NUMBER_FUNCTIONS
from braze._torch.operators import find_operator, qualified_name
from braze.dtypes import torch_values
from braze.ir import prims
from braze.ops.dtypes import SHORT

__all__ = ["ATTRIBUTE_WORDS", "DTYPES", "DTYPE_WORDS", "FORMAT", "WORDS", "function_named", "function_word"]

FORMAT = "# braze graph 2"
"""The first line of every text: what it is, and the version of its grammar."""

DTYPE_WORDS: Mapping[torch.dtype, str] = {
    **{dtype: name for name, dtype in torch_values(torch.dtype).items()},
    **SHORT,
    torch.complex32: "c32",
    torch.complex64: "c64",
    torch.complex128: "c128",
}
DTYPES: Mapping[str, torch.dtype] = {word: dtype for dtype, word in DTYPE_WORDS.items()}

_ATTRIBUTES = {**torch_values(torch.layout), **torch_values(torch.memory_format)}
ATTRIBUTE_WORDS: Mapping[Any, str] = {value: word for word, value in _ATTRIBUTES.items()}
"""Layouts and memory formats, by the names that PyTorch gives them."""

WORDS: Mapping[str, Any] = {**DTYPES, **_ATTRIBUTES, "inf": math.inf, "nan": math.nan}
"""What a bare name stands for, unless a node has it."""

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **NUMBER_FUNCTIONS,
    "py::getitem": operator.getitem,
    **{f"braze::{function.__name__}": function for function in prims.METAS},
}
_FUNCTION_NAMES: dict[Any, str] = {f: name for name, f in reversed(list(_FUNCTIONS.items()))}


def function_word(target: Any) -> str | None:
    """What a graph calls a function by: `aten.mm.default`, `higher_order.cond`, `py.getitem`, `braze.rand`;
    a part that is a keyword of Python's has a `_` behind it. None where it has no such name."""
    name = _FUNCTION_NAMES.get(target) or qualified_name(target)
    if name is None:
        return None
    word = name.replace("::", ".")
    if not any(map(iskeyword, word.split("."))):
        return word
    word = ".".join([f"{part}_" if iskeyword(part) else part for part in word.split(".")])
    return word if function_named(word) is target else None


def function_named(word: str) -> Any:
    """The function of that name; None where there is none. Looks among operators and known functions only."""
    plain = [p[:-1] if p.endswith("_") and iskeyword(p[:-1]) else p for p in word.split(".")]
    for name in (word, ".".join(plain)):
        qualified = name.replace(".", "::", 1)
        found = _FUNCTIONS.get(qualified) or find_operator(qualified)
        if found is not None:
            return found
    return None
