"""The processes of `benchmarks.first_call`: each makes one first call and prints what it took.

    python -m benchmarks.first_call_child call MODEL SIZE BACKEND [OPTIONS]     torch.compile, and a call
    python -m benchmarks.first_call_child pack MODEL SIZE FILE                  make a package
    python -m benchmarks.first_call_child load MODEL SIZE FILE                  load it, and a call

The last line of the output is JSON. Nothing of a backend is imported before the clock starts.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding  # noqa: F401 - its import is nobody's first call
import torch

from tests.models import zoo

DEMO = "demo"
PATIENCE_SECONDS = 180.0
Run = Callable[[Callable[..., Any]], Any]


def prepared(name: str, size: zoo.Size) -> tuple[torch.nn.Module, zoo.Inputs, Run]:
    """A module, its inputs, and what one call of it is: for training, with the backward pass."""
    if name != DEMO:
        model = zoo.find(name)
        module, inputs = model.make(size)
        return module, inputs, lambda call: zoo.run(model, call, inputs)
    module, inputs = _demo()

    def run(call: Callable[..., Any]) -> Any:
        with torch.no_grad():
            return call(**inputs)

    return module, inputs, run


def _demo() -> tuple[torch.nn.Module, zoo.Inputs]:
    """The BERT of `braze demo`."""
    from transformers import BertConfig, BertModel

    figures = importlib.import_module("braze.cli.demo_model")  # numbers only
    torch.manual_seed(0)
    config = BertConfig(**figures.BERT)
    tokens = torch.randint(0, config.vocab_size, (figures.BATCH, figures.SEQUENCE))
    mask = torch.ones_like(tokens)
    mask[:, figures.SEQUENCE * 3 // 4 :] = 0
    return BertModel(config).eval(), {"input_ids": tokens, "attention_mask": mask}


class Switches:
    """When code that runs is replaced by better code, seen from outside: `SwitchingCode` is watched as soon
    as somebody loads it."""

    def __init__(self) -> None:
        self.made = 0
        self.at: list[float] = []
        self.failed = 0

    def watch(self) -> None:
        from braze._torch.when_loaded import when_loaded  # loads nothing else

        when_loaded("braze.compile.switching", self._follow)

    def _follow(self) -> None:
        kind: Any = sys.modules["braze.compile.switching"].SwitchingCode
        init, switch, fail = kind.__init__, kind.switch_to, kind.fail

        def made(itself: Any, *given: Any) -> None:
            init(itself, *given)
            self.made += 1

        def switched(itself: Any, *given: Any) -> None:
            switch(itself, *given)
            self.at.append(time.perf_counter())

        def failed(itself: Any, *given: Any) -> None:
            fail(itself, *given)
            self.failed += 1

        kind.__init__, kind.switch_to, kind.fail = made, switched, failed

    def wait(self, meanwhile: Callable[[], object]) -> float | None:
        """When the last of them was replaced; None if that did not happen."""
        end = time.perf_counter() + PATIENCE_SECONDS
        while len(self.at) + self.failed < self.made and time.perf_counter() < end:
            meanwhile()
        return max(self.at) if self.at and len(self.at) == self.made else None


def call(name: str, size: zoo.Size, backend: str, options: dict[str, Any], busy: bool) -> dict[str, Any]:
    """One first call."""
    module, _, run = prepared(name, size)
    switches = Switches()
    if options:
        switches.watch()
    start = time.perf_counter()
    compiled: Callable[..., Any] = module
    if backend != "eager":
        compiled = torch.compile(module, backend=backend, options=options or None)
    run(compiled)
    answer: dict[str, Any] = {"seconds": time.perf_counter() - start}
    if backend != "eager":
        answer |= _accounts()
    if "braze.compile.report" in sys.modules:
        answer |= _of_braze()
    if options:
        last = switches.wait((lambda: run(compiled)) if busy else (lambda: time.sleep(1e-3)))
        answer["switching"] = switches.made
        if switches.made:
            answer["to_code"] = None if last is None else last - start
        answer["worker_bytes"] = _workers()
    return answer


def _accounts() -> dict[str, Any]:
    """What Dynamo noted: seconds in all, those of them in the backend, and whose caches had what."""
    utils: Any = importlib.import_module("torch._dynamo.utils")
    spent = {name: sum(times) for name, times in utils.compilation_time_metrics.items()}
    backend = spent.get("OutputGraph.call_user_compiler", 0.0)
    counters = utils.counters
    return {
        "dynamo": spent.get("_compile.compile_inner", 0.0) - backend,
        "backend": backend,
        "aot_graphs": counters["aot_autograd"].get("total", 0),
        "inductor_hits": counters["aot_autograd"].get("autograd_cache_hit", 0)
        + counters["inductor"].get("fxgraph_cache_hit", 0),
        "inductor_misses": counters["inductor"].get("fxgraph_cache_miss", 0),
    }


def _of_braze() -> dict[str, Any]:
    totals = sys.modules["braze.compile.report"].ledger.totals()
    return {"graphs": totals.graphs, "loaded": totals.loaded}


def _workers() -> int | None:
    """Bytes that the largest compile worker has in memory; None where there is none."""
    pool = sys.modules.get("braze.compile.workers")
    found: list[int] = [] if pool is None else list(pool.shared().worker_rss().values())
    return max(found, default=None)


def pack(name: str, size: zoo.Size, file: Path) -> dict[str, Any]:
    """Export the model and write its package."""
    import braze

    module, inputs, _ = prepared(name, size)
    with torch.no_grad() if name == DEMO else zoo.find(name).context():
        program = torch.export.export(module, (), inputs)
        braze.aot_compile(program, file)
    return {"bytes": file.stat().st_size}


def load(name: str, size: zoo.Size, file: Path) -> dict[str, Any]:
    """Load a package, and call what it holds."""
    _, inputs, run = prepared(name, size)
    del inputs
    start = time.perf_counter()
    loaded = importlib.import_module("braze").aot_load(file)
    done = time.perf_counter()
    run(loaded)
    return {"seconds": time.perf_counter() - start, "load": done - start}


def main() -> None:
    torch.set_num_threads(int(os.environ["FIRST_CALL_THREADS"]))
    what, name, size, rest = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    if what == "call":
        options = json.loads(rest[1]) if len(rest) > 1 else {}
        answer = call(name, size, rest[0], options, "FIRST_CALL_BUSY" in os.environ)  # type: ignore[arg-type]
    else:
        answer = {"pack": pack, "load": load}[what](name, size, Path(rest[0]))  # type: ignore[arg-type]
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
