"""Which passes a graph goes through, and in which order."""

from __future__ import annotations

from torch.fx import GraphModule

from braze.config import Config

__all__ = ["run_passes"]


def run_passes(gm: GraphModule, config: Config) -> None:
    """Simplify `gm` in place. What it computes, mutates and returns stays the same."""
    gm.graph.eliminate_dead_code()
