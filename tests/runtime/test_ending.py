"""What runs beside the caller is gone when the process ends, in order and at once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from braze.runtime.ending import busy, ending, fork_lock, start

HEAD = """
import atexit, os, signal, sys, threading, time
from braze.runtime.ending import at_end, busy, ending, start
"""


def run(program: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A program that has to end by itself."""
    return subprocess.run(
        [sys.executable, *flags, "-c", HEAD + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(program: str, *flags: str) -> list[str]:
    """The lines of a program that says nothing on its standard error, and ends with 0."""
    done = run(program, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


BUSY = """
    inside = threading.Event()

    def work():
        try:
            with busy():
                inside.set()
                {0}
        finally:
            sys.stdout.write("left\\n")  # whole lines: another thread may write at the same time
            sys.stdout.flush()
"""


@pytest.mark.parametrize(
    "by",
    ['start("worker", work)', "threading.Thread(target=work, daemon=True).start()"],
    ids=["ours", "the caller's"],
)
@pytest.mark.parametrize("flags", [(), ("-X", "dev")], ids=["plain", "dev"])
def test_a_busy_thread_is_interrupted(by: str, flags: tuple[str, ...]) -> None:
    lines = told(BUSY.format("while True: pass") + f"    {by}\n    inside.wait()\n", *flags)
    assert lines == ["left"]


def test_a_finaliser_that_has_the_interruption_does_not_keep_the_thread() -> None:
    program = """
    class Slow:
        def __del__(self):
            inside.set()
            until = time.monotonic() + 0.2
            while time.monotonic() < until: pass
    """
    work = BUSY.format("Slow()\n                while True: pass").replace(
        "                inside.set()\n", ""
    )
    assert told(work + program + 'start("worker", work)\n    inside.wait()\n') == ["left"]


def test_an_import_is_not_interrupted(tmp_path: Path) -> None:
    """Half a module's import may leave files open, about which Python complains."""
    slow = "import time, sys\nfor _ in range(100): time.sleep(0.003)\nprint('imported', flush=True)\n"
    (tmp_path / "slow_to_import.py").write_text(slow)
    program = f"    sys.path.insert(0, {str(tmp_path)!r})\n" + BUSY.format(
        "import slow_to_import\n                while True: pass"
    )
    assert told(program + '    start("worker", work)\n    inside.wait()\n') == ["imported", "left"]


def test_what_waits_for_what_is_closed_is_interrupted_by_then() -> None:
    lines = told(
        """
    closed, waits = threading.Event(), threading.Event()

    def work():
        with busy():
            waits.set()
            closed.wait()
            print("it goes on")

    at_end(closed.set)
    start("worker", work)
    waits.wait()
    """
    )
    assert lines == []


def test_order() -> None:
    lines = told(
        BUSY.format("while True: pass")
        + """
    def say(what): return lambda: (sys.stdout.write(f"{what} {ending()}\\n"), sys.stdout.flush())
    atexit.register(say("registered before"))
    at_end(say("the store"), last=True)
    at_end(say("the first pool"))
    at_end(say("the second pool"))
    start("worker", work)
    inside.wait()
    print(ending())
    """
    )
    assert lines[0] == "False" and lines[1] == "registered before False"
    assert lines[-1] == "the store True"
    # the thread may leave at any moment from the interruption on
    assert [line for line in lines[2:-1] if line != "left"] == ["the second pool True", "the first pool True"]
    assert lines.count("left") == 1


def test_what_fails_to_close_keeps_nothing_else_open() -> None:
    done = run(
        """
    def fails(): raise ValueError("on purpose")
    at_end(lambda: print("closed"))
    at_end(fails)
    """
    )
    assert done.stdout == "closed\n" and "ValueError: on purpose" in done.stderr


def test_ctrl_c_while_it_closes_has_no_effect() -> None:
    lines = told(
        """
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        print("closed")

    at_end(interrupt)
    """
    )
    assert lines == ["closed"]


def test_handlers_that_come_later_start_nothing() -> None:
    lines = told(
        """
    at_end(lambda: print("closed", start("late", print)))
    """
    )
    assert lines == ["closed None"]


def test_who_is_loaded_by_a_handler_starts_nothing() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
            import atexit, threading

            def handler():
                from braze.runtime.ending import ending, start
                print(ending(), start("late", print))

            atexit.register(handler)
        """),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True None\n", "")


def test_a_thread_that_cannot_be_started_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.12 has it once the main thread has ended."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert start("late", print) is None
    assert not ending()


def test_a_child_has_nothing_of_its_parents() -> None:
    lines = told(
        BUSY.format("while True: pass")
        + """
    start("worker", work)
    inside.wait()
    start_of_end = time.monotonic()
    pid = os.fork()
    if pid == 0:
        atexit.register(lambda: os.write(1, b"child\\n"))
        sys.exit(0)
    os.waitpid(pid, 0)
    os.write(1, b"%d\\n" % (time.monotonic() - start_of_end < 3))
    """
    )
    assert lines[:2] == ["child", "1"] and lines[2:] == ["left"]


def test_blocks_nest() -> None:
    @busy()
    def inner() -> int:
        with busy():
            return 3

    with busy():
        assert inner() == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_waits_for_locks() -> None:
    lock = fork_lock()
    held = threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
