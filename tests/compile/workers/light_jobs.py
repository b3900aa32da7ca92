"""Jobs without torch, harmless and harmful: what a worker may meet, at the cost of an interpreter's start."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

from braze import config
from braze.errors import ConfigError
from braze.runtime.workers.worker import Kind, pack


def warm() -> None:
    """Nothing to load."""


def double(payload: bytes) -> bytes:
    return payload * 2


def slowly_double(payload: bytes) -> bytes:
    time.sleep(0.01)
    return payload * 2


def nap(payload: bytes) -> bytes:
    """Sleep for so many seconds, and give back the process id."""
    time.sleep(float(payload))
    return str(os.getpid()).encode()


def sleep_for_ever(payload: bytes) -> bytes:
    while True:
        time.sleep(3600)


def hang_in_c(payload: bytes) -> bytes:
    """Hang in a library that keeps the lock of the interpreter."""
    while True:
        ctypes.PyDLL(None).sleep(3600)


def allocate_without_end(payload: bytes) -> bytes:
    kept = [payload]
    while True:
        kept.append(bytes(1 << 20))


def abort(payload: bytes) -> bytes:
    os.write(2, b"LLVM ERROR: this module is cursed\n")
    os.abort()


def vanish(payload: bytes) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return payload


def fail(payload: bytes) -> bytes:
    raise ValueError(payload.decode())


def leave(payload: bytes) -> bytes:
    sys.exit(3)


def text(payload: bytes) -> bytes:
    return payload.decode()  # type: ignore[return-value]


def chatter(payload: bytes) -> bytes:
    """Print a megabyte to both streams, and read from the standard input."""
    for _ in range(1 << 10):
        print("x" * 512)
        print("y" * 512, file=sys.stderr)
    return sys.stdin.read().encode() + payload


def _answer_with(data: bytes) -> None:
    """Write to every pipe that is not one of the three standard ones."""
    for entry in os.listdir("/proc/self/fd"):
        fd = int(entry)
        try:
            if fd > 2 and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                os.write(fd, data)
        except OSError:  # the end that is for reading
            continue


def rubbish(payload: bytes) -> bytes:
    _answer_with(b"\x00\xff<html>" * 100)
    return payload


def another_number(payload: bytes) -> bytes:
    _answer_with(pack(Kind.ANSWER, 987654321, body=b"not yours"))
    return payload


def another_kind(payload: bytes) -> bytes:
    _answer_with(pack(Kind.HELLO))
    return payload


def half_an_answer(payload: bytes) -> bytes:
    _answer_with(pack(Kind.ANSWER, 1, body=bytes(1000))[:500])
    os.kill(os.getpid(), signal.SIGKILL)
    return payload


def once(payload: bytes) -> bytes:
    """Die at the first attempt, of which a file tells the second."""
    path = payload.decode()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return str(os.getpid()).encode()
    os.kill(os.getpid(), signal.SIGKILL)
    return payload


def surroundings(payload: bytes) -> bytes:
    """What a worker is surrounded by, as JSON."""
    descriptors = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            descriptors[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:  # that of the listing itself
            continue
    with open("/proc/self/oom_score_adj") as file:
        oom = int(file.read())
    return json.dumps(
        {
            "pid": os.getpid(),
            "session": os.getsid(0),
            "descriptors": descriptors,
            "environment": dict(os.environ),
            "path": sys.path,
            "modules": sorted(sys.modules),
            "oom": oom,
            "main": sys.modules["__main__"].__dict__.get("__file__", ""),
        }
    ).encode()


def read_an_option(payload: bytes) -> bytes:
    return str(config.current().strict).encode()


def read_an_option_that_was_sent(payload: bytes) -> bytes:
    with config.using(config.Config(**json.loads(payload))):
        with config.patch(strict=True):
            assert config.current().strict
        return str(config.current().llvm_opt_level).encode()


def read_an_option_in_a_thread(payload: bytes) -> bytes:
    found: list[str] = []

    def read() -> None:
        try:
            config.current()
        except ConfigError as error:
            found.append(type(error).__name__)

    with config.using(config.Config()):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    return " ".join(found).encode()


_ALL = (
    double, slowly_double, nap, sleep_for_ever, hang_in_c, allocate_without_end, abort, vanish, fail,
    leave, text, chatter, rubbish, another_number, another_kind, half_an_answer, once, surroundings,
    read_an_option, read_an_option_that_was_sent, read_an_option_in_a_thread,
)  # fmt: skip
JOBS: Mapping[str, Callable[[bytes], bytes]] = {function.__name__: function for function in _ALL}
