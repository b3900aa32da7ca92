"""What LLVM workers are asked to do: LLVM IR in, object code out.

Such a worker loads this file by its folder, as it does `worker.py`: the standard library and
`llvmlite.binding`, no more, and above all no torch. Where no process can be started, `compile_module` runs in
the process.

A request and an answer are a line of JSON with what follows it: the text of the module; or the object code,
the assembly and the optimised IR, whose sizes the line holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = ["JOBS", "CompiledObject", "compile_module", "compile_packed", "packed", "unpacked", "warm"]


class CompiledObject(NamedTuple):
    """What LLVM made of one module: a relocatable object file, and on request the assembly and the optimised
    IR (empty otherwise); ``seconds`` is the time LLVM took."""

    object: bytes
    asm: str
    opt_ir: str
    seconds: float

    @property
    def nbytes(self) -> int:
        return len(self.object) + len(self.asm) + len(self.opt_ir)


@lru_cache(maxsize=1)
def _llvm() -> Any:
    """``llvmlite.binding``, initialised for this machine's architecture."""
    import llvmlite.binding as llvm  # noqa: PLC0415  heavy; the parent rarely needs more than the table

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
) -> CompiledObject:
    """Compile one module. ``emit`` says what is wanted: any of ``object``, ``asm``, ``opt_ir``.

    Raises ``RuntimeError`` with LLVM's words where the text does not parse or verify. Some modules that
    verify make the code generator abort the process."""
    start = time.perf_counter()
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
    return CompiledObject(code, asm, opt_ir, time.perf_counter() - start)


def packed(text: bytes, *, emit: frozenset[str], **options: str | int) -> bytes:
    """The request to `compile_module` these."""
    return json.dumps({**options, "emit": sorted(emit)}).encode() + b"\n" + text


def compile_packed(payload: bytes) -> bytes:
    """The job: an answer to what `packed` made, for `unpacked`."""
    line, _, text = payload.partition(b"\n")
    options = json.loads(line)
    try:
        made = compile_module(text.decode(), **{**options, "emit": frozenset(options["emit"])})
    except Exception as error:  # whatever it was, the parent has to hear of it
        return json.dumps({"error": f"{error}".strip()}).encode() + b"\n"
    asm, opt_ir = made.asm.encode(), made.opt_ir.encode()
    sizes = {"object": len(made.object), "asm": len(asm), "seconds": made.seconds}
    return b"".join([json.dumps(sizes).encode(), b"\n", made.object, asm, opt_ir])


def unpacked(answer: bytes) -> CompiledObject:
    """What an answer brought. Raises ``RuntimeError`` with LLVM's words where that is an error."""
    line, _, data = answer.partition(b"\n")
    found = json.loads(line)
    if "error" in found:
        raise RuntimeError(found["error"])
    code, asm = found["object"], found["object"] + found["asm"]
    return CompiledObject(data[:code], data[code:asm].decode(), data[asm:].decode(), found["seconds"])


def warm() -> None:
    """Load LLVM."""
    _llvm()


JOBS: Mapping[str, Callable[[bytes], bytes]] = {"compile": compile_packed}
