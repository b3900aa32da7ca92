"""Verdicts as files that people read and compare, and as figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from tests.opinfo.cases import Pair, Verdict

EXPECTED = Path(__file__).with_name("expected")
# What has to hold of all pairs with a graph, and of the float32 pairs with a graph.
RIGHT_FLOOR = 0.998
STRICT_FLOOR = 0.97


@dataclasses.dataclass(frozen=True)
class Lists:
    """The generated lists: pairs whose results are wrong, that need fallbacks, that give no graph, that
    eager has no result for; each with a reason. `total` counts all pairs, by dtype.
    """

    wrong: dict[Pair, str]
    fallback: dict[Pair, str]
    no_graph: dict[Pair, str]
    no_sample: dict[Pair, str]
    total: dict[str, int]

    FILES = ("wrong", "fallback", "no_graph", "no_sample")

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Lists:
        """Sorts verdicts into lists. A crash or a time-out is wrong; so is an error that eager does not
        raise.
        """
        lists = cls({}, {}, {}, {}, {})
        for v in sorted(verdicts, key=lambda v: (v.op, v.dtype)):
            lists.total[v.dtype] = lists.total.get(v.dtype, 0) + 1
            if v.status in ("no graph", "no sample"):
                (lists.no_graph if v.status == "no graph" else lists.no_sample)[v.pair] = v.reason
                continue
            if v.status != "ok":
                detail = v.reason if v.status == "wrong" else f"{v.status}: {v.reason}"
                lists.wrong[v.pair] = detail
            if not v.strict:
                lists.fallback[v.pair] = "; ".join(v.fallbacks) or v.reason
        return lists

    @classmethod
    def read(cls, folder: Path = EXPECTED) -> Lists:
        """Reads what `write` wrote."""
        tables = []
        for name in cls.FILES:
            lines = (folder / f"{name}.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            tables.append({Pair(row["op"], row["dtype"]): row["reason"] for row in rows})
        return cls(*tables, total=json.loads((folder / "total.json").read_text()))

    def write(self, folder: Path = EXPECTED) -> None:
        """One line of JSON for each pair, sorted, so that a change shows as a change of lines."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.FILES:
            rows = sorted(getattr(self, name).items(), key=lambda item: (item[0].op, item[0].dtype))
            lines = [json.dumps({"op": p.op, "dtype": p.dtype, "reason": reason}) for p, reason in rows]
            (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        (folder / "total.json").write_text(json.dumps(self.total, sort_keys=True) + "\n")

    def with_graph(self, dtype: str | None = None) -> int:
        """How many pairs produced a graph, of all dtypes or one."""
        total = sum(count for name, count in self.total.items() if dtype in (None, name))
        return total - self._count(self.no_graph, dtype) - self._count(self.no_sample, dtype)

    def right(self, dtype: str | None = None) -> float:
        """The share of the pairs with a graph whose results are eager's."""
        return 1 - self._count(self.wrong, dtype) / max(1, self.with_graph(dtype))

    def strict(self, dtype: str | None = None) -> float:
        """The share of the pairs with a graph that compile in strict mode."""
        return 1 - self._count(self.fallback, dtype) / max(1, self.with_graph(dtype))

    @staticmethod
    def _count(pairs: dict[Pair, str], dtype: str | None) -> int:
        return sum(1 for pair in pairs if dtype in (None, pair.dtype))
