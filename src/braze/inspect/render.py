"""How an explanation looks: a heading, the kernels, the externs, and what did not go as one would like.

Figures stand in columns; under each kernel, in the whole width, what it fuses and where that is in the user's
code. What does not fit is cut at its end, never wrapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from braze.words import amount, count, duration

if TYPE_CHECKING:  # whose types these are prints itself with this module
    from braze.inspect.explanation import Explanation, Graph, Kernel, Work

__all__ = ["Rendered"]

_KERNELS_SHOWN: Final = 24
_OTHERS_SHOWN: Final = 8
_BARS: Final = " ▏▎▍▌▋▊▉█"
_INDENT: Final = "  "


@dataclass(frozen=True)
class _Column:
    """A column of figures: its header, its width, and from which width of the terminal on it is shown."""

    header: str
    width: int
    shown_from: int = 0
    left: bool = False


_COLUMNS: Final = (
    _Column("runs", 4),
    _Column("time", 8),
    _Column("share", 6),
    _Column("", 10, 120, left=True),
    _Column("moves", 8),
    _Column("flops", 7),
    _Column("reaches", 9),
    _Column("vector", 7, 92),
    _Column("threads", 8, 100, left=True),
)
_GAP: Final = 2


@dataclass(frozen=True)
class Rendered:
    """An explanation as rich shows it."""

    what: Explanation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        page = _Page(self.what, options.max_width)
        for line in page.lines():
            line.truncate(options.max_width, overflow="ellipsis")
            line.no_wrap = True
            yield line


class _Page:
    """The lines of an explanation for one width."""

    def __init__(self, what: Explanation, width: int) -> None:
        self.what = what
        self.width = width
        self.columns = [c for c in _COLUMNS if width >= c.shown_from]
        figures = sum(c.width + _GAP for c in self.columns)
        self.name_width = max(12, min(48, width - figures - len(_INDENT)))
        entries = [*what.kernels, *what.externs]
        self.widest = max((w.share for w in entries), default=0.0) or 1.0

    def lines(self) -> Iterable[Text]:
        what = self.what
        yield Text()
        yield from self._heading()
        if what.kernels:
            yield from self._kernels()
        if what.externs:
            yield from self._externs()
        yield from self._rest()
        yield from self._graphs()
        yield from self._notes("runs as eager PyTorch", [str(f) for f in what.fallbacks], "yellow")
        yield from self._notes(
            "graph breaks", [_break(b.reason, b.source) for b in what.graph_breaks], "yellow"
        )
        yield from self._notes("not fused", [_refusal(r.producer, r.consumer, r.reason, r.count, r.source)
                                             for r in what.refusals], "")  # fmt: skip
        if what.kernels or what.externs:
            yield Text()
            yield Text(
                f"{_INDENT}moves: bytes to read and write at least. reaches: part of the machine's "
                "bandwidth (mem) or peak", "dim"
            )  # fmt: skip
            yield Text(
                f"{_INDENT}arithmetic (peak), whichever holds it; cache: faster than memory is.", "dim"
            )
        yield Text()

    # -- parts ------------------------------------------------------------------------------------------
    def _heading(self) -> Iterable[Text]:
        what = self.what
        compiled = sum(g.compile_seconds for g in what.graphs)
        launches = sum(k.launches for k in what.kernels)
        calls = sum(e.launches for e in what.externs)
        counts = f"{count(len(what.graphs), 'graph')}, {count(launches, 'kernel')}"
        counts += f" ({len(what.kernels)} different)" if launches > len(what.kernels) else ""
        counts += f", {count(calls, 'extern call')}" if calls else ""
        yield Text.assemble(_INDENT, (what.function, "bold"), ("  became ", "dim"), counts)
        yield Text.assemble(
            _INDENT,
            (duration(what.call_us), "bold"),
            (" a call", "dim"),
            ("  ·  first call ", "dim"),
            duration(what.first_call_seconds * 1e6),
            (", of which Braze ", "dim"),
            duration(compiled * 1e6),
        )
        yield Text.assemble(_INDENT, ("on a machine with ", "dim"), str(what.machine))

    def _kernels(self) -> Iterable[Text]:
        kernels = self.what.kernels
        yield from self._header("kernels")
        for kernel in kernels[:_KERNELS_SHOWN]:
            yield self._row(kernel.name, "bold", kernel, kernel.vector, kernel.parallel)
            yield self._detail(kernel)
        rest = kernels[_KERNELS_SHOWN:]
        if rest:
            time, share = sum(k.time_us for k in rest), sum(k.share for k in rest)
            runs = sum(k.launches for k in rest)
            cells = [str(runs), duration(time), f"{share:.1%}"]
            yield self._cells(Text(f"{len(rest)} smaller ones", "dim"), [Text(c, "dim") for c in cells])

    def _externs(self) -> Iterable[Text]:
        yield from self._header("extern calls")
        for extern in self.what.externs:
            style = "yellow" if extern.fallback else ""
            yield self._row(extern.name, style, extern, "", "")

    def _rest(self) -> Iterable[Text]:
        what = self.what
        rest = what.call_us - sum(w.time_us for w in (*what.kernels, *what.externs))
        if what.call_us > 0 and rest > 0.005 * what.call_us:
            cells = [Text(""), Text(duration(rest), "dim")]
            yield Text()
            yield self._cells(Text("everything else", "dim"), cells)

    def _graphs(self) -> Iterable[Text]:
        graphs = self.what.graphs
        if len(graphs) < 2 and not any(g.memory.workspace for g in graphs):
            return
        yield Text()
        for graph in graphs[:_OTHERS_SHOWN]:
            yield Text(_INDENT, no_wrap=True).append_text(_graph(graph))
        if len(graphs) > _OTHERS_SHOWN:
            yield Text(f"{_INDENT}and {len(graphs) - _OTHERS_SHOWN} more graphs", "dim")

    def _notes(self, title: str, notes: Sequence[str], style: str) -> Iterable[Text]:
        if not notes:
            return
        yield Text()
        yield Text(f"{_INDENT}{title}", f"bold {style}".strip())
        for note in notes[:_OTHERS_SHOWN]:
            yield Text(f"{_INDENT}  {note}", style or "dim")
        if len(notes) > _OTHERS_SHOWN:
            yield Text(f"{_INDENT}  and {len(notes) - _OTHERS_SHOWN} more", "dim")

    # -- rows -------------------------------------------------------------------------------------------
    def _header(self, title: str) -> Iterable[Text]:
        yield Text()
        cells = [Text(c.header, "dim") for c in self.columns]
        yield self._cells(Text(title, "bold"), cells)
        length = len(_INDENT) + self.name_width + sum(c.width + _GAP for c in self.columns)
        yield Text(_INDENT + "─" * (min(length, self.width) - len(_INDENT)), "bright_black")

    def _row(self, name: str, style: str, work: Work, vector: str, threads: str) -> Text:
        values = {
            "runs": Text(str(work.launches)),
            "time": Text(duration(work.time_us)),
            "share": Text(f"{work.share:.1%}"),
            "": Text(_bar(work.share / self.widest, 10), "cyan" if vector else "bright_black"),
            "moves": Text(amount(work.bytes, "B")),
            "flops": Text(amount(work.flops, "")),
            "reaches": _reached(work),
            "vector": Text(vector, "dim"),
            "threads": Text(threads, "dim"),
        }
        return self._cells(Text(name, style), [values[c.header] for c in self.columns])

    def _cells(self, name: Text, cells: Sequence[Text]) -> Text:
        name.plain = _shortened(name.plain, self.name_width)
        name.pad_right(self.name_width - name.cell_len)
        line = Text(_INDENT).append_text(name)
        for column, cell in zip(self.columns, cells, strict=False):
            cell.truncate(column.width, overflow="ellipsis")
            pad = " " * (column.width - cell.cell_len)
            line.append(" " * _GAP)
            if column.left:
                line.append_text(cell).append(pad)
            else:
                line.append(pad).append_text(cell)
        return line

    def _detail(self, kernel: Kernel) -> Text:
        """What a kernel fuses, and where: the source gets the room that the operators leave, or half."""
        source = _place(kernel.source)
        room = self.width - len(_INDENT) - 5
        operators = ", ".join(kernel.operators)
        if len(operators) + len(source) > room:
            keep = max(room // 2, room - len(source))
            operators = operators if len(operators) <= keep else set_cell_size(operators, keep - 1) + "…"
        text = Text.assemble(_INDENT, "  ", (operators, "dim"))
        if source:
            text.append(" · ", "bright_black").append(source, "bright_black italic")
        return text


def _reached(work: Work) -> Text:
    if not work.held_by or not work.time_us:
        return Text("")
    if work.held_by == "memory" and work.efficiency > 1.05:
        return Text("cache", "green")
    style = "green" if work.efficiency >= 0.7 else "" if work.efficiency >= 0.3 else "dim"
    return Text(f"{work.efficiency:.0%} {'mem ' if work.held_by == 'memory' else 'peak'}", style)


def _graph(graph: Graph) -> Text:
    if graph.reason is not None:
        return Text(f"{graph.name}: run by eager PyTorch", "yellow")
    text = Text.assemble((graph.name, "bold"), (f"  {count(graph.kernels, 'kernel')}", "dim"))
    text.append(f", {count(graph.externs, 'extern')}" if graph.externs else "", "dim")
    text.append(f", run {graph.calls} times a call" if graph.calls != 1 else "", "dim")
    text.append(f", compiled in {duration(graph.compile_seconds * 1e6)}", "dim")
    memory = graph.memory
    if memory.workspace:
        saved = f" instead of {amount(memory.separate, 'B')}" if memory.separate > memory.workspace else ""
        text.append(f", intermediates in {amount(memory.workspace, 'B')}{saved}", "dim")
    return text


def _refusal(producer: str, consumer: str, reason: str, repeats: int, source: str) -> str:
    times = f" (x{repeats})" if repeats > 1 else ""
    where = f" · {_place(source)}" if source else ""
    return f"{consumer} with {producer}: {reason}{times}{where}"


def _break(reason: str, source: str) -> str:
    """Dynamo's reasons are pages: what happened, and its explanation, if that is in a line of its own."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    explained = [line.removeprefix("Explanation: ") for line in lines if line.startswith("Explanation: ")]
    where = f" · {_place(source)}" if source else ""
    return "".join([*(explained or lines)[:1], where])


def _shortened(name: str, width: int) -> str:
    """A name cut before its number, which tells it from others like it."""
    if len(name) <= width:
        return name
    tail = name[name.rfind("_") :] if name.rpartition("_")[2].isdigit() else ""
    return name[: width - len(tail) - 1] + "…" + tail


def _place(source: str) -> str:
    """A user's line with the file's name instead of its path."""
    path, colon, rest = source.partition(":")
    return path.replace("\\", "/").rpartition("/")[2] + colon + rest


def _bar(part: float, width: int) -> str:
    eighths = round(max(0.0, min(1.0, part)) * width * 8)
    return "█" * (eighths // 8) + (_BARS[eighths % 8] if eighths % 8 else "")
