"""Which passes a graph goes through, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch.fx import GraphModule

from braze._torch.random_calls import describe_replays
from braze.config import Config
from braze.frontend.passes import constants, cse, dce, layout, random, views

__all__ = ["PASSES", "run_passes"]

Pass: TypeAlias = Callable[[GraphModule, Config], object]


def _unread(gm: GraphModule, config: Config) -> bool:
    return dce.run(gm, every_draw=config.fallback_random)


def _random(gm: GraphModule, config: Config) -> bool:
    return random.drop_certain(gm) if config.fallback_random else random.run(gm)


PASSES: tuple[tuple[str, Pass], ...] = (
    ("replays", lambda gm, config: describe_replays(gm)),
    ("unread", _unread),
    ("layout", lambda gm, config: layout.run(gm)),
    ("random", _random),
    ("constants", lambda gm, config: constants.run(gm)),
    ("views", lambda gm, config: views.run(gm)),
    # views and casts that were removed make more nodes equal
    ("equal", lambda gm, config: cse.run(gm)),
    ("unread again", _unread),
)


def run_passes(gm: GraphModule, config: Config) -> None:
    """Simplify `gm` in place. What it computes, mutates and returns stays the same; the order of its
    mutations too."""
    for _, simplify in PASSES:
        simplify(gm, config)
