"""Graphs by way of bytes, over a sample of the operators: `python -m tests.opinfo.run --mode serialized` does
them all."""

from __future__ import annotations

from tests.opinfo.cases import RECORDED, Verdict
from tests.opinfo.pool import Settings, all_pairs, judge_all
from tests.opinfo.report import Lists
from tests.opinfo.run import compiled_here

EVERY = 45


def test_results_and_fallbacks_are_those_of_the_in_process_strategy() -> None:
    settings = Settings("braze", samples=1, mode="serialized")
    recorded = Lists.read()
    without = {*recorded.no_sample, *recorded.no_graph}
    pairs = [pair for pair in all_pairs(settings) if pair.dtype in RECORDED and pair not in without][::EVERY]
    verdicts = judge_all(pairs, settings, jobs=1)
    found = Lists.of(verdicts)
    assert sum(v.graphs for v in verdicts) >= len(pairs) > 20
    assert not found.no_graph and not found.no_sample
    assert set(found.wrong) <= set(recorded.wrong) and set(found.fallback) <= set(recorded.fallback)
    assert not {str(v.pair): v.here for v in verdicts if v.here}


def test_what_was_compiled_here_is_counted() -> None:
    verdicts = [
        Verdict("a", "float32", "ok", here=["no name", "no name"], graphs=3),
        Verdict("b", "int64", "ok", here=["no name"], graphs=1),
    ]
    table = compiled_here(verdicts, "serialized")
    assert table.title == "3 of 4 graphs compiled in-process and not serialized"
    assert [column._cells for column in table.columns] == [["no name"], ["3"], ["a, b"]]
