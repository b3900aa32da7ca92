"""Multilayer perceptrons."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

Built = tuple[nn.Module, dict[str, torch.Tensor]]
WIDTHS = {"tiny": 8, "test": 128, "bench": 512}
BATCHES = {"tiny": 4, "test": 32, "bench": 128}


class MLP(nn.Module):
    """Three layers with layer norm, GELU and SiLU."""

    def __init__(self, width: int, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, width),
            nn.SiLU(),
            nn.Linear(width, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


class MLPLoss(nn.Module):
    """The cross entropy of an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = MLP(width)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.mlp(x), labels, label_smoothing=0.1)


def mlp(size: str) -> Built:
    """An MLP in inference."""
    return MLP(WIDTHS[size]), {"x": torch.randn(BATCHES[size], WIDTHS[size])}


def mlp_loss(size: str) -> Built:
    """An MLP's loss."""
    x = torch.randn(BATCHES[size], WIDTHS[size])
    return MLPLoss(WIDTHS[size]), {"x": x, "labels": torch.randint(0, 10, (BATCHES[size],))}


class NoisyLoss(nn.Module):
    """The cross entropy of an MLP with batch norm and dropout."""

    def __init__(self, width: int, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(2 * width, width),
            nn.Dropout(0.1),
            nn.BatchNorm1d(width, momentum=0.3),
            nn.Linear(width, classes),
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.layers(x), labels)


def noisy_loss(size: str) -> Built:
    """The loss of an MLP with batch norm, which keeps statistics, and dropout, which draws random numbers."""
    x = torch.randn(BATCHES[size], WIDTHS[size])
    return NoisyLoss(WIDTHS[size]), {"x": x, "labels": torch.randint(0, 10, (BATCHES[size],))}
