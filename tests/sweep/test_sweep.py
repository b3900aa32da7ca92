"""Decompositions and lowerings against eager, on one argument set of each operator and its variants.

`python -m tests.sweep.run` takes more sets, and the other types. What is accepted is in known.jsonl, each
with its reason; a whole run of the command says what of it is no longer there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.opinfo.cases import Pair
from tests.opinfo.pool import Settings, all_pairs, judge_all
from tests.sweep.calls import Call, fresh
from tests.sweep.compare import Sample, differences
from tests.sweep.judge import KINDS, LEVELS, Swept, sweep
from tests.sweep.layouts import variants
from tests.sweep.report import Report, known
from tests.sweep.run import settings

aten = torch.ops.aten


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings(tmp_path_factory.mktemp("sweep") / "calls.pt", sets=1)


@pytest.fixture(scope="module")
def pairs(how: Settings) -> list[Pair]:
    return [pair for pair in all_pairs(how) if pair.dtype == "float32"]


def test_nothing_differs_but_what_is_known(pairs: list[Pair], how: Settings) -> None:
    report = Report.of(judge_all(pairs, how, os.cpu_count() or 1))
    assert report.compared["decomposition"] > 1000 and report.compared["lowering"] > 1000
    assert not report.lines(known())


def test_the_known_differences_are_of_operators_that_there_are(pairs: list[Pair]) -> None:
    names = {pair.op for pair in pairs}
    for entry in known():
        assert set(entry.ops) <= names
        assert entry.level in LEVELS
        assert entry.kind in KINDS
        assert entry.reason


# -- the sweep itself ---------------------------------------------------------------------------------------
def found(op: object, ours: object, *args: object) -> set[str]:
    """The kinds of difference of a function from an operator on arguments."""
    sample = Sample.of(op, "given", Call(args))
    own, kwargs = sample.call.copies()
    return {kind for kind, _ in differences(sample, ours(*own), [own, kwargs])}  # type: ignore[operator]


def test_each_kind_of_difference_is_seen() -> None:
    x = torch.randn(4, 3).t()
    assert found(aten.neg.default, torch.neg, x) == set()
    assert found(aten.neg.default, lambda x: -x.contiguous(), x) == {"strides"}
    assert found(aten.neg.default, lambda x: x * 2, x) == {"values"}
    assert found(aten.neg.default, lambda x: -x.double(), x) == {"dtype"}
    assert found(aten.neg.default, lambda x: (-x)[:2], x) == {"shape"}
    assert found(aten.neg.default, lambda x: x.neg_(), x) == {"shares memory", "arguments"}
    assert found(aten.neg.default, lambda x: 0 - x, torch.zeros(3)) == {"sign of zero"}
    assert found(aten.neg.default, lambda x: (-x, -x), x) == {"structure"}
    assert found(aten.t.default, lambda x: x.t().clone(), x) == {"shares memory"}


def test_arguments_lie_in_memory_in_all_ways() -> None:
    call = Call((torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)))
    found = dict(variants(call))
    first = {name: variant.tensors[0] for name, variant in found.items()}
    assert first["channels_last all"].is_contiguous(memory_format=torch.channels_last)
    assert first["permuted first"].stride() == (1, 2, 6, 24)
    assert first["sliced all"].storage_offset() == 2
    assert first["gaps all"].stride(-1) == 2
    assert first["expanded all"].stride(0) == 0
    assert first["empty"].numel() == 0
    assert found["0-d"].tensors[1].ndim == 0
    for variant in found.values():
        for one, other in zip(variant.tensors, Call(*variant.copies()).tensors, strict=True):
            assert one.stride() == other.stride()


def test_copies_keep_strides_and_nothing_else() -> None:
    x = torch.arange(24.0).view(4, 6)[1:, ::2]
    copy = fresh(x)
    assert torch.equal(x, copy)
    assert copy.stride() == x.stride()
    assert copy.data_ptr() != x.data_ptr()
    assert fresh(torch.ones(1, 3).expand(4, 3)).stride() == (0, 1)


@pytest.mark.parametrize("op", [aten.hardtanh_backward.default, aten.mul.Tensor])
def test_operators_that_agree_have_no_findings(op: torch._ops.OpOverload) -> None:
    args = (torch.randn(3, 4), torch.randn(3, 4))
    call = Call((*args, -1.0, 1.0) if op is aten.hardtanh_backward.default else args)
    swept = Swept(str(op), "float32")
    sweep(swept, op, [call], [], LEVELS)
    assert [f for f in swept.findings if f.kind != "values"] == []
    assert swept.compared


def test_known_differences_are_read(tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    path.write_text('{"level": "lowering", "kind": "values", "ops": ["aten.a.b"], "reason": "because"}\n')
    (entry,) = known(path)
    assert entry.places == {("aten.a.b", "lowering", "values")}
    assert Report.of([]).gone([entry]) == entry.places
