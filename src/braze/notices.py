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
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from braze.errors import BrazeWarning
from braze.words import first_of

__all__ = ["SUBJECT", "held", "say", "say_from_a_thread"]

SUBJECT = "{subject}"
"""Where in a text its subject is named."""

_WHERE = re.compile(r"([^\n]+?):(\d+)(?:: .*)?", re.DOTALL)
_PASSED_OVER = frozenset("braze torch contextlib functools threading concurrent".split())
"""Packages whose frames are never the user's."""
_NAMED = 3
"""How many subjects a text names before it counts the rest."""


@dataclass(frozen=True)
class _Notice:
    text: str
    subject: str
    topic: Hashable
    category: type[Warning]
    place: tuple[str, int]
    everywhere: bool

    @property
    def key(self) -> Hashable:
        return None if self.topic is None else (self.topic, None if self.everywhere else self.place)


_said: set[Hashable] = set()
_registry: dict[Any, Any] = {}
_lock = threading.Lock()
_waiting: ContextVar[list[_Notice] | None] = ContextVar("braze_notices", default=None)


def say(
    text: str,
    *,
    subject: str = "",
    where: str | None = None,
    topic: Hashable | None = None,
    everywhere: bool = False,
    category: type[Warning] = BrazeWarning,
) -> None:
    """Warn, now or at the end of the `held` block. Raises the warning where the filters say so.

    where: ``file:line``, with code behind it or not, that the warning is about; without it the line is the
        innermost one that is the user's, of those that are running.
    subject: who the text is about, in the place of `SUBJECT`. What a block says of several subjects in the
        same words, for one place, is one warning.
    topic: what has been said of a topic (without one: of the subject) is not said again for the same place,
        or, ``everywhere``, not at all."""
    found = _WHERE.fullmatch(where or "")
    place = (found[1], int(found[2])) if found else _caller()
    notice = _Notice(text, subject, topic or subject or None, category, place, everywhere)
    waiting = _waiting.get()
    if waiting is None:
        _utter([notice])
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
    outer = _waiting.get()
    waiting: list[_Notice] = []
    token = _waiting.set(waiting)
    try:
        yield
    finally:
        _waiting.reset(token)
    if outer is not None:
        outer.extend(waiting)
        return
    groups: dict[Hashable, list[_Notice]] = {}
    in_places = {notice.topic for notice in waiting if not notice.everywhere}
    for notice in waiting:
        if notice.everywhere and notice.topic in in_places:
            continue  # it is said where it matters
        groups.setdefault((notice.text, notice.category, notice.place), []).append(notice)
    for group in groups.values():
        _utter(group)


def _utter(group: Sequence[_Notice]) -> None:
    """Say what has not been said of notices that differ in their subjects only."""
    with _lock:
        new = [notice for notice in group if notice.key is None or notice.key not in _said]
        keys = {notice.key for notice in new} - {None}
        _said.update(keys)
    if not new:
        return
    one = new[0]
    subjects = list(dict.fromkeys(notice.subject for notice in new))
    text = one.text.replace(SUBJECT, first_of(subjects, _NAMED))
    try:
        warnings.warn_explicit(text, one.category, *one.place, registry=_registry)
    except BaseException:
        with _lock:
            _said.difference_update(keys)
        raise


def _caller() -> tuple[str, int]:
    """File and line of the innermost running frame that is neither ours nor PyTorch's."""
    innermost = frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "torch").partition(".")[0] in _PASSED_OVER:
        if frame.f_back is None:
            return innermost.f_code.co_filename, innermost.f_lineno
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
