"""The LLVM worker: a process that reads LLVM IR on its standard input and answers with object code.

It is run by file path (``python -I -S llvm_worker.py <folder of llvmlite> <pid of the parent>``), so it must
not import anything of Braze, and nothing that imports torch: the standard library and `llvmlite.binding`, no
more. The parent's side is `braze.codegen.llvm.pool`, which also imports `compile_module` where no process can
be started.

A frame, in both directions, is a ``uint32`` count, that many ``uint64`` lengths, and then the fields, all
little endian. Requests are ``(job, cpu, features, opt level, code generation level, emit, IR text)``; answers
are ``(job, "ok", object, assembly, optimised IR, seconds)`` or ``(job, "error", message)``; the first frame
of all is ``("hello", llvmlite version, LLVM version)``. Numbers are decimal text.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn

__all__ = ["FrameReader", "compile_module", "live_with", "pack_frame"]

_COUNT = struct.Struct("<I")
_PARENT_CHECK_MS = 1000


def pack_frame(fields: Sequence[bytes]) -> bytes:
    """One frame holding ``fields``."""
    head = _COUNT.pack(len(fields)) + struct.pack(f"<{len(fields)}Q", *[len(f) for f in fields])
    return b"".join([head, *fields])


class FrameReader:
    """Takes bytes as they arrive and gives back whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[list[bytes]]:
        """Add ``data``; the frames that are complete now, in order."""
        self._data += data
        frames = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _next(self) -> list[bytes] | None:
        have = len(self._data)
        if have < 4:
            return None
        (count,) = _COUNT.unpack_from(self._data)
        start = 4 + 8 * count
        if have < start:
            return None
        lengths = struct.unpack_from(f"<{count}Q", self._data, 4)
        if have < start + sum(lengths):
            return None
        fields = []
        for length in lengths:
            fields.append(bytes(self._data[start : start + length]))
            start += length
        del self._data[:start]
        return fields


@lru_cache(maxsize=1)
def _llvm() -> Any:
    """``llvmlite.binding``, initialised for this machine's architecture."""
    import llvmlite.binding as llvm  # noqa: PLC0415  heavy; the parent imports this file for its frames alone

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@lru_cache(maxsize=16)
def _machine(cpu: str, features: str, level: int) -> Any:
    target = _llvm().Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=features, opt=level, reloc="pic", codemodel="small")


def _optimise(module: Any, machine: Any, level: int) -> None:
    """Level 1 simplifies each function (common subexpressions, invariant code, dead code, control flow) and
    neither unrolls nor vectorises: the text already has the shape that it should have. 2 and 3 are LLVM's
    own."""
    llvm = _llvm()
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = options.slp_vectorization = level > 1
    options.loop_unrolling = options.loop_interleaving = level > 1
    builder = llvm.create_pass_builder(machine, options)
    if level > 1:
        builder.getModulePassManager().run(module, builder)
        return
    passes = builder.getFunctionPassManager()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)


def compile_module(
    text: str, *, cpu: str, features: str, opt_level: int, codegen_level: int, emit: frozenset[str]
) -> tuple[bytes, str, str]:
    """Compile one module; ``(object code, assembly, optimised IR)``, empty where ``emit`` does not ask for
    it.

    ``emit`` holds any of ``object``, ``asm``, ``opt_ir``. Raises ``RuntimeError`` with LLVM's words where the
    text does not parse or verify. Some modules that verify make the code generator abort the process.
    """
    llvm = _llvm()
    machine = _machine(cpu, features, codegen_level)
    with llvm.create_context() as context:
        module = llvm.parse_assembly(text, context)
        with module:
            module.verify()
            if not module.triple:
                module.triple = machine.triple
            if not module.data_layout:
                module.data_layout = str(machine.target_data)
            if opt_level > 0:
                _optimise(module, machine, opt_level)
            opt_ir = str(module) if "opt_ir" in emit else ""
            asm = ""
            if "asm" in emit:
                with module.clone() as copy:  # emission rewrites the module
                    asm = machine.emit_assembly(copy)
            code = machine.emit_object(module) if "object" in emit else b""
    return code, asm, opt_ir


def _answer(fields: Sequence[bytes]) -> bytes:
    job, cpu, features, opt_level, codegen_level, emit, text = fields
    start = time.perf_counter()
    try:
        code, asm, opt_ir = compile_module(
            text.decode(),
            cpu=cpu.decode(),
            features=features.decode(),
            opt_level=int(opt_level),
            codegen_level=int(codegen_level),
            emit=frozenset(emit.decode().split()),
        )
    except Exception as error:  # whatever it was, the parent has to hear of it
        return pack_frame([job, b"error", f"{error}".encode()])
    seconds = f"{time.perf_counter() - start:.6f}"
    return pack_frame([job, b"ok", code, asm.encode(), opt_ir.encode(), seconds.encode()])


def _take_streams() -> tuple[int, int]:
    """Keep the two pipes to ourselves; what LLVM prints goes to standard error, which the parent keeps."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def live_with(parent: int, requests: int | None = None) -> None:
    """From now on, end when the process ``parent`` does, however it does, and also in the middle of a job: by
    the kernel's word where a process has a handle, by looking who the parent is, and at the end of the pipe
    ``requests``, if it is given (somebody forked by the parent may hold it open)."""
    poller = select.poll()
    if requests is not None:
        poller.register(requests, 0)  # no event but the end of the pipe, which cannot be masked
    wait: int | None = _PARENT_CHECK_MS
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # it is gone, or the kernel has no such thing
            poller.register(os.pidfd_open(parent), select.POLLIN)
            wait = None

    def watch() -> None:
        while os.getppid() == parent and not poller.poll(wait):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="braze-parent-watch", daemon=True).start()


def main(argv: Sequence[str]) -> NoReturn:
    """Serve until the parent closes its end or dies."""
    sys.path.append(argv[1])
    parent = int(argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import resource  # noqa: PLC0415  not there on every platform

        # an assertion of LLVM's is an answer, not a reason for a core dump
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        resource = None  # type: ignore[assignment]
    requests, answers = _take_streams()
    live_with(parent)
    llvm = _llvm()
    import llvmlite  # noqa: PLC0415  on the path only since the line above

    version = ".".join(map(str, llvm.llvm_version_info))
    _write(answers, pack_frame([b"hello", llvmlite.__version__.encode(), version.encode()]))
    reader = FrameReader()
    while True:
        data = os.read(requests, 1 << 20)
        if not data:
            os._exit(0)
        for fields in reader.feed(data):
            try:
                _write(answers, _answer(fields))
            except BrokenPipeError:
                os._exit(0)


if __name__ == "__main__":
    main(sys.argv)
