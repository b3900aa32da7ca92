"""Which passes a graph goes through, and in which order."""

from __future__ import annotations

from torch.fx import GraphModule

from braze._torch.random_calls import describe_replays
from braze.config import Config
from braze.frontend.passes import constants, cse, dce, layout, random, views

__all__ = ["run_passes"]


def run_passes(gm: GraphModule, config: Config) -> None:
    """Simplify `gm` in place. What it computes, mutates and returns stays the same; the order of its
    mutations too."""
    describe_replays(gm)
    dce.run(gm, every_draw=config.fallback_random)
    layout.run(gm)
    if config.fallback_random:
        random.drop_certain(gm)
    else:
        random.run(gm)
    constants.run(gm)
    views.run(gm)
    # views and casts that were removed make more nodes equal
    cse.run(gm)
    dce.run(gm, every_draw=config.fallback_random)
