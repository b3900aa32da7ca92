"""The peak of float32 arithmetic of this machine, measured.

A file of its own: a measurement, of which generated code knows nothing.
"""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Final

from braze.codegen.llvm.builder import I64, PTR, FunctionBuilder, ModuleBuilder, Type, constant
from braze.codegen.llvm.pool import compile_ir
from braze.runtime.linker import LinkedCode, link
from braze.runtime.target import Target, host_target

__all__ = ["peak"]

_CHAINS: Final = 12
_PEAK_TRIPS: Final = 1 << 18
_PEAK_ROUNDS: Final = 5


def peak(threads: int) -> float:
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
