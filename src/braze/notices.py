"""Warnings: each said once for its place, at the user's line, and when the work that it is about is done.

Inside a `held` block nothing is said until its end. So a filter that makes warnings errors (``python -W
error``) raises where the caller is, and never in the middle of a compilation, where its error would be taken
for a failure of what warned. What was raised counts as unsaid: it is raised again the next time."""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from braze.errors import BrazeWarning

__all__ = ["held", "say", "say_from_a_thread"]

_WHERE = re.compile(r"([^\n]+?):(\d+)(?:: .*)?", re.DOTALL)
_PASSED_OVER = frozenset("braze torch contextlib functools threading concurrent".split())
"""Packages whose frames are never the user's."""


@dataclass(frozen=True)
class _Notice:
    text: str
    category: type[Warning]
    filename: str
    lineno: int
    key: Hashable | None

    def utter(self) -> None:
        with _lock:
            if self.key in _said:
                return
            if self.key is not None:
                _said.add(self.key)
        try:
            warnings.warn_explicit(self.text, self.category, self.filename, self.lineno, registry=_registry)
        except BaseException:
            with _lock:
                _said.discard(self.key)
            raise


_said: set[Hashable] = set()
_registry: dict[Any, Any] = {}
_lock = threading.Lock()
_waiting: ContextVar[list[_Notice] | None] = ContextVar("braze_notices", default=None)


def say(
    text: str,
    *,
    where: str | None = None,
    topic: Hashable | None = None,
    everywhere: bool = False,
    category: type[Warning] = BrazeWarning,
) -> None:
    """Warn, now or at the end of the `held` block. Raises the warning where the filters say so.

    where: ``file:line``, with code behind it or not, that the warning is about; without it the line is the
        innermost one that is the user's, of those that are running.
    topic: what has been said of a topic is not said again for the same place, or, ``everywhere``, not at
        all."""
    found = _WHERE.fullmatch(where or "")
    filename, lineno = (found[1], int(found[2])) if found else _caller()
    place = None if everywhere else (filename, lineno)
    notice = _Notice(text, category, filename, lineno, None if topic is None else (topic, place))
    waiting = _waiting.get()
    if waiting is None:
        notice.utter()
    else:
        waiting.append(notice)


def say_from_a_thread(text: str) -> None:
    """Warn in a thread of our own: where the filters make an error of it, nobody could catch that, and it is
    a line of the log instead."""
    try:
        say(text)
    except Warning as raised:
        logging.getLogger("braze").warning("%s", raised)


@contextmanager
def held() -> Iterator[None]:
    """What is said in this block is said at its end; where an error leaves it, it is not said at all. A block
    inside another ends with that one."""
    if _waiting.get() is not None:
        yield
        return
    waiting: list[_Notice] = []
    token = _waiting.set(waiting)
    try:
        yield
    finally:
        _waiting.reset(token)
    for notice in waiting:
        notice.utter()


def _caller() -> tuple[str, int]:
    """File and line of the innermost running frame that is neither ours nor PyTorch's."""
    outermost = frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "torch").partition(".")[0] in _PASSED_OVER:
        if frame.f_back is None:
            return outermost.f_code.co_filename, outermost.f_lineno
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
