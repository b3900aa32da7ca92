"""The driver module of a graph: native entry points that run whole segments, and each kernel on its own.

Every entry has the interface that launch plans call::

    i64 @<entry>(ptr %args, i64 %threads)

``args`` holds the address of the error words, then the buffers' pointers, then the sizes. An entry looks at
the pointers first: where one is no multiple of its element's size, which loads and stores rely on, it does
nothing and returns 1, else 0. With more than one thread the segment's kernels run in one region of the OpenMP
runtime that torch has loaded (``GOMP_parallel``), each thread with its number and the team's real size;
barriers stand only where data crosses threads. A second name of a segment's entry,
``<entry>.args.<buffers>.<sizes>``, says how many of each it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from braze.codegen.llvm.generate import KernelCode
from braze.runtime.plan import signature

__all__ = ["DriverSegment", "KernelCall", "driver_module"]


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


def driver_module(segments: Sequence[DriverSegment]) -> str:
    """The module with all entries of a graph, as LLVM IR text."""
    declared: dict[str, str] = {}
    bodies: list[str] = []
    for segment in segments:
        bodies += _entry(segment.entry, segment.kernels, declared)
        name = signature(segment.entry, segment.buffers, segment.sizes)
        bodies.append(f"@{name} = alias i64 (ptr, i64), ptr @{segment.entry}")
        if len(segment.kernels) == 1:
            bodies += _alias(segment.kernels[0].entry, segment.entry)
        else:
            for call in segment.kernels:
                bodies += _entry(call.entry, (call,), declared)
    head = [
        "declare void @GOMP_parallel(ptr, ptr, i32, i32)",
        "declare void @GOMP_barrier()",
        "declare i32 @omp_get_thread_num()",
        "declare i32 @omp_get_num_threads()",
        *declared.values(),
    ]
    return "\n".join([*head, *bodies]) + "\n"


def _alias(name: str, target: str) -> list[str]:
    return [
        f"define i64 @{name}(ptr %args, i64 %threads) {{",
        f"  %status = tail call i64 @{target}(ptr %args, i64 %threads)",
        "  ret i64 %status",
        "}",
    ]


def _entry(name: str, calls: Sequence[KernelCall], declared: dict[str, str]) -> list[str]:
    lines = [f"define internal void @{name}.run(ptr %args, i64 %tid, i64 %nt) {{"]
    positions = {0}
    for call in calls:
        positions.update(call.buffers, call.sizes)
        if call.scratch is not None:
            positions.add(call.scratch)
    sizes = {p for call in calls for p in call.sizes}
    for p in sorted(positions):
        type = "i64" if p in sizes else "ptr"
        lines.append(f"  %p{p} = getelementptr i64, ptr %args, i64 {p}")
        lines.append(f"  %a{p} = load {type}, ptr %p{p}, align 8")
    barriers = 0
    for position, call in enumerate(calls):
        for phase, function in enumerate(call.code.functions):
            if phase or (call.barrier and position):
                lines += [
                    f"  %team{barriers} = icmp sgt i64 %nt, 1",
                    f"  br i1 %team{barriers}, label %wait{barriers}, label %go{barriers}",
                    f"wait{barriers}:",
                    "  call void @GOMP_barrier()",
                    f"  br label %go{barriers}",
                    f"go{barriers}:",
                ]
                barriers += 1
            lines.append(f"  call void @{function}({_arguments(call)})")
            declared[function] = f"declare void @{function}({_types(call)})"
    lines += ["  ret void", "}"]
    lines += [
        f"define internal void @{name}.team(ptr %args) {{",
        "  %t = call i32 @omp_get_thread_num()",
        "  %n = call i32 @omp_get_num_threads()",
        "  %tid = sext i32 %t to i64",
        "  %nt = sext i32 %n to i64",
        f"  call void @{name}.run(ptr %args, i64 %tid, i64 %nt)",
        "  ret void",
        "}",
        f"define i64 @{name}(ptr %args, i64 %threads) {{",
        *_alignment_test(calls),
        "  br i1 %odd, label %misaligned, label %fine",
        "misaligned:",
        "  ret i64 1",
        "fine:",
        "  %many = icmp sgt i64 %threads, 1",
        "  br i1 %many, label %team, label %alone",
        "team:",
        "  %n = trunc i64 %threads to i32",
        f"  call void @GOMP_parallel(ptr @{name}.team, ptr %args, i32 %n, i32 0)",
        "  ret i64 0",
        "alone:",
        f"  call void @{name}.run(ptr %args, i64 0, i64 1)",
        "  ret i64 0",
        "}",
    ]
    return lines


def _alignment_test(calls: Sequence[KernelCall]) -> list[str]:
    """``%odd``: whether some buffer does not begin at a multiple of its element's size."""
    needed: dict[int, int] = {}
    for call in calls:
        for position, itemsize in zip(call.buffers, call.code.itemsizes, strict=True):
            needed[position] = max(needed.get(position, 1), itemsize)
    lines: list[str] = []
    last = "0"
    for position, itemsize in sorted(needed.items()):
        if itemsize > 1:
            lines += [
                f"  %at{position} = getelementptr i64, ptr %args, i64 {position}",
                f"  %address{position} = load i64, ptr %at{position}, align 8",
                f"  %low{position} = and i64 %address{position}, {itemsize - 1}",
                f"  %any{position} = or i64 {last}, %low{position}",
            ]
            last = f"%any{position}"
    return [*lines, f"  %odd = icmp ne i64 {last}, 0"]


def _arguments(call: KernelCall) -> str:
    values = ["ptr %a0", *(f"ptr %a{b}" for b in call.buffers), *(f"i64 %a{s}" for s in call.sizes)]
    values.append("ptr null" if call.scratch is None else f"ptr %a{call.scratch}")
    values += [f"i64 {call.error_base}", "i64 %tid", "i64 %nt"]
    return ", ".join(values)


def _types(call: KernelCall) -> str:
    types = ["ptr"] * (1 + len(call.buffers)) + ["i64"] * len(call.sizes) + ["ptr", "i64", "i64", "i64"]
    return ", ".join(types)
