"""Zeros and their signs, infinities, NaN, subnormal and extreme values: what eager PyTorch gives for them.

Values are repeated, so that they fall on full vectors and on the rest. Where eager's own result depends on
the place of a value in a tensor (its vectors and its remainders differ), the function is not listed: gelu and
softshrink, remainder and fmod of quotients that overflow, the sign of the maximum of two zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests import support

Function = Callable[..., torch.Tensor]

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
RELATIVE = {torch.float32: 2e-6, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
INF, NAN = math.inf, math.nan

UNARY_NAMES = """abs acos acosh asin asinh atan atanh ceil cos cosh deg2rad digamma erf erfc exp exp2 expm1
floor frac isfinite isinf isnan isneginf isposinf lgamma log log10 log1p log2 logit nan_to_num neg rad2deg
reciprocal relu round rsqrt sgn sigmoid sign signbit sin sinc sinh sqrt square tan tanh trunc angle"""
ACTIVATIONS = """celu elu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu6 selu silu
softplus softsign"""
UNARY: dict[str, Function] = {
    **{name: getattr(torch, name) for name in UNARY_NAMES.split()},
    **{name: getattr(F, name) for name in ACTIVATIONS.split()},
    "erfcx": torch.special.erfcx,
    "i1": torch.special.i1,
    "entr": torch.special.entr,
    "1/relu": lambda x: 1 / torch.relu(x),
    "1/relu6": lambda x: 1 / F.relu6(x),
    "clamp to [0, 1]": lambda x: x.clamp(0, 1),
    "addcmul by 0": lambda x: torch.addcmul(x, x, x, value=0),
    "addcdiv by 0": lambda x: torch.addcdiv(x, x, x, value=0),
    "addcmul by 1e-3": lambda x: torch.addcmul(x, x, x, value=1e-3),
    "at least 0": lambda x: x.clamp_min(0),
    "at least -0": lambda x: x.clamp(min=-0.0),
    "at most 0": lambda x: x.clamp_max(0),
    "hardtanh from 0": lambda x: F.hardtanh(x, 0.0, 1.0),
    "threshold to -0": lambda x: F.threshold(x, 0.0, -0.0),
    "clamp to NaN": lambda x: x.clamp(NAN, 1),
    **{f"** {p}": lambda x, p=p: x**p for p in (0, 0.5, -0.5, -1, 2.5, 3, 4)},  # type: ignore[misc]
    **{f"{b} **": lambda x, b=b: b**x for b in (2.0, 0.0, 1.0, -1.0)},  # type: ignore[misc]
    **{f"// {k}": lambda x, k=k: x // k for k in (2, -2.0, 0.0, INF)},  # type: ignore[misc]
    **{f"% {k}": lambda x, k=k: x % k for k in (0.0, INF, -INF)},  # type: ignore[misc]
    "round to hundredths": lambda x: torch.round(x, decimals=2),
    "round to tens": lambda x: torch.round(x, decimals=-1),
}
BINARY_NAMES = """add sub mul div floor_divide atan2 copysign hypot nextafter fmax fmin logaddexp xlogy
 heaviside eq ne lt le gt ge isclose"""
BINARY: dict[str, Function] = {
    **{name: getattr(torch, name) for name in BINARY_NAMES.split()},
    "ldexp": torch.ldexp,
    "xlog1py": torch.special.xlog1py,
    "maximum": lambda a, b: torch.maximum(a, b).abs(),
    "minimum": lambda a, b: torch.minimum(a, b).abs(),
    "at least": lambda a, b: torch.clamp(a, min=b).abs(),
    "at most": lambda a, b: torch.clamp(a, max=b).abs(),
    "truncated": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "where": lambda a, b: torch.where(a > b, a, b),
    "smooth_l1_loss": lambda a, b: F.smooth_l1_loss(a, b, reduction="none"),
    "soft_margin_loss": lambda a, b: F.soft_margin_loss(a, b, reduction="none"),
    "backward of smooth_l1_loss": lambda a, b: torch.ops.aten.smooth_l1_loss_backward(a, a, b, 0, 1.0),
    "backward of soft_margin_loss": lambda a, b: torch.ops.aten.soft_margin_loss_backward(a, a, b, 0),
    "with_logits": lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction="none"),
}


def _values(dtype: torch.dtype) -> torch.Tensor:
    info = torch.finfo(dtype)
    positive = [0.0, INF, info.tiny, info.tiny / 2, info.max, 1.0, 0.5, 1.5, 2.5, 2.0, 3.0, 20.0, 88.0, 1e-3]
    return torch.tensor([NAN, *positive, *[-v for v in positive]], dtype=torch.float64).to(dtype)


def _disagreement(ours: torch.Tensor, eager: torch.Tensor) -> torch.Tensor:
    """Where two results differ, in the sign of a zero, too."""
    assert ours.dtype is eager.dtype
    if not eager.dtype.is_floating_point:
        return ours != eager
    a, b = ours.double(), eager.double()
    kinds = (a.isnan() != b.isnan()) | (a.isinf() != b.isinf()) | ((a.signbit() != b.signbit()) & ~b.isnan())
    near = RELATIVE[eager.dtype] * b.abs() + 4 * torch.finfo(eager.dtype).tiny
    return kinds | (b.isfinite() & ((a - b).abs() > near))


def _check(functions: Mapping[str, Function], *inputs: torch.Tensor) -> None:
    known: dict[str, torch.Tensor] = {}
    for name, function in functions.items():
        try:
            known[name] = function(*inputs)
        except RuntimeError:  # not for this type
            continue
    names = list(known)
    problems = []
    for first in range(0, len(names), 16):
        part = names[first : first + 16]
        support.reset()

        def every(*xs: torch.Tensor, part: list[str] = part) -> list[Any]:
            return [functions[name](*xs) for name in part]

        results = support.compile_with(every, "braze", dynamic=False)(*inputs)
        for name, ours in zip(part, results, strict=True):
            eager = known[name]
            bad = _disagreement(ours, eager).nonzero().flatten()[:4].tolist()
            problems += [
                f"{name} of {[x[i].item() for x in inputs]}: {ours[i].item()}, eager {eager[i].item()}"
                for i in bad
            ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unary(dtype: torch.dtype) -> None:
    _check(UNARY, _values(dtype).repeat(2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_binary(dtype: torch.dtype) -> None:
    values = _values(dtype)
    _check(BINARY, values.repeat_interleave(len(values)), values.repeat(len(values)))


def test_zeros_keep_their_signs_wherever_they_stand() -> None:
    names = (
        "1/relu",
        "1/relu6",
        "clamp to [0, 1]",
        "at least 0",
        "at least -0",
        "at most 0",
        "hardtanh from 0",
    )
    sizes = (1, 3, 8, 15, 16, 17, 33, 40)

    def every(tensors: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        single = [UNARY[name](x) for name in names for x, _ in tensors]
        return single + [BINARY[name](x, y) for name in ("fmax", "fmin") for x, y in tensors]

    inputs = [(torch.full((n,), z), torch.full((n,), -z)) for n in sizes for z in (0.0, -0.0)]
    support.reset()
    for ours, eager in zip(support.compile_with(every, "braze")(inputs), every(inputs), strict=True):
        assert not _disagreement(ours, eager).any(), f"{ours}, eager {eager}"


@pytest.mark.parametrize("kind", ["sorted", "not sorted", "with NaN", "infinite"])
def test_searches_ask_what_eager_asks(kind: str) -> None:
    pairs = []
    for count in (1, 2, 3, 4, 5, 7, 8, 33):
        boundaries = torch.randn(count).sort().values
        sought = torch.cat([torch.randn(20), boundaries, torch.tensor([NAN, INF, -INF, 0.0, -0.0])])
        if kind == "not sorted":
            boundaries = boundaries.flip(0)
        elif kind == "with NaN":
            boundaries[count // 2 :] = NAN
        elif kind == "infinite":
            boundaries = torch.tensor([-INF] * count + [0.0] + [INF] * count)
        pairs.append((sought, boundaries))

    def search(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        found = []
        for x, b in pairs:
            found.append(torch.bucketize(x, b))
            found.append(torch.bucketize(x, b, right=True, out_int32=True))
            found.append(torch.searchsorted(b, x, side="right"))
        return found

    support.reset()
    compiled = support.compile_with(search, "braze", strict=True, dynamic=False)
    for ours, eager in zip(compiled(pairs), search(pairs), strict=True):
        assert torch.equal(ours, eager)


@pytest.mark.parametrize("count", [5, 40])
def test_isin_finds_what_eager_finds(count: int) -> None:
    tests = torch.tensor([NAN, INF, 3.0, 0.0, 1.0]).repeat(8)[:count]
    sought = torch.tensor([NAN, INF, -INF, 3.0, -0.0, 2.0, 1.0])

    def every(x: torch.Tensor, t: torch.Tensor) -> list[torch.Tensor]:
        whole = [torch.isin(x[1:].clamp(-9, 9).long(), t[2:5].long())]
        return whole + [torch.isin(x, t, invert=invert) for invert in (False, True)]

    support.reset()
    compiled = support.compile_with(every, "braze", strict=True, dynamic=False)
    for ours, eager in zip(compiled(sought, tests), every(sought, tests), strict=True):
        assert torch.equal(ours, eager)


@pytest.mark.parametrize("ranks", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0), (1, 1, 0), (1, 0, 1)], ids=str)
def test_numbers_without_dimensions_promote_as_in_eager(ranks: tuple[int, ...]) -> None:
    types = (torch.float16, torch.float32, torch.float64)
    # each pair of types once in each pair of places
    triples = [(types[i], types[j], types[(i + j) % 3]) for i in range(3) for j in range(3)]
    calls = [(f, *triple) for f in ("addcmul", "addcdiv") for triple in triples]

    def tensor(dtype: torch.dtype, rank: int) -> torch.Tensor:
        return torch.full([3] * rank, 2.5, dtype=dtype)

    def every(tensors: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        return [getattr(torch, name)(*args) for (name, *_), args in zip(calls, tensors, strict=True)]

    inputs = [[tensor(t, n) for t, n in zip(c[1:], ranks, strict=True)] for c in calls]  # type: ignore[arg-type]
    support.reset()
    for ours, eager in zip(support.compile_with(every, "braze")(inputs), every(inputs), strict=True):
        assert ours.dtype is eager.dtype
        torch.testing.assert_close(ours, eager)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_pictures_are_sampled_nowhere_as_in_eager(mode: str, padding: str) -> None:
    places = torch.tensor([NAN, INF, -INF, 0.0, -1.0, 1.0, 0.3, -0.7, 2.5, 1.0001])
    grid = torch.cartesian_prod(places, places).view(1, 10, 10, 2)
    picture = torch.rand(1, 2, 5, 6)

    def sample(x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        kinds = {"mode": mode, "padding_mode": padding}
        both = (False, True) if mode != "bicubic" else (padding == "border",)  # long to compile
        return [F.grid_sample(x, g, align_corners=corners, **kinds) for corners in both]

    support.reset()
    compiled = support.compile_with(sample, "braze", dynamic=False)
    for ours, eager in zip(compiled(picture, grid), sample(picture, grid), strict=True):
        torch.testing.assert_close(ours, eager, equal_nan=True)
