"""LLVM workers: small processes that import llvmlite and no torch.

A module that makes LLVM abort or hang costs one worker and one job.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from braze.errors import NoWorkersError, WorkerError
from braze.runtime.target import Target
from braze.runtime.workers import llvm_jobs
from braze.runtime.workers.llvm_jobs import compile_module, compile_packed, packed, unpacked
from braze.runtime.workers.pool import WorkerPool
from braze.runtime.workers.process import Job, WorkerProcess
from braze.runtime.workers.worker import Setup

__all__ = ["LLVMWorkers", "recompiled"]

SECONDS: Final = 600
"""How long LLVM may take for a module of a package."""


class LLVMWorkers(WorkerPool):
    """Up to ``size`` of them. ``deadline``: the seconds that one module may take."""

    noun = "LLVM worker"
    article = "an"
    depth = 2

    def __init__(self, size: int, *, deadline: float, idle_seconds: float = 30.0) -> None:
        super().__init__(size, jobs=llvm_jobs.__name__, idle_seconds=idle_seconds)
        self.deadline = deadline

    def setup(self) -> Setup:
        spec = importlib.util.find_spec("llvmlite")
        if spec is None or spec.origin is None:
            raise OSError("llvmlite is not installed")
        folder = str(Path(spec.origin).parent.parent)
        return Setup(os.getpid(), llvm_jobs.__name__.rpartition(".")[2], folders=(folder,))

    def limit(self) -> float:
        return self.deadline

    def is_tried_again(self, job: Job, worker: WorkerProcess) -> bool:
        """Once where somebody else ended the worker: all else is the module's doing."""
        return (
            worker.code in (-signal.SIGKILL, -signal.SIGTERM) and worker.lost == "died" and job.attempts < 2
        )


def recompiled(modules: Sequence[tuple[bytes, int]], target: Target) -> list[bytes]:
    """Object code for ``target`` of a package's modules that were compiled for another, each with LLVM's
    level for it.

    LLVM runs in a process of its own, where there can be one. Raises `WorkerError` where it cannot make code
    of them."""
    try:
        with LLVMWorkers(1, deadline=SECONDS) as workers:
            return [_recompiled(workers, *module, target) for module in modules]
    except WorkerError as error:
        raise WorkerError(
            f"LLVM could not compile the package for {target.cpu}: {error.what}",
            hint="have the package made with the target 'generic' as well",
        ) from error


def _recompiled(workers: LLVMWorkers, text: bytes, level: int, target: Target) -> bytes:
    options: dict[str, Any] = {"cpu": target.cpu, "features": target.features, "opt_level": level}
    options |= {"codegen_level": max(level, 1), "emit": frozenset({"object"})}
    try:
        try:
            payload = packed(text, **options)
            return unpacked(workers.submit(compile_packed, payload).result()).object
        except NoWorkersError:
            return compile_module(text.decode(), **options).object
    except (RuntimeError, UnicodeDecodeError) as error:
        raise WorkerError(str(error)) from error
