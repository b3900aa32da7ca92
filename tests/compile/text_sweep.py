"""Every operator of PyTorch's database through the text and back: `python -m tests.compile.text_sweep`.

Graphs are printed and read back; text, canonical text and IR have to be the same before and after, and what
the graph that was read back computes has to be what eager computes. `--shard 0/2` does one half; `--zoo` does
the models of the zoo instead."""

from __future__ import annotations

import argparse
import collections
import logging
import sys
import warnings
from collections.abc import Callable

import torch
import torch._dynamo
from rich.console import Console

from braze import config
from tests.compile.text.checks import RoundTrip
from tests.models import zoo
from tests.numerics import Disagreement, assert_agrees
from tests.opinfo.cases import UNINITIALISED, Database, Pair, describe


def sweep(
    database: Database, pairs: list[Pair], samples: int, dynamic: bool, console: Console
) -> tuple[collections.Counter[str], list[str]]:
    """Counts, and a line for each thing that is wrong."""
    counts: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for pair in pairs:
        try:
            cases = database.samples(pair, samples)
        except Exception:  # the database itself cannot make its samples
            counts["without samples"] += 1
            continue
        for number, (function, args, kwargs) in enumerate(cases):
            try:
                torch.manual_seed(1)
                eager = function(*_copied(args), **_copied(kwargs))
            except Exception:  # not a sample that eager has a result for
                counts["eager refuses"] += 1
                continue
            problem = _one(pair, function, args, kwargs, eager, dynamic, counts)
            if problem:
                wrong.append(f"{pair} sample {number}: {problem}")
                console.print(wrong[-1], markup=False, highlight=False, soft_wrap=True)
    return counts, wrong


def _one(
    pair: Pair,
    function: object,
    args: list[object],
    kwargs: dict[str, object],
    eager: object,
    dynamic: bool,
    counts: collections.Counter[str],
) -> str:
    torch._dynamo.reset()
    trip = RoundTrip()

    def call(args: list[object], kwargs: dict[str, object]) -> object:
        return function(*args, **kwargs)  # type: ignore[operator]

    compiled = trip.optimize(call, dynamic=dynamic)
    try:
        torch.manual_seed(1)
        with config.patch(fallback_random=True):
            result = compiled(_copied(args), _copied(kwargs))
    except Exception as error:  # whatever it raises is a finding, if it is not PyTorch that raises it
        if _refused_anyway(call, args, kwargs, dynamic):
            counts["PyTorch cannot trace"] += 1
            return ""
        return describe(error)
    if trip.failed:
        return describe(trip.failed[0])
    counts["graphs"] += len(trip.requests)
    counts["without printed form"] += len(trip.unserializable)
    for reason in trip.unserializable:
        counts[f"  {reason.splitlines()[0]}"] += 1
    try:
        assert_agrees(result, eager, check_values=pair.op not in UNINITIALISED)
    except Disagreement as error:
        return str(error)[:200]
    return ""


def _refused_anyway(
    call: Callable[..., object], args: list[object], kwargs: dict[str, object], dynamic: bool
) -> bool:
    torch._dynamo.reset()
    try:
        torch.compile(call, backend="aot_eager", dynamic=dynamic)(_copied(args), _copied(kwargs))
    except Exception:  # of any kind: the graph did not come about
        return True
    return False


def _copied(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(v) for v in value) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return value


def sweep_zoo(dynamic: bool, console: Console) -> list[str]:
    """A line for each model whose graphs do not come back as they were."""
    wrong = []
    for model in zoo.MODELS:
        torch._dynamo.reset()
        module, inputs = model.make("test")
        trip = RoundTrip()
        try:
            zoo.run(model, trip.optimize(module, dynamic=dynamic), inputs)
        except Exception as error:  # whatever it raises is a finding
            wrong.append(f"{model.name}: {describe(error)}")
        wrong += [f"{model.name}: {reason}" for reason in (*trip.unserializable, *trip.failed)]
        sizes = ", ".join(str(len(request.gm.graph.nodes)) for request in trip.requests)
        console.print(f"{model.name:24} graphs of {sizes} nodes", highlight=False)
    return wrong


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--op", default="")
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--zoo", action="store_true")
    options = parser.parse_args(argv)
    number, of = map(int, options.shard.split("/"))
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    torch._dynamo.config.capture_scalar_outputs = True
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
    console = Console()
    if options.zoo:
        wrong = sweep_zoo(options.dynamic, console)
        console.print("\n".join(wrong) or "nothing wrong", markup=False)
        return 1 if wrong else 0
    database = Database()
    pairs = [p for p in database.pairs() if options.op in p.op][number::of]
    counts, wrong = sweep(database, pairs, options.samples, options.dynamic, console)
    for name, count in sorted(counts.items()):
        console.print(f"{count:6} {name}", markup=False, highlight=False)
    console.print(f"{len(wrong):6} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
