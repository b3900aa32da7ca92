"""Runs a model of the zoo compiled and eagerly, and compares."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from tests import support
from tests.models import zoo
from tests.numerics import assert_agrees, in_float64


@dataclasses.dataclass
class Outcome:
    """What compiled and eager runs of one model gave. Trees of `result`, and in training also `gradients`,
    `state`.
    """

    stats: support.Stats
    compiled: Any
    eager: Any
    reference: Any

    def check(self) -> None:
        """Asserts the numerical rule."""
        assert_agrees(self.compiled, self.eager, self.reference)


def outcome(model: zoo.Model, size: zoo.Size = "test", backend: str = support.BACKEND) -> Outcome:
    """Two compiled calls (the second must agree with the first's), one eager and one float64 run."""
    module, inputs = model.make(size)
    twin, wide = copy.deepcopy(module), in_float64(module)
    float32 = dataclasses.replace(model, precision="float32")
    with support.watch(backend) as stats:
        call = support.compile_with(module, backend)
        compiled = _observe(model, module, call, inputs)
    eager = _observe(model, twin, twin, inputs)
    reference = _observe(float32, wide, wide, in_float64(inputs))
    if model.kind == "inference":
        assert_agrees(_observe(model, module, call, inputs), compiled)
    return Outcome(stats, compiled, eager, reference)


def _observe(model: zoo.Model, module: torch.nn.Module, call: Any, inputs: zoo.Inputs) -> dict[str, Any]:
    result = zoo.run(model, call, inputs)
    seen = {"result": result}
    if model.kind == "training":
        seen["result"] = result.detach()
        seen["gradients"] = zoo.gradients(module)
        seen["state"] = {name: value.clone() for name, value in module.named_buffers()}
    return seen


def optimizer_outcome(model: zoo.Model, backend: str = support.BACKEND, steps: int = 3) -> Outcome:
    """Compiled and eager optimizer steps from the same parameters with the same gradients.

    The gradients are made up for each step, rather than taken from the model, so that an error in one step
    does not feed back into the next one's gradients: AdamW's first steps depend on little more than their
    signs.
    """
    module, _ = model.make("test")
    modules = [module, copy.deepcopy(module), in_float64(module)]
    optimizers = [zoo.optimizer(m) for m in modules]
    with support.watch(backend) as stats:
        calls = [support.compile_with(optimizers[0].step, backend), optimizers[1].step, optimizers[2].step]
        for step in range(steps):
            for m, call in zip(modules, calls):
                generator = torch.Generator().manual_seed(step)
                for parameter in m.parameters():
                    gradient = torch.randn(parameter.shape, generator=generator) * 0.1
                    parameter.grad = gradient.to(parameter.dtype)
                call()
    compiled, eager, reference = (
        {"parameters": dict(m.named_parameters()), "state": [dict(o.state[p]) for p in m.parameters()]}
        for m, o in zip(modules, optimizers)
    )
    return Outcome(stats, compiled, eager, reference)
