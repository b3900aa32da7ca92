"""The first graph with a fault, and the smallest program that has it still."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from braze import config
from braze._torch import tracing
from braze.compile.debug_file import REQUEST, read_request
from braze.errors import ArtifactError, BrazeError, ParseError, Refused
from braze.inspect.fuzz.campaign import DEFAULT_JOBS, Plan, Session
from braze.inspect.fuzz.judge import Fault, runs_eagerly
from braze.inspect.fuzz.program import Mode, Program, Tensor
from braze.inspect.fuzz.script import script_of
from braze.inspect.fuzz.shrink import shrink
from braze.inspect.minify.cut import parts
from braze.inspect.minify.watch import RAISED, Noted, noted_in, program_of_graph
from braze.inspect.replaying import random_inputs
from braze.words import count

__all__ = ["Minified", "NothingToMinify", "minify", "nodes_of", "sizes_of", "smaller"]

_WATCH: Final = "braze.inspect.minify.watch"
_TRIALS: Final = 2000
_STRICT: Final = ("defect", "fallback")
"""Kinds of faults that show where nothing may run as eager PyTorch."""


class NothingToMinify(BrazeError):
    """There is no such script, it raises by itself, or it compiles nothing."""


@dataclass(frozen=True)
class Minified:
    """What came of a script, or of a request.

    Attributes:
        graphs: how many graphs there are.
        calls: how many of their calls were tried, up to the first that has a fault.
        unseen: graphs that could not be tried, and why not.
        fault: of the small program; None where nothing is wrong.
        original: the program in which the fault was found.
        program: the smallest that was found to have it.
        options: of the compiler, those that are not at their defaults and change its code.
        trials: programs that were tried to make it smaller.
        seconds: what that took.
    """

    graphs: int
    calls: int
    unseen: tuple[tuple[int, str], ...]
    fault: Fault | None = None
    original: Program | None = None
    program: Program | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    trials: int = 0
    seconds: float = 0.0

    @property
    def sources(self) -> tuple[str, ...]:
        """The user's lines that the small program comes from."""
        found = () if self.program is None else self.program.statements
        return tuple(dict.fromkeys(statement.source for statement in found if statement.source))

    def script(self, comment: str = "") -> str:
        """The small program as a script, which fails. Raises `ValueError` where there is no fault."""
        if self.program is None or self.fault is None:
            raise ValueError("there is no fault")
        strict = {"strict": True} if self.fault.kind in _STRICT else {}
        return script_of(self.program, comment, {**self.options, **strict})


def minify(
    path: str | Path,
    arguments: Sequence[str] = (),
    *,
    fallback: bool = False,
    seconds: float = 120.0,
    limit: float = 60.0,
    tell: Callable[[str], None] = lambda words: None,
    table: str = DEFAULT_JOBS,
) -> Minified:
    """Find the first graph of a script, or of a folder of requests, with which something is wrong, and make
    it smaller while the same is wrong.

    Args:
        path: a script, a ``request.txt`` of the mode ``debug-file``, or a folder that holds some.
        arguments: the script's own.
        fallback: an operator that runs as eager PyTorch counts as a fault.
        seconds: that shrinking may take.
        limit: seconds that one try may take; what takes longer hangs.
        tell: is told what is going on.
        table: the module with the jobs of the workers in which graphs are compiled.

    The script runs in a process of its own, as eager PyTorch runs it; what is compiled is compiled in others.

    Raises:
        NothingToMinify: there is nothing to look at.
    """
    path = Path(path)
    if not path.exists():
        raise NothingToMinify(f"there is no file {path}")
    if path.is_dir() or path.suffix == ".txt":
        noted = list(_requested(path))
    else:
        tell("runs the script")
        noted = _watched(path, arguments)
    plan = Plan(strict=fallback, limit=limit, table=table)
    unseen = {note.graph: note.why for note in noted if note.program is None}
    graphs = len({note.graph for note in noted})
    sessions: dict[str, Session] = {}
    calls, left = 0, tuple(unseen.items())
    try:
        for note in noted:
            if note.program is None:
                continue
            calls += 1
            tell(f"tries graph {note.graph}: {nodes_of(note.program)}")
            session = _session(sessions, plan, note.options)
            verdict = session.check(note.program)
            if verdict.fault is not None:
                start = time.monotonic()
                small, fault, trials = smaller(session, note.program, verdict.fault, seconds, tell)
                taken = time.monotonic() - start
                return Minified(
                    graphs, calls, left, fault, note.program, small, _unusual(note), trials, taken
                )
    finally:
        for session in sessions.values():
            session.close()
    return Minified(graphs, calls, left)


def _session(sessions: dict[str, Session], plan: Plan, options: Mapping[str, object]) -> Session:
    """The one for these options of the compiler."""
    key = repr(options)
    if key not in sessions:
        with config.using(config.Config().replace(**options)):
            sessions[key] = Session(plan)
    return sessions[key]


def _unusual(note: Noted) -> dict[str, object]:
    """The options of a note that are not at their defaults and change code."""
    mine = note.options
    return {o.name: mine[o.name] for o in config.options() if o.affects_code and mine[o.name] != o.default}


def smaller(
    session: Session, program: Program, fault: Fault, seconds: float, tell: Callable[[str], None]
) -> tuple[Program, Fault, int]:
    """The smallest program that was found to have a fault of this kind, that fault, and how many programs
    were tried. ``seconds``: what it may take; ``tell`` is told of each that is smaller."""
    trials, last = 0, fault

    def same(candidate: Program) -> bool:
        nonlocal trials, last
        if fault.kind != "silent" and not runs_eagerly(candidate):
            return False
        trials += 1
        verdict = session.check(candidate)
        if verdict.fault is None or verdict.fault.signature != fault.signature:
            return False
        last = verdict.fault
        tell(f"{fault.kind}: {nodes_of(candidate)} after {count(trials, 'trial')}")
        return True

    end = time.monotonic() + seconds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what eager PyTorch has to say of a trial
        small = shrink(program, same, enough=lambda: time.monotonic() > end, first=parts, most=_TRIALS)
    return small, last, trials


def _watched(script: Path, arguments: Sequence[str]) -> list[Noted]:
    """What the script would have compiled. Raises `NothingToMinify`."""
    with tempfile.TemporaryDirectory(prefix="braze-minify-") as name:
        command = [sys.executable, "-m", _WATCH, name, str(script), *arguments]
        # what the script prints is not the report
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=dict(os.environ))
        raised = Path(name) / RAISED
        if raised.exists():
            said = raised.read_text(encoding="utf-8")
            raise NothingToMinify(f"{script} raises in eager PyTorch itself: {said}")
        if done.returncode:
            raise NothingToMinify(
                f"{script} ends its process in eager PyTorch itself: status {done.returncode}"
            )
        noted = noted_in(Path(name))
    if not noted:
        raise NothingToMinify(
            f"{script} compiles nothing with Braze",
            hint='is there a call of torch.compile(..., backend="braze"), and of what it returns?',
        )
    return noted


def _requested(path: Path) -> Iterator[Noted]:
    """The graphs of requests, with random inputs. Raises `NothingToMinify`."""
    files = sorted(path.rglob(REQUEST)) if path.is_dir() else [path]
    if not files:
        raise NothingToMinify(
            f"there is no {REQUEST} in {path}",
            hint="BRAZE_FX_COMPILE_MODE=debug-file BRAZE_DEBUG=<folder> writes one for each graph",
        )
    for number, file in enumerate(files):
        try:
            request = read_request(file).parse()
        except (ArtifactError, ParseError, OSError) as error:
            raise NothingToMinify(f"{file} is no request: {error}") from error
        options = {o.name: getattr(request.config, o.name) for o in config.options()}
        program, why = None, ""
        try:
            with tracing.apart():
                inputs = random_inputs(request, 0)
                mode: Mode = "static" if request.shape_env is None else "dynamic"
                program = program_of_graph(request.gm, inputs, mode, request.name)
        except Refused as refusal:
            why = refusal.reason
        yield Noted(number, options, program, why)


def nodes_of(program: Program) -> str:
    """``3 nodes``."""
    return count(len(program.statements), "node")


def sizes_of(program: Program) -> str:
    """The tensors that a program is called with, the largest first: ``4x512, 8``."""
    shapes = [given.shapes[0] for given in program.inputs if isinstance(given, Tensor)]
    shapes.sort(key=lambda shape: (-_elements(shape), shape))
    words = ["x".join(map(str, shape)) or "()" for shape in shapes]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _elements(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
