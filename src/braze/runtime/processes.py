"""What parents of worker processes have in common: whether there can be any, pipes, and last words."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["describe_exit", "enlarge_pipe", "last_words", "no_processes_reason"]

_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which fcntl does not name on every Python
_TELLING = ("Assertion", "LLVM ERROR", "Fatal Python error", "terminate called", "what():")


def no_processes_reason() -> str | None:
    """Why this interpreter can start no worker at all; None where it can."""
    if os.name != "posix":
        return f"worker processes are not supported on {sys.platform}"
    if not sys.executable or getattr(sys, "frozen", False):
        return "Python's executable is not known"
    return None


def describe_exit(code: int) -> str:
    """An exit status of `subprocess`'s in words: ``SIGKILL``, ``exit status 3``."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def enlarge_pipe(pipe: int) -> None:
    """Ask for a pipe that holds 1 MiB, so that large messages take fewer turns."""
    if sys.platform == "linux":
        import fcntl  # noqa: PLC0415  not there on every platform

        try:
            fcntl.fcntl(pipe, _SET_PIPE_SIZE, _PIPE_BYTES)
        except OSError:  # the user's share of pipe memory is used up: a smaller pipe works as well
            return


def last_words(errors: bytes) -> str:
    """On one line, what of the end of a process's standard error says why it ended."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in _TELLING)]
    return " ".join(telling or lines[-3:]) or "it said nothing"
