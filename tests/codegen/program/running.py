"""Run a program's machine code in the test process."""

from __future__ import annotations

import torch

from braze.codegen.llvm.builder import ModuleBuilder
from braze.codegen.llvm.generate import KernelCode
from braze.codegen.llvm.render import render
from braze.codegen.program.loop_plan import LoopPlan
from braze.codegen.program.program import Program
from tests.codegen.llvm.kernels import execute

UNPLANNED = LoopPlan(1, (), None, ())


def code_of(program: Program) -> KernelCode:
    """The machine code of a program that no kernel stands behind."""
    module = ModuleBuilder(program.name, vector_bits=max(128, 32 * program.lanes))
    rendered = render(program, module, program.name)
    return KernelCode(
        program.name,
        rendered.functions,
        module.text(),
        UNPLANNED,
        program,
        tuple(b.name for b in program.buffers),
        tuple(b.dtype.itemsize for b in program.buffers),
        rendered.scratch.shared,
        rendered.scratch.thread,
        program.checks,
    )


def run(program: Program, buffers: dict[str, torch.Tensor], sizes: dict[str, int], threads: int = 1) -> None:
    """As machine code."""
    errors = execute(code_of(program), buffers, sizes, threads)
    assert errors[0] == 0
