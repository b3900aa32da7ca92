"""The failure policy for what goes wrong with a whole graph, and for what goes wrong with its place in the
cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from torch.fx import GraphModule

from braze import notices
from braze._torch.provenance import source_of_error
from braze.artifact.schema import Fallback
from braze.compile.report import ledger
from braze.errors import BrazeError, ConfigError, FallbackError

__all__ = ["described", "given_up", "place_of", "without_cache"]

T = TypeVar("T")

_log = logging.getLogger("braze")


def given_up(name: str, error: Exception, gm: GraphModule, *, strict: bool, runs: str = "runs") -> None:
    """Say and count that ``gm``, called ``name``, runs (in other words: ``runs``) as eager PyTorch for an
    error's sake. Raises `FallbackError`, or the `BrazeError` itself, in strict mode, and a `ConfigError`
    always."""
    if isinstance(error, ConfigError):
        raise error
    where = place_of(error, gm)
    if strict:
        if isinstance(error, BrazeError):
            raise error.at(where=where)
        raise FallbackError(f"{name} could not be compiled: {described(error)}", where=where) from error
    reason = described(error)
    ledger.record_eager(Fallback(name, reason, where or ""))
    place = "" if where is None or where in reason else f"\n  where:  {where}"
    notices.say(f"{name} {runs} as eager PyTorch: {reason}{place}", where=where, topic=reason)
    _log.debug("%s could not be compiled", name, exc_info=error)


def place_of(error: Exception, gm: GraphModule) -> str | None:
    """The user's line that an error is about, which happened to ``gm``. Raises nothing."""
    try:
        return (error.where if isinstance(error, BrazeError) else None) or source_of_error(error, gm)
    except Exception as another:
        _log.debug("the place of an error is not known", exc_info=another)
        return None


def without_cache(action: Callable[[], T], default: T) -> T:
    """What ``action``, which has to do with the cache, returns; where it fails, ``default``, and one warning
    for all that fails in the same way. A cache must never stand between people and their results. Raises
    `ConfigError`: an option that is wrong is said."""
    try:
        return action()
    except ConfigError:
        raise
    except Exception as error:
        reason = described(error)
        notices.say(
            f"compiled graphs are not cached as they should be: {reason}",
            topic=reason,
            everywhere=True,
        )
        _log.debug("the cache failed", exc_info=error)
        return default


def described(error: Exception) -> str:
    """An error in words. Of PyTorch's only the first line: listings follow it."""
    if isinstance(error, BrazeError):
        return str(error)
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
