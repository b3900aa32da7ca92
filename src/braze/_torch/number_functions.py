"""Functions on numbers, by name: what PyTorch's traces call to compute sizes and other numbers with, and
nothing else. The names are kept in artefacts and graph texts."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["NUMBER_FUNCTIONS", "number_function_name"]

_OPERATOR = """
    abs add and_ eq floordiv ge gt inv invert le lshift lt mod mul ne neg not_ or_ pos pow rshift sub
    truediv xor
"""
_BUILTINS = "bool float int max min round"
_MATH = """
    acos acosh asin asinh atan atan2 atanh ceil cos cosh exp floor log log10 log2 pow sin sinh sqrt tan tanh
    trunc
"""
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
    return found


NUMBER_FUNCTIONS: Mapping[str, Callable[..., Any]] = _functions()
"""``py::add``, ``math::floor``, ``torch::sym_max``, ...: each takes and gives Python numbers. What a release
of PyTorch lacks has no entry."""

_NAMES: dict[Any, str] = {f: name for name, f in reversed(list(NUMBER_FUNCTIONS.items()))}


def number_function_name(target: Any) -> str | None:
    """The name of a function on numbers; None for anything else."""
    try:
        return _NAMES.get(target)
    except TypeError:  # a target that cannot be hashed
        return None
