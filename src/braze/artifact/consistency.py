"""Whether the parts of an artefact's metadata fit each other: what the verifier of plans cannot know."""

from __future__ import annotations

from braze.artifact.schema import GraphInfo, NumberInput, TensorInput, TensorOutput
from braze.errors import ArtifactError
from braze.runtime.expr import Symbol
from braze.runtime.plan import BindSize, CheckRange, CheckSizes, CheckTensor, Plan, Return, range_check

__all__ = ["check_plan", "check_specs"]


def check_specs(info: GraphInfo) -> None:
    """That the input and output specs hold in themselves. Raises `ArtifactError`."""
    for spec in info.inputs:
        if isinstance(spec, TensorInput):
            rank = len(spec.spec.sizes)
            if len(spec.spec.strides) != rank or any(not 0 <= d < rank for d in spec.expanded):
                raise ArtifactError(
                    f"input {spec.name} of {info.name} has {rank} sizes, but not as many strides"
                )
            if not 0 < spec.alignment <= 4096 or spec.alignment & (spec.alignment - 1):
                raise ArtifactError(f"input {spec.name} of {info.name} cannot be aligned to {spec.alignment}")
    for position, output in enumerate(info.outputs):
        if not isinstance(output, TensorOutput):
            continue
        if len(output.spec.sizes) != len(output.spec.strides):
            raise ArtifactError(f"output {position} of {info.name} has {len(output.spec.strides)} strides")
        if output.input is not None and not (
            0 <= output.input < len(info.inputs) and isinstance(info.inputs[output.input], TensorInput)
        ):
            raise ArtifactError(f"output {position} of {info.name} cannot be its input {output.input}")


def check_plan(info: GraphInfo, plan: Plan) -> None:
    """That a plan, which `runtime.verify` has accepted, takes and gives what the specs say, and begins by
    checking every tensor that it is given, and the bounds of every symbol: all that machine code knows of
    sizes rests on that. Raises `ArtifactError`."""
    if len(plan.inputs) != len(info.inputs):
        raise ArtifactError(f"{info.name} takes {len(info.inputs)} inputs, its plan {len(plan.inputs)}")
    checks: dict[str, CheckTensor] = {}
    ranges: set[CheckRange] = set()
    for instruction in plan.instructions:
        if isinstance(instruction, CheckTensor) and instruction.origin == "input":
            checks[instruction.tensor] = instruction
        elif isinstance(instruction, CheckRange):
            ranges.add(instruction)
        elif not isinstance(instruction, (BindSize, CheckSizes)):
            break
    for symbol in _symbols(info):
        wanted = range_check(symbol)
        if wanted is not None and wanted not in ranges:
            raise ArtifactError(f"the plan of {info.name} does not check that {wanted.condition}")
    for name, spec in zip(plan.inputs, info.inputs, strict=True):
        if name != spec.name:
            raise ArtifactError(f"the plan of {info.name} calls its input {spec.name} {name}")
        if isinstance(spec, TensorInput):
            _check_input(info, spec, checks.get(name))
        elif name in checks:
            raise ArtifactError(f"input {name} of {info.name} is a tensor to its plan")
        if (name in plan.numbers) and not isinstance(spec, NumberInput):
            raise ArtifactError(f"input {name} of {info.name} is a number to its plan")
    last = plan.instructions[-1]
    assert isinstance(last, Return)
    if len(last.values) != len(info.outputs):
        raise ArtifactError(f"{info.name} gives {len(info.outputs)} outputs, its plan {len(last.values)}")


def _symbols(info: GraphInfo) -> set[Symbol]:
    """The symbols of the inputs."""
    found: set[Symbol] = set()
    for spec in info.inputs:
        if isinstance(spec, TensorInput):
            found.update(*[e.free_symbols for e in spec.spec.numbers])
        elif isinstance(spec, NumberInput) and spec.expression.symbol is not None:
            found.add(spec.expression.symbol)
    return found


def _check_input(info: GraphInfo, given: TensorInput, check: CheckTensor | None) -> None:
    if check is None:
        raise ArtifactError(f"the plan of {info.name} does not check its input {given.name}")
    if check.spec != given.spec:
        raise ArtifactError(f"the plan of {info.name} checks its input {given.name} otherwise")
