"""What this machine can do: the bandwidth of its memory and its peak of float32 arithmetic.

Measured once in a process, on as many threads as torch uses, in about a fifth of a second. Reports compare
kernels with these two figures (the roofline of S. Williams, A. Waterman, D. Patterson, CACM 52, 2009).
"""

from __future__ import annotations

import ctypes
import threading
import time
from dataclasses import dataclass
from typing import Final

import torch

from braze.codegen.llvm.builder import I64, PTR, FunctionBuilder, ModuleBuilder, Type, constant
from braze.codegen.llvm.pool import compile_ir
from braze.runtime.linker import LinkedCode, link
from braze.runtime.target import Target, host_target

__all__ = ["Machine", "measured", "roofline"]

_ARRAY_BYTES: Final = 40 << 20
_TRIAD_SECONDS: Final = 0.1
_CHAINS: Final = 12
_PEAK_TRIPS: Final = 1 << 18
_PEAK_ROUNDS: Final = 5


@dataclass(frozen=True)
class Machine:
    """``bandwidth`` in bytes a second and ``peak`` in float32 operations a second, of ``threads`` threads."""

    bandwidth: float
    peak: float
    threads: int

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.bandwidth / 1e9:.0f} GB/s, {self.peak / 1e9:.0f} GFLOP/s on {threads}"


_known: dict[int, Machine] = {}
_lock = threading.Lock()


def measured() -> Machine:
    """This machine with ``torch.get_num_threads()`` threads; measured at the first call, then remembered."""
    threads = torch.get_num_threads()
    with _lock:
        if threads not in _known:
            _known[threads] = Machine(_bandwidth(), _peak(threads), threads)
        return _known[threads]


def roofline(nbytes: int, flops: int, machine: Machine) -> tuple[float, str]:
    """The least seconds in which the machine could do it, and what holds it: ``memory`` or ``arithmetic``."""
    memory, arithmetic = nbytes / machine.bandwidth, flops / machine.peak
    return (memory, "memory") if memory >= arithmetic else (arithmetic, "arithmetic")


def _bandwidth() -> float:
    """The best of a few STREAM triads, ``a = b + s * c`` (J. McCalpin, 1995), over arrays that fit no cache.
    Bytes counted are those that the program reads and writes."""
    b, c = (torch.ones(_ARRAY_BYTES // 4) for _ in range(2))
    a = torch.zeros_like(b)
    best = float("inf")
    end = time.perf_counter() + _TRIAD_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        torch.add(b, c, alpha=3.0, out=a)
        best = min(best, time.perf_counter() - start)
    return 3 * _ARRAY_BYTES / best


def _peak(threads: int) -> float:
    """The best of a few rounds of nothing but fused multiply-adds in registers, in every thread at once."""
    target = host_target()
    code = _peak_code(target)
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("peak"))
    flops = 2 * _CHAINS * target.lanes * _PEAK_TRIPS
    seconds: list[list[float]] = [[] for _ in range(threads)]
    together = threading.Barrier(threads)

    def work(own: list[float]) -> None:
        out = ctypes.create_string_buffer(64 + 4 * target.lanes)
        for _ in range(_PEAK_ROUNDS):
            try:
                together.wait()
            except threading.BrokenBarrierError:
                return
            start = time.perf_counter()
            run(ctypes.addressof(out), _PEAK_TRIPS)
            own.append(time.perf_counter() - start)

    others = [threading.Thread(target=work, args=(own,)) for own in seconds[1:]]
    for thread in others:
        thread.start()
    try:
        work(seconds[0])
    except BaseException:
        together.abort()  # the others would wait for ever
        raise
    for thread in others:
        thread.join()
    rounds: list[tuple[float, ...]] = list(zip(*seconds, strict=True))
    return max(sum([flops / s for s in one]) for one in rounds)


def _peak_code(target: Target) -> LinkedCode:
    """``void peak(float *out, int64 trips)``: as many independent chains as keep two units with a latency of
    four to six cycles busy. The multiplier is less than one, so that values stay small and normal."""
    module = ModuleBuilder("peak", vector_bits=max(128, 32 * target.lanes))
    vector = Type("float", target.lanes)
    fb = FunctionBuilder(module, "peak", [("out", PTR), ("trips", I64)])
    start = [constant(vector, 1.0 + k) for k in range(_CHAINS)]
    with fb.for_range(constant(I64, 0), fb.params["trips"], 1, start, runs=True) as loop:
        loop.set_next(*[fb.fma(value, 0.5, 1.0) for value in loop.carried])
    total = loop.results[0]
    for value in loop.results[1:]:
        total = fb.fadd(total, value)
    fb.store(total, fb.params["out"], align=4)
    fb.ret()
    made = compile_ir(module.text(), cpu=target.cpu, features=target.features).result()
    return link([made.object], exports=["peak"])
