"""The driver module of a graph: native entry points that run whole segments, and each kernel on its own.

Every entry has the interface that launch plans call::

    i64 @<entry>(ptr %args, i64 %threads)

``args`` holds the address of the error words, then the buffers' pointers, then the sizes. An entry looks at
the pointers first: where one is no multiple of its element's size, which loads and stores rely on, it does
nothing and returns 1, else 0. With more than one thread the segment's program (calls of kernels, barriers
only where data crosses threads) runs in one region of the OpenMP runtime that torch has loaded
(``GOMP_parallel``), each thread with its number and the team's real size. A second name of a segment's entry,
``<entry>.args.<buffers>.<sizes>``, says how many of each it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from braze.codegen.llvm.builder import I32, I64, PTR, VOID, FunctionBuilder, ModuleBuilder, Value, constant
from braze.codegen.llvm.generate import KernelCode
from braze.codegen.llvm.indices import number
from braze.codegen.program.grammar import Barrier, Call, Statement
from braze.codegen.program.program import Program
from braze.ops.kernel import BufferArg
from braze.runtime.expr import Symbol
from braze.runtime.plan import signature

__all__ = ["DriverSegment", "KernelCall", "driver_module", "segment_program"]


@dataclass(frozen=True)
class KernelCall:
    """One kernel in a segment. ``buffers``, ``sizes`` and ``scratch`` are positions in the segment's
    argument array (``scratch`` ``None``: it needs none); ``error_base`` is added to the ids of its failed
    checks; ``entry`` names the function that runs this kernel alone."""

    code: KernelCode
    buffers: tuple[int, ...]
    sizes: tuple[int, ...]
    scratch: int | None
    error_base: int
    barrier: bool
    entry: str


@dataclass(frozen=True)
class DriverSegment:
    """A segment: its entry, its kernels in order, and how many buffers and sizes it takes."""

    entry: str
    kernels: tuple[KernelCall, ...]
    buffers: int
    sizes: int


def segment_program(name: str, calls: Sequence[KernelCall]) -> Program:
    """What every thread of a segment runs: its kernels, by their names, and barriers between those of which
    one needs what another thread makes of the other. Arguments are called by their positions."""
    body: list[Statement] = []
    buffers: dict[int, BufferArg] = {}
    sizes: dict[int, Symbol] = {}
    for position, call in enumerate(calls):
        own = call.code.program
        for place, buffer in zip(call.buffers, own.buffers, strict=True):
            role = buffer.role if place not in buffers else "inout"
            buffers[place] = BufferArg(_argument(place), buffer.dtype, role, buffer.numel)
        sizes.update(zip(call.sizes, own.sizes, strict=True))
        if position and call.barrier:
            body.append(Barrier())
        arguments = tuple(_argument(place) for place in call.buffers)
        body.append(Call(own.name, arguments, tuple(s.expr for s in own.sizes), call.error_base))
    in_order = tuple(buffers[place] for place in sorted(buffers))
    return Program(name, 1, in_order, tuple(sizes[p] for p in sorted(sizes)), (), (), body)


def _argument(place: int) -> str:
    return f"a{place}"


def driver_module(segments: Sequence[DriverSegment]) -> str:
    """The module with all entries of a graph, as LLVM IR text."""
    module = ModuleBuilder("driver")
    for segment in segments:
        _entry(module, segment.entry, segment.kernels)
        name = signature(segment.entry, segment.buffers, segment.sizes)
        module.alias(name, segment.entry, I64, (PTR, I64))
        if len(segment.kernels) == 1:
            module.alias(segment.kernels[0].entry, segment.entry, I64, (PTR, I64))
        else:
            for call in segment.kernels:
                _entry(module, call.entry, (call,))
    return module.text()


def _entry(module: ModuleBuilder, name: str, calls: Sequence[KernelCall]) -> None:
    """The functions behind one entry: what a thread runs, what starts it in a team, and the entry itself."""
    run, team = f"{name}.run", f"{name}.team"
    _run(module, run, calls)
    fb = FunctionBuilder(module, team, [("args", PTR)], linkage="internal")
    thread = fb.sext(fb.call("omp_get_thread_num", I32, []), "i64")
    threads = fb.sext(fb.call("omp_get_num_threads", I32, []), "i64")
    fb.call(run, VOID, [fb.params["args"], thread, threads])
    fb.ret()
    fb = FunctionBuilder(module, name, [("args", PTR), ("threads", I64)], I64)
    args, threads = fb.params["args"], fb.params["threads"]
    misaligned, fine, alone, several = (fb.block(n) for n in ("misaligned", "fine", "alone", "team"))
    fb.cond_br(_is_misaligned(fb, calls), misaligned, fine)
    fb.place(misaligned)
    fb.ret(number(1))
    fb.place(fine)
    fb.cond_br(fb.icmp("sgt", threads, 1), several, alone)
    fb.place(several)
    count, flags = fb.trunc(threads, "i32"), constant(I32, 0)
    fb.call("GOMP_parallel", VOID, [Value(f"@{team}", PTR), args, count, flags])
    fb.ret(number(0))
    fb.place(alone)
    fb.call(run, VOID, [args, number(0), number(1)])
    fb.ret(number(0))


def _run(module: ModuleBuilder, name: str, calls: Sequence[KernelCall]) -> None:
    """A segment's program, by one thread."""
    fb = FunctionBuilder(module, name, [("args", PTR), ("tid", I64), ("nt", I64)], linkage="internal")
    args = {place: _argument_at(fb, place, pointer=True) for place in sorted(_pointers(calls))}
    args.update(
        {place: _argument_at(fb, place, pointer=False) for call in calls for place in sorted(call.sizes)}
    )
    kernels = iter(calls)
    for statement in segment_program(name, calls).body:
        if isinstance(statement, Barrier):
            _barrier(fb)
            continue
        call = next(kernels)
        scratch = Value("null", PTR) if call.scratch is None else args[call.scratch]
        passed = [args[0], *(args[p] for p in (*call.buffers, *call.sizes)), scratch, number(call.error_base)]
        for phase, function in enumerate(call.code.functions):
            if phase:
                _barrier(fb)
            fb.call(function, VOID, [*passed, fb.params["tid"], fb.params["nt"]])
    fb.ret()


def _pointers(calls: Sequence[KernelCall]) -> set[int]:
    """The places of the error words, of buffers and of scratch."""
    found = {0}
    for call in calls:
        found.update(call.buffers)
        if call.scratch is not None:
            found.add(call.scratch)
    return found


def _argument_at(fb: FunctionBuilder, place: int, *, pointer: bool) -> Value:
    return fb.load(fb.gep(fb.params["args"], number(place), "i64"), PTR if pointer else I64, 8)


def _barrier(fb: FunctionBuilder) -> None:
    with fb.if_then(fb.icmp("sgt", fb.params["nt"], 1), "wait"):
        fb.call("GOMP_barrier", VOID, [])


def _is_misaligned(fb: FunctionBuilder, calls: Sequence[KernelCall]) -> Value:
    """Whether some buffer does not begin at a multiple of its element's size."""
    needed: dict[int, int] = {}
    for call in calls:
        for place, itemsize in zip(call.buffers, call.code.itemsizes, strict=True):
            needed[place] = max(needed.get(place, 1), itemsize)
    odd = number(0)
    for place, itemsize in sorted(needed.items()):
        if itemsize > 1:
            low = fb.and_(_argument_at(fb, place, pointer=False), itemsize - 1)
            odd = fb.or_(odd, low)
    return fb.icmp("ne", odd, 0)
