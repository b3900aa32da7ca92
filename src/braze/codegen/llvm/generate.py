"""From a kernel to LLVM IR text: one module for each kernel, with names that depend on nothing but its
content. The functions in it are the phases of the kernel's program (:mod:`braze.codegen.llvm.render`), which
run one after another with a barrier between them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from braze.codegen.llvm.builder import ModuleBuilder
from braze.codegen.llvm.render import render
from braze.codegen.program.build import build_program
from braze.codegen.program.loop_plan import LoopPlan, plan_kernel
from braze.codegen.program.program import Program
from braze.errors import CodegenError
from braze.ops.dtypes import SHORT
from braze.ops.kernel import Kernel
from braze.runtime.expr import Expr, as_expr
from braze.runtime.target import Target

__all__ = ["KernelCode", "code_of", "generate", "scratch_bytes"]

_PLACEHOLDER = "braze_kernel"


@dataclass(frozen=True)
class KernelCode:
    """The code of one kernel.

    ``functions``: the phases' symbols, each of the renderer's interface. ``text``: the module. ``buffers``:
    the names of its buffers, in argument order; ``itemsizes``: for each buffer the bytes of an
    element, a multiple of which its address has to be. ``scratch_shared + nt * scratch_thread`` bytes of
    scratch are needed (expressions over the sizes). ``checks[k]`` is the check whose failure is reported as
    id ``errbase + k + 1``.
    """

    name: str
    functions: tuple[str, ...]
    text: str
    plan: LoopPlan
    program: Program
    buffers: tuple[str, ...]
    itemsizes: tuple[int, ...]
    scratch_shared: Expr
    scratch_thread: Expr
    checks: tuple[str, ...]


def generate(kernel: Kernel, target: Target | int, masks: bool | None = None) -> KernelCode:
    """The code of ``kernel`` for a target (or a number of 32-bit lanes; ``masks`` then says whether all
    element types have masked access). Raises ``CodegenError`` for what has no machine form."""
    lanes = target if isinstance(target, int) else target.lanes
    if masks is None:
        masks = lanes >= 16 and (isinstance(target, int) or target.has("avx512bw"))
    for b in kernel.buffers:
        if b.dtype not in SHORT:
            raise CodegenError(f"no machine code for elements of {b.dtype}", node=kernel.name)
    plan = plan_kernel(kernel, lanes, masks)
    return code_of(build_program(kernel, plan), plan)


def code_of(program: Program, plan: LoopPlan) -> KernelCode:
    """The code of a program; ``plan`` is what it was built from."""
    module = ModuleBuilder(_PLACEHOLDER, vector_bits=max(128, 32 * program.lanes))
    rendered = render(program, module, _PLACEHOLDER)
    text = module.text()
    name = "k_" + hashlib.sha256(text.encode()).hexdigest()[:20]
    return KernelCode(
        program.name,
        tuple(f.replace(_PLACEHOLDER, name) for f in rendered.functions),
        text.replace(_PLACEHOLDER, name),
        plan,
        program,
        tuple(b.name for b in program.buffers),
        tuple(b.dtype.itemsize for b in program.buffers),
        rendered.scratch.shared,
        rendered.scratch.thread,
        program.checks,
    )


def scratch_bytes(code: KernelCode, sizes: dict[str, int], nthreads: int) -> int:
    """Bytes of scratch for a call with these sizes."""
    shared = as_expr(code.scratch_shared).evaluate(sizes)
    return shared + nthreads * as_expr(code.scratch_thread).evaluate(sizes)
