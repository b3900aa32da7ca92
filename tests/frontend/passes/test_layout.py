"""Convolutions in channels-last: where, and that nobody outside sees it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule

from braze.artifact.output_code import OutputCode
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest
from braze.frontend.backend import make_backend

aten = torch.ops.aten


class Seen:
    """Keeps the graphs as they come out of the passes, and runs them by eager operators."""

    def __init__(self) -> None:
        self.graphs: list[GraphModule] = []

    def compile(self, request: CompileRequest) -> OutputCode:
        self.graphs.append(request.gm)
        return run_eagerly(request, None)

    def copies(self) -> list[torch.memory_format]:
        return [
            n.kwargs["memory_format"]
            for gm in self.graphs
            for n in gm.graph.nodes
            if n.target is aten.clone.default and n.kwargs.get("memory_format") is not None
        ]

    def formats(self) -> list[bool]:
        """For each convolution, whether its image is channels-last."""
        return [
            n.args[0].meta["val"].is_contiguous(memory_format=torch.channels_last)
            for gm in self.graphs
            for n in gm.graph.nodes
            if n.target is aten.convolution.default
        ]


def chain(channels: int, layers: int) -> nn.Module:
    return nn.Sequential(
        *[nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()) for _ in range(layers)]
    ).eval()


def seen(model: nn.Module, x: torch.Tensor, dynamic: bool = False) -> Seen:
    torch._dynamo.reset()
    watcher = Seen()
    with torch.no_grad():
        result = torch.compile(model, backend=make_backend(watcher), dynamic=dynamic)(x)
        expected = model(x)
    torch.testing.assert_close(result, expected)
    assert result.stride() == expected.stride()
    return watcher


def test_a_chain_is_copied_once() -> None:
    watcher = seen(chain(8, 4), torch.randn(2, 8, 16, 16))
    assert watcher.formats() == [True] * 4
    assert watcher.copies() == [torch.channels_last]


def test_few_convolutions_stay_as_they_are() -> None:
    assert seen(chain(8, 2), torch.randn(2, 8, 16, 16)).copies() == []


def test_symbolic_sizes_stay_as_they_are() -> None:
    assert seen(chain(8, 4), torch.randn(2, 8, 16, 16), dynamic=True).copies() == []


def test_large_weights_on_small_images_stay_contiguous() -> None:
    class Narrowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = chain(16, 3)
            self.back = nn.Conv2d(16, 256, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.back(F.max_pool2d(self.front(x), 4))

    watcher = seen(Narrowing().eval(), torch.randn(1, 16, 16, 16))
    assert watcher.formats() == [True, True, True, False]
    assert watcher.copies() == [torch.channels_last, torch.contiguous_format]


def test_the_program_s_own_format_is_kept() -> None:
    model = chain(64, 4).to(memory_format=torch.channels_last)
    x = torch.randn(1, 64, 4, 4).to(memory_format=torch.channels_last)
    assert seen(model, x).copies() == []


def test_views_of_results_become_reshapes() -> None:
    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = chain(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.front(x).view(x.shape[0], -1) * 2

    assert seen(Flattening().eval(), torch.randn(2, 8, 8, 8)).formats() == [True] * 3


def test_a_concatenation_for_convolutions_is_made_in_their_format() -> None:
    class Joining(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = chain(8, 3)
            self.back = nn.Conv2d(16, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.back(torch.cat([x, self.front(x)], 1))

    watcher = seen(Joining().eval(), torch.randn(2, 8, 8, 8))
    assert watcher.formats() == [True] * 4
    assert len(watcher.copies()) == 1


def test_training_agrees() -> None:
    torch._dynamo.reset()
    model = chain(8, 4).train()
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    expected = torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()])
    compiled = torch.compile(model, backend="braze")
    found = torch.autograd.grad(compiled(x).square().sum(), [x, *model.parameters()])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert a.stride() == b.stride()
