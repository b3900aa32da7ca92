"""Whatever fails between Dynamo's graph and compiled code: results as eager PyTorch's, one warning at the
user's line, an error of ours in strict mode; and an interrupted compilation leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import torch

from braze.compile.modes import MODES
from braze.errors import BrazeError
from braze.frontend import decompositions as tables
from braze.frontend.passes import pipeline
from tests.injection.inject import failing, state
from tests.injection.stages import ERRORS, STAGES, WAYS, Stage
from tests.injection.ways import HERE, Run, code_of, unchanged

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


@pytest.mark.parametrize("number", range(len(STAGES)), ids=map(str, STAGES))
def test_a_stage_that_fails(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, kinds = STAGES[number], ERRORS
    if not THOROUGH:
        kinds = (ERRORS[number % len(ERRORS)],)
    run, code = Run(WAYS[stage.way], tmp_path, monkeypatch), code_of(stage.function)
    for kind in kinds:
        costs_no_result_and_is_told_once(run, stage, code, kind)
    is_an_error_of_ours_in_strict_mode(run, stage, code)
    if stage.way not in ("async", "progressive"):  # where a thread of ours does it nobody interrupts that
        leaves_nothing_when_interrupted(run, code)


def costs_no_result_and_is_told_once(run: Run, stage: Stage, code: CodeType, kind: type[Exception]) -> None:
    before = state()
    outcome = run.break_down(code, lambda: kind("injected"))
    assert outcome.raised, f"{stage.function} is not called"
    outcome.is_right()
    assert bool(outcome.eager) == (stage.left == "eager")
    told = [str(one.message) for one in outcome.said]
    if stage.left == "native, logged":
        assert not told and len(outcome.lines) == 1
        assert "injected" in outcome.lines[0]
    else:
        assert len(told) == 1, told
        assert "injected" in told[0] and kind.__name__ in told[0]
        assert outcome.said[0].filename == HERE
        assert not outcome.lines
    unchanged(before)


def is_an_error_of_ours_in_strict_mode(run: Run, stage: Stage, code: CodeType) -> None:
    outcome = run.break_down(code, lambda: ZeroDivisionError("injected"), strict=True)
    assert outcome.raised
    if stage.left == "eager":
        assert isinstance(outcome.own_error, BrazeError), repr(outcome.own_error)
        assert "injected" in str(outcome.own_error)
    else:
        outcome.is_right()
        assert not outcome.eager


def leaves_nothing_when_interrupted(run: Run, code: CodeType) -> None:
    before = state()
    outcome = run.break_down(code, lambda: KeyboardInterrupt("injected"))
    assert isinstance(outcome.error, KeyboardInterrupt)
    assert not outcome.said
    unchanged(before)
    again = run.call(run.compile())
    again.is_right()
    assert not again.eager and not again.said
    assert not [p for p in run.folder.rglob("*") if p.suffix == ".part" or p.name.startswith("new-")]


@pytest.mark.parametrize("way", ["plain", "backward", "cold"])
@pytest.mark.parametrize("stage", ["braze.lowering.graph:GraphLowering.run", "braze.runtime.linker:link"])
def test_a_function_that_was_interrupted_is_compiled_by_its_next_call(
    way: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(WAYS[way], tmp_path, monkeypatch)
    run.options["strict"] = True
    compiled = run.compile()
    first = run.call(compiled, lambda: failing(code_of(stage), KeyboardInterrupt))
    assert isinstance(first.error, KeyboardInterrupt)
    second = run.call(compiled)
    second.is_right()
    assert second.compiled and not second.eager


# -- tables that compiling uses ---------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["plain", "backward"])
@pytest.mark.parametrize("position", range(len(pipeline.PASSES)), ids=[name for name, _ in pipeline.PASSES])
def test_each_pass_may_fail(position: int, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(WAYS[way], tmp_path, monkeypatch)

    def broken(gm: torch.fx.GraphModule, config: Any) -> bool:
        for node in list(gm.graph.nodes)[:-1]:  # a pass may have been in the middle of something
            node.meta.clear()
        gm.graph.erase_node(gm.graph.output_node())
        raise KeyError("injected")

    run.prepare()
    passes = list(pipeline.PASSES)
    passes[position] = ("broken", broken)

    @contextmanager
    def injection() -> Iterator[tuple[()]]:
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "PASSES", tuple(passes))
            yield ()

    outcome = run.call(run.compile(), injection)
    outcome.is_right()
    assert outcome.compiled and not outcome.eager
    (one,) = outcome.said
    assert one.filename == HERE and "injected" in str(one.message) and "'broken'" in str(one.message)


@pytest.mark.parametrize("kind", [KeyError, ZeroDivisionError, AssertionError, MemoryError])
def test_each_decomposition_may_fail(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tables.notices, "say", lambda text, **_: said.append(text))
    monkeypatch.setattr(tables, "refusal", lambda *_, **__: None)  # it would look at arguments

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise kind("injected")

    for operator in tables._table(None):
        kept = tables._guarded(operator, broken, strict=False)
        assert kept() is NotImplemented
        (text,) = said
        assert "injected" in text and kind.__name__ in text
        said.clear()
        with pytest.raises(BrazeError, match="injected"):
            tables._guarded(operator, broken, strict=True)()

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tables._guarded(operator, interrupted, strict=False)()


def test_every_entry_of_the_table_is_guarded() -> None:
    guarded = tables._guarded(next(iter(tables._table(None))), lambda: None, strict=True)
    for decompose in tables._guarded_table(False, None).values():
        assert decompose.__code__ is guarded.__code__


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.nn.functional.adaptive_avg_pool1d(x, 0),
        lambda x: torch.nn.functional.adaptive_avg_pool2d(x[None], (0, 2)),
    ],
)
def test_decompositions_that_cannot_do_with_no_elements(call: Callable[..., Any]) -> None:
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(torch.compile(call, backend="braze")(x), call(x))


# -- that the table is complete ---------------------------------------------------------------------------
def test_every_way_and_every_border_has_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(MODES) - {"in-process"} <= {stage.way for stage in STAGES}
    assert {stage.way for stage in STAGES} <= set(WAYS)
    rooms = {stage.function.split(".")[1] for stage in STAGES}
    entered: set[str] = set()
    for name in ("cold", "level 1", "level 2"):
        found = Run(WAYS[name], tmp_path / name, monkeypatch).functions()
        entered |= {p.room for p in found if p.caller in ("frontend", "compile") and p.room != p.caller}
    # what is only data, or said, is no stage of its own
    data = {"config", "dtypes", "errors", "extensions", "ir", "notices", "ops", "symbolic", "words"}
    assert entered - data <= rooms
