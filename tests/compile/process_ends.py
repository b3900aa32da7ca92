"""Programs that compile and end: whether they end as they should.

Each run starts a program (`ending_program`) that compiles something in one of the ways that there are, has it
end at a random moment in one of the ways that there are, and judges:

- its exit status is its own;
- nothing is on its standard error but what it says itself;
- it ends at once: what is called at its end takes no more than ``--seconds`` (a compile is not waited for),
  unless it has a thread or a process of its own that Python waits for;
- a second later no process is left that was started for it;
- no temporary file is left, and the cache that all runs share holds nothing but whole entries.

::

    python -m tests.compile.process_ends --runs 200 --seed 1
    python -m tests.compile.process_ends --only what=call --only mode=async --flags="-X dev"
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from braze.cache.store import CacheStore
from tests.compile.ending_program import STATUS, WHAT, Spec, as_line

MODES = ("in-process", "serialized", "debug-file", "out-of-process", "async", "progressive")
# Python forgets that it was interrupted where something calls `exec` with a text afterwards.
INTERRUPTED = (-signal.SIGINT, 1)
STATUSES: Mapping[str, tuple[int, ...]] = {
    "return": (0,),
    "exception": (1,),
    "exit": (STATUS,),
    "exit-anywhere": (STATUS,),
    "os-exit": (STATUS,),
    "interrupt": INTERRUPTED,
    "interrupt-twice": INTERRUPTED,
    "terminate": (-signal.SIGTERM,),
    "kill": (-signal.SIGKILL,),
    "unheard": (120, 1),  # when Python closes standard output; when it writes to it
}
"""Ways to end, and the exit status of a program that does."""
SIGNALS = {
    "interrupt": signal.SIGINT,
    "interrupt-twice": signal.SIGINT,
    "terminate": signal.SIGTERM,
    "kill": signal.SIGKILL,
}
ANYWHERE = frozenset({"interrupt", "interrupt-twice", "exit-anywhere"})
"""Ways that raise an exception wherever the program happens to be."""
# PyTorch takes an exception that a signal raises inside of a Python guard for a guard that does not hold.
_TAKEN_FOR_A_GUARD = "Guard failed on the same frame it was created"
ABRUPT = frozenset({"os-exit", "terminate", "kill"})
"""Ways in which the interpreter does not get round to anything."""
WAITED_FOR = frozenset(WHAT) - {"call", "backward", "fuse", "package", "daemon"}
"""Programs with a thread, a process or a handler of their own that Python waits for at the end."""
OWN_PROCESSES = frozenset(
    {"fork", "fork-that-ends", "process-fork", "process-spawn", "process-pool", "loader"}
)
LAYERS = (1, 4, 12, 40)
GIVE_UP = 120.0
"""Seconds after which a program hangs."""
LOST = 20.0
"""Seconds after which a program is interrupted again: Python forgets one that comes inside of what
`os.register_at_fork` registered."""
AFTERWARDS = 1.5
"""Seconds that the processes which a program had may take to go away."""
_SUSPICIOUS = re.compile(
    r"Exception ignored|Exception in thread|terminate called|Fatal Python error|Warning|Aborted|Segmentation"
    r"|WorkerError|LLVMError|closed"
)
# PyTorch's folder, and those of multiprocessing and tempfile, which may be interrupted while it looks around.
_NOT_OURS = re.compile(r"torchinductor_.*|pymp-.*|[a-z0-9_]{8}")
_ANNOUNCED = re.compile(r"^\w+: request and answer are in .*\n", re.MULTILINE)
_UNRAISABLE = re.compile(r"^Exception ignored in.*\n(Traceback.*\n(  .*\n)*)?.*\n?", re.MULTILINE)
_OWN = {
    "exception": re.compile(r"Traceback .*OnPurpose\n", re.DOTALL),
    "unheard": re.compile(
        r"(Exception ignored in: <_io.TextIOWrapper name='<stdout>'.*\n|Traceback.*\n(  .*\n)*)"
        r"BrokenPipeError: .*\n"
    ),
}


@dataclass(frozen=True)
class Ended:
    """How a program ended: its status (None: it hung), the seconds that all handlers of its end took together
    (where none is called: until it was gone), and what it wrote to its standard error."""

    status: int | None
    seconds: float
    said: str


class Programs:
    """Starts programs, forked from one process that has loaded PyTorch already."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-m", "tests.compile.ending_program", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def end_one(self, spec: Spec, moment: random.Random) -> Ended:
        """Run a program until it ends. Its folder must be there."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(as_line(spec) + "\n")
        process.stdin.flush()
        started = time.monotonic()
        pid, begun = wait_for_mark(spec, "begun", started + GIVE_UP)
        if not pid:
            raise TimeoutError(f"the program did not begin: {spec}")
        ending = 0.0
        if spec.how in SIGNALS:
            time.sleep(max(0.0, begun + spec.after - time.monotonic()))
            ending = time.monotonic()
            send(pid, SIGNALS[spec.how])
            if spec.how == "interrupt-twice":
                time.sleep(moment.choice((0.0, 0.001, 0.01, 0.05, 0.1)))
                send(pid, signal.SIGINT)
        if SIGNALS.get(spec.how) is signal.SIGINT and not wait_until_gone(pid, time.monotonic() + LOST):
            send(pid, signal.SIGINT)
        hung = not wait_until_gone(pid, time.monotonic() + spec.after + GIVE_UP)
        if hung:
            for each, session, _ in list(processes(spec)):
                if session == pid:
                    send(each, signal.SIGUSR1)
            time.sleep(1)
            send(pid, signal.SIGKILL)
        status, ended = json.loads(process.stdout.readline())
        ending = ending or wait_for_mark(spec, "ending", 0.0, pid)[1] or ended
        ended = wait_for_mark(spec, "closed", 0.0, pid)[1] or ended
        said = Path(spec.folder, "err").read_text(errors="replace")
        return Ended(None if hung else status, ended - ending, said)


def send(pid: int, number: signal.Signals) -> None:
    """A signal, if somebody is there to get it."""
    if pid <= 1:
        raise ValueError(f"{pid} is no process of ours")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_for_mark(spec: Spec, what: str, until: float, who: int | None = None) -> tuple[int, float]:
    """Who made a mark first (or that ``who`` did) and when; zeros if nobody did."""
    while True:
        if os.path.exists(spec.marks):
            for line in Path(spec.marks).read_text().splitlines():
                name, pid, moment = line.split()
                if name == what and who in (None, int(pid)):
                    return int(pid), float(moment)
        if time.monotonic() >= until:
            return 0, 0.0
        time.sleep(0.002)


def wait_until_gone(pid: int, until: float) -> bool:
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.002)
    return False


def processes(spec: Spec) -> Iterator[tuple[int, int, str]]:
    """The process id, session and command of what was started for a program and is alive."""
    wanted = f"ENDS_RUN={spec.folder}\0".encode()
    leader = wait_for_mark(spec, "begun", 0.0)[0]
    if not leader:  # nothing was started; and session 0 is the system's
        return
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            state, _, _, session, *_ = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            mine = int(session) == leader or wanted in Path(f"/proc/{entry}/environ").read_bytes()
            command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mine and state != "Z":
            yield int(entry), int(session), command[:200]


def judge(spec: Spec, ended: Ended, seconds: float) -> list[str]:
    """What is wrong with the end of a program; nothing, mostly."""
    wrong = []
    if ended.status is None:
        return [f"it hangs: {ended.said[-6000:]}", *settle(spec)]
    if spec.how in ANYWHERE and _TAKEN_FOR_A_GUARD in ended.said:
        return [*settle(spec), *judge_files(spec)]
    if ended.status not in STATUSES[spec.how]:
        wrong.append(f"its status is {ended.status}, not {STATUSES[spec.how][0]}")
    waits = spec.what in WAITED_FOR and spec.how not in ABRUPT
    if ended.seconds > seconds and not waits:
        wrong.append(f"it took {ended.seconds:.2f} s to end")
    wrong += judge_words(spec, ended.said)
    wrong += settle(spec)
    wrong += judge_files(spec)
    return wrong


def judge_words(spec: Spec, said: str) -> list[str]:
    rest = _ANNOUNCED.sub("", said) if spec.mode == "debug-file" else said
    if spec.how in ANYWHERE:  # it may come inside of a callback of Python's, but not in our part of its end
        rest = _UNRAISABLE.sub(lambda found: found[0] if "/braze/" in found[0] else "", rest)
    if spec.how in SIGNALS:
        lines = [line for line in rest.splitlines() if "/torch/" not in line]
        rest = "\n".join(line for line in lines if _SUSPICIOUS.search(line))
    elif (own := _OWN.get(spec.how)) is not None and (found := own.search(rest)) is not None:
        rest = rest[: found.start()] + rest[found.end() :]
    return [f"it said {rest[-1500:]!r}"] if rest else []


def settle(spec: Spec) -> list[str]:
    """Wait for the processes of a program to go away. Its own, which an abrupt end leaves, are killed."""
    leader = wait_for_mark(spec, "begun", 0.0)[0]
    until = time.monotonic() + (0.0 if spec.how in ABRUPT or spec.how in SIGNALS else 30.0)
    while own := [p for p, session, _ in processes(spec) if session == leader]:
        if time.monotonic() > until:
            for pid in own:
                send(pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    until = time.monotonic() + AFTERWARDS
    while left := list(processes(spec)):
        if time.monotonic() > until:
            for pid, _, _ in left:
                send(pid, signal.SIGKILL)
            return [f"{command!r} is left" for _, _, command in left]
        time.sleep(0.02)
    return []


def judge_files(spec: Spec) -> list[str]:
    wrong = []
    for path in Path(spec.temporary).iterdir():
        meant = spec.mode == "debug-file" and path.name.startswith("braze-debug-")
        if not meant and not _NOT_OURS.fullmatch(path.name):
            wrong.append(f"the temporary file {path.name} is left")
    if spec.how not in ABRUPT:
        wrong += [f"{path.name} is left" for path in Path(spec.folder).glob(".*")]
    if spec.cache and os.path.isdir(spec.cache):
        for path in Path(spec.cache).iterdir():
            if not re.fullmatch(r"store-\d+", path.name):
                wrong.append(f"{path.name} is left in the cache's folder")
                shutil.rmtree(path, ignore_errors=True)
        store = CacheStore(spec.cache)
        with warnings.catch_warnings(record=True) as caught:
            for entry in store.entries():
                if not any(found.id == entry.id for found in store.get(entry.key)):
                    wrong.append(f"the cache's entry {entry.key} cannot be read")
            if store.problem or caught:
                wrong.append(f"the cache is not whole: {store.problem}")
        store.close()
    return wrong


def draw(source: random.Random, folder: str, cache: str, only: Mapping[str, str]) -> Spec:
    """One program."""
    how = source.choice(list(STATUSES))
    what = source.choice([*WHAT, "call", "call", "call"])
    spec = Spec(
        what=what,
        mode=source.choice(MODES),
        how=how,
        after=round(source.choice((0.0, 0.3, 1.0, 3.0)) * source.random(), 3),
        layers=source.choice(LAYERS),
        cache=source.choice(("", cache)),
        folder=folder,
    )
    if what in OWN_PROCESSES and how == "interrupt-twice":
        spec = replace(spec, how="interrupt")  # multiprocessing itself may hang after two
    chosen = {name: type(getattr(spec, name))(value) for name, value in only.items()}
    return replace(spec, **chosen)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--seconds", type=float, default=1.0, help="that an end may take (default: 1)")
    parser.add_argument("--flags", default="", help="Python's own, like '-X dev'")
    parser.add_argument("--only", action="append", default=[], metavar="NAME=VALUE", help="fix a choice")
    options = parser.parse_args()
    only = dict(choice.split("=", 1) for choice in options.only)
    faults: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="ends-") as base,
        Programs(shlex.split(options.flags)) as programs,
    ):
        for number in range(options.first, options.first + options.runs):
            source = random.Random(f"{options.seed}/{number}")
            folder = Path(base, str(number))
            (folder / "tmp").mkdir(parents=True)
            spec = draw(source, str(folder), str(Path(base, "cache")), only)
            ended = programs.end_one(spec, source)
            wrong = judge(spec, ended, options.seconds)
            shutil.rmtree(folder, ignore_errors=True)
            name = f"{spec.what} {spec.mode} {spec.how} after {spec.after} s, {spec.layers} layers"
            print(f"{number:4} {ended.seconds:5.2f} s  {name}{', cached' if spec.cache else ''}", flush=True)
            for text in wrong:
                print(f"     WRONG: {text}", flush=True)
            faults[spec.mode] += bool(wrong)
    print(f"{sum(faults.values())} of {options.runs} runs are wrong")
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
