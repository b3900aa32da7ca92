"""docs/walk.md: one operator, and a softmax of a layer norm, from the Python line through every print to
assembly."""

from __future__ import annotations

import re

from tests.generated_pages.examples import Compiled, Example, compiled, gelu, softmax_of_norm

__all__ = ["page", "without_assembly"]

TARGET = "x86-64-v4"
_HEAD = """# A walk

One operator, and then a softmax of a layer norm, from the line of Python to the instructions of the hot loop,
through everything that prints itself on the way. `python dev.py pages` writes this page, for 2048 rows of
1024 float32 numbers on a CPU with AVX-512 (`x86-64-v4`). Of your own functions, `BRAZE_DEBUG=<folder>` writes
the same ([inspect.md](inspect.md)); [grammar.md](grammar.md) defines the languages.
"""
_LABEL = re.compile(r"^(\.L\w+):")
_JUMP = re.compile(r"^\tj\w+\t(\.L\w+)")


def page() -> str:
    """The whole page."""
    return "\n".join(
        [_HEAD, *_walk("One operator", gelu), *_walk("Softmax of a layer norm", softmax_of_norm)]
    )


def _walk(title: str, function: Example) -> list[str]:
    made = compiled(function, TARGET)
    (code,) = made.codes
    (report,) = made.reports
    text = report.assembly()
    name = code.functions[0]
    return [
        f"## {title}\n",
        *_part("What one writes", "python", made.python),
        *_part("ATen, after decompositions", "python", _fx(made)),
        *_part("IR: buffers and loops (`lowering`)", "text", str(made.ir)),
        *_part("Kernels (`schedule`)", "text", str(made.schedule)),
        *_part("Loop plan (`codegen/program/loop_plan.py`)", "text", str(code.plan)),
        *_part("Program (`codegen/program`)", "text", str(code.program)),
        *_part("LLVM IR, its hottest block (`codegen/llvm/render.py`)", "text", _hot_block(code.text)),
        *_part("Launch plan (`codegen/plan`)", "text", str(made.plan)),
        *_part("Assembly; `>` marks the hottest loop", "text", _marked(text, name)),
    ]


def _part(title: str, language: str, text: str) -> list[str]:
    return [f"### {title}\n", f"```{language}", text.rstrip("\n"), "```\n"]


def _fx(made: Compiled) -> str:
    lines = [line.split(";")[0].rstrip() for line in made.fx.code.strip().splitlines()]
    parts = [line.partition(" = ") for line in lines]
    # releases of torch differ in how they write keyword arguments
    return "\n".join(f"{name}{sign}{call.replace(' = ', '=')}" for name, sign, call in parts)


def _hot_block(llvm_ir: str) -> str:
    """The loop's block with most instructions on vectors."""
    blocks = re.split(r"\n(?=[\w.]+:\n)", llvm_ir)
    looping = [b for b in blocks if re.search(rf"br i1 .*label %{re.escape(b.split(':')[0])}[, \n]", b)]
    return "\n".join(_shortened(max(looping, key=lambda b: b.count(" x ")).splitlines(), 20, 8))


def _shortened(lines: list[str], head: int, tail: int) -> list[str]:
    """Without its middle, where that is long."""
    left_out = len(lines) - head - tail
    if left_out < 8:
        return lines
    return [*lines[:head], f"    ... {left_out} lines ...", *lines[-tail:]]


def _loops(lines: list[str]) -> list[tuple[int, int]]:
    """The innermost loops: from a label to a jump back to it, with no label between."""
    found = []
    start: tuple[str, int] | None = None
    for k, line in enumerate(lines):
        label = _LABEL.match(line)
        if label is not None:
            start = label[1], k
        jump = _JUMP.match(line)
        if jump is not None and start is not None and jump[1] == start[0]:
            found.append((start[1], k))
    return found


def _marked(text: str, function: str) -> str:
    """A function's instructions, with the innermost loop that has most of them marked."""
    body = text[text.index(f"\n{function}:") + 1 :]
    body = body[: body.index(".Lfunc_end")]
    lines = [line.split("#")[0].rstrip() for line in body.splitlines()]
    lines = [line for line in lines if line and not re.match(r"^\t\.(?!L)", line)]
    low, high = max(_loops(lines), key=lambda span: span[1] - span[0])
    around = [
        *[f"  {line}" for line in _shortened(lines[:low], 2, 8)],
        *_shortened([f"> {line}" for line in lines[low : high + 1]], 28, 12),
        *[f"  {line}" for line in _shortened(lines[high + 1 :], 6, 2)],
    ]
    return "\n".join(line.expandtabs(8) for line in around)


def without_assembly(text: str) -> str:
    """What does not depend on the release of LLVM."""
    return re.sub(r"(### Assembly[^\n]*\n\n```text\n).*?(```\n)", r"\1\2", text, flags=re.S)
