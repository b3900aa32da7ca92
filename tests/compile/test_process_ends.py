"""A process ends as it should, whatever compiles in it. `process_ends` does this at random, and for long."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compile.ending_program import Spec
from tests.compile.process_ends import Ended, Programs, judge, judge_words

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes there are")

SECONDS = 5.0
"""What an end may take on a machine that does other things as well; the compiles take longer."""

ENDS = (
    # what, mode, how, after, layers
    ("call", "async", "return", 0.3, 40),
    ("call", "async", "exit-anywhere", 1.5, 40),
    ("call", "progressive", "exception", 0.0, 4),
    ("backward", "out-of-process", "interrupt", 0.5, 4),
    ("daemon", "in-process", "return", 0.5, 40),
    ("daemon", "serialized", "exit", 0.0, 12),
    ("thread", "debug-file", "unheard", 0.0, 1),
    ("atexit-before", "async", "interrupt-twice", 0.8, 1),
    ("atexit", "out-of-process", "exit", 0.0, 1),
    ("fork-that-ends", "async", "return", 0.0, 1),
    ("package", "in-process", "kill", 0.8, 12),
    ("fuse", "serialized", "terminate", 0.3, 4),
)


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(("-X", "dev", "-W", "error::ResourceWarning")) as started:
        yield started


@pytest.mark.parametrize(("what", "mode", "how", "after", "layers"), ENDS)
def test_ends(
    programs: Programs, tmp_path: Path, what: str, mode: str, how: str, after: float, layers: int
) -> None:
    (tmp_path / "tmp").mkdir()
    spec = Spec(what, mode, how, after, layers, str(tmp_path / "cache"), str(tmp_path))
    ended = programs.end_one(spec, random.Random(0))
    assert judge(spec, ended, SECONDS) == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("return", "terminate called without an active exception\n"),
        ("exit", "graph0_inference keeps its first code: the pool of LLVM workers was closed\n"),
        ("exception", "Traceback ...\n  ...\ntests.OnPurpose\nException in thread braze-llvm-pool:\n"),
        ("interrupt", "Traceback ...\nKeyboardInterrupt\nException in thread braze-llvm-pool:\n"),
        (
            "interrupt-twice",
            "Exception ignored in atexit callback: <function _finish>\nTraceback (most recent call last):\n"
            '  File "/src/braze/runtime/ending.py", line 1, in _finish\nKeyboardInterrupt: \n',
        ),
    ],
)
def test_what_a_program_does_not_say_itself_is_wrong(how: str, said: str) -> None:
    spec = Spec("call", "async", how, 0.0, 1, "", "/nowhere")
    assert judge_words(spec, said)


def test_what_a_program_says_itself_is_not(tmp_path: Path) -> None:
    def words(how: str, said: str) -> list[str]:
        return judge_words(Spec("call", "async", how, 0.0, 1, "", str(tmp_path)), said)

    assert not words("exception", "Traceback (most recent call last):\n  ...\ntests.OnPurpose\n")
    assert not words("interrupt", "Traceback (most recent call last):\n  ...\nKeyboardInterrupt\n")
    assert not words("return", "")


def test_a_status_and_a_time_are_judged(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "braze-left").touch()
    spec = Spec("call", "async", "return", 0.0, 1, "", str(tmp_path))
    assert judge(spec, Ended(-6, 9.0, ""), 1.0) == [
        "its status is -6, not 0",
        "it took 9.00 s to end",
        "the temporary file braze-left is left",
    ]
    assert judge(spec, Ended(None, 0.0, "here"), 1.0) == ["it hangs: here"]
