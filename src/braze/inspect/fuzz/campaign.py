"""Many programs in worker processes under watch, and the account of what came of them.

Each of the threads owns one worker. A worker that dies or hangs costs itself and is replaced; its program is
a fault. What is found is shrunk in the same way, by asking the worker again.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from braze.compile.workers import CompilePool
from braze.errors import InternalError, WorkerError
from braze.inspect.fuzz.generate import MODES, mode_of
from braze.inspect.fuzz.jobs import Explored, Query, options_here
from braze.inspect.fuzz.judge import Fault, Settings, Verdict
from braze.inspect.fuzz.program import Mode, Program
from braze.inspect.fuzz.script import script_of
from braze.inspect.fuzz.shrink import shrink
from braze.runtime.ending import busy
from braze.runtime.ending import start as start_thread

__all__ = ["DEFAULT_JOBS", "Account", "Finding", "Plan", "Session", "run_plan"]

DEFAULT_JOBS = "braze.inspect.fuzz.jobs"

_RENEW = 250
"""Programs after which a worker is replaced, so that what libraries keep does not pile up."""

_ALIKE = 3
"""Of faults that look alike so many are shrunk at length; more get a tenth of the time."""


@dataclass(frozen=True)
class Plan:
    """What to try.

    Attributes:
        seed: of all programs; with the index of a program it gives that program.
        modes: those of the programs that are tried.
        programs: how many, or None.
        minutes: for how long, or None. With neither there is no end.
        first: the index of the first.
        jobs: worker processes.
        strict: a fallback to eager PyTorch is a fault.
        limit: seconds that a program may take.
        shrink_seconds: what shrinking one fault may take.
        out: a folder that receives a script for each fault; None: nothing is written.
        table: the module with the jobs of the workers.
    """

    seed: int = 0
    modes: Sequence[Mode] = MODES
    programs: int | None = None
    minutes: float | None = None
    first: int = 0
    jobs: int = 1
    strict: bool = False
    limit: float = 60.0
    shrink_seconds: float = 40.0
    out: Path | None = None
    table: str = DEFAULT_JOBS


@dataclass(frozen=True)
class Finding:
    """A fault: what it is, the program in which it was found, and the smallest that was found to have it.
    ``path``: the file with the script."""

    fault: Fault
    original: Program
    program: Program
    path: Path | None = None

    def script(self) -> str:
        """The small program as a script."""
        return script_of(self.program, f"Found by: braze fuzz --repeat {self.program.origin}\n{self.fault}")


@dataclass
class Account:
    """What came of the programs so far. ``fallbacks``: programs in which an operator ran as eager PyTorch, by
    operator and reason; ``operators``: programs in which an operator was."""

    programs: int = 0
    graphs: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    with_fallback: int = 0
    findings: list[Finding] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    def enter(self, program: Program, verdict: Verdict) -> None:
        """A program more."""
        self.programs += 1
        self.graphs += verdict.graphs
        self.statuses[verdict.status] += 1
        self.modes[program.mode] += 1
        self.fallbacks.update(verdict.fallbacks)
        self.with_fallback += bool(verdict.fallbacks)
        self.operators.update(set(program.operators()))
        if verdict.status == "undecidable":
            self.undecided.append(f"{program.origin}: {verdict.why}")

    def kinds(self) -> dict[tuple[str, str], list[Finding]]:
        """Findings that look alike: by signature, and where that has no words of its own by the operators of
        the small program."""
        found: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            operators = " ".join(sorted(set(finding.program.operators())))
            key = finding.fault.signature, "" if finding.fault.worded else operators
            found.setdefault(key, []).append(finding)
        return found


class Session:
    """One worker, and how it is asked. Used by one thread."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._jobs = importlib.import_module(plan.table).JOBS
        self._options = options_here()
        self._settings = Settings(strict=plan.strict)
        self._pool = self._new_pool()
        self._asked = 0

    def _new_pool(self) -> CompilePool:
        return CompilePool(1, timeout=self._plan.limit, attempts=1, idle_seconds=600.0, jobs=self._plan.table)

    def close(self) -> None:
        """End the worker."""
        self._pool.terminate("the session was closed")

    def _ask(self, job: str, program: Program | None = None, index: int = 0) -> bytes:
        """Raises `WorkerError` where the worker was lost."""
        if self._asked >= _RENEW:
            self._pool.terminate("the worker has done enough")
            self._pool, self._asked = self._new_pool(), 0
        self._asked += 1
        query = Query(self._options, self._settings, program, self._plan.seed, index)
        future = self._pool.submit(self._jobs[job], msgspec.msgpack.encode(query))
        try:
            answer: bytes = future.result()
        except WorkerError as error:
            if "lost with a job" not in error.what:
                raise InternalError(f"fuzzing failed: {error.what}") from error
            raise
        return answer

    def explore(self, index: int) -> Explored:
        """The program of an index, and what came of it."""
        try:
            return msgspec.msgpack.decode(self._ask("explore", index=index), type=Explored)
        except WorkerError as lost:
            fault = _of_loss(lost)
        try:
            program = msgspec.msgpack.decode(self._ask("make", index=index), type=Explored).program
        except WorkerError:  # PyTorch itself ends the process while the program is drawn
            return Explored()
        if program is None:
            raise InternalError(f"the program {self._plan.seed}:{index} is not the same twice")
        return Explored(program, self._blamed(program, fault))

    def check(self, program: Program) -> Verdict:
        """What comes of a program."""
        try:
            verdict = msgspec.msgpack.decode(self._ask("check", program), type=Explored).verdict
        except WorkerError as lost:
            return self._blamed(program, _of_loss(lost))
        assert verdict is not None
        return verdict

    def _blamed(self, program: Program, fault: Fault) -> Verdict:
        """The verdict on a program with which a worker was lost: not the compiler's fault if eager PyTorch
        alone does the same."""
        try:
            self._ask("run_eagerly", program)
        except WorkerError as lost:
            return Verdict("discarded", None, f"eager PyTorch alone: {_of_loss(lost)}")
        return Verdict("fault", fault)

    def shrunk(self, program: Program, fault: Fault, *, share: float = 1.0) -> tuple[Program, Fault]:
        """A smaller program with a fault of the same kind, and that fault. ``share``: of the time that
        shrinking may take."""
        end = time.monotonic() + share * self._plan.shrink_seconds
        last = fault

        def same(candidate: Program) -> bool:
            nonlocal last
            verdict = self.check(candidate)
            if verdict.fault is None or verdict.fault.signature != fault.signature:
                return False
            last = verdict.fault
            return True

        return shrink(program, same, enough=lambda: time.monotonic() > end), last


def _of_loss(error: WorkerError) -> Fault:
    kind = "hang" if "did not answer" in error.what else "crash"
    return Fault(kind, "the process", error.what.partition("lost with a job: ")[2] or error.what)


def run_plan(plan: Plan, tell: Callable[[Account, str], None]) -> Account:
    """Try programs until there were enough.

    ``tell`` is called after each program, and with words about each fault, by one thread at a time. Raises
    what a thread raised; then, too, no worker is left.
    """
    account = Account()
    start = time.monotonic()
    lock = threading.Lock()
    stop = threading.Event()
    indices = _indices(plan)
    failures: list[BaseException] = []

    def over() -> bool:
        late = plan.minutes is not None and time.monotonic() - start > plan.minutes * 60
        return stop.is_set() or late

    @busy()
    def work() -> None:
        session = Session(plan)
        try:
            while not over():
                with lock:
                    index = next(indices, None)
                if index is None:
                    return
                _try_one(session, index, plan, account, lock, lambda words: tell(account, words))
                account.seconds = time.monotonic() - start
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            session.close()

    threads = [
        thread for n in range(plan.jobs) if (thread := start_thread(f"braze-fuzz-{n}", work)) is not None
    ]
    if not threads:
        raise WorkerError("no thread can be started")
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:  # what was found so far is worth having
        stop.set()
        for thread in threads:
            thread.join()
    account.seconds = time.monotonic() - start
    account.findings.sort(key=lambda finding: int(finding.program.origin.partition(":")[2]))
    if failures:
        raise failures[0]
    return account


def _indices(plan: Plan) -> Iterator[int]:
    """The indices of programs in the modes that are wanted."""
    index, given = plan.first, 0
    while plan.programs is None or given < plan.programs:
        if mode_of(index) in plan.modes:
            yield index
            given += 1
        index += 1


def _try_one(
    session: Session,
    index: int,
    plan: Plan,
    account: Account,
    lock: threading.Lock,
    tell: Callable[[str], None],
) -> None:
    explored = session.explore(index)
    program, verdict = explored.program, explored.verdict
    if program is None or verdict is None:
        with lock:
            account.statuses["nothing drawn"] += 1
            tell("")
        return
    with lock:
        account.enter(program, verdict)
        tell("")
        if verdict.fault is None:
            return
        signature = verdict.fault.signature
        alike = sum(finding.fault.signature == signature for finding in account.findings)
    share = 0.1 if alike >= _ALIKE and signature != "value" else 1.0
    small, fault = session.shrunk(program, verdict.fault, share=share)
    path = None
    finding = Finding(fault, program, small)
    if plan.out is not None:
        plan.out.mkdir(parents=True, exist_ok=True)
        path = plan.out / f"fault_{program.origin.replace(':', '_')}.py"
        path.write_text(finding.script(), encoding="utf-8")
        finding = Finding(fault, program, small, path)
    with lock:
        account.findings.append(finding)
        tell(f"{program.origin} ({program.mode})  {fault}")
