"""Run a kernel's machine code in the test process, and compare it with the reference interpreter."""

from __future__ import annotations

import ctypes
import re
import threading
from functools import lru_cache

import llvmlite.binding as llvm
import torch

from braze.codegen.llvm.generate import KernelCode, generate, scratch_bytes
from braze.ops.interpreter import interpret
from braze.ops.kernel import Kernel
from braze.runtime.expr import Symbol
from tests.codegen.llvm.machine import VECTOR_BITS, compile_module

WIDTHS = (1, 4, 8, 16)

_OF_EIGHT_DOUBLES = re.compile(r"@Sleef_\w+d8_")
"""Functions of SLEEF's that are made of AVX-512."""


@lru_cache(maxsize=256)
def _engine(text: str) -> llvm.ExecutionEngine:
    return compile_module(text)


def execute(
    code: KernelCode, buffers: dict[str, torch.Tensor], sizes: dict[str, int], nthreads: int = 1
) -> list[int]:
    """Run all phases with ``nthreads`` threads; the error words."""
    engine = _engine(code.text)
    errors = (ctypes.c_int64 * 4)()
    nbytes = scratch_bytes(code, sizes, nthreads)
    scratch = torch.full((nbytes + 64,), 0x5A, dtype=torch.uint8)
    aligned = scratch.data_ptr() + (-scratch.data_ptr()) % 64
    for name in code.functions:
        types = [ctypes.c_void_p] * (1 + len(code.buffers)) + [ctypes.c_int64] * len(code.program.sizes)
        types += [ctypes.c_void_p] + [ctypes.c_int64] * 3
        function = ctypes.CFUNCTYPE(None, *types)(engine.get_function_address(name))

        def call(tid: int, function: object = function) -> None:
            function(  # type: ignore[operator]
                ctypes.addressof(errors),
                *[buffers[b].data_ptr() for b in code.buffers],
                *[sizes[s.name] for s in code.program.sizes],
                aligned,
                100,
                tid,
                nthreads,
            )

        if nthreads == 1:
            call(0)
        else:
            threads = [threading.Thread(target=call, args=(t,)) for t in range(nthreads)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
    assert bool((scratch[nbytes + (aligned - scratch.data_ptr()) :] == 0x5A).all()), (
        "wrote behind the scratch"
    )
    return list(errors)


def guarded(tensor: torch.Tensor, offset: int = 0) -> torch.Tensor:
    """A copy with guard bytes around it, ``offset`` elements off alignment."""
    room = torch.zeros(tensor.numel() + offset + 64, dtype=tensor.dtype)
    room.view(torch.uint8).fill_(0x5A)
    inner = room[offset + 16 : offset + 16 + tensor.numel()]
    inner.copy_(tensor)
    return inner


def check_guards(tensor: torch.Tensor) -> None:
    """Nothing was written around a tensor made by ``guarded``."""
    raw = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    item = tensor.element_size()
    start = tensor.storage_offset() * item
    assert bool((raw[:start] == 0x5A).all()), "wrote before a buffer"
    assert bool((raw[start + tensor.numel() * item :] == 0x5A).all()), "wrote behind a buffer"


def check(
    kernel: Kernel,
    buffers: dict[str, torch.Tensor],
    sizes: dict[str, int] | None = None,
    *,
    widths: tuple[int, ...] = WIDTHS,
    threads: tuple[int, ...] = (1, 2),
    offset: int = 0,
    rtol: float | None = None,
    atol: float | None = None,
) -> dict[str, torch.Tensor]:
    """Run ``kernel`` at each width and thread count; every written buffer must equal the interpreter's.
    Returns the interpreter's buffers."""
    sizes = sizes or {}
    expected = {n: t.clone() for n, t in buffers.items()}
    interpret(kernel, expected, sizes)
    for width in widths:
        code = generate(kernel, width)
        if VECTOR_BITS < 512 and _OF_EIGHT_DOUBLES.search(code.text):
            continue
        seen: dict[str, torch.Tensor] | None = None
        for nthreads in threads:
            actual = {n: guarded(t, offset) for n, t in buffers.items()}
            errors = execute(code, actual, sizes, nthreads)
            assert errors[0] == 0, errors
            for b in kernel.buffers:
                if b.role in ("out", "inout"):
                    check_guards(actual[b.name])
                    where = f"{b.name} at {width} lanes, {nthreads} threads"
                    torch.testing.assert_close(
                        actual[b.name],
                        expected[b.name],
                        rtol=rtol,
                        atol=atol,
                        equal_nan=True,
                        msg=lambda m, where=where: f"{where}: {m}\n{kernel}",
                    )
                    if seen is not None:  # results do not depend on the number of threads
                        assert torch.equal(
                            actual[b.name].view(torch.uint8), seen[b.name].view(torch.uint8)
                        ), f"{b.name}: {nthreads} threads change the result"
            seen = actual
    return expected


def variable(name: str, size: object) -> Symbol:
    """A loop variable of this extent."""
    return Symbol(name, 0, size - 1)  # type: ignore[operator]
