"""An LSTM written as a loop over its cell."""

from __future__ import annotations

import torch
from torch import nn

Built = tuple[nn.Module, dict[str, torch.Tensor]]
# (steps, batch, width)
SHAPES = {"tiny": (16, 2, 8), "test": (8, 4, 128), "bench": (16, 32, 256)}


class LSTM(nn.Module):
    """One layer (Hochreiter and Schmidhuber, 1997), unrolled in Python, and a head on the last state."""

    def __init__(self, width: int, classes: int = 10) -> None:
        super().__init__()
        self.from_input = nn.Linear(width, 4 * width)
        self.from_state = nn.Linear(width, 4 * width, bias=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = x.new_zeros(x.shape[0], x.shape[2])
        cell = torch.zeros_like(state)
        states = []
        for step in range(x.shape[1]):
            gates = self.from_input(x[:, step]) + self.from_state(state)
            i, f, g, o = gates.chunk(4, dim=1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(cell)
            states.append(state)
        return self.head(state), torch.stack(states, dim=1)


def lstm(size: str) -> Built:
    """An LSTM over a short sequence."""
    steps, batch, width = SHAPES[size]
    return LSTM(width), {"x": torch.randn(batch, steps, width)}
