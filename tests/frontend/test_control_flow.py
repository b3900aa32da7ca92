"""Operators that take graphs: these are compiled in every way, forward and backward, and packed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torch._export.serde import schema
from torch._export.serde.serialize import _dict_to_dataclass
from torch._higher_order_ops.map import map as map_over
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import braze
from braze import inspect
from braze.artifact import container
from braze.artifact.aot_load import recompiled
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.package import open_package
from braze.compile import inner_graphs
from braze.compile.fx_compile import CompileRequest
from braze.compile.pipeline import compile_graph
from braze.errors import ArtifactError, BrazeWarning, SignatureError
from braze.frontend.backend import make_backend


@pytest.fixture(autouse=True)
def _every_warning_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrazeWarning)
        yield


def by_sum(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 0, lambda x: x.sin() * 2, lambda x: x.cos().exp() + 1, (x,)) * 3


def by_size(x: torch.Tensor) -> torch.Tensor:
    """A branch whose results are several, and that knows sizes."""

    def large(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.softmax(x, -1), x.mean(0) * x.shape[0]

    def small(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x - x.amax(-1, keepdim=True), x.sum(0) + x.shape[1]

    a, b = torch.cond(x.abs().sum() > 10, large, small, (x,))
    return a + b


def nested(x: torch.Tensor) -> torch.Tensor:
    def inner(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.amax() > 1, lambda x: x.tanh(), lambda x: x.sigmoid(), (x,))

    return torch.cond(x.sum() > 0, inner, lambda x: x.clone() - 1, (x,))


def until_small(x: torch.Tensor) -> torch.Tensor:
    def going_on(step: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return (x.abs().amax() > 0.1) & (step < 8)

    def halved(step: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return step + 1, (x * 0.5).sin()

    step, x = while_loop(going_on, halved, (torch.zeros((), dtype=torch.int64), x))
    return x + step


def counted(x: torch.Tensor) -> torch.Tensor:
    """A loop over a number of Python's."""
    return while_loop(lambda i, y: i < 4, lambda i, y: (i + 1, y.sin() + i), (0, x))[1]


@torch.compiler.nested_compile_region
def _region(x: torch.Tensor) -> torch.Tensor:
    return (x.sin() + 1).mean(-1, keepdim=True) * x


def regions(x: torch.Tensor) -> torch.Tensor:
    return _region(_region(x) + 1)


def each_row(x: torch.Tensor) -> torch.Tensor:
    return map_over(lambda row, shift: row.softmax(0) + shift, x, x.sum())


def each_column(x: torch.Tensor) -> torch.Tensor:
    return map_over(lambda column: column.cumsum(0) * 2, x.t())


def running(x: torch.Tensor) -> torch.Tensor:
    carry, rows = scan(lambda c, row: (c * 0.5 + row, (c * row).sin()), x.new_zeros(x.shape[1]), x, dim=0)
    return rows + carry


PROGRAMS = [by_sum, by_size, nested, until_small, counted, regions, each_row, each_column, running]
DIFFERENTIABLE = [by_sum, by_size, nested, regions, each_row, running]
INPUTS = [torch.linspace(-2, 3, 20).reshape(4, 5), torch.linspace(-3, 0.5, 20).reshape(4, 5)]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("mode", ["in-process", "serialized"])
def test_graphs_inside_are_compiled(program: Callable[..., Any], mode: str) -> None:
    before = inspect.stats()
    compiled = torch.compile(program, backend="braze", options={"strict": True, "fx_compile_mode": mode})
    for x in INPUTS:
        torch.testing.assert_close(compiled(x), program(x))
    assert inspect.stats().kernels - before.kernels >= 2
    assert inspect.stats().eager_graphs == before.eager_graphs


@pytest.mark.parametrize("program", PROGRAMS)
def test_sizes_may_be_dynamic(program: Callable[..., Any]) -> None:
    compiled = torch.compile(program, backend="braze", dynamic=True, options={"strict": True})
    for rows, columns in ((4, 5), (7, 3), (3, 9)):
        x = torch.linspace(-2, 3, rows * columns).reshape(rows, columns)
        torch.testing.assert_close(compiled(x), program(x))


@pytest.mark.parametrize("program", DIFFERENTIABLE)
def test_gradients(program: Callable[..., Any]) -> None:
    compiled = torch.compile(program, backend="braze")
    for x in INPUTS:
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        compiled(ours).square().sum().backward()
        program(theirs).square().sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


class Gated(nn.Module):
    """Branches that read parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.first(x).relu(), lambda x: self.second(x).tanh(), (x,))


class Module(nn.Module):
    def __init__(self, program: Callable[..., Any]) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: torch.Tensor) -> Any:
        return self.program(x)


@pytest.mark.parametrize("program", [*PROGRAMS, Gated()])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_packages(program: Callable[..., Any], dynamic: bool, tmp_path: Path) -> None:
    model = program if isinstance(program, nn.Module) else Module(program)
    sizes = {0: torch.export.Dim("rows", min=2, max=64)} if dynamic else None
    exported = torch.export.export(model, (INPUTS[0],), dynamic_shapes=(sizes,) if sizes else None)
    path = braze.aot_compile(exported, tmp_path / "model.pt2", options={"strict": True})
    loaded = braze.aot_load(path)
    given = [*INPUTS, *([torch.linspace(-1, 3, 35).reshape(7, 5)] if dynamic else [])]
    with torch.no_grad():
        for x in given:
            torch.testing.assert_close(loaded(x), model(x))


def test_an_operator_without_lowering_inside_is_told_at_its_line() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: torch.special.bessel_j0(x), lambda x: x.sin(), (x,))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", BrazeWarning)
        compiled = torch.compile(program, backend="braze")
        for x in INPUTS:
            torch.testing.assert_close(compiled(x.double()), program(x.double()))
    (one,) = [w for w in said if issubclass(w.category, BrazeWarning)]
    assert "bessel_j0" in str(one.message) and one.filename == __file__
    with pytest.raises(Exception, match="bessel_j0"):
        torch.compile(program, backend="braze", options={"strict": True})(INPUTS[0].double())


def test_a_graph_inside_that_cannot_be_compiled_runs_as_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("injected")

    monkeypatch.setattr(inner_graphs, "_part_of", broken)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", BrazeWarning)
        compiled = torch.compile(by_sum, backend="braze")
        for x in INPUTS:
            torch.testing.assert_close(compiled(x), by_sum(x))
    (one,) = [w for w in said if issubclass(w.category, BrazeWarning)]
    assert "injected" in str(one.message) and one.filename == __file__


def dropped(x: torch.Tensor) -> torch.Tensor:
    def trained(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, True) * 2

    return torch.cond(x.sum() > 0, trained, lambda x: nn.functional.layer_norm(x, (5,)), (x,))


def test_graphs_inside_are_simplified_as_others_are() -> None:
    """So that random numbers are drawn in kernels, or are eager's."""
    compiled = torch.compile(dropped, backend="braze", options={"strict": True})
    kept = compiled(INPUTS[0])
    torch.testing.assert_close(kept, torch.where(kept == 0, 0, INPUTS[0] * 4))
    assert 0 < (kept == 0).sum() < kept.numel()
    torch.testing.assert_close(compiled(INPUTS[1]), dropped(INPUTS[1]))
    torch.compiler.reset()
    exact = torch.compile(dropped, backend="braze", options={"strict": True, "fallback_random": True})
    results = []
    for function in (exact, dropped):
        torch.manual_seed(3)
        results.append(function(INPUTS[0]))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_only_the_branch_that_is_taken_runs() -> None:
    def program(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x, i: x[i], lambda x, i: x[:2] * 2, (x, i))

    compiled = torch.compile(program, backend="braze", options={"strict": True})
    wrong = torch.tensor([1, 9])
    torch.testing.assert_close(compiled(INPUTS[1], wrong), INPUTS[1][:2] * 2)
    with pytest.raises(IndexError):
        compiled(INPUTS[0], wrong)


@pytest.mark.parametrize("like", [by_sum, running])
def test_the_cache_keeps_graphs_inside(like: Callable[..., Any], tmp_path: Path) -> None:
    options = {"strict": True, "cache": True, "cache_dir": str(tmp_path)}
    for loaded in (0, 1, 2):
        torch.compiler.reset()
        before = inspect.stats()
        compiled = torch.compile(like, backend="braze", options=options)
        for x in INPUTS:
            torch.testing.assert_close(compiled(x), like(x))
        after = inspect.stats()
        assert (after.loaded > before.loaded) == bool(loaded)
        assert after.kernels - before.kernels >= 2


def test_a_package_names_the_operators_in_its_graphs(tmp_path: Path) -> None:
    """In the words of `torch.export`'s schema, that PyTorch reads."""
    path = braze.aot_compile(torch.export.export(Gated(), (INPUTS[0],)), tmp_path / "model.pt2")
    document = json.loads(open_package(path).read("package/data/braze/model/extern_nodes.json"))
    nodes = _dict_to_dataclass(schema.ExternKernelNodes, document).nodes
    call = next(n.node for n in nodes if n.node.target == "torch.ops.higher_order.cond")
    graphs = [i.arg.as_graph.graph for i in call.inputs if i.arg.type == "as_graph"]
    assert len(graphs) == 2
    for graph in graphs:
        targets = [node.target for node in graph.nodes]
        assert len(targets) == 1 and targets[0].startswith("torch.ops.aten.addmm")
        assert graph.outputs[0].as_tensor.name in graph.tensor_values


def test_a_package_is_compiled_for_another_machine(tmp_path: Path) -> None:
    path = braze.aot_compile(
        torch.export.export(Module(nested), (INPUTS[0],)), tmp_path / "model.pt2", "generic"
    )
    graph = recompiled(open_package(path).graph(trusted=True))
    graph.post_compile()
    for x in INPUTS:
        torch.testing.assert_close(graph.run([x])[0], nested(x))


def _stored() -> CompiledFxGraph:
    graphs: list[CompiledFxGraph] = []

    class Kept:
        def compile(self, request: CompileRequest) -> Any:
            graphs.append(compile_graph(request))
            return graphs[0]

    torch.compile(by_sum, backend=make_backend(Kept()))(INPUTS[0])
    return graphs[0]


def test_what_is_stored_is_checked() -> None:
    graph = _stored()
    sections = dict(container.unpack(graph.prepare_for_serialization()))
    assert {"c0/g0", "c0/g1"} <= sections.keys()
    with pytest.raises(ArtifactError, match="c0/g1"):
        CompiledFxGraph.after_deserialization(
            container.pack({name: data for name, data in sections.items() if name != "c0/g1"})
        )
    with pytest.raises(ArtifactError, match="damaged"):
        CompiledFxGraph.after_deserialization(container.pack({**sections, "c0/g0": b"rubbish"}))
    for change, complaint in (
        ({"operator": "higher_order::print"}, "not an operator that takes graphs"),
        ({"operator": "aten::add.Tensor"}, "not an operator that takes graphs"),
        ({"single": (False,)}, "takes 2 graphs"),
        ({"key": "other"}, "which no artefact may"),
    ):
        (call,) = graph.info.calls
        info = msgspec.structs.replace(graph.info, calls=(msgspec.structs.replace(call, **change),))
        externs = {info.calls[0].key: graph.calls[call.key]}
        changed = CompiledFxGraph(info, graph.variants, graph.constants, externs)
        parts = dict(container.unpack(changed.prepare_for_serialization()))
        if "single" in change:
            parts = {**sections, "metadata": parts["metadata"]}
        with pytest.raises(ArtifactError, match=complaint):
            CompiledFxGraph.after_deserialization(container.pack(parts))
    untrusted = CompiledFxGraph.after_deserialization(container.pack(sections))
    with pytest.raises(SignatureError):
        untrusted.post_compile()
    assert not any(part.trusted for call in untrusted.calls.values() for part in call.graphs)
