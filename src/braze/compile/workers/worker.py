"""The worker's side: a process that is told what it may run, says hello, and answers jobs one at a time.

It ends by itself when its parent closes the pipe or dies, whichever way, also in the middle of a job. It runs
what its table of jobs holds and nothing else, reads no option from its environment, and takes no more memory
than it was allowed: where that is used up, or a job breaks the process, it ends, and the parent goes on.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from braze import config
from braze.compile.workers.frames import Frame, FrameError, FrameReader, Kind, pack
from braze.compile.workers.launch import package_root
from braze.runtime.llvm_worker import live_with

__all__ = ["Hello", "Setup", "main"]

JobFn = Callable[[bytes], bytes]

_READ_BYTES = 1 << 20
_OOM_SCORE = "700"
_PR_SET_PDEATHSIG = 1
_EXIT_NO_MEMORY = 71
_EXIT_BAD_FRAME = 72


class Setup(msgspec.Struct, frozen=True):
    """The body of the first frame to a worker: the process id of its parent, the module with the table of
    jobs, how many MiB of address space it may take beyond what it has once it is warm, and the modules of the
    backends that its parent has."""

    parent: int
    jobs: str
    memory_mb: int
    backends: tuple[str, ...] = ()


class Hello(msgspec.Struct, frozen=True):
    """The body of the first frame from a worker: the folder of the package `braze` that it found."""

    root: str


def main() -> NoReturn:
    """Serve until the parent closes its end, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = _take_streams()
    faulthandler.enable()
    if hasattr(faulthandler, "register"):
        faulthandler.register(
            signal.SIGUSR1, all_threads=False
        )  # "where are you?", before a late one is killed
    reader = FrameReader()
    setup = msgspec.msgpack.decode(_first(requests, reader).body, type=Setup)
    _die_with_parent()
    live_with(setup.parent, requests)
    _be_killed_first()
    config.seal()
    module = importlib.import_module(setup.jobs)
    jobs: Mapping[str, JobFn] = module.JOBS
    for backend in setup.backends:
        importlib.import_module(backend)
    module.warm()
    _bound_memory(setup.memory_mb << 20)
    try:
        _write(answers, pack(Kind.HELLO, body=msgspec.msgpack.encode(Hello(package_root()))))
        while True:
            for frame in reader.feed(_read(requests)):
                _write(answers, _answer(jobs, frame))
    except MemoryError:
        os.write(2, b"MemoryError: the memory that a compile worker may take is used up\n")
        os._exit(_EXIT_NO_MEMORY)
    except FrameError as error:
        os.write(2, f"FrameError: {error}\n".encode())
        os._exit(_EXIT_BAD_FRAME)
    except BrokenPipeError:
        os._exit(0)


def _take_streams() -> tuple[int, int]:
    """Keep the two pipes to ourselves: what a library prints goes to standard error, which the parent reads,
    and nobody can read from standard input."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers


def _read(requests: int) -> bytes:
    data = os.read(requests, _READ_BYTES)
    if not data:
        os._exit(0)
    return data


def _write(answers: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(answers, view) :]


def _first(requests: int, reader: FrameReader) -> Frame:
    """The frame that says what this process is for."""
    while True:
        for frame in reader.feed(_read(requests)):
            return frame


def _die_with_parent() -> None:
    """Be killed when the parent's thread ends that started this process, which lives as long as its workers.
    `live_with` needs Python's lock for as much, and a job may hold that for long."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _be_killed_first() -> None:
    """Where memory runs out, the kernel should take this process and not the user's."""
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    except OSError:  # another system, or one that does not let us
        return


def _bound_memory(extra: int) -> None:
    """Let allocations beyond ``extra`` bytes more than now fail. Linux counts address space, so the process's
    libraries and arenas, which are in it by now, must not count."""
    try:
        import resource  # noqa: PLC0415  not there on every platform

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort is an answer, and no reason for a dump
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + extra
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard != resource.RLIM_INFINITY:
            bound = min(bound, hard)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    except (ImportError, OSError, ValueError):  # macOS and others do not bound it
        return


def _answer(jobs: Mapping[str, JobFn], frame: Frame) -> bytes:
    job = jobs.get(frame.head)
    if frame.kind is not Kind.JOB or job is None:
        return pack(Kind.REFUSED, frame.number, f"no job is called {frame.head!r}")
    try:
        result = job(frame.body)
        if not isinstance(result, bytes):
            raise TypeError(f"job {frame.head!r} returned {type(result).__name__}, not bytes")
    except MemoryError:
        raise
    except BaseException as error:  # whatever it was, the parent has to hear of it
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
        return pack(Kind.RAISED, frame.number, f"{words} ({last.filename}:{last.lineno}, in {last.name})")
    return pack(Kind.ANSWER, frame.number, body=result)
