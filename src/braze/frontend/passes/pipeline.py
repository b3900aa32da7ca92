"""Which passes a graph goes through, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch.fx import GraphModule

from braze import notices
from braze._torch import dynamo, tracing
from braze._torch.random_calls import describe_replays
from braze.compile.failing import described, place_of
from braze.compile.inner_graphs import graphs_inside, returns_a_tuple
from braze.config import Config
from braze.errors import ConfigError
from braze.frontend.passes import conjugates, constants, cse, dce, layout, random, views
from braze.frontend.passes.extended import passes_by_users

__all__ = ["JOINT", "PASSES", "run_passes"]

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


JOINT: tuple[tuple[str, Pass], ...] = (
    ("conjugates", lambda gm, config: conjugates.run(gm)),
    ("equal", lambda gm, config: cse.run(gm)),
)
"""What a forward and a backward go through while they are one graph."""


def run_passes(gm: GraphModule, config: Config, passes: Sequence[tuple[str, Pass]] | None = None) -> None:
    """Simplify `gm`, and the graphs inside of it, in place. What it computes, mutates and returns stays the
    same; the order of its mutations too. A pass that fails is left out, with one warning, and what it had
    begun is undone. ``passes``: others than those of users and `PASSES`."""
    left = list((*passes_by_users(), *PASSES) if passes is None else passes)
    before = tracing.Remembered(gm)
    while not all(_has_run(one, gm, config, left) for one in tuple(left)):
        # the others begin anew: the graph is known as it was before the first of them
        before.restore(gm)
    if passes is None:
        for inner in graphs_inside(gm):
            with returns_a_tuple(inner):
                tracing.keep_promised_strides(inner)
                run_passes(inner, config)


def _has_run(one: tuple[str, Pass], gm: GraphModule, config: Config, left: list[tuple[str, Pass]]) -> bool:
    """Run a pass; where it fails, take it off those that are ``left`` and say so."""
    name, simplify = one
    try:
        simplify(gm, config)
    except Exception as error:
        if isinstance(error, ConfigError) or dynamo.is_for_dynamo(error):
            raise
        left.remove(one)
        reason = described(error)
        notices.say(
            f"graphs are compiled without the pass {name!r}: {reason}",
            where=place_of(error, gm),
            topic=(name, reason),
            everywhere=True,
        )
        return False
    return True
