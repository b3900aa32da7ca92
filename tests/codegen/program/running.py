"""Run a program's machine code in the test process."""

from __future__ import annotations

import torch

from braze.codegen.llvm import generate
from braze.codegen.llvm.generate import KernelCode
from braze.codegen.program.loop_plan import LoopPlan
from braze.codegen.program.program import Program
from tests.codegen.llvm.kernels import execute

UNPLANNED = LoopPlan(1, (), None, ())


def code_of(program: Program) -> KernelCode:
    """The machine code of a program that no kernel stands behind."""
    return generate.code_of(program, UNPLANNED)


def run(program: Program, buffers: dict[str, torch.Tensor], sizes: dict[str, int], threads: int = 1) -> None:
    """As machine code."""
    errors = execute(code_of(program), buffers, sizes, threads)
    assert errors[0] == 0
