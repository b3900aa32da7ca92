"""Small real models with random weights, for tests and benchmarks.

`MODELS` is the list; `find(name)` takes one from it. `Model.make(size)` builds a module and its inputs from
a fixed seed. Sizes: "test" (a call takes milliseconds), "bench" (tens of milliseconds) and "tiny" (the
graph of "bench" with next to no work in it, so that what a call costs is its fixed cost).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from tests.models import language, recommendation, recurrent, simple, vision

Size = Literal["tiny", "test", "bench"]
Inputs = dict[str, torch.Tensor]
Kind = Literal["inference", "training"]
Precision = Literal["float32", "bfloat16", "autocast"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model of the zoo.

    build(size) makes the float32 module in eval mode and its inputs; in training, the module returns a
    scalar loss. precision "bfloat16" converts module and floating inputs; "autocast" leaves them and runs
    calls under `torch.autocast`.
    """

    name: str
    kind: Kind
    build: Callable[[Size], tuple[torch.nn.Module, Inputs]]
    precision: Precision = "float32"

    def make(self, size: Size = "test") -> tuple[torch.nn.Module, Inputs]:
        """The module (in train mode for training) and its inputs; the same ones for the same size, each
        time.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(20240)
            module, inputs = self.build(size)
        if self.precision == "bfloat16":
            module = module.to(torch.bfloat16)
            inputs = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in inputs.items()}
        module.train(self.kind == "training")
        return module, inputs

    def context(self) -> AbstractContextManager[Any]:
        """What calls of the module are wrapped in."""
        stack = contextlib.ExitStack()
        if self.kind == "inference":
            stack.enter_context(torch.no_grad())
        if self.precision == "autocast":
            stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
        return stack


def _both(
    names: Mapping[str, Callable[[Size], tuple[torch.nn.Module, Inputs]]], kind: Kind
) -> Iterator[Model]:
    for name, build in names.items():
        yield Model(name, kind, build)


INFERENCE: tuple[Model, ...] = tuple(
    _both(
        {
            "bert": language.bert,
            "gpt2": language.gpt2,
            "llama": language.llama,
            "t5": language.t5,
            "vit": language.vit,
            "resnet18": vision.resnet18,
            "mobilenet": vision.mobilenet,
            "unet": vision.unet,
            "lstm": recurrent.lstm,
            "dlrm": recommendation.dlrm,
        },
        "inference",
    )
)
TRAINING: tuple[Model, ...] = tuple(
    _both(
        {
            "mlp-train": simple.mlp_loss,
            "convnet-train": vision.convnet_loss,
            "gpt2-train": language.gpt2_loss,
            "vit-train": language.vit_loss,
        },
        "training",
    )
)
REDUCED: tuple[Model, ...] = tuple(
    dataclasses.replace(model, name=f"{model.name}-{precision}", precision=precision)
    for model in INFERENCE
    if model.name in ("bert", "llama", "resnet18")
    for precision in ("bfloat16", "autocast")
) + tuple(
    dataclasses.replace(model, name=f"{model.name}-autocast", precision="autocast")
    for model in TRAINING
    if model.name == "gpt2-train"
)
MODELS: tuple[Model, ...] = INFERENCE + TRAINING + REDUCED
# One of each sort, for checks that are repeated in many settings.
QUICK: tuple[str, ...] = ("bert", "mobilenet", "dlrm", "mlp-train")


def find(name: str) -> Model:
    """The model of that name. Raises KeyError with the names there are."""
    for model in MODELS:
        if model.name == name:
            return model
    raise KeyError(f"no model {name!r}; there are {', '.join(model.name for model in MODELS)}")


def run(model: Model, call: Callable[..., Any], inputs: Inputs) -> Any:
    """One forward pass; of a training step, the forward pass, the backward pass, and the loss as the
    result.
    """
    with model.context():
        result = call(**inputs)
    if model.kind == "training":
        result.backward()
    return result


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """The gradient of each parameter, by name."""
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def optimizer(module: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW as one trains with it."""
    return torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
