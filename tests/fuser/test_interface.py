"""Graphs by key, fusion nodes, and looking at what was made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx import Graph, GraphModule, symbolic_trace

import braze
from braze.errors import BrazeWarning, FallbackError, UnserializableError
from braze.fuser import FusionNode
from tests.fuser.compare import made
from tests.numerics import assert_agrees


def chain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * y + 2


# -- keys ---------------------------------------------------------------------------------------------------
def test_equal_graphs_share_a_key() -> None:
    one = braze.fuser.register_fusion(symbolic_trace(chain))
    same = symbolic_trace(lambda left, right: torch.tanh(left) * right + 2)
    other = braze.fuser.register_fusion(same.graph)
    assert one == other and one.startswith("fusion_")
    assert one != braze.fuser.register_fusion(symbolic_trace(lambda x, y: torch.tanh(y) * x + 2))
    assert one != braze.fuser.register_fusion(symbolic_trace(lambda x, y: torch.tanh(x) * y + 3))
    dead = symbolic_trace(chain)
    with dead.graph.inserting_before(dead.graph.output_node()):
        dead.graph.call_function(torch.exp, (next(iter(dead.graph.nodes)),))
    assert braze.fuser.register_fusion(dead) == one


def test_run_fusion() -> None:
    key = braze.fuser.register_fusion(symbolic_trace(chain))
    for shape in [(3,), (4, 5), (0,)]:
        x, y = torch.randn(shape), torch.randn(shape)
        with braze.config.patch(strict=True):
            assert_agrees(braze.fuser.run_fusion(key, [x, y]), chain(x, y))
    x = torch.randn(3, requires_grad=True)
    braze.fuser.run_fusion(key, (x, torch.ones(3))).sum().backward()
    torch.testing.assert_close(x.grad, 1 - torch.tanh(x.detach()) ** 2)
    with pytest.raises(KeyError, match="fusion_0"):
        braze.fuser.run_fusion("fusion_0", [])


def test_later_changes_of_a_graph_change_nothing() -> None:
    gm = symbolic_trace(chain)
    key = braze.fuser.register_fusion(gm)
    (tanh,) = gm.graph.find_nodes(op="call_function", target=torch.tanh)
    tanh.target = torch.exp
    x = torch.randn(3)
    torch.testing.assert_close(braze.fuser.run_fusion(key, [x, x]), chain(x, x))


def test_graphs_that_cannot_be_registered() -> None:
    with pytest.raises(UnserializableError, match="attribute"):
        braze.fuser.register_fusion(symbolic_trace(torch.nn.Linear(3, 3)))
    graph = Graph()
    graph.output(graph.call_function(lambda x: x, (graph.placeholder("x"),)))
    with pytest.raises(UnserializableError, match="no name"):
        braze.fuser.register_fusion(graph)


# -- looking ------------------------------------------------------------------------------------------------
def test_source_and_launch() -> None:
    fused = braze.fuse(chain)
    x, y = torch.randn(4, 5), torch.randn(5)
    for target in (fused, symbolic_trace(chain), braze.fuser.register_fusion(symbolic_trace(chain))):
        source = braze.fuser.debug_kernel_source(target, (x, y))
        assert source.startswith("; cpu [n0, n1] f32(su), f32(bu) -> f32(su)") and "define" in source
        assert_agrees(braze.fuser.debug_launch(target, (x, y)), chain(x, y))
    rows = braze.fuse(lambda x: torch.softmax(x, -1))
    assert "define" in braze.fuser.debug_kernel_source(rows, (x,))
    assert_agrees(braze.fuser.debug_launch(rows, (x,)), torch.softmax(x, -1))
    assert "nothing is launched" in braze.fuser.debug_kernel_source(fused, (torch.empty(0), torch.empty(0)))
    with pytest.raises(FallbackError, match="complex64"):
        braze.fuser.debug_launch(fused, (x.to(torch.complex64), y))
    with pytest.raises(TypeError, match="neither a key nor a graph"):
        braze.fuser.debug_kernel_source(chain, (x, y))


def test_stats_print_as_a_table() -> None:
    before = braze.fuser.stats()
    fused = braze.fuse(lambda x: x.cosh() + 0.375)
    fused(torch.randn(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BrazeWarning)
        fused(torch.randn(3).to(torch.complex64))
    after = braze.fuser.stats()
    assert (after.functions, after.traces) == (before.functions + 1, before.traces + 1)
    assert after.compiled + after.loaded == before.compiled + before.loaded + 1 == made()
    text = str(after)
    assert text.startswith("fuser\nfunctions") and "tensors of torch.complex64 are not fused" in text


def test_profilers_see_kernels() -> None:
    fused = braze.fuse(chain)
    x = torch.randn(3)
    fused(x, x)
    with torch.profiler.profile() as profile:
        fused(x, x)
    assert any(event.key.startswith("fused_tanh_mul_add") for event in profile.key_averages())


# -- fusion nodes -------------------------------------------------------------------------------------------
class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, 6)
        self.bias = torch.nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.relu(self.linear(x) + self.bias) * 2
        z = torch.softmax(y - y.mean(-1, keepdim=True), -1)
        return z @ z.t() + z.size(0), y.exp()


def test_fuse_graph() -> None:
    block, x = Block(), torch.randn(4, 6)
    gm = symbolic_trace(block)
    before = str(gm.graph)
    fused = braze.fuser.fuse_graph(gm)
    assert str(gm.graph) == before
    nodes = [m for m in fused.modules() if isinstance(m, FusionNode)]
    assert len(nodes) == 1 and nodes[0].key in str(fused)
    assert "softmax" in str(nodes[0].graph) and "matmul" not in str(nodes[0].graph)
    for _ in range(2):
        with braze.config.patch(strict=True):
            assert_agrees(fused(x), block(x))
    fused(x)[0].sum().backward()
    expected = torch.autograd.grad(block(x)[0].sum(), block.bias)[0]
    assert_agrees(block.bias.grad, expected)
    assert dict(fused.named_parameters()).keys() == dict(block.named_parameters()).keys()


def test_fuse_graph_of_aten_operators() -> None:
    x = torch.randn(4, 6)
    exported = torch.export.export(Block().eval(), (x,)).run_decompositions()
    gm = exported.graph_module
    fused = braze.fuser.fuse_graph(gm)
    assert any(isinstance(m, FusionNode) for m in fused.modules())
    inputs = [*exported.state_dict.values(), x]
    assert_agrees(list(fused(*inputs)), list(gm(*inputs)))


def test_fuse_graph_takes_operators_that_are_decomposed() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = aten._softmax.default(aten.gelu.default(aten.clamp_min.default(x, 0.5)), 1, False)
        return aten.mv.default(aten.sgn.default(aten.rsub.Scalar(y, 1)), x[0])

    aten = torch.ops.aten
    x = torch.randn(3, 4)
    gm = symbolic_trace(f)
    fused = braze.fuser.fuse_graph(gm)
    (node,) = [m for m in fused.modules() if isinstance(m, FusionNode)]
    names = str(node.graph)
    assert (
        all(name in names for name in ("softmax", "gelu", "clamp_min", "sgn", "rsub")) and "mv" not in names
    )
    with braze.config.patch(strict=True):
        assert_agrees(fused(x), gm(x))


def test_fuse_graph_moves_nothing_across_what_is_written() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        s = x.sin() * 2
        x.view(-1).mul_(0)
        return s + x.cos()

    for g in (f, lambda x: torch.add(x, 1, out=x).sin() + x.cos()):
        fused = braze.fuser.fuse_graph(symbolic_trace(g))
        assert_agrees(fused(torch.ones(3)), g(torch.ones(3)))


def test_graphs_that_differ_little_have_other_keys() -> None:
    def key(function: Any) -> str:
        return braze.fuser.register_fusion(symbolic_trace(function))

    def with_default(value: float) -> Any:
        graph = Graph()
        x = graph.placeholder("x")
        s = graph.placeholder("s", default_value=value)
        graph.output(graph.call_function(torch.mul, (x, s)))
        return braze.fuser.register_fusion(graph)

    assert with_default(2.0) != with_default(3.0)
    assert key(lambda x: (x + 1, x)) != key(lambda x: [x + 1, x])
    x = torch.ones(3)
    torch.testing.assert_close(braze.fuser.run_fusion(with_default(3.0), [x]), x * 3)


def test_fuse_graph_leaves_what_it_cannot_take() -> None:
    def f(x: torch.Tensor, n: int) -> Any:
        y = x.view(-1, n).t() @ x.view(-1, n)
        return y.add_(1), x.size(0) * 2 + 1

    gm = symbolic_trace(f)
    fused = braze.fuser.fuse_graph(gm)
    assert not any(isinstance(m, FusionNode) for m in fused.modules())
    assert isinstance(fused, GraphModule)
    assert_agrees(list(fused(torch.ones(4, 6), 3)), list(f(torch.ones(4, 6), 3)))


# -- processes ----------------------------------------------------------------------------------------------
CHILD = """
import json, torch, braze
from torch.nn import functional
@braze.fuse
def swiglu(x, gate):
    return functional.silu(gate) * x
@braze.fuse
def rows(x, scale):
    return torch.softmax(x * scale, -1)
for shape in [(5,), (3, 4), (2, 3, 4)]:
    swiglu(torch.randn(shape), torch.randn(shape[-1]))
    x = torch.randn(shape, requires_grad=True)
    swiglu(x, x.detach()).sum().backward()
    rows(torch.randn(shape), 0.5)
stats = braze.fuser.stats()
print(json.dumps([stats.compiled, stats.loaded, stats.fallbacks]))
"""


def run(program: str, **environment: str) -> Any:
    """What a program prints, as JSON."""
    command = [sys.executable, "-c", program]
    environ = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=240, check=True)
    return json.loads(done.stdout)


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = {"BRAZE_CACHE": "1", "BRAZE_CACHE_DIR": str(tmp_path / "cache"), "BRAZE_STRICT": "1"}
    compiled, loaded, fallbacks = run(CHILD, **environment)
    assert compiled > 0 and not fallbacks
    again, found, fallbacks = run(CHILD, **environment)
    assert again == 0 and found == compiled + loaded and not fallbacks


def test_declaring_a_function_loads_neither_tracing_nor_the_compiler() -> None:
    program = """
import json, sys, torch
before = set(sys.modules)
import braze
@braze.fuse
def f(x): return x + 1
heavy = {"sympy", "torch._dynamo", "torch._functorch.aot_autograd", "llvmlite", "braze.compile.pipeline"}
found = sorted((heavy - before) & set(sys.modules))
print(json.dumps([found, braze.fuser.stats().functions, braze.fuser.can_fuse_on("cpu")]))
"""
    assert run(program) == [[], 1, True]


def _forked(fused: Any, x: torch.Tensor) -> bool:
    return torch.equal(fused(x, x), chain(x, x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_forked_processes_use_what_their_parent_compiled() -> None:
    fused, x = braze.fuse(chain), torch.randn(5)
    fused(x, x)
    child = os.fork()
    if child == 0:
        os._exit(0 if _forked(fused, x) and _forked(fused, x.double()) else 1)
    assert os.waitpid(child, 0)[1] == 0
