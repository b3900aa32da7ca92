"""How the demo looks: the table that fills while one waits, the table of kernels, the last line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.text import Text

from braze.cli.demo_measure import Measured
from braze.cli.tables import table
from braze.words import duration

__all__ = ["closing", "comparison", "failure", "heading", "kernels"]

_SPINNER = Spinner("dots", style="cyan")
_KERNELS_SHOWN = 12


def heading(subject: str) -> RenderableType:
    """The first line: what is compiled."""
    return Padding(Text.assemble(("braze demo", "bold"), "\n", (subject, "dim")), (1, 0, 0, 2))


def _ratio(mine: float | None, other: float | None) -> Text:
    if mine is None or other is None or mine == 0:
        return Text("")
    ratio = other / mine
    return Text(f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x", "green" if ratio >= 1 else "yellow")


def _state(row: Measured) -> RenderableType:
    if row.failed is not None:
        return Text("failed", "bold red")
    if row.doing == "done":
        return Text("✓", "green")
    if row.doing.startswith("waits"):
        return Text(row.doing, "dim")
    _SPINNER.update(text=Text(f"{row.doing}, {time.monotonic() - row.since:.0f} s", "cyan"))
    return _SPINNER


def comparison(rows: Sequence[Measured]) -> RenderableType:
    """The ways of running the model side by side, with what is known so far."""
    shown = table()
    shown.pad_edge = True
    shown.add_column("", no_wrap=True, min_width=13)
    shown.add_column("first call", justify="right", min_width=10)
    shown.add_column("a call", justify="right", min_width=10)
    shown.add_column("vs eager", justify="right")
    shown.add_column("difference", justify="right")
    shown.add_column("", no_wrap=True)
    eager = rows[0]
    for row in rows:
        first = "" if row.first_seconds is None else f"{row.first_seconds:.2f} s"
        call = "" if row.per_call_ms is None else f"{row.per_call_ms:.2f} ms"
        difference = "" if row.difference is None or row is eager else f"{row.difference:.1e}"
        speed = Text("") if row is eager else _ratio(row.per_call_ms, eager.per_call_ms)
        style = "bold" if row.way == "braze" else ""
        shown.add_row(
            Text(row.label, style), Text(first, style), Text(call, style), speed, difference, _state(row)
        )
    return shown


def failure(label: str, text: str) -> RenderableType:
    """Why one of them has no figures."""
    return Panel(Text(text), title=f"{label} failed", title_align="left", border_style="red", expand=False)


def _operators(names: Sequence[str], width: int = 34) -> str:
    text = ", ".join(names)
    return text if len(text) <= width else text[: width - 2].rstrip(", ") + " …"


def kernels(report: dict[str, Any]) -> RenderableType:
    """Braze's kernels with their share of the time; below them the ATen calls in one line."""
    rows = sorted(report["kernels"], key=lambda row: -row["share"])
    shown = table()
    shown.expand = shown.pad_edge = True
    shown.add_column("kernel", no_wrap=True, overflow="ellipsis", ratio=5)
    shown.add_column("runs", justify="right", min_width=4)
    shown.add_column("fuses", no_wrap=True, overflow="ellipsis", ratio=4)
    shown.add_column("time", justify="right", no_wrap=True, min_width=7)
    shown.add_column("share", justify="right", no_wrap=True, min_width=6)
    shown.add_column("", width=10)
    widest = max((row["share"] for row in [*rows, *report["externs"]]), default=1.0) or 1.0

    def add(row: dict[str, Any], style: str) -> None:
        shown.add_row(
            Text(row["name"], style),
            str(row["launches"]),
            Text(_operators(row["operators"]), "dim"),
            duration(row["microseconds"]),
            f"{row['share']:.1%}",
            Bar(widest, 0, row["share"], color="cyan" if style else "bright_black"),
        )

    for row in rows[:_KERNELS_SHOWN]:
        add(row, "bold")
    if len(rows) > _KERNELS_SHOWN:
        rest = rows[_KERNELS_SHOWN:]
        add(
            {
                "name": f"{len(rest)} smaller kernels",
                "launches": sum(row["launches"] for row in rest),
                "operators": [],
                "microseconds": sum(row["microseconds"] for row in rest),
                "share": sum(row["share"] for row in rest),
            },
            "bold",
        )
    if report["externs"]:
        shown.add_section()
        for row in sorted(report["externs"], key=lambda row: -row["share"]):
            add(row, "")
    notes = [Text(f"  runs as eager PyTorch: {fallback}", "yellow") for fallback in report["fallbacks"]]
    if report["graph_breaks"]:
        notes.append(Text(f"  graph breaks: {report['graph_breaks']}", "yellow"))
    title = Text.assemble(
        ("  what Braze made of it", "bold"), ("  kernels of its own, then calls of ATen's operators", "dim")
    )
    return Group(title, shown, *notes)


def closing(rows: Sequence[Measured], seconds: float) -> RenderableType:
    """The last lines: the gain in words, and how long the whole thing took."""
    by_way = {row.way: row for row in rows}
    braze, inductor = by_way["braze"], by_way.get("inductor")
    lines = []
    if inductor is None:
        lines.append("TorchInductor is left out; it needs a C++ compiler.")
    elif braze.failed is None and braze.first_seconds and inductor.first_seconds:
        saved = inductor.first_seconds - braze.first_seconds
        if saved > 0:
            lines.append(
                f"Braze's first call came {saved:.1f} s before TorchInductor's, without a C++ compiler."
            )
    lines.append(
        "First calls are cold, each in a new process; a call is the median of calls made in turns. "
        f"{seconds:.0f} s in all."
    )
    return Padding(Text("\n".join(lines), "dim"), (0, 0, 1, 2))
