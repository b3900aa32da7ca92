"""Strides of what operators return, decomposed or kept whole, against eager's: operands of every pair of
layouts. PyTorch's fake versions of some lie otherwise."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode

from braze.config import Config
from braze.frontend.decompositions import decompositions
from tests.numerics import assert_agrees
from tests.support import compile_with

aten = torch.ops.aten
TABLE = decompositions(Config())
MODE = FakeTensorMode()

MEMORY = torch.linspace(0.1, 0.9, 60)
LAYOUTS: dict[str, torch.Tensor] = {
    "row-major": MEMORY[:24].view(2, 3, 4),
    "permuted": MEMORY[:24].view(3, 2, 4).transpose(0, 1),
    "reversed": MEMORY[:24].view(4, 3, 2).permute(2, 1, 0),
    "gaps": MEMORY[:48].view(2, 3, 8)[:, :, ::2],
    "repeated": MEMORY[:3].view(1, 3, 1).expand(2, 3, 4),
    "repeated columns": MEMORY[:6].view(2, 3, 1).expand(2, 3, 4),
    "row": MEMORY[:4],
    "row of a matrix": MEMORY[:4].view(1, 1, 4),
    "column": MEMORY[:3].view(3, 1),
    "permuted matrix": MEMORY[:12].view(4, 3).t(),
    "permuted with a 1": MEMORY[:8].view(4, 1, 2).permute(2, 1, 0),
    "number": MEMORY[0],
}
_OTHERS = {"number": 0.5, "float": 0.5, "bool": False, "Optional[str]": "floor"}


def traced(operator: OpOverload, args: Sequence[Any], **kwargs: Any) -> Any:
    """What a trace has for a call: the decomposition's results, else the fake version's."""
    with MODE:

        def fake(value: Any) -> Any:
            return MODE.from_tensor(value) if isinstance(value, torch.Tensor) else value

        given = [[fake(v) for v in a] if isinstance(a, list) else fake(a) for a in args]
        found = TABLE[operator](*given, **kwargs) if operator in TABLE else NotImplemented
        return operator(*given, **kwargs) if found is NotImplemented else found


def strides(x: torch.Tensor) -> tuple[int, ...]:
    return tuple(0 if n == 1 else s for n, s in zip(x.shape, x.stride(), strict=True))


# -- elementwise operators ----------------------------------------------------------------------------------
def _template(operator: OpOverload) -> tuple[list[Any], dict[str, Any], list[int]] | None:
    """Arguments with None for each tensor; those by name; where the tensors are. None: not called here."""
    args: list[Any] = []
    named: dict[str, Any] = {}
    tensors: list[int] = []
    for position, argument in enumerate(operator._schema.arguments):
        kind = str(argument.type)
        if kind == "Tensor" and not argument.kwarg_only:
            tensors.append(position)
            args.append(None)
        elif argument.has_default_value():
            if not argument.kwarg_only:
                args.append(argument.default_value)
        elif kind not in _OTHERS:
            return None
        elif argument.kwarg_only:
            named[argument.name] = _OTHERS[kind]
        else:
            args.append(_OTHERS[kind])
    return args, named, tensors


def _elementwise() -> Iterator[OpOverload]:
    for packet in (getattr(aten, name) for name in sorted(dir(aten))):
        for overload in packet.overloads() if hasattr(packet, "overloads") else ():
            operator = getattr(packet, overload)
            if torch.Tag.pointwise not in operator.tags or operator._schema.is_mutable or "out" in overload:
                continue
            if not operator._can_decompose() and _template(operator) is not None:
                yield operator


_TYPES = (
    (torch.float32,),
    (torch.bfloat16,),
    (torch.float16, torch.float32),
    (torch.int64, torch.float32),
    (torch.bool,),
)
"""Of the operands, in turn."""
_FLOAT32 = ("ldexp", "_backward")
"""Operators that eager itself lays out by no rule in other types, or that get no others."""
_CASES = [
    pytest.param(operator, types, id=f"{operator}-{'-'.join(str(t).removeprefix('torch.') for t in types)}")
    for operator in _elementwise()
    for types in _TYPES
    if types == _TYPES[0] or not any(part in str(operator) for part in _FLOAT32)
]


@pytest.mark.parametrize(("operator", "types"), _CASES)
def test_elementwise_operators(operator: OpOverload, types: tuple[torch.dtype, ...]) -> None:
    found = _template(operator)
    assert found is not None
    template, named, tensors = found
    few = (
        list(LAYOUTS.values()) if len(tensors) < 3 else [LAYOUTS[k] for k in ("row-major", "reversed", "row")]
    )
    for operands in itertools.product(few, repeat=len(tensors)):
        args = list(template)
        for position, operand in zip(tensors, operands, strict=True):
            memory = MEMORY.to(types[position % len(types)])
            args[position] = memory.as_strided(operand.shape, operand.stride(), operand.storage_offset())
        try:
            expected = operator(*args, **named)
        except (RuntimeError, NotImplementedError):  # not these types, or broadcast otherwise
            continue
        if isinstance(expected, torch.Tensor):
            result = traced(operator, args, **named)
            described = [(tuple(x.shape), x.stride()) for x in operands]
            assert (strides(result), result.dtype) == (strides(expected), expected.dtype), described


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.int64])
@pytest.mark.parametrize("size", [(), (3, 1), (2, 3, 4)], ids=str)
def test_powers_of_two(dtype: torch.dtype, size: tuple[int, ...]) -> None:
    for x, exponents in itertools.product(
        _orders(*size) if len(size) > 1 else [torch.ones(())], _orders(2, 3, 4)
    ):
        expected = torch.ldexp(x.to(dtype), exponents)
        assert strides(traced(torch.ops.aten.ldexp.Tensor, [x.to(dtype), exponents])) == strides(expected)


# -- indexing -----------------------------------------------------------------------------------------------
def _orders(*size: int) -> list[torch.Tensor]:
    """Integers, zero all, in every order of the dimensions, with gaps, and repeated."""
    found = []
    for order in itertools.permutations(range(len(size))):
        back = [order.index(d) for d in range(len(size))]
        found.append(torch.zeros([size[d] for d in order], dtype=torch.int64).permute(back))
    found.append(torch.zeros((*size[:-1], 2 * size[-1]), dtype=torch.int64)[..., ::2])
    return [*found, torch.zeros(size[-1:], dtype=torch.int64).expand(size)]


@pytest.mark.parametrize("size", [(5,), (4, 5), (3, 4, 5), (1, 2, 1, 2)], ids=str)
def test_indexing(size: tuple[int, ...]) -> None:
    indices = [i for shape in ((2,), (2, 3), (2, 1), (1, 3)) for i in _orders(*shape)]
    for x, index, first, step in itertools.product(_orders(*size), indices, range(len(size)), (0, 2)):
        if first + step >= len(size):
            continue
        places: list[torch.Tensor | None] = [None] * len(size)
        places[first], places[first + step] = index.contiguous(), index
        expected = aten.index.Tensor(x, places)
        described = x.stride(), index.shape, index.stride(), first, step
        assert strides(traced(aten.index.Tensor, [x, places])) == strides(expected), described


# -- compiled -----------------------------------------------------------------------------------------------
P, X = LAYOUTS["permuted"], LAYOUTS["row-major"]
INDEX = torch.tensor([[0, 1, 1], [1, 0, 0]]).t()
COMPILED: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "copysign": (torch.copysign, (P, X)),
    "div floor": (functools.partial(torch.div, rounding_mode="floor"), (X, P)),
    "floor_divide": (lambda x, y: x // y, (X, P)),
    "logical_xor": (torch.logical_xor, (LAYOUTS["row"], P)),
    "xlogy": (torch.xlogy, (X, P)),
    "a number to powers": (lambda x: 2.0**x, (P,)),
    "another type, repeated": (
        lambda x, y: torch.logical_or(x, y),
        (torch.tensor([1, 0, 1]).view(3, 1).expand(3, 4), LAYOUTS["permuted matrix"]),
    ),
    "flip": (lambda x: torch.flip(x, (0, 2)), (LAYOUTS["gaps"].transpose(0, 1),)),
    "products of flips, whose strides of size 1 decide": (
        lambda x: torch.einsum("ij,kj->ki", torch.roll(x.flip(1), 0), x.flip(1)),
        (MEMORY[:2].as_strided((2, 1), (1, 2)),),
    ),
    "logsigmoid": (F.logsigmoid, (P,)),
    "an image of one channel, filled by a mask that lies otherwise": (
        lambda x, m: F.conv2d(x.masked_fill(m, 0.0), X[:, :1, :3, None].view(2, 1, 3, 1), padding=1),
        (
            MEMORY[:24].view(2, 1, 4, 3),
            torch.zeros(24, dtype=torch.bool).as_strided((2, 1, 4, 3), (12, 1, 3, 1)),
        ),
    ),
    "soft_margin_loss": (lambda x, y: F.soft_margin_loss(x, y, reduction="none"), (P.half(), X.half())),
    "binary_cross_entropy": (lambda x, y: F.binary_cross_entropy(x, y, reduction="none"), (X, P)),
    "index": (lambda x, i: x[i], (X, INDEX)),
    "index in the middle": (lambda x, i: (x * 2)[:, i], (P, INDEX)),
    "take": (torch.take, (P, INDEX)),
    "index_fill": (lambda x, i: x.index_fill(0, i, 3.0), (LAYOUTS["gaps"].transpose(0, 2), INDEX[:, 0])),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", COMPILED)
def test_compiled(name: str, dynamic: bool) -> None:
    fn, args = COMPILED[name]
    assert_agrees(compile_with(fn, "braze", strict=True, dynamic=dynamic)(*args), fn(*args))
