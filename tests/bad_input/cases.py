"""Calls with inputs that are wrong, empty or odd, for which a compiled function has to do what eager does.

`python -m tests.bad_input.cases` runs them all in this process and prints the name of each before it runs,
so that after a crash the last line names the culprit.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable
from typing import Any

import torch

from tests import support
from tests.numerics import assert_agrees

Inputs = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, inputs that it is compiled with, and inputs that come afterwards.

    exact_error: where eager raises for what the values are (an index out of range, say), the compiled call
    has to raise that very type; elsewhere Dynamo stands between and may raise its own.
    """

    name: str
    function: Callable[..., Any]
    good: Callable[[], Inputs]
    bad: Callable[[], Inputs]
    exact_error: bool = False


class NotAsEager(AssertionError):
    """A compiled call returned where eager raises, raised where eager returns, or raised another type."""


def outcome_of(function: Callable[..., Any], inputs: Inputs) -> tuple[Any, Exception | None]:
    """What a call returns, with its inputs afterwards, or raises."""
    inputs = tuple(_copied(item) for item in inputs)
    try:
        return {"result": function(*inputs), "inputs": list(inputs)}, None
    except Exception as error:
        return None, error


def _copied(item: Any) -> Any:
    """A deep copy keeps strides, offsets and overlaps."""
    return copy.deepcopy(item)


def check(case: Case, backend: str = support.BACKEND) -> None:
    """Compiles with the good inputs and calls with the bad ones, then the other way round, then with good
    ones.
    """
    for first, second in ((case.good, case.bad), (case.bad, case.good)):
        support.reset()
        compiled = support.compile_with(case.function, backend)
        for make in (first, second, case.good):
            _compare(case, compiled, make())


def _compare(case: Case, compiled: Callable[..., Any], inputs: Inputs) -> None:
    expected, error = outcome_of(case.function, inputs)
    actual, raised = outcome_of(compiled, inputs)
    if error is None and raised is None:
        assert_agrees(actual, expected)
    elif error is None:
        raise NotAsEager(f"{case.name}: raises {type(raised).__name__}: {raised}; eager returns") from raised
    elif raised is None:
        raise NotAsEager(f"{case.name}: returns where eager raises {type(error).__name__}: {error}")
    elif not isinstance(raised, type(error) if case.exact_error else Exception) or not str(raised).strip():
        raise NotAsEager(
            f"{case.name}: raises {type(raised).__name__} ({raised}), eager {type(error).__name__}"
        )


def graph_call(
    function: Callable[..., Any], inputs: Inputs, backend: str = support.BACKEND
) -> Callable[..., Any]:
    """The callable that the backend makes of the function's graph, with none of Dynamo's guards in front of
    it.
    """
    graph = torch.fx.symbolic_trace(function)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    if not isinstance(output.args[0], tuple):
        output.args = ((output.args[0],),)
        graph.recompile()
    if backend == "braze":
        (entry,) = importlib.metadata.entry_points(group="torch_dynamo_backends", name="braze")
        call = entry.load()(graph, list(inputs))
    else:
        call = support.backend_by_name(backend)(graph, list(inputs))
    return lambda *args: call(*args)


def check_graph(case: Case, backend: str = support.BACKEND) -> None:
    """Calls the compiled graph itself with inputs that it was not compiled for.

    It has to return what eager returns or raise an exception with a message; it must neither crash nor return
    anything else. Inputs that it was compiled for have to work before and after.
    """
    support.reset()
    call = graph_call(case.function, case.good(), backend)
    for make in (case.good, case.bad, case.good):
        inputs = make()
        expected, error = outcome_of(case.function, inputs)
        result, raised = outcome_of(call, inputs)
        if raised is not None:
            if make is case.good or not str(raised).strip():
                raise NotAsEager(f"{case.name}: raises {type(raised).__name__}: {raised}") from raised
        elif error is not None:
            raise NotAsEager(f"{case.name}: returns where eager raises {type(error).__name__}: {error}")
        else:
            actual = result["result"]
            if isinstance(actual, (list, tuple)) and not isinstance(expected["result"], (list, tuple)):
                (actual,) = actual
            assert_agrees(actual, expected["result"])


def _floats(*size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def _table() -> torch.Tensor:
    return _floats(10, 4)


def _scale(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * 2 + 1


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x @ y).sum(1)


def _softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x * 2, dim=-1)


def _mean(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).mean(-1)


def _added(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x + y).relu()


def _largest(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, positions = (x * 2).max(dim=0)
    return values, positions


def _written(x: torch.Tensor) -> torch.Tensor:
    x.mul_(2)
    return x + 1


def _embedding(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.embedding(index, table) * 2


def _indexed(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return table[index] + 1


def _two_indices(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return table[index, torch.arange(index.shape[0]) % 4] + 1


def _selected(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.index_select(table, 0, index) * 3


def _gathered(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.gather(table, 0, index[:, None].expand(-1, 4)) * 2


def _scattered(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.scatter(table * 2, 0, index[:, None].expand(-1, 4), 1.0)


def _scatter_added(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    source = torch.ones(index.shape[0], 4)
    return torch.scatter_add(table * 2, 0, index[:, None].expand(-1, 4), source)


def _put(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.index_put(table * 2, (index,), torch.ones(index.shape[0], 4), accumulate=True)


def _index_added(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.index_add(table * 2, 0, index, torch.ones(index.shape[0], 4))


def _entropy(index: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(table[: index.shape[0]] * 2, index)


def _divided(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.div(x, y, rounding_mode="floor") + 1


OTHERS: tuple[Case, ...] = (
    Case("another dtype", _scale, lambda: (_floats(3, 4),), lambda: (_floats(3, 4).double(),)),
    Case("integers for floats", _scale, lambda: (_floats(3, 4),), lambda: (torch.arange(12).reshape(3, 4),)),
    Case("bool for floats", _scale, lambda: (_floats(3, 4),), lambda: (_floats(3, 4) > 0,)),
    Case("complex for floats", _scale, lambda: (_floats(3, 4),), lambda: (_floats(3, 4) * 1j,)),
    Case("another rank", _softmax, lambda: (_floats(3, 4),), lambda: (_floats(2, 3, 4),)),
    Case("rank zero", _softmax, lambda: (_floats(3, 4),), lambda: (_floats(),)),
    Case("another size", _softmax, lambda: (_floats(3, 4),), lambda: (_floats(5, 7),)),
    Case("transposed", _softmax, lambda: (_floats(4, 4),), lambda: (_floats(4, 4).t(),)),
    Case("sliced", _softmax, lambda: (_floats(4, 4),), lambda: (_floats(8, 8)[::2, 1::2],)),
    Case("an offset in its storage", _softmax, lambda: (_floats(4, 4),), lambda: (_floats(5, 4)[1:],)),
    Case("misaligned", _scale, lambda: (_floats(16),), lambda: (_floats(17)[1:],)),
    Case("expanded", _scale, lambda: (_floats(4, 4),), lambda: (_floats(1, 4).expand(4, 4),)),
    Case("overlapping", _scale, lambda: (_floats(4, 4),), lambda: (_floats(7).as_strided((4, 4), (1, 1)),)),
    Case(
        "overlapping, reduced",
        _mean,
        lambda: (_floats(4, 4),),
        lambda: (_floats(7).as_strided((4, 4), (1, 1)),),
    ),
    Case("meta device", _scale, lambda: (_floats(3, 4),), lambda: (_floats(3, 4).to("meta"),)),
    Case(
        "mixed devices", _added, lambda: (_floats(4), _floats(4)), lambda: (_floats(4), _floats(4).to("meta"))
    ),
    Case(
        "sizes that do not broadcast",
        _added,
        lambda: (_floats(4), _floats(4)),
        lambda: (_floats(4), _floats(3)),
    ),
    Case(
        "sizes that broadcast",
        _added,
        lambda: (_floats(3, 4), _floats(3, 4)),
        lambda: (_floats(3, 1), _floats(4)),
    ),
    Case(
        "sizes that do not multiply",
        _product,
        lambda: (_floats(3, 4), _floats(4, 5)),
        lambda: (_floats(3, 4), _floats(3, 5)),
    ),
    Case("NaN", _softmax, lambda: (_floats(3, 4),), lambda: (torch.full((3, 4), float("nan")),)),
    Case(
        "NaN in a maximum",
        _largest,
        lambda: (_floats(3, 4),),
        lambda: (_floats(3, 4).index_fill(0, torch.tensor([1]), float("nan")),),
    ),
    Case(
        "infinity",
        _softmax,
        lambda: (_floats(3, 4),),
        lambda: (_floats(3, 4).index_fill(1, torch.tensor([1]), float("inf")),),
    ),
    Case(
        "minus infinity everywhere",
        _softmax,
        lambda: (_floats(3, 4),),
        lambda: (torch.full((3, 4), float("-inf")),),
    ),
    Case("empty", _scale, lambda: (_floats(3, 4),), lambda: (_floats(0),)),
    Case("zero rows", _softmax, lambda: (_floats(3, 4),), lambda: (_floats(0, 4),)),
    Case("zero columns", _softmax, lambda: (_floats(3, 4),), lambda: (_floats(3, 0),)),
    Case("mean of nothing", _mean, lambda: (_floats(3, 4),), lambda: (_floats(3, 0),)),
    Case("maximum of nothing", _largest, lambda: (_floats(3, 4),), lambda: (_floats(0, 4),)),
    Case(
        "product of nothing",
        _product,
        lambda: (_floats(3, 4), _floats(4, 5)),
        lambda: (_floats(3, 0), _floats(0, 5)),
    ),
    Case(
        "gradient where none was traced",
        _scale,
        lambda: (_floats(3, 4),),
        lambda: (_floats(3, 4).requires_grad_(),),
    ),
    Case(
        "in place on a leaf that requires grad",
        _written,
        lambda: (_floats(3, 4),),
        lambda: (_floats(3, 4).requires_grad_(),),
    ),
    Case(
        "in place on expanded memory",
        _written,
        lambda: (_floats(4, 4),),
        lambda: (_floats(1, 4).expand(4, 4),),
    ),
    Case("in place on a slice", _written, lambda: (_floats(4, 4),), lambda: (_floats(4, 9)[:, ::2][:, :4],)),
    Case("a number for a tensor", _scale, lambda: (_floats(3, 4),), lambda: (2.5,)),
    Case("None for a tensor", _scale, lambda: (_floats(3, 4),), lambda: (None,)),
)

INDICES: tuple[Case, ...] = tuple(
    Case(
        f"{name}, {what}",
        function,
        lambda last=3 if function is _entropy else 9: (torch.tensor([1, 0, last]), _table()),
        lambda values=values: (torch.tensor(values, dtype=torch.int64), _table()),
        exact_error=True,
    )
    for name, function in {
        "embedding": _embedding,
        "index": _indexed,
        "two indices": _two_indices,
        "index_select": _selected,
        "gather": _gathered,
        "scatter": _scattered,
        "scatter_add": _scatter_added,
        "index_put": _put,
        "index_add": _index_added,
        "cross entropy": _entropy,
    }.items()
    for what, values in {
        "just beyond the end": [0, 10, 1],
        "far beyond the end": [0, 2**40, 1],
        "negative": [0, -1, 1],
        "just before the start": [0, -11, 1],
        "far before the start": [0, -(2**62), 1],
        "no index": [],
    }.items()
) + (
    Case(
        "integer division by zero",
        _divided,
        lambda: (torch.tensor([7, -7, 3]), torch.tensor([2, 2, -1])),
        lambda: (torch.tensor([7, -7, 3]), torch.tensor([2, 0, -1])),
        exact_error=True,
    ),
)

CASES = OTHERS + INDICES

# Whether gradients are wanted is settled above the graph, by Dynamo's guards; and its inputs are tensors.
NOT_FOR_GRAPHS = (
    "a number for a tensor",
    "gradient where none was traced",
    "in place on a leaf that requires grad",
)
GRAPHS: tuple[Case, ...] = tuple(case for case in OTHERS if case.name not in NOT_FOR_GRAPHS)


def main() -> int:
    """Runs every case; returns how many failed."""
    failed = 0
    torch.set_num_threads(2)
    work = [(check, case) for case in CASES] + [(check_graph, case) for case in GRAPHS]
    for function, case in work:
        print(f"{function.__name__}: {case.name}", flush=True)
        try:
            function(case)
        except Exception as error:
            failed += 1
            print(f"    {type(error).__name__}: {error}", flush=True)
    print(f"{len(work)} cases, {failed} failed", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 100))
