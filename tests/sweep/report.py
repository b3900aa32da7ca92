"""What the sweep found, beside what is known and accepted."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from tests.sweep.judge import KINDS, LEVELS, Finding, Swept

KNOWN = Path(__file__).with_name("known.jsonl")


@dataclasses.dataclass(frozen=True)
class Known:
    """A difference that is accepted, for these operators, and why."""

    level: str
    kind: str
    ops: tuple[str, ...]
    reason: str

    @property
    def places(self) -> set[tuple[str, str, str]]:
        """(operator, level, kind) of each."""
        return {(op, self.level, self.kind) for op in self.ops}


def known(path: Path = KNOWN) -> list[Known]:
    """The list of accepted differences, one a line."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Known(row["level"], row["kind"], tuple(row["ops"]), row["reason"]) for row in rows]


@dataclasses.dataclass
class Report:
    """Findings by (operator, level, kind), each with the dtypes of the samples that show it."""

    found: dict[tuple[str, str, str], list[tuple[str, Finding]]]
    failures: list[Swept]
    unreached: list[str]
    compared: collections.Counter[str]
    declined: dict[str, list[str]]

    @classmethod
    def of(cls, results: Iterable[Swept]) -> Report:
        """Sorted by what they are about."""
        found: dict[tuple[str, str, str], list[tuple[str, Finding]]] = {}
        compared: collections.Counter[str] = collections.Counter()
        failures, declined, reached, seen = [], {}, set(), set()
        for swept in results:
            if not swept.findings and not swept.compared and swept.declined:
                reached.add(swept.op)
            seen.add(swept.op)
            if swept.status in ("broken", "crashed", "timeout"):
                failures.append(swept)
            if swept.compared:
                reached.add(swept.op)
            compared.update(swept.compared)
            for finding in swept.findings:
                place = (swept.op, finding.level, finding.kind)
                found.setdefault(place, []).append((swept.dtype, finding))
            if swept.declined:
                declined.setdefault(swept.op, []).extend(swept.declined)
        return cls(found, failures, sorted(seen - reached), compared, declined)

    def new(self, accepted: Sequence[Known]) -> dict[tuple[str, str, str], list[tuple[str, Finding]]]:
        """What nobody has accepted."""
        places = {place for k in accepted for place in k.places}
        return {place: items for place, items in self.found.items() if place not in places}

    def gone(self, accepted: Sequence[Known]) -> set[tuple[str, str, str]]:
        """What is accepted and no longer there."""
        return {place for k in accepted for place in k.places} - set(self.found)

    def lines(self, accepted: Sequence[Known]) -> list[str]:
        """Each new difference in one line, then what went wrong altogether."""
        text = []
        for (op, level, kind), items in sorted(self.new(accepted).items(), key=lambda item: _order(item[0])):
            dtypes = ",".join(dtype for dtype, _ in items)
            first = items[0][1]
            times = sum(f.times for _, f in items)
            text.append(
                f"{kind:20} {level:13} {op} [{dtypes}] {times} times; {first.variant}: ({first.arguments})"
                f" -> {first.detail}"
            )
        return text + [f"{s.status:20} {s.op} {s.dtype}: {s.reason}" for s in self.failures]

    def table(self, accepted: Sequence[Known]) -> Table:
        """Operators that differ, by kind and level: accepted, and not."""
        table = Table(title="Decompositions and lowerings against eager", title_justify="left")
        table.add_column("difference")
        for level in LEVELS:
            table.add_column(level, justify="right")
            table.add_column("accepted", justify="right", style="dim")
        new = self.new(accepted)
        table.add_row("results compared", *(c for level in LEVELS for c in (str(self.compared[level]), "")))
        table.add_section()
        for kind in KINDS:
            cells = []
            for level in LEVELS:
                places = [place for place in self.found if place[1:] == (level, kind)]
                fresh = sum(place in new for place in places)
                cells += [str(fresh or ""), str(len(places) - fresh or "")]
            table.add_row(kind, *cells)
        table.add_section()
        table.add_row("broken, crashed, too slow", str(len(self.failures) or ""))
        table.add_row("without arguments", str(len(self.unreached) or ""))
        return table


def _order(place: tuple[str, str, str]) -> tuple[int, str, str]:
    op, level, kind = place
    return KINDS.index(kind), level, op
