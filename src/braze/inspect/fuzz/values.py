"""Elements of inputs: plain numbers, those of a domain, and the special ones of a type."""

from __future__ import annotations

import math
import random

import torch

from braze.dtypes import dtype_named

__all__ = ["DTYPES", "FLOATING", "INTEGRAL", "draw_values"]

FLOATING = ("float32", "float64", "bfloat16", "float16")
INTEGRAL = ("int64", "int32", "int16", "uint8", "int8")
DTYPES = (*FLOATING, *INTEGRAL, "bool")

_COUNTS = (1, 5, 7, 11, 13, 17, 19, 23)
_SPECIAL_SHARE = 0.25
_EXTREME_SHARE = 0.15


def draw_values(rng: random.Random, dtype: str, domain: str = "any") -> tuple[bool | int | float, ...]:
    """Some values of a type.

    domain: ``any``; ``large``: no NaN and no infinity; ``finite``: nor what is soon one, the type's greatest
    and least; ``moderate``: finite, from -8 to 8; ``positive``: from 1/8 to 8; ``unit``: between 0 and 1;
    ``distinct``: no value twice.
    """
    if domain == "distinct":
        return _distinct(rng, dtype)
    count = rng.choice(_COUNTS)
    if dtype == "bool":
        return tuple(rng.random() < 0.5 for _ in range(count))
    if dtype in INTEGRAL:
        return _integers(rng, dtype, domain, count)
    drawn = [_float(rng, domain) for _ in range(count)]
    if domain in ("any", "large", "finite") and rng.random() < _SPECIAL_SHARE:
        specials = _specials(dtype, domain)
        for _ in range(rng.choice((1, 1, 2, 4))):
            drawn[rng.randrange(count)] = rng.choice(specials)
    return tuple(drawn)


def _float(rng: random.Random, domain: str) -> float:
    if domain == "positive":
        return rng.randint(1, 64) / 8
    if domain == "unit":
        return rng.randint(1, 15) / 16
    style = rng.random()
    if style < 0.6:
        return rng.randint(-24, 24) / 4
    if style < 0.9:
        return round(rng.gauss(0, 1.5), 3)
    return float(rng.randint(-3, 3))


def _specials(dtype: str, domain: str) -> list[float]:
    info = torch.finfo(dtype_named(dtype))
    least, most = float(info.smallest_normal), float(info.max)
    numbers = [-0.0, 0.0, least, least / 2, -least / 4, float(info.eps), 1.0 + float(info.eps)]
    if domain != "finite":
        numbers += [most, -most, most / 3]
    if domain == "any":
        numbers += [math.nan, math.nan, math.inf, -math.inf]
    return numbers


def _integers(rng: random.Random, dtype: str, domain: str, count: int) -> tuple[int, ...]:
    info = torch.iinfo(dtype_named(dtype))
    low, high = (1, 8) if domain == "positive" else (max(-8, info.min), 8)
    if domain == "unit":
        low, high = 0, 1
    drawn = [rng.randint(low, high) for _ in range(count)]
    if domain in ("any", "large") and rng.random() < _EXTREME_SHARE:
        # the least is left out: dividing it by -1 ends the process, PyTorch's too
        drawn[rng.randrange(count)] = rng.choice((info.max, info.min + 1, info.max // 2 + 1))
    return tuple(drawn)


def _distinct(rng: random.Random, dtype: str) -> tuple[bool | int | float, ...]:
    """Enough values, all different, for the small tensors that order matters to."""
    if dtype == "bool":
        return (True, False)
    numbers = list(range(120)) if dtype in ("uint8", "int8") else list(range(-60, 60))
    rng.shuffle(numbers)
    if dtype in INTEGRAL:
        return tuple(numbers)
    return tuple(number / 4 for number in numbers)
