"""What `explain` and debug folders show of a kernel for a CPU.

A file of its own: it is for people to look at, and no code depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from braze.codegen.backend import Loops
from braze.codegen.llvm.pool import compile_ir
from braze.codegen.program.build import build_program
from braze.codegen.program.loop_plan import LoopPlan, StagePlan
from braze.codegen.program.program import Program
from braze.ops.kernel import Kernel
from braze.runtime.target import Target

__all__ = ["NativeReport"]


@dataclass(frozen=True)
class NativeReport:
    """See `braze.codegen.backend.KernelReport`; the text is LLVM IR. It is kept as long as the graph lives,
    and so holds nothing large that can be made again."""

    kernel: Kernel
    symbol: str
    loop_plan: LoopPlan
    code: str
    target: Target
    opt_level: int
    places: tuple[int, ...]
    """Where its buffers, and then its sizes, stand in the arguments of its segment."""

    def program(self) -> Program:
        """The loops, vector by vector."""
        return build_program(self.kernel, self.loop_plan)

    def memory(self, values: Sequence[int]) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """By the places of its arguments."""
        buffers = [b.name for b in self.kernel.buffers if b.role != "local"]
        own = [values[place] for place in self.places]
        return (
            dict(zip(buffers, own, strict=False)),
            dict(zip([s.name for s in self.kernel.sizes], own[len(buffers) :], strict=True)),
        )

    def assembly(self) -> str:
        """What LLVM makes of it. Raises ``LLVMError`` or ``WorkerError``."""
        cpu, features = self.target.cpu, self.target.features
        job = compile_ir(self.code, cpu=cpu, features=features, opt_level=self.opt_level, emit=("asm",))
        return job.result().asm

    def loops(self) -> Loops:
        """From the stage that does most of the work."""
        plan = self.loop_plan
        stages = list(zip(plan.stages, self.kernel.stages, strict=True))
        main, _ = max(
            stages, key=lambda pair: sum(node.op not in ("load", "constant") for node in pair[1].nodes)
        )
        if main.vector is None or main.lanes == 1:
            vector = "scalar"
        else:
            vector = f"{main.lanes} x {main.vector.name}"
        return Loops(vector, ", ".join(v.name for v in plan.outer) if plan.outer else _shared(main))


def _shared(stage: StagePlan) -> str:
    """The loops of a stage that threads share out."""
    if stage.serial:
        return "-"
    names = [v.name for v in stage.loops]
    if stage.chunk is not None:
        names.append(stage.chunk.var.name)
    if stage.vector is not None and (stage.block or (not names and stage.strategy == "pointwise")):
        names.append(stage.vector.name)
    return ", ".join(dict.fromkeys(names)) or "-"
