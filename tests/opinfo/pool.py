"""Workers under watch: a pair that crashes or hangs costs its worker, not the run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.opinfo.cases import Pair, Verdict

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Settings:
    """backend, samples for each pair, torch threads of a worker, seconds that a pair may take, and those that
    a worker may take to start, pairs that a worker judges before a new one takes over (so that what compilers
    keep does not pile up). module: what a worker runs. mode: Braze's `fx_compile_mode`; empty: as the
    environment has it. verdict: the class of what a worker answers, made of its fields.
    """

    backend: str
    samples: int = 2
    threads: int = 1
    limit: float = 90.0
    start: float = 180.0
    renew: int = 250
    module: str = "tests.opinfo.worker"
    mode: str = ""
    verdict: Callable[..., Any] = Verdict


class Worker:
    """One worker process. Raises `WorkerLost` from `ask` when the process dies or is too slow; then it is
    over.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        command = [sys.executable, "-m", settings.module, settings.backend]
        self._process = subprocess.Popen(
            [*command, str(settings.samples), str(settings.threads), settings.mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
        )
        self._buffer = b""
        self.pairs = [Pair(**fields) for fields in self._read(settings.start)]
        self.judged = 0

    def ask(self, pair: Pair) -> Any:
        """The verdict on a pair."""
        assert self._process.stdin is not None
        request = json.dumps(dataclasses.asdict(pair)) + "\n"
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._lost() from None
        self.judged += 1
        return self._settings.verdict(**self._read(self._settings.limit))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _read(self, seconds: float) -> Any:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], seconds)
            if not ready:
                raise WorkerLost("timeout", f"took more than {seconds:.0f} s")
            data = self._process.stdout.read1()  # type: ignore[attr-defined]
            if not data:
                raise self._lost()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _lost(self) -> WorkerLost:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        fatal = [line for line in lines if line.startswith(("Fatal", "LLVM ERROR")) or "Assertion" in line]
        tail = (fatal or [line for line in lines if line.strip()] or [""])[-1].strip()
        return WorkerLost("crashed", f"{how}: {tail}"[:300])


class WorkerLost(Exception):
    """A worker died or did not answer in time."""

    def __init__(self, status: Any, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def all_pairs(settings: Settings) -> list[Pair]:
    """Every pair of the database (asked of a worker, since the database is no module to import lightly)."""
    worker = Worker(settings)
    worker.close()
    return worker.pairs


def shard(pairs: list[Pair], number: int, of: int) -> list[Pair]:
    """Part `number` (from 1) of `of` parts; neighbours, which cost alike, go to different parts."""
    if not 1 <= number <= of:
        raise ValueError(f"shard {number}/{of}: the number runs from 1 to {of}")
    return pairs[number - 1 :: of]


def judge_all(
    pairs: list[Pair], settings: Settings, jobs: int, progress: Callable[[Any], None] | None = None
) -> list[Any]:
    """The verdicts on all pairs, sorted; `progress` is called with each as it comes, from one thread at a
    time.
    """
    todo: queue.SimpleQueue[Pair] = queue.SimpleQueue()
    for pair in pairs:
        todo.put(pair)
    verdicts: list[Any] = []
    failures: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        try:
            for verdict in _verdicts(todo, settings):
                with lock:
                    verdicts.append(verdict)
                    if progress is not None:
                        progress(verdict)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(max(1, min(jobs, len(pairs))))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sorted(verdicts, key=lambda verdict: (verdict.op, verdict.dtype))


def _verdicts(todo: queue.SimpleQueue[Pair], settings: Settings) -> Iterator[Any]:
    worker: Worker | None = None
    try:
        while True:
            try:
                pair = todo.get_nowait()
            except queue.Empty:
                return
            if worker is not None and worker.judged >= settings.renew:
                worker.close()
                worker = None
            if worker is None:
                worker = Worker(settings)
            try:
                yield worker.ask(pair)
            except WorkerLost as lost:
                worker.close()
                worker = None
                yield settings.verdict(pair.op, pair.dtype, lost.status, reason=lost.reason)
    finally:
        if worker is not None:
            worker.close()
