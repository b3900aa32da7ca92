"""Models under ``verify``: each of their kernels does what its loops say, in training and in half types."""

from __future__ import annotations

import pytest
import torch

import braze
from tests.models import zoo
from tests.models.compare import outcome


@pytest.mark.parametrize("name", ["bert", "resnet18", "lstm", "convnet-train", "llama-bfloat16"])
def test_every_kernel_is_what_it_should_be(name: str) -> None:
    torch._dynamo.reset()
    with braze.config.patch(verify=True, strict=True):
        outcome(zoo.find(name))
