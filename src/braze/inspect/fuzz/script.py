"""A program as a script that stands alone: it makes the inputs, runs both ways, and compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from braze.inspect.fuzz.execute import MARGIN
from braze.inspect.fuzz.packages import dims_of
from braze.inspect.fuzz.program import Number, Program, Tensor, literal

__all__ = ["script_of"]

_HEAD = """\
{IMPORTS}import torch
import torch.nn.functional as F

{BRAZE}from braze.ops.numerics import assert_agrees, in_float64
"""

_FILLED = '''
def filled(values, length, dtype):
    """Memory of so many elements: the values, again and again."""
    return torch.tensor((values * (length // len(values) + 1))[:length], dtype=dtype)
'''

_OUTCOME = '''
def outcome(function, arguments):
    """Its results, or what it raises."""
    try:
        return {RETURNED}
    except Exception as error:
        return error
'''

_GRADIENTS = '''
def with_gradients(results, arguments):
    """The results, and the gradients of their weighted sum."""
    leaves = [x for x in arguments if isinstance(x, torch.Tensor) and x.requires_grad]
    parts = []
    for result in results:
        if result.requires_grad:
            weights = (torch.arange(result.numel(), dtype=torch.float64) * 7 % 11 - 5) / 4
            parts.append((result.double() * weights.reshape(result.shape)).sum())
    if not parts or not leaves:
        return results
    return *results, *torch.autograd.grad(torch.stack(parts).sum(), leaves, allow_unused=True)
'''

_SHARED = '''
def shared(tensors):
    """Which of them share memory."""
    full = [isinstance(x, torch.Tensor) and x.numel() > 0 for x in tensors]
    places = [x.untyped_storage().data_ptr() if has else None for x, has in zip(tensors, full)]
    return [(i, j) for j, p in enumerate(places) for i in range(j) if p is not None and places[i] == p]
'''

_CHECK = """
compiled = torch.compile(program, backend="braze", dynamic={DYNAMIC}{OPTIONS})
for call in range({CALLS}):
    for _ in range(2):
        theirs, ours = inputs(call), inputs(call)
        expected, found = outcome(program, theirs), outcome(compiled, ours)
        if isinstance(expected, Exception):
            assert isinstance(found, Exception), f"eager raises {expected!r}, and compiled code nothing"
            continue
        if isinstance(found, Exception):
            raise found
        assert_agrees(found, expected, lambda: outcome(program, in_float64(inputs(call))))
        assert_agrees(ours, theirs)  # the inputs afterwards
        assert shared([*ours, *found]) == shared([*theirs, *expected])
print("agrees with eager")
"""

_PACKAGE = """
class Program(torch.nn.Module):
    def forward(self, *arguments):
        return program(*arguments)


with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    dims = {DIMS}
    source = torch.export.export(Program(), tuple(inputs(0)), dynamic_shapes={"arguments": dims})
    compiled = braze.aot_load(braze.aot_compile(source, f"{folder}/model.pt2", "host"))
exported = source.module()
"""


def script_of(program: Program, comment: str = "", options: Mapping[str, object] | None = None) -> str:
    """The script. ``comment`` stands at its beginning; ``options`` are those of the compiler."""
    gradients = program.mode == "gradients"
    returned = "with_gradients(function(*arguments), arguments)" if gradients else "function(*arguments)"
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    parts = [
        head + _head(program),
        "\n" + program.source(),
        _FILLED,
        _inputs(program),
        _GRADIENTS if gradients else "",
        _OUTCOME.replace("{RETURNED}", returned),
        _SHARED,
        _check(program, options or {}),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def _head(program: Program) -> str:
    package = program.mode == "package"
    imports, own = ("import tempfile\n\n", "import braze\n") if package else ("", "")
    return _HEAD.replace("{IMPORTS}", imports).replace("{BRAZE}", own)


def _check(program: Program, options: Mapping[str, object]) -> str:
    check = _CHECK.replace("{CALLS}", str(program.calls))
    compiled, rest = check.split("\n", 2)[1:]
    if program.mode != "package":
        compiled = compiled.replace("{DYNAMIC}", str(program.mode == "dynamic"))
        given = f", options={{{_pairs(options)}}}" if options else ""
        return f"{compiled.replace('{OPTIONS}', given)}\n{rest}"
    dims = [
        "None" if one is None else "{" + ", ".join(f"{d}: torch.export.Dim.AUTO" for d in one) + "}"
        for one in dims_of(program)
    ]
    rest = rest.replace("outcome(program, theirs)", "outcome(exported, theirs)")
    return _PACKAGE.replace("{DIMS}", f"({', '.join(dims)},)") + rest


def _pairs(options: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}": {value!r}' for name, value in options.items())


def _inputs(program: Program) -> str:
    lines = ["", "def inputs(call):"]
    tensors = [given for given in program.inputs if isinstance(given, Tensor)]
    for given in program.inputs:
        if isinstance(given, Number):
            values = ", ".join(map(literal, given.values))
            lines.append(f"    {given.name} = [{values}][call]")
            continue
        sharing = [other for other in tensors if other.name == given.name or other.shares == given.name]
        memory = f"{given.shares or given.name}_memory"
        if given.shares is None:
            reaches = [max(one.reach(call) for one in sharing) + MARGIN for call in range(program.calls)]
            values = ", ".join(map(literal, given.values))
            length = _per_call(reaches)
            lines.append(f"    {memory} = filled([{values}], {length}, torch.{given.dtype})")
        shape = _per_call([given.shapes[call] for call in range(program.calls)])
        strides = _per_call([given.strides(call) for call in range(program.calls)])
        made = f"{memory}.as_strided({shape}, {strides}, {given.offset})"
        if given.plain and len(sharing) == 1:
            made += ".clone()"
        if given.requires_grad:
            made += ".requires_grad_()"
        lines.append(f"    {given.name} = {made}")
    names = ", ".join(given.name for given in program.inputs)
    return "\n".join([*lines, f"    return [{names}]", ""])


def _per_call(values: Sequence[object]) -> str:
    if all(value == values[0] for value in values):
        return repr(values[0])
    return f"{values!r}[call]"
