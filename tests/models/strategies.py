"""A model by every way of compiling it: what it computes, and whether it really went that way.

`cell` runs a model once in one way; `other_process` has a process of its own run it from what the cache got.
All runs of a model are two calls from the same state, training steps in training, so that of code that
switches both versions are compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

import braze
from braze import config
from braze.cache.store import open_store
from braze.compile.report import ledger
from tests import support
from tests.models import simple, zoo
from tests.numerics import TOLERANCES, Disagreement, assert_agrees, in_float64, leaves, scaled_error
from tests.source_tree import ROOT

MODES = ("in-process", "serialized", "debug-file", "out-of-process", "async", "progressive")
HITS = ("level 1", "level 2")
ELSEWHERE = ("level 1 elsewhere", "level 2 elsewhere")
COLUMNS = (*MODES, *HITS, *ELSEWHERE, "package")
NOISY = zoo.Model("noisy-train", "training", simple.noisy_loss)
"""Dropout and batch norm. Its random numbers are Braze's own, unless it is asked for eager's."""

_SWITCHING = ("async", "progressive")
_THREADS = ("braze-compile-graph", "braze-improve-graph")
SWITCH_SECONDS = 120.0


@dataclasses.dataclass
class Cell:
    """What became of a model in one way of compiling it.

    error: the greatest one against float64, in units of the tolerance of its dtype. digest: of every bit;
    results: of every bit of what the calls returned. graphs, here, loaded, switched, traced: how many came,
    were compiled in this process, were there already, were replaced by other code between the calls, went
    through AOTAutograd. lines: of the log, about graphs that did not go the way that they should. problem:
    what is wrong, or nothing. impossible: why there can be no such thing, or nothing.
    """

    error: float = 0.0
    digest: str = ""
    results: str = ""
    graphs: int = 0
    here: int = 0
    loaded: int = 0
    switched: int = 0
    traced: int = 0
    eager_graphs: int = 0
    fallbacks: list[str] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    problem: str = ""
    impossible: str = ""

    def check(self, column: str, like: Cell | None = None, allowed: tuple[str, ...] = ()) -> None:
        """Note as a problem what is not as it should be. `like`: the cell of the in-process strategy;
        `allowed`: operators that may be given to eager PyTorch."""
        wrong = [*self.lines]
        fallbacks = [one for one in self.fallbacks if one.split(":")[0] not in allowed]
        if fallbacks or self.eager_graphs:
            wrong.append(f"{self.eager_graphs} eager graphs, fallbacks: {', '.join(fallbacks) or 'none'}")
        wanted = {"here": 0, "loaded": 0, "switched": 0}
        if column in ("in-process", "progressive"):
            wanted["here"] = self.graphs
        if column in _SWITCHING:
            wanted["switched"] = self.graphs
        if column in (*HITS, *ELSEWHERE):
            wanted["loaded"] = self.graphs
        if column.startswith("level 2"):
            wanted["traced"] = 0
        wrong += [
            f"of {self.graphs} graphs {getattr(self, name)} {name}, and not {number}"
            for name, number in wanted.items()
            if getattr(self, name) != number
        ]
        if column != "package" and not self.graphs:
            wrong.append("no graph")
        if like is not None and column != "package":
            if like.graphs != self.graphs:
                wrong.append(f"{self.graphs} graphs, and {like.graphs} in-process")
            if column not in _SWITCHING and like.digest != self.digest:
                wrong.append("other bits than in-process")
        self.problem = "; ".join(filter(None, [self.problem, *wrong]))


class Reference:
    """What eager PyTorch gives for a model, and what it gives in float64. For `NOISY` both are what the
    in-process strategy gives, unless its random numbers are to be eager's."""

    def __init__(self, model: zoo.Model, size: zoo.Size, *, fallback_random: bool = False) -> None:
        self.model = model
        self.size = size
        self.options = {"fallback_random": True} if fallback_random else {}
        if model is NOISY and not fallback_random:
            self.eager = self.wide = _run(Cell(), self)
            return
        module, inputs = model.make(size)
        wide = in_float64(module)
        float32 = dataclasses.replace(model, precision="float32")
        self.eager = self.wide = two_calls(model, module, module, inputs)
        if model is NOISY:
            return  # what is dropped in float64 is something else
        self.wide = two_calls(float32, wide, wide, in_float64(inputs))

    def compare(self, cell: Cell, found: Mapping[str, Any]) -> None:
        """Fill in error and digest; what does not agree is a problem."""
        cell.digest = digest(found)
        cell.results = digest([one["result"] for one in found.values()])
        eager, wide = self.eager, self.wide
        if "gradients" not in found["first"]:  # of a package
            eager, wide = ({c: {"result": tree[c]["result"]} for c in tree} for tree in (eager, wide))
        references = dict(leaves(wide))
        errors = [
            scaled_error(leaf, references[path], leaf.dtype)
            for path, leaf in leaves(found)
            if isinstance(leaf, torch.Tensor) and leaf.dtype in TOLERANCES
        ]
        cell.error = max(errors, default=0.0)
        try:
            assert_agrees(found, eager, wide)
        except Disagreement as error:
            cell.problem = str(error)


def two_calls(
    model: zoo.Model,
    module: torch.nn.Module,
    call: Callable[..., Any],
    inputs: zoo.Inputs,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The results of two calls, `between` having run between them; of training steps also gradients, state,
    and what the generator of random numbers gives next."""
    seen: dict[str, Any] = {}
    for number, name in enumerate(("first", "second")):
        module.zero_grad(set_to_none=True)
        torch.manual_seed(100 + number)
        result = zoo.run(model, call, inputs)
        seen[name] = {"result": result.detach() if model.kind == "training" else result}
        seen[name]["gradients"] = zoo.gradients(module) if model.kind == "training" else {}
        seen[name]["state"] = {key: value.clone() for key, value in module.named_buffers()}
        if model is NOISY:
            seen[name]["next"] = torch.rand(4)
        if number == 0:
            between()
    return seen


def digest(tree: Any) -> str:
    """A hash of every bit of the tensors in a tree."""
    summed = hashlib.sha256()
    for path, leaf in leaves(tree):
        if isinstance(leaf, torch.Tensor):
            data = leaf.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            summed.update(f"{path} {leaf.dtype} {tuple(leaf.shape)}".encode() + data)
    return summed.hexdigest()


_WRONG_WAYS = (
    "is compiled in this process",
    "goes on as eager",
    "keeps its first code",
    "is cached only after it was traced",
    "is not looked for in the cache",
    "is not kept in the cache",
    "cannot be used",
)


class _Lines(logging.Handler):
    """Counts the switches that Braze's log tells of, and keeps the lines about ways that were not gone."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.switches = 0
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if "takes over" in line or "take over" in line:
            self.switches += 1
        elif any(words in line for words in _WRONG_WAYS):
            self.lines.append(line)


@contextmanager
def watched(cell: Cell) -> Iterator[None]:
    """Fill in what happens in the block."""
    heard = _Lines()
    logger = logging.getLogger("braze")
    level, before, traced = logger.level, braze.inspect.stats(), counters["aot_autograd"]["total"]
    here: list[object] = []
    stop = ledger.listen(here.append)
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(heard)
        stop()
    after = braze.inspect.stats()
    cell.graphs, cell.loaded = after.graphs - before.graphs, after.loaded - before.loaded
    cell.eager_graphs = after.eager_graphs - before.eager_graphs
    cell.fallbacks = [str(one) for one in after.fallbacks[len(before.fallbacks) :]]
    cell.here, cell.switched, cell.lines = len(here), heard.switches, heard.lines
    cell.traced = counters["aot_autograd"]["total"] - traced


def wait_for_switches() -> None:
    """Wait until nothing is compiled in the background any more."""
    for thread in threading.enumerate():
        if thread.name.startswith(_THREADS):
            thread.join(SWITCH_SECONDS)


def cell(column: str, reference: Reference, folder: Path) -> Cell:
    """The model in one way of compiling it. Hits of the cache are those of the cache in `folder`, where
    `fill` has to have been. Raises nothing of what compiling and running raise."""
    made = Cell()
    try:
        if column == "package":
            return _packed(made, reference, folder)
        cached = column in (*HITS, *ELSEWHERE)
        settings = {
            "cache": cached,
            "cache_dir": str(folder / "cache"),
            "fx_compile_mode": "in-process" if cached else column,
            "debug_dir": str(folder / "files") if column == "debug-file" else None,
        }
        with config.patch(**settings):
            if column.startswith("level 1"):
                forget_level_2()
            found = _run(made, reference)
    except Exception as error:  # one way's failure is a cell of the table
        made.problem = f"{type(error).__name__}: {error}"
        return made
    reference.compare(made, found)
    return made


def _run(made: Cell, reference: Reference) -> dict[str, Any]:
    support.reset()
    model = reference.model
    module, inputs = model.make(reference.size)
    with config.patch(**reference.options), watched(made):
        call = support.compile_with(module, "braze")
        return two_calls(model, module, call, inputs, wait_for_switches)


def fill(reference: Reference, folder: Path, mode: str = "in-process") -> Cell:
    """Compile the model and leave it in the cache in `folder`, on both levels."""
    made = Cell()
    with config.patch(cache=True, cache_dir=str(folder / "cache"), fx_compile_mode=mode):
        reference.compare(made, _run(made, reference))
    return made


def forget_level_2() -> None:
    """Take the entries of the second level out of the cache that is in use."""
    store = open_store(config.current())
    assert store is not None
    store.remove([entry for entry in store.entries() if entry.level == 2])


def _packed(made: Cell, reference: Reference, folder: Path) -> Cell:
    """Exported, written, read, and called; of a model that is trained, the loss."""
    model = reference.model
    module, inputs = model.make(reference.size)
    before = braze.inspect.stats()
    with torch.no_grad(), model.context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, (), inputs, strict=False)
        except Exception as error:  # whatever it raises, it is no package
            made.impossible = f"torch.export: {type(error).__name__}: {str(error).splitlines()[0]}"
            return made
        path = braze.aot_compile(
            program, folder / f"{model.name}.pt2", targets=("host",), options=reference.options
        )
        loaded = braze.aot_load(path)
        found = {}
        for number, name in enumerate(("first", "second")):
            torch.manual_seed(100 + number)
            found[name] = {"result": loaded(**inputs)}
    reference.compare(made, found)
    after = braze.inspect.stats()
    made.eager_graphs = after.eager_graphs - before.eager_graphs
    made.fallbacks = [str(one) for one in after.fallbacks[len(before.fallbacks) :]]
    return made


# -- a process of its own -----------------------------------------------------------------------------------
@dataclasses.dataclass
class Asked:
    """A model whose entries are in the cache in `folder`."""

    name: str
    size: zoo.Size
    folder: str
    fallback_random: bool = False


def elsewhere(asked: list[Asked]) -> list[dict[str, Cell]]:
    """Hits of both levels in a process that compiled nothing: the cells of `ELSEWHERE`, for each model.
    Raises `RuntimeError` if the process fails."""
    given = json.dumps([dataclasses.asdict(one) for one in asked])
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.strategies", given, str(torch.get_num_threads())],
        cwd=ROOT,
        env={**os.environ, "BRAZE_CACHE": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the other process ended with {done.returncode}: {done.stderr[-2000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [{column: Cell(**fields) for column, fields in row.items()} for row in rows]


def find(name: str) -> zoo.Model:
    """The model of that name: the zoo's, or `NOISY`."""
    return NOISY if name == NOISY.name else zoo.find(name)


def _main(asked: list[Asked], threads: int) -> None:
    torch.set_num_threads(threads)
    for one in asked:
        reference = Reference(find(one.name), one.size, fallback_random=one.fallback_random)
        # the second level first: for the other its entries are taken away
        row = {column: cell(column, reference, Path(one.folder)) for column in reversed(ELSEWHERE)}
        print(json.dumps({column: dataclasses.asdict(made) for column, made in row.items()}), flush=True)


if __name__ == "__main__":
    _main([Asked(**one) for one in json.loads(sys.argv[1])], int(sys.argv[2]))
