"""A worker's own side: a process that is told what it may run, says hello, and answers jobs one at a time.

It ends by itself when its parent closes the pipe or dies, whichever way, also in the middle of a job. It runs
what its table of jobs holds and nothing else, and takes no more memory than it was allowed: where that is
used up, or a job breaks the process, it ends, and the parent goes on.

A new interpreter loads this file by its folder, before it knows of any package. So it imports the standard
library alone, and of that little: a worker that runs LLVM has to be there in no time.

Messages are frames on a pair of pipes, checked as they arrive. A frame is a header, a short head (text) and a
body (bytes), all little endian::

    4 bytes   "BzW1"
    uint8     kind, one of `Kind`; three bytes of zeros
    uint64    number of the job
    uint64    length of the head, at most `MAX_HEAD`
    uint64    length of the body
    uint32    CRC-32 of head and body
    uint32    CRC-32 of the header up to here

What breaks any of this raises `FrameError`: nothing after it on that pipe can be trusted.
"""

from __future__ import annotations

import contextlib
import enum
import faulthandler
import importlib
import json
import os
import select
import signal
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

__all__ = ["MAX_BODY", "MAX_HEAD", "Frame", "FrameError", "FrameReader", "Kind", "Setup", "main", "pack"]

MAX_HEAD = 1 << 20
MAX_BODY = 1 << 31

_MAGIC = b"BzW1"
_FIELDS = struct.Struct("<4sB3xQQQI")
_CRC = struct.Struct("<I")
_HEADER_SIZE = _FIELDS.size + _CRC.size
_READ_BYTES = 1 << 20
_PARENT_CHECK_MS = 1000
_OOM_SCORE = "700"
_PR_SET_PDEATHSIG = 1
_EXIT_NO_MEMORY = 71
_EXIT_BAD_FRAME = 72


# -- frames ----------------------------------------------------------------------------------------------
class FrameError(ValueError):
    """The bytes on a pipe are no frame."""


class Kind(enum.IntEnum):
    """What a frame is. To a worker: JOB. From a worker: HELLO, then for each job ANSWER, or RAISED, or
    REFUSED where it knows no job of that name."""

    JOB = 1
    HELLO = 2
    ANSWER = 3
    RAISED = 4
    REFUSED = 5


class Frame(NamedTuple):
    """One message. ``head``: a job's name, an error's words, or in HELLO the file of the package `braze` that
    the worker found, if it loaded one; ``body``: the job's bytes."""

    kind: Kind
    number: int
    head: str
    body: bytes


def pack(kind: Kind, number: int = 0, head: str = "", body: bytes = b"") -> bytes:
    """The bytes of one frame; a head that is too long is cut."""
    text = head.encode()[:MAX_HEAD]
    fields = _FIELDS.pack(_MAGIC, kind, number, len(text), len(body), zlib.crc32(body, zlib.crc32(text)))
    return b"".join([fields, _CRC.pack(zlib.crc32(fields)), text, body])


class FrameReader:
    """Takes bytes as they arrive and gives back whole frames. A body may have ``max_body`` bytes."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Add ``data``; the frames that are complete now, in order. Raises `FrameError`."""
        self._data += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        if len(self._data) < _HEADER_SIZE:
            if not self._data.startswith(_MAGIC[: len(self._data)]):
                raise FrameError(f"{bytes(self._data)!r} begins no frame")
            return None
        magic, kind, number, head_size, body_size, crc = _FIELDS.unpack_from(self._data)
        (header_crc,) = _CRC.unpack_from(self._data, _FIELDS.size)
        if magic != _MAGIC or zlib.crc32(bytes(self._data[: _FIELDS.size])) != header_crc:
            raise FrameError(f"{bytes(self._data[:16])!r}... begins no frame")
        if head_size > MAX_HEAD or body_size > self._max_body:
            raise FrameError(f"a frame of {head_size + body_size} bytes is larger than agreed")
        end = _HEADER_SIZE + head_size + body_size
        if len(self._data) < end:
            return None
        with memoryview(self._data) as view:
            head = bytes(view[_HEADER_SIZE : _HEADER_SIZE + head_size])
            body = bytes(view[_HEADER_SIZE + head_size : end])
        if zlib.crc32(body, zlib.crc32(head)) != crc:
            raise FrameError(f"a frame of {head_size + body_size} bytes has another checksum than it states")
        del self._data[:end]
        try:
            return Frame(Kind(kind), number, head.decode(), body)
        except ValueError as error:
            raise FrameError(f"no frame: {error}") from error


# -- the process -----------------------------------------------------------------------------------------
class Setup(NamedTuple):
    """What a worker is told when it starts.

    Attributes:
        parent: the process id of its parent.
        jobs: the module with the table of jobs ``JOBS`` and the function ``warm``.
        path: its module path; None: what a bare interpreter has.
        folders: where to look for modules besides.
        modules: what to import before it is warm.
        seal: the module whose function ``seal`` is called before the jobs are loaded, if there is one: no
            option is read that did not come with a job.
        memory_mb: MiB of address space that it may take beyond what it has once it is warm; 0: no bound.
        tied: the kernel ends it with the thread that started it, which lives as long as its workers.
    """

    parent: int
    jobs: str
    path: list[str] | None = None
    folders: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    seal: str = ""
    memory_mb: int = 0
    tied: bool = False


def main(argument: str) -> NoReturn:
    """Serve until the parent closes its end, or dies. ``argument``: a `Setup` as JSON."""
    setup = Setup(**json.loads(argument))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = _take_streams()
    faulthandler.enable()
    if hasattr(faulthandler, "register"):  # "where are you?", before a late one is killed
        faulthandler.register(signal.SIGUSR1, all_threads=False)
    if setup.tied:
        _die_with_parent()
    _live_with(setup.parent, requests)
    _be_killed_first()
    if setup.path is not None:
        sys.path[:] = setup.path
    sys.path += setup.folders
    if setup.seal:
        importlib.import_module(setup.seal).seal()
    module = importlib.import_module(setup.jobs)
    jobs: Mapping[str, Callable[[bytes], bytes]] = module.JOBS
    for name in setup.modules:
        importlib.import_module(name)
    module.warm()
    _bound_memory(setup.memory_mb << 20)
    package = sys.modules.get("braze")
    try:
        _write(answers, pack(Kind.HELLO, head=getattr(package, "__file__", "")))
        reader = FrameReader()
        while data := os.read(requests, _READ_BYTES):
            for frame in reader.feed(data):
                _write(answers, _answer(jobs, frame))
    except MemoryError:
        os.write(2, b"MemoryError: the memory that a worker may take is used up\n")
        os._exit(_EXIT_NO_MEMORY)
    except FrameError as error:
        os.write(2, f"FrameError: {error}\n".encode())
        os._exit(_EXIT_BAD_FRAME)
    except BrokenPipeError:
        pass
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


def _write(answers: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(answers, view) :]


def _die_with_parent() -> None:
    """Be killed when the thread ends that started this process. `_live_with` needs Python's lock for as much,
    and a job may hold that for long."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  a worker that is not tied may do without

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _live_with(parent: int, requests: int) -> None:
    """From now on, end when the process ``parent`` does, however it does, and also in the middle of a job: by
    the kernel's word where a process has a handle, by looking who the parent is, and at the end of the pipe
    ``requests`` (somebody forked by the parent may hold it open)."""
    poller = select.poll()
    poller.register(requests, 0)  # no event but the end of the pipe, which cannot be masked
    wait: int | None = _PARENT_CHECK_MS
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # it is gone, or the kernel has no such thing
            poller.register(os.pidfd_open(parent), select.POLLIN)
            wait = None

    def watch() -> None:
        while os.getppid() == parent and not poller.poll(wait):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="braze-parent-watch", daemon=True).start()


def _be_killed_first() -> None:
    """Where memory runs out, the kernel should take this process and not the user's."""
    # suppressed: another system, or one that does not let us
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)


def _bound_memory(extra: int) -> None:
    """Let allocations beyond ``extra`` bytes more than now fail; 0: no bound. Linux counts address space, so
    the process's libraries and arenas, which are in it by now, must not count."""
    try:
        import resource  # noqa: PLC0415  not there on every platform

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an abort is an answer, and no reason for a dump
        if not extra:
            return
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        bound = pages * resource.getpagesize() + extra
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard != resource.RLIM_INFINITY:
            bound = min(bound, hard)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    except (ImportError, OSError, ValueError):  # macOS and others do not bound it
        return


def _answer(jobs: Mapping[str, Callable[[bytes], bytes]], frame: Frame) -> bytes:
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
        import traceback  # noqa: PLC0415  takes as long to load as all of the above

        last = traceback.extract_tb(error.__traceback__)[-1]
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
        return pack(Kind.RAISED, frame.number, f"{words} ({last.filename}:{last.lineno}, in {last.name})")
    return pack(Kind.ANSWER, frame.number, body=result)
