"""Any elementwise function of any tensors: types, broadcasting, strides, numbers, gradients are eager's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

import braze
from tests.fuser.compare import check
from tests.fuser.test_strides import tensors

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
Step = tuple[str, int, int]

UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": torch.tanh,
    "neg": torch.neg,
    "abs": torch.abs,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "half": lambda t: t * 0.5,
    "float": lambda t: t.float(),
    "piece": lambda t: t[..., :1],
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "maximum": torch.maximum,
    "where": lambda a, b: torch.where(a > b, a, b),
}


def program(steps: list[Step]) -> Callable[..., Any]:
    """A function of tensors and a number: each step applies an operation to what there is so far."""

    def run(inputs: list[torch.Tensor], number: float) -> Any:
        values = [*inputs, inputs[0] * number]
        for name, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            values.append(UNARY[name](a) if name in UNARY else BINARY[name](a, b))
        return values[-1], values[len(inputs)] + 1

    return run


@st.composite
def inputs_and_steps(draw: st.DrawFn) -> tuple[list[torch.Tensor], list[Step]]:
    """Tensors of several types that broadcast, laid out in any way, and what to compute of them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 16)))
    inputs = []
    for t in draw(tensors()):
        dtype = draw(st.sampled_from(FLOATS))
        memory = torch.randn(t.untyped_storage().nbytes(), generator=generator).to(dtype)
        values = memory.as_strided(t.shape, t.stride(), t.storage_offset())
        repeats = any(n > 1 and step == 0 for n, step in zip(t.shape, t.stride(), strict=True))
        inputs.append(values.requires_grad_(draw(st.booleans()) and not repeats))
    known = [*UNARY, *BINARY]
    if any(t.dim() == 0 for t in inputs):
        known.remove("piece")
    step = st.tuples(st.sampled_from(known), st.integers(0, 9), st.integers(0, 9))
    return inputs, draw(st.lists(step, min_size=1, max_size=6))


@given(inputs_and_steps(), st.sampled_from([0.5, -1.0, 3.0]))
def test_any_function_of_any_tensors(case: tuple[list[torch.Tensor], list[Step]], number: float) -> None:
    inputs, steps = case
    fused = braze.fuse(program(steps), options={"strict": True})
    # What is no elementwise function has the strides of PyTorch's traces. These, and those of results of
    # mixed types, whose conversions are steps of their own in a trace, may be others than eager's.
    traced = any(name == "piece" for name, _, _ in steps) or len({t.dtype for t in inputs}) > 1
    check(fused, inputs, number, times=2, strides=not traced)
