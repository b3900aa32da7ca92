"""Compile LLVM assembly in the test process, run functions made of it on arrays, and count ULPs."""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Callable, Sequence

import llvmlite.binding as llvm
import numpy as np
import torch

from braze.codegen.llvm.builder import I64, PTR, FunctionBuilder, ModuleBuilder, Type, Value, constant

__all__ = [
    "VECTOR_BITS",
    "array_function",
    "compile_module",
    "loop_module",
    "target_machine",
    "ulp_error",
    "ulp_errors",
]

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
# SLEEF's functions are exported by the library that torch has loaded already.
llvm.load_library_permanently(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))

VECTOR_BITS = 512 if llvm.get_host_cpu_features().get("avx512f") else 256

NUMPY_ELEMS = {
    "float": np.float32,
    "double": np.float64,
    "half": np.float16,
    "bfloat": np.uint16,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
}


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


Body = Callable[..., Value | Sequence[Value]]


def loop_module(body: Body, inputs: Sequence[str], outputs: Sequence[str], lanes: int) -> str:
    """A module with ``void f(ptr in.., ptr out.., i64 n)``: ``body(fb, *values)`` over arrays."""
    module = ModuleBuilder("loop", vector_bits=VECTOR_BITS)
    names = [f"a{i}" for i in range(len(inputs) + len(outputs))]
    fb = FunctionBuilder(module, "f", [*[(n, PTR, "noalias") for n in names], ("n", I64)])
    with fb.for_range(constant(I64, 0), fb.params["n"], lanes) as loop:
        values = [
            fb.load(fb.gep(fb.params[name], loop.index, elem), Type(elem, lanes))
            for name, elem in zip(names, inputs, strict=False)
        ]
        results = body(fb, *values)
        for name, result in zip(
            names[len(inputs) :], [results] if isinstance(results, Value) else results, strict=True
        ):
            fb.store(result, fb.gep(fb.params[name], loop.index, result.type.elem))
    fb.ret()
    return module.text()


def array_function(
    body: Body, inputs: Sequence[str], outputs: Sequence[str], lanes: int
) -> Callable[..., list[np.ndarray]]:
    """The compiled loop as a function of arrays (a multiple of ``lanes`` long) that returns new arrays."""
    engine = compile_module(loop_module(body, inputs, outputs, lanes))
    count = len(inputs) + len(outputs)
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count, ctypes.c_int64)(
        engine.get_function_address("f")
    )

    def function(*arrays: np.ndarray) -> list[np.ndarray]:
        size = arrays[0].size
        if size % lanes:
            raise ValueError(f"{size} elements are no multiple of {lanes} lanes")
        out = [np.empty(size, NUMPY_ELEMS[elem]) for elem in outputs]
        native(*[a.ctypes.data for a in (*arrays, *out)], size)
        return out

    function.engine = engine  # type: ignore[attr-defined]
    function.native = native  # type: ignore[attr-defined]
    return function


def ulp_error(fb: FunctionBuilder, got: Value, reference: Value) -> Value:
    """|got - reference| in units of the float32 spacing at the (double) reference; the result is double.

    The spacing of subnormal numbers counts where it is the coarser one. An equal infinity or NaN is an error
    of 0; an infinity, NaN or sign of zero that should not be there is infinite.
    """
    lanes = got.type.lanes
    i64 = Type("i64", lanes)
    exponent = fb.and_(fb.lshr(fb.bitcast(reference, i64), 52), 0x7FF)
    exponent = fb.integer_minmax("smin", fb.integer_minmax("smax", exponent, 1023 - 126), 1023 + 127)
    inverse = fb.shl(fb.sub(constant(i64, 2046 + 23), exponent), 52)
    distance = fb.fabs(fb.fsub(fb.fpext(got, "double"), reference))
    error = fb.fmul(distance, fb.bitcast(inverse, reference.type))
    rounded = fb.fptrunc(reference, "float")
    i32 = Type("i32", lanes)
    same = fb.icmp("eq", fb.bitcast(got, i32), fb.bitcast(rounded, i32))
    same = fb.or_(same, fb.and_(fb.fcmp("uno", got, got), fb.fcmp("uno", rounded, rounded)))
    finite = fb.fcmp("olt", error, math.inf)
    wrong_zero = fb.and_(fb.not_(same), fb.fcmp("oeq", got, rounded))
    return fb.select(
        wrong_zero, math.inf, fb.select(finite, error, fb.select(same, 0.0, fb.const(error.type, math.inf)))
    )


@functools.cache
def _ulp_function() -> Callable[..., list[np.ndarray]]:
    return array_function(ulp_error, ["float", "double"], ["double"], 8)


def ulp_errors(got: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """:func:`ulp_error` on arrays (float32 and float64, any size)."""
    padded = -got.size % 8
    (errors,) = _ulp_function()(np.pad(got, (0, padded)), np.pad(reference, (0, padded)))
    return errors[: got.size]
