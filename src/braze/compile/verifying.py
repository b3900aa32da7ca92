"""``config.verify``: every kernel's result is compared with the reference interpreter's, while a program
runs.

The kernel's program is verified first. A kernel runs by itself, on the memory that it always gets; what it
wrote is then compared, under the numerical rule (`braze.ops.numerics`), with what the interpreter of kernels
makes of a copy of that memory. Where they differ, the interpreter of the kernel's program runs on another
copy: it says whether the program is wrong, or what was made of it. The first difference ends the call with a
`VerifyError`, and everything that shows it lies in a folder.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from braze import config
from braze.artifact.constants import CompiledFxGraphConstants
from braze.codegen.backend import Job, KernelReport
from braze.codegen.backends import backend_for
from braze.codegen.program.interpreter import run_program
from braze.codegen.program.verifier import verify_program
from braze.errors import BrazeError, InternalError, VerifyError
from braze.ops.dag import Dag
from braze.ops.interpreter import interpret
from braze.ops.kernel import Kernel
from braze.ops.numerics import difference, within_factor
from braze.ops.parser import parse_kernel
from braze.ops.widened import widened
from braze.runtime.checks import EXCEPTIONS
from braze.runtime.plan import Event
from braze.schedule.schedule import ScheduledKernel, Segment

__all__ = ["KernelVerifier", "again"]

Memory = dict[str, torch.Tensor]
FAILED_CHECKS = tuple(set(EXCEPTIONS.values()))
"""What the interpreters raise where a check of the kernel's fails; all else is a defect, and goes through."""
_SCRIPT = '''"""The kernel in this folder once more, by both interpreters, on what it was called with."""

from pathlib import Path

from braze.compile.verifying import again

print(again(Path(__file__).parent) or "kernel and program agree")
'''


class KernelVerifier:
    """The instrument of a graph whose kernels are verified. ``reports``: one for each kernel; ``folder``:
    where to leave what shows a difference, a new temporary one by default."""

    def __init__(self, reports: Sequence[KernelReport], folder: Path | None = None) -> None:
        self._reports = {report.kernel.name: report for report in reports}
        self._folder = folder
        self._broken: dict[str, str | None] = {}

    def __call__(self, event: Event, values: Sequence[int]) -> AbstractContextManager[object]:
        report = self._reports.get(event.name) if event.kind == "kernel" else None
        if report is None:
            return nullcontext()
        places = report.memory(values)
        return nullcontext() if places is None else self._verified(report, *places)

    def _obeys(self, report: KernelReport) -> str | None:
        """What is wrong with the program of a kernel as it stands, once for each."""
        name = report.kernel.name
        if name not in self._broken:
            program = report.program()
            try:
                if program is not None:
                    verify_program(program)
                self._broken[name] = None
            except InternalError as error:
                self._broken[name] = f"the program breaks a rule: {error.what}"
        return self._broken[name]

    @contextmanager
    def _verified(
        self, report: KernelReport, addresses: Mapping[str, int], sizes: Mapping[str, int]
    ) -> Iterator[None]:
        kernel = report.kernel
        memory = {
            b.name: _tensor_at(addresses[b.name], b.numel.evaluate(sizes), b.dtype)
            for b in kernel.buffers
            if b.role != "local"
        }
        before = _copied(memory)
        told = self._obeys(report)
        yield
        if told is None:
            found = _found(kernel, memory, before, sizes)
            if found is None:
                return
            told = f"{_judged(report, before, sizes)[0]}: {found}"
        kept = self._keep(report, before, sizes, told)
        raise VerifyError(
            told,
            node=kernel.name,
            where=kernel.sources[0] if kernel.sources else None,
            hint=f"what shows it lies in {kept}",
        )

    def _keep(self, report: KernelReport, before: Memory, sizes: Mapping[str, int], found: str) -> Path:
        if self._folder is None:
            folder = Path(tempfile.mkdtemp(prefix="braze-verify-"))
        else:
            folder = self._folder / f"verify-{report.kernel.name}"
            folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "found.txt": found,
            "kernel.txt": str(report.kernel),
            "plan.txt": str(report.loop_plan),
            "program.txt": str(report.program() or ""),
            "code.txt": report.code,
            "sizes.json": json.dumps(dict(sizes)),
            "again.py": _SCRIPT,
        }
        for name, text in texts.items():
            (folder / name).write_text(f"{text.rstrip()}\n", encoding="utf-8")
        (folder / "inputs.safetensors").write_bytes(CompiledFxGraphConstants(before).to_bytes())
        return folder


def again(folder: Path) -> str | None:
    """What the interpreter of programs has against that of kernels, for a kernel that was kept; None where
    they agree. Raises ``ParseError`` for a folder that was changed."""
    kernel = parse_kernel((folder / "kernel.txt").read_text(encoding="utf-8"), Dag())
    sizes: dict[str, int] = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
    stored = CompiledFxGraphConstants.from_bytes((folder / "inputs.safetensors").read_bytes()).stored
    options = config.current()
    segment = Segment((ScheduledKernel(kernel, False),))
    (report,) = backend_for(kernel.device, options).generate(Job((segment,), options)).reports
    level, found = _judged(report, dict(stored), sizes)
    return None if found is None else f"{level}: {found}"


def _tensor_at(address: int, numel: int, dtype: torch.dtype) -> torch.Tensor:
    """The memory at an address as a flat tensor, without a copy."""
    if numel <= 0 or not address:
        return torch.empty(0, dtype=dtype)
    raw = (ctypes.c_char * (numel * dtype.itemsize)).from_address(address)
    return torch.frombuffer(raw, dtype=torch.uint8).view(dtype)


def _copied(memory: Mapping[str, torch.Tensor]) -> Memory:
    return {name: tensor.clone() for name, tensor in memory.items()}


def _found(kernel: Kernel, actual: Memory, before: Memory, sizes: Mapping[str, int]) -> str | None:
    """The first buffer that is not what the reference interpreter makes of ``before``, and how it differs."""
    expected = _copied(before)
    try:
        interpret(kernel, expected, sizes)
    except BrazeError:
        raise
    except FAILED_CHECKS:
        return None  # and the call raises it
    exact: Memory | None = None
    for b in kernel.buffers:
        if b.role not in ("out", "inout"):
            continue
        problem = difference(actual[b.name], expected[b.name])
        if problem is None:
            continue
        if exact is None:
            exact = _in_float64(kernel, before, sizes)
        if b.name in exact and within_factor(actual[b.name], expected[b.name], exact[b.name]):
            continue
        return f"{b.name} is not what its loops say: {problem}"
    return None


def _in_float64(kernel: Kernel, before: Memory, sizes: Mapping[str, int]) -> Memory:
    """What the kernel gives where everything is computed in float64; empty where it cannot be."""
    wide = widened(kernel)
    if wide is None:
        return {}
    memory = {b.name: before[b.name].to(b.dtype, copy=True) for b in wide.buffers if b.role != "local"}
    interpret(wide, memory, sizes)
    return memory


def _judged(report: KernelReport, before: Memory, sizes: Mapping[str, int]) -> tuple[str, str | None]:
    """Which of the steps from a kernel to its code is wrong, and what is wrong with the program, if it is."""
    program = report.program()
    if program is None:
        return "the code differs from the kernel", None
    actual = _copied(before)
    try:
        run_program(program, actual, sizes, 2)
    except BrazeError as error:
        return "the program differs from the kernel", error.what
    except FAILED_CHECKS:
        return "the code differs from the program", None  # which fails in both
    found = _found(report.kernel, actual, before, sizes)
    if found is None:
        return "the code differs from the program", None
    return "the program differs from the kernel", found
