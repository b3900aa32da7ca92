"""Measuring the demo: one process for each way of running the model, asked in turns."""

from __future__ import annotations

import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from braze.errors import BrazeError

__all__ = ["Measured", "has_cpp_compiler", "measure"]

CHILD = ("-m", "braze.cli.demo_child")
ROUNDS = 8
ROUND_SECONDS = 0.4
PATIENCE_SECONDS = 240.0


@dataclass
class Measured:
    """One way of running the model, as far as it has been measured."""

    way: str
    label: str
    doing: str = "waits"
    since: float = 0.0
    first_seconds: float | None = None
    call_ms: list[float] = field(default_factory=list)
    difference: float | None = None
    failed: str | None = None

    @property
    def per_call_ms(self) -> float | None:
        """The median of all calls of all rounds."""
        return statistics.median(self.call_ms) if self.call_ms else None

    def now(self, doing: str) -> None:
        """What it does from now on, for the table that people watch."""
        self.doing, self.since = doing, time.monotonic()


class _Child:
    """A process of `demo_child`, asked line by line."""

    def __init__(self, measured: Measured, folder: Path) -> None:
        self.measured = measured
        self._log_path = folder / f"{measured.way}.log"
        self._log: IO[bytes] = self._log_path.open("wb")
        environment = {
            **os.environ,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "BRAZE_CACHE_DIR": str(folder / "braze"),
        }
        self._process = subprocess.Popen(
            [sys.executable, *CHILD, measured.way, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def wait(self, event: str) -> dict[str, Any]:
        """The next answer, which must be ``event``. Raises `BrazeError` where the process died or hangs."""
        try:
            line = self._lines.get(timeout=PATIENCE_SECONDS)
        except queue.Empty:
            raise BrazeError(f"{self.measured.label} gave no answer in {PATIENCE_SECONDS:.0f} s") from None
        if not line:
            self._process.wait()
            tail = self._log_path.read_text(errors="replace").strip().splitlines()[-12:]
            raise BrazeError("\n".join([f"the process of {self.measured.label} ended early:", *tail]))
        answer: dict[str, Any] = json.loads(line)
        if answer["event"] != event:
            raise BrazeError(f"{self.measured.label} answered {answer['event']!r} instead of {event!r}")
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        with self._process:  # which closes its pipes, and waits
            self._reader.join()
        self._log.close()


def has_cpp_compiler() -> bool:
    """Whether TorchInductor would find what it needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def _asked(child: _Child, event: str, order: str | None = None) -> dict[str, Any] | None:
    """The answer to an order; None, and the reason in the row, where the process failed."""
    if child.measured.failed is not None:
        return None
    try:
        if order is not None:
            child.ask(order)
        return child.wait(event)
    except (BrazeError, BrokenPipeError) as error:
        child.measured.failed = str(error)
        child.close()
        return None


def measure(rows: Sequence[Measured], folder: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Fill in the rows, the first of which is eager's; the `KernelReport` of Braze, None where it failed.

    ``say`` gets a line for each step, for an output on which the table cannot be drawn again and again.
    """
    children: list[_Child] = []
    try:
        for row in rows:
            row.now("imports and builds the model")
            say(f"{row.label}: {row.doing}")
            child = _Child(row, folder)
            children.append(child)
            if _asked(child, "ready") is not None:
                row.now("calls it for the first time")
                say(f"{row.label}: {row.doing}")
            answer = _asked(child, "first")
            if answer is not None:
                row.first_seconds = answer["seconds"]
                row.now("waits for the others")
        say(f"all: {ROUNDS} rounds of calls, in turns")
        # Rounds alternate, so that a machine that gets slower or faster does so for everybody.
        for _ in range(ROUNDS):
            for child in children:
                child.measured.now("measures calls")
                answer = _asked(child, "round", f"round {ROUND_SECONDS}")
                if answer is not None:
                    child.measured.call_ms += answer["ms"]
                child.measured.now("waits for the others")
        report = None
        for child in children:
            if child.measured.way == "braze":
                child.measured.now("times its kernels")
                say(f"{child.measured.label}: {child.measured.doing}")
                report = _asked(child, "kernels", "kernels")
            child.measured.now("done")
            child.measured.difference = _difference(folder, child.measured.way, rows[0].way)
        return report
    finally:
        for child in children:
            child.close()


def _difference(folder: Path, way: str, other: str) -> float | None:
    """The largest absolute difference of two results; None where one of them does not exist."""
    mine, its = folder / f"{way}.npy", folder / f"{other}.npy"
    if not (mine.exists() and its.exists()):
        return None
    return float(np.abs(np.load(mine) - np.load(its)).max())
