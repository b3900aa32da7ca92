"""What came of one program: eager PyTorch and the compiler run it, and where they differ, others are asked.

Values that differ by more than the tolerances are held against float64: the numerical rule. What remains is
*undecidable* where rounding alone changes the result as much (the program subtracts nearly equal numbers,
say), *shared* where the backend ``aot_eager``, which compiles nothing, differs from eager too, and otherwise
a *fault*.
"""

from __future__ import annotations

import random
import re
import time
import warnings
from collections.abc import Sequence
from typing import Literal

import msgspec
import torch

from braze.compile.report import ledger
from braze.inspect.fuzz import packages
from braze.inspect.fuzz.compare import Problem, leaf_at, problems, unmatched, words_of
from braze.inspect.fuzz.execute import Function, Outcome, backend_function, function_of, reference, run
from braze.inspect.fuzz.program import Program
from braze.ops.numerics import FACTOR, scaled_errors

__all__ = ["Fault", "Settings", "Status", "Verdict", "judge", "runs_eagerly"]

Status = Literal["agrees", "by float64", "both raise", "shared", "undecidable", "discarded", "fault"]

NOISES = 4
SHARED_BACKEND = "aot_eager"
_SEVERITY = ("raises", "silent", "value", "memory", "gradient", "alias", "kind")
_DEFECT = re.compile(
    r"this is a defect of Braze|code generation failed|"
    r"\b(Assertion|Attribute|Index|Key|Name|Overflow|Recursion|Type|Value|ZeroDivision)Error: "
)
"""What the reason for a fallback says where it is none: an exception that nobody meant to raise."""
_GRAPH = re.compile(r"\bgraph\d+")
_CALLED = 2
"""How often each set of inputs is given to the program: what it keeps from a call must not matter."""


class Settings(msgspec.Struct, frozen=True):
    """How to judge. ``backend``: what is tried; ``strict``: a fallback to eager PyTorch is a fault."""

    backend: str = "braze"
    strict: bool = False


class Fault(msgspec.Struct, frozen=True):
    """A difference that is the compiler's. ``kind``: that of a `Problem`, or ``crash``, ``hang``,
    ``fallback``, or ``defect``: a fallback for a reason that is a defect of Braze, as it says or
    as the name of an exception of Python's does."""

    kind: str
    where: str
    text: str

    @property
    def worded(self) -> bool:
        """Whether its text says what it is, and not only by how much something is off."""
        return self.kind in ("raises", "silent", "fallback", "defect")

    @property
    def signature(self) -> str:
        """What two faults have in common that are taken for one kind: for exceptions their words too, less
        what is particular to a program."""
        if self.worded:
            return f"{self.kind}: {_NUMBERS.sub('#', self.text)[:70]}"
        return f"kind: {self.text.partition(' ')[0]}" if self.kind == "kind" else self.kind

    def __str__(self) -> str:
        return f"{self.kind}, {self.where}: {self.text}"


_NUMBERS = re.compile(r"-?\d+(\.\d+)?|\b[a-z]+_?\d+\b|'[^']*'")


class Verdict(msgspec.Struct, frozen=True):
    """What came of a program. ``why``: of what is not a plain agreement, in words; ``fallbacks``: operators
    that ran as eager PyTorch, and the reasons; ``graphs``: how many were compiled."""

    status: Status
    fault: Fault | None = None
    why: str = ""
    fallbacks: tuple[tuple[str, str], ...] = ()
    graphs: int = 0
    seconds: float = 0.0


def runs_eagerly(program: Program) -> bool:
    """Whether eager PyTorch runs it without raising, in every call."""
    return all(run(function_of(program), program, call).error is None for call in range(program.calls))


def judge(program: Program, settings: Settings) -> Verdict:
    """Run a program in every way that is needed, and say what came of it. Raises nothing that the program
    raises."""
    start = time.perf_counter()
    before = ledger.totals()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if program.mode == "package":
            verdict = _judged_package(program, settings)
            return msgspec.structs.replace(verdict, seconds=time.perf_counter() - start)
        status, fault, why = _judged(program, settings)
    after = ledger.totals()
    new = after.fallbacks[len(before.fallbacks) :]
    fallen = [(_GRAPH.sub("graph", f.op), _GRAPH.sub("graph", f.reason)) for f in new]
    fallbacks = tuple(dict.fromkeys((op, reason.partition("\n")[0]) for op, reason in fallen))
    if fault is None and status != "discarded":
        hidden = [one for one in fallen if _DEFECT.search(one[1])]
        if settings.strict or hidden:
            for op, reason in (hidden or fallen)[:1]:
                status, kind = "fault", "defect" if hidden else "fallback"
                fault = Fault(kind, op, f"{op}: {' '.join(reason.split())}")
    graphs = after.graphs - before.graphs
    return Verdict(status, fault, why, fallbacks, graphs, time.perf_counter() - start)


def _judged(program: Program, settings: Settings) -> tuple[Status, Fault | None, str]:
    eager = [run(function_of(program), program, call) for call in range(program.calls)]
    errors = [outcome.error for outcome in eager if outcome.error is not None]
    if errors and len(errors) < len(eager):
        return "discarded", None, f"eager raises in some calls: {words_of(errors[0])}"
    compiled = backend_function(program, settings.backend)
    found: list[tuple[int, Problem, Outcome]] = []
    for call in range(program.calls):
        for _ in range(_CALLED):
            ours = run(compiled, program, call)
            found += [(call, problem, ours) for problem in problems(ours, eager[call])]
        if found:
            break
    if not found:
        return ("both raise", None, words_of(errors[0])) if errors else ("agrees", None, "")
    return _arbitrated(program, found, eager)


def _judged_package(program: Program, settings: Settings) -> Verdict:
    """A package beside the exported program that it was made of, which may refuse some of the calls."""
    try:
        source = packages.exported(program)
    except Exception as error:  # PyTorch has no program to make a package of
        return Verdict("discarded", None, f"torch.export refuses it: {words_of(error)}")
    module = source.module()
    try:
        package = packages.packed(source, strict=settings.strict)
    except Exception as error:
        if packages.is_refused_by_torch(source):
            return Verdict("discarded", None, f"run_decompositions refuses it: {words_of(error)}")
        return Verdict("fault", Fault("raises", "aot_compile", words_of(error)))
    for op, reason in package.fallbacks:
        if settings.strict or _DEFECT.search(reason):
            kind = "fallback" if settings.strict else "defect"
            return Verdict("fault", Fault(kind, op, f"{op}: {' '.join(reason.split())}"))
    status, fault, why = _compared(program, module, package)
    return Verdict(status, fault, why, package.fallbacks, package.graphs)


def _compared(
    program: Program, module: Function, package: packages.Packed
) -> tuple[Status, Fault | None, str]:
    theirs = [run(module, program, call) for call in range(program.calls)]
    for call in range(program.calls):
        ours = run(package.function, program, call)
        found = [(call, problem, ours) for problem in problems(ours, theirs[call])]
        if found and not package.may_refuse(ours.error, ours.given.arguments):
            return _arbitrated(program, found, theirs)
    errors = [outcome.error for outcome in theirs if outcome.error is not None]
    return ("both raise", None, words_of(errors[0])) if len(errors) == len(theirs) else ("agrees", None, "")


def _arbitrated(
    program: Program, found: Sequence[tuple[int, Problem, Outcome]], eager: Sequence[Outcome]
) -> tuple[Status, Fault | None, str]:
    """What remains of problems after asking float64, noise and another backend."""
    call = found[0][0]
    remaining: list[Problem] = []
    status: Status = "by float64"
    why = ""
    exact: Outcome | None = None
    for _, problem, ours in found:
        if problem.kind in ("value", "memory", "gradient"):
            if exact is None:
                exact = reference(program, call)
            if not unmatched(problem, ours, eager[call], exact):
                continue
            if _undetermined(program, call, problem, ours, exact, eager[call]):
                status, why = "undecidable", f"{problem.where}: {problem.text}"
                continue
        remaining.append(problem)
    if not remaining:
        return status, None, why
    too: set[tuple[str, str]] = set()
    if program.mode != "package":
        apart = run(backend_function(program, SHARED_BACKEND), program, call)
        too = {(problem.kind, problem.where) for problem in problems(apart, eager[call])}
    own = [problem for problem in remaining if (problem.kind, problem.where) not in too]
    if not own:
        first = remaining[0]
        return "shared", None, f"{first.kind}, {first.where}: {first.text}"
    first = min(own, key=lambda problem: _SEVERITY.index(problem.kind))
    return "fault", Fault(first.kind, first.where, first.text), ""


def _undetermined(
    program: Program, call: int, problem: Problem, ours: Outcome, exact: Outcome, theirs: Outcome
) -> bool:
    """Whether rounding alone may change the value as much as it is off: float64 with the rounding errors of
    the program's types put in at random differs from float64 without by half as much, and has another NaN or
    infinity in the same elements. Where eager's own steps overflow, and their values do not, there is
    nothing to agree with in what is not finite afterwards, nor where the reference's do, nor where another
    order of a product overflows."""
    if exact.error is not None:
        return False
    if exact.unordered:
        return True
    mine, wide = leaf_at(ours, problem), leaf_at(exact, problem)
    if not isinstance(mine, torch.Tensor) or not isinstance(wide, torch.Tensor) or mine.shape != wide.shape:
        return False
    if not mine.is_floating_point():
        return False
    off = scaled_errors(mine, wide, mine.dtype)
    noise = torch.zeros_like(off)
    for number in range(NOISES):
        sample = reference(program, call, random.Random(number))
        value = leaf_at(sample, problem) if sample.error is None else None
        if isinstance(value, torch.Tensor) and value.shape == wide.shape:
            noise = torch.maximum(noise, scaled_errors(value, wide, mine.dtype))
    excused = torch.isinf(noise)
    expected = leaf_at(theirs, problem)
    if isinstance(expected, torch.Tensor) and expected.shape == mine.shape:
        excused |= ~expected.isfinite() & (wide.to(mine.dtype).isfinite() | exact.beyond)
        excused |= scaled_errors(mine, expected, mine.dtype) <= 1
    most = FACTOR * torch.where(excused, torch.zeros_like(noise), noise).max()
    return bool((excused | (off <= most)).all())
