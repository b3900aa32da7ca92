"""The CPU's backend: LLVM IR for kernels, object code by the LLVM workers."""

from __future__ import annotations

from collections.abc import Sequence

from braze.artifact.compiled_graph import Module
from braze.codegen.backend import Generated, Job
from braze.codegen.llvm import native, pool
from braze.codegen.llvm.peak import peak
from braze.config import Config
from braze.runtime.cpu_engine import CPU_ENGINE, CpuEngine, target_of
from braze.runtime.engine import MadeFor
from braze.runtime.target import current_target, host_target
from braze.runtime.workers.llvm_jobs import compile_module
from braze.schedule.limits import Limits

__all__ = ["CPU_BACKEND", "CpuBackend"]

QUICK_LEVEL = 0
BETTER_LEVEL = 2
"""What LLVM's own passes still find in code that is vectorised already, at two to three times the price."""

LIMITS = Limits(
    buffers=48,
    stores=40,
    shared_elements=1024,
    small_work=1 << 15,
    rows=8,
    local_bytes=1 << 18,  # a row stays in the second-level cache
    alignment=64,  # a cache line, and the widest vector
)


class CpuBackend:
    """See `braze.codegen.backend.Backend`."""

    kind = CPU_ENGINE.kind

    @property
    def engine(self) -> CpuEngine:
        return CPU_ENGINE

    def limits(self) -> Limits:
        return LIMITS

    def generate(self, job: Job) -> Generated:
        """LLVM IR, which the LLVM workers compile meanwhile."""
        level = job.config.llvm_opt_level
        return native.compile_native(job.segments, current_target(), level, job.first_error)

    def warm(self) -> None:
        """LLVM runs in that process then."""
        host = host_target()
        compile_module(
            "define void @warm() {\n  ret void\n}\n",
            cpu=host.cpu,
            features=host.features,
            opt_level=1,
            codegen_level=1,
            emit=frozenset({"object"}),
        )

    def quick(self, config: Config) -> Config | None:
        """LLVM's lowest level."""
        return config.replace(llvm_opt_level=QUICK_LEVEL)

    def improved(self, made_for: MadeFor, modules: Sequence[Module], config: Config) -> tuple[Module, ...]:
        """From the same IR, by the LLVM workers, at the configured level, or at `BETTER_LEVEL` where that is
        higher; the driver, which only calls, stays as it is. Raises ``LLVMError`` and ``WorkerError``."""
        target = target_of(made_for)
        level = max(config.llvm_opt_level, BETTER_LEVEL)
        *kernels, driver = modules
        jobs = [
            pool.compile_ir(
                bytes(m.ir).decode(),
                cpu=target.cpu,
                features=target.features,
                opt_level=max(level, m.opt_level),
            )
            for m in kernels
        ]
        better = [
            Module(job.result().object, m.ir, max(level, m.opt_level))
            for m, job in zip(kernels, jobs, strict=True)
        ]
        return (*better, driver)

    def peak(self, threads: int) -> float | None:
        """Of fused multiply-adds in registers."""
        return peak(threads)


CPU_BACKEND = CpuBackend()
