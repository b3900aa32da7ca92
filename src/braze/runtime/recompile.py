"""Object code for this machine out of LLVM IR that was compiled for another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from braze.errors import WorkerError
from braze.runtime import llvm_worker
from braze.runtime.processes import describe_exit, last_words, no_processes_reason
from braze.runtime.target import Target

__all__ = ["compiled"]

SECONDS: Final = 600
"""How long LLVM may take."""


def compiled(modules: Sequence[tuple[bytes, int]], target: Target) -> list[bytes]:
    """Object code for ``target`` of modules, each with LLVM's level for it.

    LLVM runs in a process of its own, where there can be one. Raises `WorkerError` where it cannot make code
    of them."""
    if not modules:
        return []
    if no_processes_reason() is not None:
        return [_compile_here(text, level, target) for text, level in modules]
    import llvmlite  # noqa: PLC0415  only where there is something to compile

    folder = str(Path(llvmlite.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", str(Path(llvm_worker.__file__)), folder, str(os.getpid())]
    jobs = [
        llvm_worker.pack_frame(
            [
                str(number).encode(),
                target.cpu.encode(),
                target.features.encode(),
                str(level).encode(),
                str(max(level, 1)).encode(),
                b"object",
                text,
            ]
        )
        for number, (text, level) in enumerate(modules)
    ]
    try:
        done = subprocess.run(
            command,
            input=b"".join(jobs),
            capture_output=True,
            timeout=SECONDS,
            check=False,
            start_new_session=True,  # a Ctrl-C at the terminal is for the parent
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkerError(f"LLVM could not compile the package for this machine: {error}") from error
    frames = llvm_worker.FrameReader().feed(done.stdout)
    objects = [frame[2] for frame in frames[1:] if len(frame) > 2 and frame[1] == b"ok"]
    if len(objects) != len(modules):
        told = [frame[2].decode(errors="replace") for frame in frames[1:] if frame[1:2] == [b"error"]]
        why = told[0] if told else f"{describe_exit(done.returncode)}: {last_words(done.stderr)}"
        raise WorkerError(
            f"LLVM could not compile the package for {target.cpu}: {why}",
            hint="have the package made with the target 'generic' as well",
        )
    return objects


def _compile_here(text: bytes, level: int, target: Target) -> bytes:
    try:
        return llvm_worker.compile_module(
            text.decode(),
            cpu=target.cpu,
            features=target.features,
            opt_level=level,
            codegen_level=max(level, 1),
            emit=frozenset({"object"}),
        )[0]
    except (RuntimeError, UnicodeDecodeError) as error:
        raise WorkerError(f"LLVM could not compile the package for {target.cpu}: {error}") from error
