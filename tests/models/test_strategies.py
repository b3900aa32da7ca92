"""Every way of compiling gives the same results, and is the way that it says it is. All models of the zoo go
through `python -m benchmarks.agreement --strategies`; here a few small ones."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from braze import config
from braze.artifact import container
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.cache.store import open_store
from braze.codegen.llvm.backend import BETTER_LEVEL
from braze.compile.workers import CompilePool
from tests.models import strategies, zoo
from tests.models.strategies import HITS, NOISY, Asked, Cell, Reference

NAMES = (*zoo.QUICK, NOISY.name)
DROPOUT = ("aten.native_dropout.default",)
"""Runs as eager PyTorch where its random numbers have to be eager's."""


@functools.cache
def reference(name: str) -> Reference:
    return Reference(strategies.find(name), "tiny")


@functools.cache
def in_process(name: str, folder: Path) -> Cell:
    found = strategies.cell("in-process", reference(name), folder)
    found.check("in-process")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def workers() -> Iterator[CompilePool]:
    with CompilePool(1) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr("braze.compile.workers.shared", lambda: pool)
        pool.prestart()
        yield pool


def check(name: str, column: str, folder: Path) -> Cell:
    like = in_process(name, folder)
    assert not like.problem
    found = strategies.cell(column, reference(name), folder)
    found.check(column, like)
    assert not found.problem and not found.impossible
    return found


@pytest.mark.parametrize("column", ["serialized", "debug-file", "progressive", "package"])
@pytest.mark.parametrize("name", NAMES)
def test_here(name: str, column: str, folder: Path) -> None:
    found = check(name, column, folder)
    if name != NOISY.name:
        assert found.results == in_process(name, folder).results


@pytest.mark.serial
@pytest.mark.parametrize("column", ["out-of-process", "async"])
@pytest.mark.parametrize("name", NAMES)
def test_in_workers(name: str, column: str, folder: Path, workers: CompilePool) -> None:
    check(name, column, folder)
    assert workers.worker_pids()


@pytest.mark.parametrize("name", NAMES)
def test_hits_of_both_levels(name: str, tmp_path: Path, folder: Path) -> None:
    filled = strategies.fill(reference(name), tmp_path)
    filled.check("in-process", in_process(name, folder))
    assert not filled.problem
    for column in reversed(HITS):
        found = strategies.cell(column, reference(name), tmp_path)
        found.check(column, in_process(name, folder))
        assert not found.problem
        assert found.traced == (1 if column == "level 1" else 0)


@pytest.mark.serial
def test_hits_of_both_levels_in_another_process(tmp_path: Path, folder: Path) -> None:
    """Random numbers and running statistics too are what they are in the process that compiled."""
    asked, like = [], []
    for name in NAMES:
        strategies.fill(reference(name), tmp_path / name)
        asked.append(Asked(name, "tiny", str(tmp_path / name)))
        like.append(in_process(name, folder))
    eagers = Reference(NOISY, "tiny", fallback_random=True)
    like.append(strategies.fill(eagers, tmp_path / "eager's random numbers"))
    like[-1].check("in-process", allowed=DROPOUT)
    assert not like[-1].problem
    asked.append(Asked(NOISY.name, "tiny", str(tmp_path / "eager's random numbers"), fallback_random=True))
    for one, expected, cells in zip(asked, like, strategies.elsewhere(asked), strict=True):
        for column, found in cells.items():
            found.check(column, expected, DROPOUT if one.fallback_random else ())
            assert not found.problem, f"{one.name}, {column}"


@pytest.mark.parametrize("name", ["bert", "mlp-train"])
def test_a_cache_that_progressive_compilation_filled_has_the_better_code(
    name: str, tmp_path: Path, folder: Path
) -> None:
    strategies.fill(reference(name), tmp_path, "progressive").check("progressive", in_process(name, folder))
    with config.patch(cache=True, cache_dir=str(tmp_path / "cache")):
        store = open_store(config.current())
    assert store is not None
    graphs = []
    for stored in store.entries():
        (entry,) = store.get(stored.key, lambda guards, own=stored.guards: guards == own)
        parts = {"": entry.payload} if entry.level == 1 else container.unpack(entry.payload)
        graphs += [CompiledFxGraph.after_deserialization(parts[part]) for part in parts if part != "entry"]
    assert len(graphs) == 2 * in_process(name, folder).graphs
    for graph in graphs:
        levels = [module.opt_level for module in graph.variant().modules[:-1]]
        assert levels and set(levels) == {BETTER_LEVEL}
    for column in reversed(HITS):
        found = strategies.cell(column, reference(name), tmp_path)
        found.check(column, in_process(name, folder))
        assert not found.problem


@pytest.mark.serial
def test_a_cache_that_background_compilation_filled(
    tmp_path: Path, folder: Path, workers: CompilePool
) -> None:
    filled = strategies.fill(reference("mlp-train"), tmp_path, "async")
    filled.check("async")
    assert not filled.problem
    for column in reversed(HITS):
        found = strategies.cell(column, reference("mlp-train"), tmp_path)
        found.check(column, in_process("mlp-train", folder))
        assert not found.problem


def test_what_did_not_go_its_way_is_a_problem(folder: Path) -> None:
    """The harness itself."""
    like = in_process("mlp-train", folder)
    for column in ("serialized", "async", "level 2"):
        found = Cell(digest=like.digest, graphs=2, here=2, traced=1)
        found.check(column, like)
        assert "2 here, and not 0" in found.problem
        assert ("1 traced" in found.problem) == (column == "level 2")
        assert ("0 switched, and not 2" in found.problem) == (column == "async")
    other = Cell(digest="other", graphs=2, lines=["graph0 is compiled in this process: no"])
    other.check("serialized", like)
    assert other.problem == "graph0 is compiled in this process: no; other bits than in-process"
