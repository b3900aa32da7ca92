"""From the segments of a schedule to linkable object code: kernels and driver, compiled by the LLVM
workers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from braze.codegen.llvm.generate import KernelCode, generate
from braze.codegen.llvm.pool import CompiledObject, compile_ir
from braze.codegen.llvm.segment import DriverSegment, KernelCall, driver_module
from braze.codegen.plan.build import THREADS, SegmentCall
from braze.errors import BrazeError, CodegenError
from braze.ops.kernel import Kernel
from braze.runtime.checks import Check
from braze.runtime.expr import Expr, Symbol
from braze.runtime.plan import ErrorEntry, KernelEntry
from braze.runtime.target import Target
from braze.schedule.schedule import Schedule, Segment

__all__ = ["KernelFailure", "NativeCode", "compile_native"]


class KernelFailure(CodegenError):
    """One kernel could not be turned into machine code. ``kernel`` is that kernel."""

    def __init__(self, kernel: Kernel, error: Exception) -> None:
        what = str(error) if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
        super().__init__(
            f"code generation failed: {what}",
            node=kernel.name,
            where=kernel.sources[0] if kernel.sources else None,
        )
        self.kernel = kernel


@dataclass(frozen=True)
class NativeCode:
    """``codes``: one for each kernel of the schedule, in order. ``modules`` (LLVM IR, and LLVM's level for
    it) and ``objects``: one for each distinct kernel, and the driver's last."""

    calls: tuple[SegmentCall, ...]
    errors: tuple[ErrorEntry, ...]
    codes: tuple[KernelCode, ...]
    modules: tuple[tuple[str, int], ...]
    futures: tuple[tuple[Kernel | None, Future[CompiledObject]], ...]

    @property
    def driver(self) -> str:
        """The IR of the segments, which call the kernels; empty where there are none."""
        return self.modules[-1][0] if self.modules else ""

    def objects(self) -> list[bytes]:
        """Wait for the object code. Raises ``KernelFailure``, or ``LLVMError`` or ``WorkerError`` for the
        driver."""
        done: list[bytes] = []
        for kernel, future in self.futures:
            try:
                done.append(future.result().object)
            except BrazeError as error:
                if kernel is None:
                    raise
                raise KernelFailure(kernel, error) from error
        return done


def compile_native(schedule: Schedule, target: Target, opt_level: int) -> NativeCode:
    """Generate code for every kernel and start compiling it. Each kernel is sent off as soon as its text is
    there; equal texts are compiled once. Raises ``KernelFailure``."""
    futures: dict[str, tuple[Kernel | None, Future[CompiledObject]]] = {}
    codes: list[KernelCode] = []
    calls: list[SegmentCall] = []
    drivers: list[DriverSegment] = []
    errors: list[ErrorEntry] = []
    for step in schedule.steps:
        if not isinstance(step, Segment):
            continue
        own: list[KernelCode] = []
        for item in step.kernels:
            code = _generate(item.kernel, target)
            own.append(code)
            if code.text not in futures:
                job = compile_ir(code.text, cpu=target.cpu, features=target.features, opt_level=opt_level)
                futures[code.text] = (item.kernel, job)
        codes += own
        call, driver = _segment(step, own, len(drivers), errors)
        calls.append(call)
        drivers.append(driver)
    waiting = list(futures.values())
    modules = [(text, opt_level) for text in futures]
    if drivers:
        text = driver_module(drivers)
        job = compile_ir(text, cpu=target.cpu, features=target.features, opt_level=0)
        waiting.append((None, job))
        modules.append((text, 0))
    return NativeCode(tuple(calls), tuple(errors), tuple(codes), tuple(modules), tuple(waiting))


def _generate(kernel: Kernel, target: Target) -> KernelCode:
    try:
        return generate(kernel, target)
    except Exception as error:
        raise KernelFailure(kernel, error) from error


def _segment(
    segment: Segment, codes: Sequence[KernelCode], number: int, errors: list[ErrorEntry]
) -> tuple[SegmentCall, DriverSegment]:
    """How the plan calls a segment, and how the driver passes it on."""
    buffers: dict[str | int, int] = {}
    sizes: dict[Symbol, None] = {}
    scratch: list[Expr] = []
    for item, code in zip(segment.kernels, codes, strict=True):
        for name in code.buffers:
            buffers.setdefault(name, len(buffers) + 1)
        sizes.update(dict.fromkeys(item.kernel.sizes))
        needed = code.scratch_shared + code.scratch_thread * THREADS.expr
        if needed.terms:
            scratch.append(needed)
            buffers[len(scratch) - 1] = len(buffers) + 1
    size_at = {s: len(buffers) + 1 + k for k, s in enumerate(sizes)}
    entry = f"seg{number}"
    kernels: list[KernelCall] = []
    area = 0
    for k, (item, code) in enumerate(zip(segment.kernels, codes, strict=True)):
        own_scratch = None
        if code.scratch_shared.terms or code.scratch_thread.terms:
            own_scratch, area = buffers[area], area + 1
        base = len(errors)
        errors += [ErrorEntry(base + i + 1, Check.decode(c)) for i, c in enumerate(code.checks)]
        kernels.append(
            KernelCall(
                code,
                tuple(buffers[b] for b in code.buffers),
                tuple(size_at[s] for s in item.kernel.sizes),
                own_scratch,
                base,
                item.barrier,
                f"{entry}_k{k}",
            )
        )
    call = SegmentCall(
        entry,
        tuple(buffers),
        tuple(sizes),
        tuple(scratch),
        tuple(KernelEntry(i.kernel.name, k.entry) for i, k in zip(segment.kernels, kernels, strict=True)),
        any(c.checks for c in codes),
    )
    return call, DriverSegment(entry, tuple(kernels), len(buffers), len(sizes))
