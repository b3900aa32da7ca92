"""Verdicts become lists and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import support
from tests.opinfo import run
from tests.opinfo.cases import Pair, Verdict, _compiled, _Sample, describe
from tests.opinfo.report import Lists

VERDICTS = [
    Verdict("b", "float32", "wrong", reason="values", strict=True, graphs=1),
    Verdict("a", "float32", "ok", strict=True, graphs=1),
    Verdict("a", "int64", "ok", strict=False, fallbacks=["aten.a: integers"], graphs=1),
    Verdict("c", "float32", "crashed", reason="SIGSEGV: "),
    Verdict("d", "float32", "no graph"),
    Verdict("e", "int64", "no sample", reason="RuntimeError: no"),
]


def test_lists_and_shares() -> None:
    lists = Lists.of(VERDICTS)
    assert lists.wrong == {Pair("b", "float32"): "values", Pair("c", "float32"): "crashed: SIGSEGV: "}
    assert lists.fallback == {Pair("a", "int64"): "aten.a: integers", Pair("c", "float32"): "SIGSEGV: "}
    assert (lists.with_graph(), lists.with_graph("float32")) == (4, 3)
    assert lists.right() == pytest.approx(0.5)
    assert lists.strict("float32") == pytest.approx(2 / 3)


def test_lists_are_written_sorted_and_read_back(tmp_path: Path) -> None:
    lists = Lists.of(VERDICTS)
    lists.write(tmp_path)
    assert Lists.read(tmp_path) == lists
    lines = (tmp_path / "wrong.jsonl").read_text().splitlines()
    assert lines == sorted(lines)
    assert lines[0] == '{"op": "b", "dtype": "float32", "reason": "values"}'


def test_the_summary_shows_both_shares() -> None:
    table = run.summary(Lists.of(VERDICTS), VERDICTS)
    cells = {row: [column._cells[row] for column in table.columns] for row in range(table.row_count)}
    rows = {row[0]: row[1:] for row in cells.values()}
    assert rows["right"] == ["33.3%", "100.0%", "50.0%"]
    assert rows["strict"] == ["66.7%", "0.0%", "50.0%"]
    assert rows["aten.a"][-1] == "1"


def test_an_error_is_described_by_its_cause() -> None:
    error = RuntimeError("wrapped")
    error.__cause__ = ValueError("deep\nreason")
    assert describe(error) == "ValueError: deep reason"


def test_a_wrong_result_is_found() -> None:
    """The comparison of the harness itself: falsified results, and arguments that were written to."""
    x = torch.arange(4.0)
    eager = {"result": x * 2, "arguments": [x], "keywords": {}}
    sample = _Sample(lambda t: t * 2, [x], {}, eager, values=True, random=False)
    result, error, stats = _compiled(sample, support.BACKEND, strict=False)
    assert error is None
    assert stats.graphs == 1
    assert sample.compare(result, values=True) == ""
    result["result"][1] += 1e-3
    assert "Tensor-likes are not close" in sample.compare(result, values=True)
    result = {**result, "result": x * 2, "arguments": [x + 1]}
    assert sample.compare(result, values=True).startswith("result['arguments'][0]")
