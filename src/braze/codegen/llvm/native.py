"""From segments to linkable object code: kernels and driver, compiled by the LLVM workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

from braze.artifact.compiled_graph import Module
from braze.codegen.backend import THREADS, KernelFailure, SegmentCall
from braze.codegen.llvm.generate import KernelCode, generate
from braze.codegen.llvm.pool import CompiledObject, compile_ir
from braze.codegen.llvm.report import NativeReport
from braze.codegen.llvm.segment import DriverSegment, KernelCall, driver_module
from braze.errors import BrazeError
from braze.ops.kernel import Kernel
from braze.runtime import cpu_engine
from braze.runtime.checks import Check
from braze.runtime.engine import MadeFor
from braze.runtime.expr import Expr, Symbol
from braze.runtime.plan import ErrorEntry, KernelEntry
from braze.runtime.target import Target
from braze.schedule.schedule import Segment

__all__ = ["NativeCode", "compile_native"]


@dataclass(frozen=True)
class NativeCode:
    """See `braze.codegen.backend.Generated`. ``codes`` and ``places`` (of arguments): one for each of
    ``kernels``, in order. ``texts`` (LLVM IR, and LLVM's level for it) and ``futures``: one for each distinct
    kernel, the driver's last."""

    target: Target
    opt_level: int
    kernels: tuple[Kernel, ...]
    calls: tuple[tuple[SegmentCall], ...]
    errors: tuple[ErrorEntry, ...]
    codes: tuple[KernelCode, ...]
    places: tuple[tuple[int, ...], ...]
    texts: tuple[tuple[str, int], ...]
    futures: tuple[tuple[Kernel | None, Future[CompiledObject]], ...]

    @property
    def made_for(self) -> MadeFor:
        return cpu_engine.made_for(self.target)

    @property
    def files(self) -> Mapping[str, str]:
        """The driver: the segments, which call the kernels."""
        return {"driver.ll": self.texts[-1][0] if self.texts else ""}

    @cached_property
    def reports(self) -> tuple[NativeReport, ...]:
        return tuple(
            [
                NativeReport(
                    kernel, code.functions[0], code.plan, code.text, self.target, self.opt_level, places
                )
                for kernel, code, places in zip(self.kernels, self.codes, self.places, strict=True)
            ]
        )

    def modules(self) -> tuple[Module, ...]:
        """Raises ``KernelFailure``, or ``LLVMError`` or ``WorkerError`` for the driver."""
        done: list[Module] = []
        for (kernel, future), (text, level) in zip(self.futures, self.texts, strict=True):
            try:
                done.append(Module(future.result().object, text.encode(), level))
            except BrazeError as error:
                if kernel is None:
                    raise
                raise KernelFailure(kernel, error) from error
        return tuple(done)


def compile_native(
    segments: Sequence[Segment], target: Target, opt_level: int, first_error: int = 1
) -> NativeCode:
    """Generate code for every kernel and start compiling it. Each kernel is sent off as soon as its text is
    there; equal texts are compiled once. Raises ``KernelFailure``."""
    futures: dict[str, tuple[Kernel | None, Future[CompiledObject]]] = {}
    codes: list[KernelCode] = []
    calls: list[tuple[SegmentCall]] = []
    drivers: list[DriverSegment] = []
    errors: list[ErrorEntry] = []
    for segment in segments:
        own: list[KernelCode] = []
        for item in segment.kernels:
            code = _generate(item.kernel, target)
            own.append(code)
            if code.text not in futures:
                job = compile_ir(code.text, cpu=target.cpu, features=target.features, opt_level=opt_level)
                futures[code.text] = (item.kernel, job)
        codes += own
        call, driver = _segment(segment, own, len(drivers), errors, first_error)
        calls.append((call,))
        drivers.append(driver)
    waiting = list(futures.values())
    texts = [(text, opt_level) for text in futures]
    if drivers:
        text = driver_module(drivers)
        job = compile_ir(text, cpu=target.cpu, features=target.features, opt_level=0)
        waiting.append((None, job))
        texts.append((text, 0))
    kernels = tuple([item.kernel for segment in segments for item in segment.kernels])
    places = tuple([(*call.buffers, *call.sizes) for driver in drivers for call in driver.kernels])
    return NativeCode(
        target,
        opt_level,
        kernels,
        tuple(calls),
        tuple(errors),
        tuple(codes),
        places,
        tuple(texts),
        tuple(waiting),
    )


def _generate(kernel: Kernel, target: Target) -> KernelCode:
    try:
        return generate(kernel, target)
    except Exception as error:
        raise KernelFailure(kernel, error) from error


def _segment(
    segment: Segment, codes: Sequence[KernelCode], number: int, errors: list[ErrorEntry], first_error: int
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
        base = first_error - 1 + len(errors)
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
