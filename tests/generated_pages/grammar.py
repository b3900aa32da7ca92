"""docs/grammar.md: the languages between a graph and its code, one section each, from their own sources."""

from __future__ import annotations

import inspect
import itertools
import re
import typing

from braze.codegen.program import grammar as program
from braze.codegen.program import loop_plan
from braze.ops import kernel, vocabulary
from braze.runtime import expr, guard, plan
from tests.generated_pages.examples import compiled, softmax_rows

__all__ = ["page"]

_HEAD = """# Grammars

A graph passes through six small languages on its way to machine code. Each is data that prints itself, and
each stands here as its source defines it; `python dev.py pages` writes this page. [walk.md](walk.md) shows
one function in all of them.

| language | says | defined in |
| --- | --- | --- |
| [ops](#ops) | what one element is computed from | `ops/vocabulary.py` |
| [kernel](#kernel) | which loops run, and what they read and write | `ops/kernel.py` |
| [loop plan](#loop-plan) | how these loops lie on vectors and threads | `codegen/program/loop_plan.py` |
| [program](#program) | what every thread does, vector by vector | `codegen/program/grammar.py` |
| [launch plan](#launch-plan) | what a call of the whole graph does | `runtime/plan.py` |
| [sizes](#sizes) | the integers in all of them | `runtime/expr.py`, `runtime/guard.py` |
"""


def page() -> str:
    """The whole page."""
    made = compiled(softmax_rows, "x86-64-v4")
    kernel_text, code = str(made.kernels[0]), made.codes[0]
    sections = [
        _HEAD,
        _ops(),
        _section(
            "Kernel", kernel, [kernel.Kernel, kernel.Stage, kernel.Store, kernel.BufferArg], kernel_text
        ),
        _section(
            "Loop plan",
            loop_plan,
            [loop_plan.LoopPlan, loop_plan.StagePlan, loop_plan.Strip, loop_plan.Chunk],
            str(code.plan),
        ),
        _section("Program", program, [*_members(program.Statement), program.Along], None),
        _section("Launch plan", plan, _members(plan.Instruction), None),
        _section("Sizes", expr, [expr.Symbol, expr.FloorDiv, expr.Mod, expr.Min, expr.Max], None),
        f"{_prose(inspect.getdoc(guard.BoolExpr) or '')}\n",
    ]
    return "\n".join(sections)


def _members(union: object) -> list[type]:
    return list(typing.get_args(union))


def _ops() -> str:
    lines = ["## Ops\n", _prose(inspect.getdoc(vocabulary) or ""), ""]
    lines += [
        "| operations | operands | of | gives | cost | flops | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]

    def same(row: vocabulary.OpDef) -> tuple[object, ...]:
        return row.arity, row.domain, row.result, row.cost, row.flops, row.meaning

    for (arity, domain, result, cost, flops, meaning), rows in itertools.groupby(
        vocabulary.OPS.values(), same
    ):
        names = " ".join(f"`{row.name}`" for row in rows)
        low, high = typing.cast("tuple[int, int]", arity)
        count = str(low) if low == high else f"{low} or {high}"
        lines.append(f"| {names} | {count} | {domain} | {result} | {cost} | {flops or ''} | {meaning} |")
    lines += ["", "| reduction | components | flops an element |", "| --- | --- | --- |"]
    for kind, definition in vocabulary.REDUCTIONS.items():
        lines.append(f"| `{kind}` | {', '.join(definition.components)} | {definition.flops or ''} |")
    lines.append(f"\nScans: {', '.join(f'`{s}`' for s in vocabulary.SCANS)}.\n")
    return "\n".join(lines)


def _section(title: str, module: object, parts: list[type], example: str | None) -> str:
    lines = [f"## {title}\n", _prose(inspect.getdoc(module) or ""), "", "| part | |", "| --- | --- |"]
    for part in parts:
        text = _row(inspect.getdoc(part) or "")
        lines.append(f"| `{part.__name__}` | {text} |")
    if example is not None:
        lines += ["", "```text", example, "```"]
    return "\n".join([*lines, ""])


def _prose(text: str) -> str:
    """A docstring as Markdown: literal blocks fenced, roles and double backticks as code."""
    out: list[str] = []
    literal = False
    for line in text.splitlines():
        if literal and line and not line.startswith(" "):
            while out and not out[-1]:
                out.pop()
            out += ["```", ""]
            literal = False
        if line.rstrip().endswith("::") and not literal:
            lead = line.rstrip()[:-2].rstrip()
            out += [lead + ":", "", "```text"] if lead else ["```text"]
            literal = True
            continue
        if literal:
            if line or out[-1] != "```text":
                out.append(line.removeprefix("    "))
            continue
        out.append(_inline(line))
    if literal:
        out.append("```")
    return "\n".join(out)


def _inline(line: str) -> str:
    line = re.sub(r":(?:mod|class|meth):`~?([^`]*)`", r"`\1`", line)
    return line.replace("``", "`")


def _row(text: str) -> str:
    """A docstring in one cell: its prose, without literal blocks."""
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if not p.startswith("    ")]
    joined = " ".join(" ".join(p.split()) for p in paragraphs).replace("::", ":")
    return _inline(joined).replace("|", "\\|")
