"""Every extern that the operator database makes Braze call, through PyTorch's own deserialiser and back.

python -m tests.opinfo.externs                      everything; prints a summary
python -m tests.opinfo.externs --shard 2/4          a quarter of it
python -m tests.opinfo.externs --op conv --dynamic  operators with "conv" in their name, with symbolic sizes
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import sys
import warnings
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from braze.artifact.output_code import OutputCode
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.compile.report import GraphReport, ledger
from braze.errors import UnserializableError
from braze.frontend.backend import make_backend
from braze.ir.externs import ExternKernel
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.graph import GraphLowering
from braze.runtime.plan import CallExtern
from tests.artifact.extern_replay import check, recording
from tests.opinfo.cases import Database, Pair, describe
from tests.opinfo.pool import shard


@dataclasses.dataclass
class Found:
    """What became of a pair: how often each operator was called and compared; what is no operator (a graph, a
    function), which the schema has no place for; how many samples raised something."""

    pair: Pair
    compared: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    refused: list[str] = dataclasses.field(default_factory=list)
    not_run: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)


class _ExternsOnly:
    """Compiles the graphs that call externs, and runs the others eagerly, which is faster. `values` are those
    of the size symbols, by graph."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, int]] = {}

    def compile(self, request: CompileRequest) -> OutputCode:
        env = request.shape_env
        known = {} if env is None else env.backed_var_to_val
        self.values[request.name] = {str(symbol): int(value) for symbol, value in known.items()}
        lowering = GraphLowering(request.gm, request.config, request.static_inputs, request.visible_outputs)
        if any(isinstance(op, ExternKernel) for op in lowering.run().operations):
            return InProcessFxCompile().compile(request)
        return run_eagerly(request, None)


def try_pair(database: Database, pair: Pair, count: int, dynamic: bool) -> Found:
    """Compiles and runs the first samples of a pair, and replays every extern that they called."""
    found = Found(pair)
    for number, (function, args, kwargs) in enumerate(database.samples(pair, count)):
        try:
            _try_sample(found, function, args, kwargs, dynamic)
        except UnserializableError as error:
            found.refused.append(error.what)
        except Exception as error:
            found.wrong.append(f"sample {number}: {describe(error)}")
    return found


def _try_sample(found: Found, function: Any, args: list[Any], kwargs: dict[str, Any], dynamic: bool) -> None:
    torch.compiler.reset()
    reports: list[GraphReport] = []
    stop = ledger.listen(reports.append)

    def call(args: list[Any], kwargs: dict[str, Any]) -> Any:
        return function(*args, **kwargs)

    with recording() as recorders, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        compiler = _ExternsOnly()
        compiled = torch.compile(call, backend=make_backend(compiler), dynamic=dynamic or None)
        try:
            compiled(copy.deepcopy(args), copy.deepcopy(kwargs))
        except Exception:
            found.not_run += 1  # the run of all operators judges that
            return
        finally:
            stop()
    for report in reports:
        calls = [i for i in report.plan.instructions if isinstance(i, CallExtern)]
        operators = [i for i in calls if not i.target.startswith("python::")]
        own, recorders[:] = recorders[: len(operators)], recorders[len(operators) :]
        if check(report.plan, own, compiler.values[report.name]):
            found.compared.update(extern.target for extern in operators)


def main(argv: list[str] | None = None) -> int:
    about = __doc__.split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.opinfo.externs", description=about)
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="part I (from 1) of N")
    parser.add_argument("--op", action="append", metavar="TEXT", help="only operators with TEXT in the name")
    parser.add_argument("--samples", type=int, default=2, metavar="N", help="samples for each pair")
    parser.add_argument("--dynamic", action="store_true", help="trace with symbolic sizes")
    options = parser.parse_args(argv)
    console = Console()
    database = Database()
    number, of = (int(part) for part in options.shard.split("/"))
    pairs = shard(database.pairs(), number, of)
    if options.op:
        pairs = [pair for pair in pairs if any(text in pair.op for text in options.op)]
    total: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    wrong = not_run = 0
    for pair in pairs:
        found = try_pair(database, pair, options.samples, options.dynamic)
        total.update(found.compared)
        refused.update(found.refused)
        wrong += len(found.wrong)
        not_run += found.not_run
        for problem in found.wrong:
            console.print(f"{pair}: {problem}", markup=False, highlight=False, soft_wrap=True)
    table = Table(title="Externs through torch.export's schema", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("pairs", str(len(pairs)))
    table.add_row("operators rebuilt and run", str(len(total)), style="bold")
    table.add_row("calls compared", str(sum(total.values())))
    table.add_row("wrong", str(wrong), style="red" if wrong else "")
    table.add_row("samples that raise", str(not_run))
    for what, times in refused.most_common():
        table.add_row(f"refused: {what}", str(times), style="dim")
    console.print(table)
    console.print(" ".join(sorted(total)), style="dim")
    return 1 if wrong or not total else 0


if __name__ == "__main__":
    sys.exit(main())
