"""The end of the process: what Braze runs beside the caller has one owner, and is gone before Python's
interpreter is taken apart.

Python leaves daemon threads running then, and ends each where it next wants the interpreter's lock. A thread
with C++ below it, as all have that call PyTorch's dispatcher, cannot end there: C++ calls ``terminate``, and
the process aborts. So compiling in a thread is *busy* work (`busy`): it is interrupted by a
``SystemExit``, which ends a thread and about which Python prints nothing, as Ctrl-C interrupts the main
thread; and it is waited for. A compile in a daemon thread of the caller's ends in the same way. Nobody waits
for a compile to be done.

What has to be closed is registered with `at_end`, in place of `atexit`: there is one order for all of it.
Handlers of the caller's may come later still, and call what is not compiled yet; `ending` tells who would
start a thread or a process for it that there is nobody left to end these.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Final

from braze._torch.frames import is_compiling

__all__ = ["at_end", "busy", "ending", "fork_lock", "start"]

_PATIENCE: Final = 5.0
"""Seconds that the end waits for threads at most. They take milliseconds, unless one is inside a long call
that is not Python's."""
_AGAIN: Final = 0.25
"""Seconds after which a thread that goes on is interrupted again: a finaliser may have had the exception."""

_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep
_PACKAGES: Final = (os.path.join(_LIBRARY, "site-packages"), os.path.join(_LIBRARY, "dist-packages"))
_WAITING: Final = frozenset({"threading.py", "_base.py", "queue.py"})
"""The files of Python's own library in which threads wait for each other."""

_closers: list[Callable[[], None]] = []
_last_closers: list[Callable[[], None]] = []
_threads: dict[threading.Thread, None] = {}
_busy: dict[threading.Thread, int] = {}
"""The threads inside of `busy`, and how deep; each thread writes its own entry."""
_interrupted: dict[threading.Thread, None] = {}
_ending = False

_raise_in = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def ending() -> bool:
    """Whether the process is ending: no thread and no process should be started any more."""
    return _ending


def at_end(close: Callable[[], None], *, last: bool = False) -> None:
    """Have ``close`` called when the process ends; what was registered last is called first. ``last``: when
    no thread is busy any more, rather than to let busy threads go on."""
    (_last_closers if last else _closers).append(close)


def start(name: str, work: Callable[[], None], *, hold: bool = True) -> threading.Thread | None:
    """Start a daemon thread that does ``work``; None where no thread can be started: the process is ending,
    or at a limit. ``hold``: the end of the process waits for it to end, which `at_end` or `busy` see to."""
    if _ending:
        return None
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    for ended in [t for t in list(_threads) if not t.is_alive()]:
        _threads.pop(ended, None)
    if hold:
        _threads[thread] = None
    return thread


@contextmanager
def busy() -> Iterator[None]:
    """Inside this block ``SystemExit`` is raised in this thread when the process ends; at once in a daemon
    thread if it is ending."""
    thread = threading.current_thread()
    if _ending and thread.daemon:
        raise SystemExit
    _busy[thread] = _busy.get(thread, 0) + 1
    try:
        yield
    finally:
        depth = _busy.get(thread, 1) - 1  # a fork may have forgotten it
        if depth > 0:
            _busy[thread] = depth
        else:
            _busy.pop(thread, None)


def fork_lock() -> threading.RLock:
    """A lock that nobody else holds when this process forks. It lives as long as the process, is held for
    short, and no other such lock may be taken inside: a fork takes all of them."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


def _others() -> list[threading.Thread]:
    """The threads that are to be interrupted: busy ones, and those in which Dynamo traces before it calls us.
    (Python has waited for all that are no daemons, unless Ctrl-C ended that.)"""
    me, frames = threading.current_thread(), sys._current_frames()
    tracing = [t for t in threading.enumerate() if is_compiling(frames.get(t.ident or 0))]
    return [t for t in dict.fromkeys((*_busy, *tracing)) if t is not me and t.is_alive()]


def _interrupt(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    """Interrupt these threads; those that were not, since they are at a bad moment for it."""
    later = []
    for thread in threads:
        if thread.ident is None or not _may_be_interrupted(sys._current_frames().get(thread.ident)):
            later.append(thread)
        else:
            _interrupted[thread] = None
            _raise_in(thread.ident, SystemExit)
    return later


def _may_be_interrupted(frame: FrameType | None) -> bool:
    """Whether a thread can be interrupted at this frame without a complaint of Python's (that a file was left
    open, that a finaliser failed): it is in no import, no finaliser, and nowhere in Python's own library but
    where one waits."""
    if frame is not None:
        file = frame.f_code.co_filename
        own = file.startswith(("<frozen ", _LIBRARY)) and not file.startswith(_PACKAGES)
        if own and os.path.basename(file) not in _WAITING:
            return False
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.startswith("<frozen importlib"):
            return False
        frame = frame.f_back
    return True


def _wait_for_threads(later: list[threading.Thread]) -> None:
    """Until no thread is busy, and those that were have ended: what they held is freed then, which is C++ as
    well. ``later``: those that are still to be interrupted."""
    until = time.monotonic() + _PATIENCE
    again = time.monotonic() + _AGAIN
    while (now := time.monotonic()) < until:
        others, frames = _others(), sys._current_frames()
        if not others and not any(thread.ident in frames and thread.is_alive() for thread in _interrupted):
            break
        if now >= again:
            later, again = others, now + _AGAIN
        later = _interrupt(thread for thread in later if thread in others)
        time.sleep(0.001)
    for thread in dict.fromkeys((*_threads, *_interrupted)):
        with suppress(RuntimeError):  # it is this one, or one that Python did not start
            thread.join(max(0.0, until - time.monotonic()))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside this block Ctrl-C has no effect (the program is ending already, and this takes milliseconds),
    and nothing is printed where an interrupted thread was inside a finaliser."""

    def unraisable(what: sys.UnraisableHookArgs) -> Any:
        if not issubclass(what.exc_type, SystemExit):
            hook(what)

    hook = sys.unraisablehook
    handler = None
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)  # None: it is not Python's, and could not be put back
        if handler is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if handler is not None:
            signal.signal(signal.SIGINT, handler)


def _finish() -> None:
    global _ending
    if _ending:
        return
    with _undisturbed(), ExitStack() as stack:  # which calls all of them, whatever one raises
        _ending = True
        for close in _last_closers:
            stack.callback(close)
        # before anything is closed: who waits for it wakes up to this, and not to an error
        stack.callback(_wait_for_threads, _interrupt(_others()))
        for close in _closers:
            stack.callback(close)


def _after_fork() -> None:
    """The other threads are the parent's."""
    me = threading.current_thread()
    _threads.clear()
    _interrupted.clear()
    for thread in list(_busy):
        if thread is not me:
            del _busy[thread]


atexit.register(_finish)
if threading.current_thread() is threading.main_thread() and not threading.main_thread().is_alive():
    _ending = True  # loaded by another handler of the end, when Python calls no more that are registered
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
