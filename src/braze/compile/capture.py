"""What a compilation says while it runs: log lines and warnings that are kept, to be said
where it was asked for.

Nothing is taken from other compilations of the process, or from anything else in it: what is kept is what is
said in the context (thread, task) of a `captured` block. In a compile worker, whose threads all work for one
job, it is everything.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, TextIO

import msgspec

from braze import config, notices
from braze.errors import BrazeWarning
from braze.runtime.ending import fork_lock

__all__ = ["LogLine", "Said", "Warned", "captured", "levels", "replay_logs", "replay_warnings"]

_ROOT = "root"
_LOGGER = re.compile(r"braze(\.\w+)*", re.ASCII)

LoggerName = Annotated[str, msgspec.Meta(pattern=rf"\A{_LOGGER.pattern}\Z", max_length=256)]
Level = Annotated[int, msgspec.Meta(ge=0, le=1000)]
Levels = dict[str, Level]

_CATEGORIES: Mapping[str, type[Warning]] = {
    kind.__name__: kind
    for kind in (
        BrazeWarning,
        BytesWarning,
        DeprecationWarning,
        FutureWarning,
        ImportWarning,
        PendingDeprecationWarning,
        ResourceWarning,
        RuntimeWarning,
        SyntaxWarning,
        UnicodeWarning,
        UserWarning,
        Warning,
    )
}


class LogLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One log record, its arguments put in; ``created``: seconds since the epoch."""

    logger: LoggerName
    level: Level
    message: str
    pathname: str
    lineno: int
    created: float


class Warned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One warning. ``category``: the nearest class that Python, or Braze, has."""

    category: str
    text: str
    filename: str
    lineno: int


@dataclass
class Said:
    """What was said in one block, in order."""

    logs: list[LogLine] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)


def levels() -> Levels:
    """The levels that are set: those of Braze's loggers, and of the root of all."""
    found = {_ROOT: logging.getLogger().level}
    found.update({logger.name: logger.level for logger in _loggers() if logger.level})
    return found


@contextmanager
def captured(wanted: Levels | None = None) -> Iterator[Said]:
    """Keep what is said in this block instead of saying it. ``wanted``: levels of loggers (`levels`) that
    hold inside; they belong to the process, and are changed only where they differ."""
    global _everybodys
    said = Said()
    for logger in _loggers():
        logger.addFilter(_tap)  # the second time it does nothing; it lets pass what nobody keeps
    before = _set_levels(wanted or {})
    token = _mine.set(said)
    if config.sealed():
        _everybodys = said
        warnings.simplefilter("always")  # whoever asked has filters of their own
    _enter()
    try:
        yield said
    finally:
        _leave()
        _everybodys = None
        _mine.reset(token)
        _set_levels(before)


def replay_logs(lines: Iterable[LogLine]) -> None:
    """Say them here, under the names and levels of their loggers, as far as these let them pass."""
    for line in lines:
        logger = logging.getLogger(line.logger)
        if logger.isEnabledFor(line.level):
            record = logging.LogRecord(
                line.logger, line.level, line.pathname, line.lineno, line.message, None, None
            )
            record.created, record.msecs = line.created, 1e3 * (line.created % 1)
            logger.handle(record)


def replay_warnings(found: Iterable[Warned]) -> None:
    """Warn here, as this process's filters have it. Raises the warning where they say so."""
    for one in found:
        category = _CATEGORIES.get(one.category, UserWarning)
        notices.say(one.text, where=f"{one.filename}:{one.lineno}", category=category)


_mine: ContextVar[Said | None] = ContextVar("braze_said", default=None)
_everybodys: Said | None = None


def _loggers() -> list[logging.Logger]:
    """Braze's, as far as they were made."""
    known = logging.root.manager.loggerDict
    names = [n for n, one in list(known.items()) if isinstance(one, logging.Logger) and _LOGGER.fullmatch(n)]
    return [logging.getLogger("braze"), *(logging.getLogger(n) for n in names if n != "braze")]


def _set_levels(wanted: Levels) -> Levels:
    """Set levels; what they were where that changed something."""
    before = {}
    for name, level in wanted.items():
        logger = logging.getLogger(None if name == _ROOT else name)
        if logger.level != level:
            before[name] = logger.level
            logger.setLevel(level)
    return before


class _Tap(logging.Filter):
    """Takes the records of a `captured` block from their loggers."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = _mine.get() or _everybodys
        if said is None:
            return True
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{_formatter.formatException(record.exc_info)}"
        said.logs.append(
            LogLine(record.name, record.levelno, message, record.pathname, record.lineno, record.created)
        )
        return False


_formatter = logging.Formatter()
_tap = _Tap()

_lock = fork_lock()
_inside = 0
_showwarning: Any = None


def _enter() -> None:
    """`warnings.catch_warnings` changes the process for good where two threads are in it at a time: hence one
    function for all blocks, that is there while there is any."""
    global _inside, _showwarning
    with _lock:
        if _inside == 0:
            _showwarning = warnings.showwarning
            warnings.showwarning = _show
        _inside += 1


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0 and warnings.showwarning is _show:
            warnings.showwarning = _showwarning


def _after_fork() -> None:
    """Blocks of other threads are the parent's."""
    global _inside
    while _inside > (_mine.get() is not None):
        _leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    said = _mine.get() or _everybodys
    if said is None:
        _showwarning(message, category, filename, lineno, file, line)
        return
    name = next(c.__name__ for c in category.__mro__ if _CATEGORIES.get(c.__name__) is c)
    said.warnings.append(Warned(name, str(message), filename, lineno))
