"""A compiled elementwise kernel, and the Python that launches it.

A launch knows sizes, strides and threads beforehand (they are *bound*); what is left for a call is to make
the outputs, to gather the addresses, and one native call. It is written as source, so that a fused function
can hold it behind its own checks without another call in between.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from braze._torch import native
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.errors import CodegenError
from braze.fuser.arg_spec import ArgSpec, Iteration
from braze.fuser.elementwise import ElementwiseGraph
from braze.fuser.specialize import input_name, number_name, output_name, size_name, stride_name
from braze.runtime.call_checks import ErrorWords, fails
from braze.runtime.callgen import TINY_WORK
from braze.runtime.expr import Expr
from braze.runtime.linker import entry_point
from braze.runtime.memory import workspaces
from braze.runtime.plan import (
    SEGMENTS,
    BindSize,
    CheckRange,
    CheckSizes,
    CheckTensor,
    Free,
    Return,
    RunSegment,
    Workspace,
)
from braze.runtime.realign import run_realigned
from braze.runtime.threads import team_size

__all__ = ["Address", "Binding", "FusedKernel", "LaunchSource", "source_of"]


@dataclass(frozen=True)
class Binding:
    """What a launch knows beforehand: the kernel's sizes, the bytes of each workspace, where in a workspace
    each buffer that is in one begins, and ``how`` it is made: ``tiny`` work keeps the interpreter's lock,
    since letting go of it costs as much; ``alone`` in one thread; by a ``team`` of as many threads as torch
    uses."""

    sizes: tuple[int, ...]
    workspaces: tuple[int, ...]
    offsets: tuple[int, ...]
    how: Literal["tiny", "alone", "team"]


@dataclass(frozen=True)
class LaunchSource:
    """Statements that launch a kernel, and the globals that they use, those apart that hold what the
    `Binding` knows."""

    lines: tuple[str, ...]
    names: Mapping[str, Any]
    sizes: tuple[str, ...]
    workspaces: tuple[str, ...]
    offsets: tuple[str, ...]

    def bound(self, binding: Binding) -> dict[str, Any]:
        """All globals, for one binding."""
        values = (*binding.sizes, *binding.workspaces, *binding.offsets)
        return {
            **self.names,
            **dict(zip((*self.sizes, *self.workspaces, *self.offsets), values, strict=True)),
        }


@dataclass(frozen=True)
class Address:
    """Where an operand is, as expressions: a tensor, and how many bytes after its begin (empty: none). For a
    number, ``tensor`` is the number."""

    tensor: str
    offset: str = ""

    @property
    def pointer(self) -> str:
        """The address itself."""
        return f"{self.tensor}.data_ptr()" + (f" + {self.offset}" if self.offset else "")


class FusedKernel:
    """One compiled kernel. Raises ``CodegenError`` where its plan does more than run machine code."""

    def __init__(
        self, graph: ElementwiseGraph, spec: ArgSpec, code: CompiledFxGraph, min_parallel_work: int
    ) -> None:
        self.graph = graph
        self.spec = spec
        self.code = code
        self._min_parallel_work = min_parallel_work
        variant = code.variant()
        plan = variant.info.plan
        self._runs: list[RunSegment] = []
        self._workspaces: list[Workspace] = []
        self._relied_on: list[CheckRange | CheckSizes] = []
        for one in plan.instructions:
            if isinstance(one, RunSegment):
                self._runs.append(one)
            elif isinstance(one, Workspace):
                self._workspaces.append(one)
            elif isinstance(one, (CheckRange, CheckSizes)):
                self._relied_on.append(one)
            elif not isinstance(one, (BindSize, CheckTensor, Free, Return)):
                raise CodegenError(f"the kernel needs more than a launch: {one}")
        self.name = "_".join(["fused", *dict.fromkeys(_words(self._runs))])
        self._errors = ErrorWords(plan.errors)
        self._checked = any(run.checked for run in self._runs)
        self._linked = code.loaded(variant).get(SEGMENTS)
        if self._linked is None:
            raise CodegenError("the kernel has no code")
        self._work = [run.work for run in self._runs]

    def bind(self, loops: Iteration) -> Binding | None:
        """What is known of a launch over these loops, whose operands are the tensors among the inputs, and
        then the outputs. None where the code is not right for these sizes."""
        sizes: dict[str, int] = {size_name(d): n for d, n in enumerate(loops.sizes)}
        kinds = self.graph.kinds
        names = [input_name(k) for k, kind in enumerate(kinds) if kind == "tensor"]
        names += [output_name(k) for k in range(len(self.graph.outputs))]
        for name, strides in zip(names, loops.strides, strict=True):
            for d, step in enumerate(strides):
                if step > 1:
                    sizes[stride_name(name, d)] = step
        if not self.code.admits(sizes) or any(fails(check, sizes) for check in self._relied_on):
            return None
        work = sum(w.evaluate(sizes) for w in self._work)
        team = work >= self._min_parallel_work
        late = {number_name(k) for k, kind in enumerate(kinds) if kind == "int"}
        spaces = {w.out for w in self._workspaces}
        known = [e for run in self._runs for e in run.sizes if not _is_late(e, late)]
        return Binding(
            tuple([e.evaluate(sizes) for e in known]),
            tuple([w.nbytes.evaluate(sizes) for w in self._workspaces]),
            tuple([b.offset.evaluate(sizes) for run in self._runs for b in run.buffers if b.name in spaces]),
            "team" if team else "tiny" if work < TINY_WORK else "alone",
        )

    def launch(
        self, inputs: Sequence[Address], outputs: Sequence[Address], how: str, mark: str = ""
    ) -> LaunchSource:
        """The statements of a launch that is made like ``how`` (see `Binding`), for where the graph's inputs
        and outputs are. ``mark`` sets its names apart from those of another launch."""
        assert self._linked is not None
        given = [(k, kind, inputs[k]) for k, kind in enumerate(self.graph.kinds)]
        where = {input_name(k): address for k, _, address in given}
        where |= {output_name(k): address for k, address in enumerate(outputs)}
        floats = {input_name(k) for k, kind, _ in given if kind == "float"}
        late = {number_name(k): address.tensor for k, kind, address in given if kind == "int"}
        spaces = {w.out: f"_space{mark}_{k}" for k, w in enumerate(self._workspaces)}
        names: dict[str, Any] = {
            f"_sink{mark}": self._errors.sink,
            f"_errors{mark}": self._errors,
            "_double": ctypes.c_double,
            "_addressof": ctypes.addressof,
            "_realigned": run_realigned,
            "_profiling": native.profiler_enabled,
            "_team": team_size,
            "_take": workspaces.take,
            "_give": workspaces.give,
            f"_code{mark}": self._linked,
        }
        lines = [f"{name} = _take(_bytes{name})" for name in spaces.values()]
        lines += [f"_number_{name} = _double({where[name].tensor})" for name in sorted(floats)]
        known: list[str] = []
        offsets: list[str] = []
        for k, run in enumerate(self._runs):
            values = ["_failure.address" if run.checked else f"_sink{mark}"]
            tensors: list[str] = []
            for at, buffer in enumerate(run.buffers, 1):
                if buffer.name in spaces:
                    offsets.append(f"_begin{mark}_{len(offsets)}")
                    values.append(f"{spaces[buffer.name]}.address + {offsets[-1]}")
                elif buffer.name in floats:
                    values.append(f"_addressof(_number_{buffer.name})")
                else:
                    values.append(where[buffer.name].pointer)
                    tensors.append(f"({at}, {where[buffer.name].tensor}), ")
            for e in run.sizes:
                if _is_late(e, set(late)):
                    values.append(late[str(e)])
                else:
                    known.append(f"_size{mark}_{len(known)}")
                    values.append(known[-1])
            names[f"_pack{mark}_{k}"] = struct.Struct(f"={len(values)}q").pack
            names[f"_run{mark}_{k}"] = entry = entry_point(self._linked, run.entry, keep_lock=how == "tiny")
            names[f"_shown{mark}_{k}"] = _shown(entry, self.name)
            threads = "_team()" if how == "team" else "1"
            run_it = f"(_shown{mark}_{k} if _profiling() else _run{mark}_{k})"
            lines.append(f"if {run_it}(_args := _pack{mark}_{k}({', '.join(values)}), {threads}):")
            lines.append(f"    _realigned(_run{mark}_{k}, _args, {threads}, ({''.join(tensors)}))")
        if self._checked:
            lines.insert(0, f"_failure = _errors{mark}.take()")
            lines += [
                "if _failure.words[0]:",
                f"    raise _errors{mark}.exception(_failure)",
                f"_errors{mark}.give(_failure)",
            ]
        lines += [f"_give({name})" for name in spaces.values()]
        return LaunchSource(
            tuple(lines),
            names,
            tuple(known),
            tuple([f"_bytes{name}" for name in spaces.values()]),
            tuple(offsets),
        )


def source_of(code: CompiledFxGraph) -> str:
    """What the code for this machine was made of: LLVM IR, for a CPU."""
    return "\n".join([bytes(module.ir).decode() for module in code.variant().modules])


def _is_late(e: Expr, numbers: set[str]) -> bool:
    """Whether a size is a number that each call brings."""
    return e.symbol is not None and e.symbol.name in numbers


def _words(runs: Sequence[RunSegment]) -> list[str]:
    """What the kernels' names say that they fuse."""
    return [
        word
        for run in runs
        for kernel in run.kernels
        for word in kernel.name.split("_")
        if not word.isdigit() and word not in ("fused", "copy")
    ]


def _shown(entry: Callable[[bytes, int], int], name: str) -> Callable[[bytes, int], int]:
    """The entry, as a block that profilers show under ``name``."""

    def shown(args: bytes, threads: int) -> int:
        with native.record_function(name):
            return entry(args, threads)

    return shown
