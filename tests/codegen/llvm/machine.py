"""Compile LLVM assembly for this machine in the test process, and the native functions made from it."""

from __future__ import annotations

import ctypes
import os

import llvmlite.binding as llvm
import torch

__all__ = ["compile_module", "target_machine"]

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
# SLEEF's functions are exported by the library that torch has loaded already.
llvm.load_library_permanently(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))


def target_machine() -> llvm.TargetMachine:
    """The host, with all its features, 512-bit vectors included where it has them."""
    features = llvm.get_host_cpu_features()
    features["prefer-256-bit"] = False
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2, jit=True
    )


def compile_module(text: str) -> llvm.ExecutionEngine:
    """Machine code for the module; keep the engine alive while its functions are in use."""
    module = llvm.parse_assembly(text)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, target_machine())
    engine.finalize_object()
    return engine


def native(engine: llvm.ExecutionEngine, name: str, restype: object, *argtypes: object) -> ctypes._CFuncPtr:
    """The compiled function as a ctypes function."""
    return ctypes.CFUNCTYPE(restype, *argtypes)(engine.get_function_address(name))  # type: ignore[arg-type]
