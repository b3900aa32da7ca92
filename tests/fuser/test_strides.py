"""The strides of elementwise results against ATen's own, and what kernels are specialised by."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from braze.fuser.kernel import ArgSpec, OperandSpec
from braze.fuser.strides import (
    broadcast_shapes,
    contiguous,
    elementwise_strides,
    expanded,
    is_dense,
    merged_loops,
    pattern,
)


@st.composite
def tensors(draw: st.DrawFn) -> list[torch.Tensor]:
    """Up to three tensors that broadcast to one shape: permuted, sliced, expanded, with fewer dimensions."""
    rank = draw(st.integers(0, 4))
    shape = [draw(st.sampled_from([1, 2, 3, 5])) for _ in range(rank)]
    found = []
    for _ in range(draw(st.integers(1, 3))):
        lead = draw(st.integers(0, rank)) if found else 0
        own = [n if draw(st.booleans()) or not found else 1 for n in shape[lead:]]
        order = draw(st.permutations(range(len(own))))
        steps = [draw(st.sampled_from([1, 1, 2])) for _ in own]
        base = torch.empty([own[d] * steps[d] for d in order])
        t = base.permute([order.index(d) for d in range(len(own))])
        for d, step in enumerate(steps):
            t = t[(slice(None),) * d + (slice(None, None, step),)]
        if draw(st.booleans()) and len(own):
            d = draw(st.integers(0, len(own) - 1))
            t = t.narrow(d, 0, 1).expand(own)
        found.append(t)
    return found


@given(tensors())
def test_strides_are_those_of_aten(operands: list[torch.Tensor]) -> None:
    if len(operands) == 1:
        result = operands[0].neg()
    else:
        result = operands[0] + operands[1]
        operands = operands[:2]
    geometries = [(tuple(t.shape), t.stride()) for t in operands]
    shape = broadcast_shapes([sizes for sizes, _ in geometries])
    assert shape == tuple(result.shape)
    ours = elementwise_strides(shape, geometries)
    pairs = zip(shape, ours, result.stride(), strict=True)
    assert all(n == 1 or a == b for n, a, b in pairs), (geometries, ours, result.stride())


def test_strides_of_three_operands() -> None:
    for a, b, c in [
        (torch.empty(4, 3).t(), torch.empty(3, 4), torch.empty(3, 4)),
        (torch.empty(3, 1), torch.empty(4, 3).t(), torch.empty(3, 4)),
        (torch.empty(2, 3, 4).permute(2, 0, 1), torch.empty(4, 2, 3), torch.empty(3)),
    ]:
        geometries = [(tuple(t.shape), t.stride()) for t in (a, b, c)]
        result = torch.addcmul(a, b, c)
        assert elementwise_strides(tuple(result.shape), geometries) == result.stride()


def test_dense_and_expanded() -> None:
    assert contiguous((2, 0, 3)) == torch.empty(2, 0, 3).stride()
    assert is_dense((2, 3), (1, 2)) and not is_dense((2, 3), (4, 1)) and is_dense((1, 3), (99, 1))
    assert expanded(((3, 1), (1, 1)), (2, 3, 4)) == (0, 1, 0)
    assert expanded(((1, 1), (1, 1)), (1, 1)) == (1, 1)


def loops(*operands: torch.Tensor) -> list[str]:
    """The patterns of operands whose first one is the result."""
    geometries = [(tuple(t.shape), t.stride()) for t in operands]
    sizes, strides = merged_loops(geometries[0][0], geometries, geometries[0][1])
    return [
        "x".join(map(str, sizes)),
        *[pattern(s, t.dim()) for s, t in zip(strides, operands, strict=True)],
    ]


def test_dimensions_merge_where_every_operand_allows_it() -> None:
    x = torch.empty(2, 3, 4)
    assert loops(x, x, x) == ["24", "u", "u", "u"]
    assert loops(x, torch.empty(4)) == ["6x4", "su", "bu"]
    assert loops(x, torch.empty(3, 4)) == ["2x12", "su", "bu"]
    assert loops(x, torch.empty(2, 1, 1)) == ["2x12", "su", "ub"]
    assert loops(x, torch.empty(2, 3, 8)[..., ::2]) == ["24", "u", "s"]
    assert loops(x, torch.empty(2, 6, 4)[:, ::2]) == ["6x4", "su", "su"]
    assert loops(x, torch.tensor(1.0)) == ["24", "u", ""]
    assert loops(torch.empty(1, 1), torch.empty(1), torch.tensor(1.0)) == ["", "b", "b", ""]
    assert loops(x.permute(2, 0, 1), x.permute(2, 0, 1)) == ["24", "u", "u"]
    assert loops(torch.empty(3, 4), torch.empty(4, 3).t()) == ["3x4", "su", "us"]


def test_a_spec_prints_as_what_it_says() -> None:
    f32 = torch.float32
    row = OperandSpec(torch.bfloat16, "bu")
    spec = ArgSpec("cpu", 2, (OperandSpec(f32, "su"), row, "float"), (OperandSpec(f32, "su"),))
    assert str(spec) == "cpu [n0, n1] f32(su), bf16(bu), float -> f32(su)"
    narrow = ArgSpec("cuda", 1, (OperandSpec(f32, "u"), "int"), (OperandSpec(f32, "u"),), index_bits=32)
    assert str(narrow) == "cuda [n0] f32(u), int -> f32(u) in 32 bits"
