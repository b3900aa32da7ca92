"""The backend as `torch.compile` calls it: which graphs reach the compiler, and that results are eager's."""

from __future__ import annotations

import copy
import threading
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import nn

from braze import config
from braze.errors import ConfigError
from braze.frontend import backend as backends
from tests.frontend.recording import Recorder

Pair = namedtuple("Pair", ["first", "second"])


@pytest.fixture
def recorder() -> Recorder:
    torch.compiler.reset()
    return Recorder()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
    )


def test_no_grad_compiles_one_inference_graph(recorder: Recorder) -> None:
    net, x = model().eval(), torch.randn(5, 6)
    with torch.no_grad():
        torch.testing.assert_close(recorder.optimize(net)(x), net(x))
    assert recorder.kinds == ["inference"]
    assert recorder.runs == {"inference": 1}


def test_inference_mode(recorder: Recorder) -> None:
    net, x = model().eval(), torch.randn(5, 6)
    with torch.inference_mode():
        result = recorder.optimize(net)(x)
        torch.testing.assert_close(result, net(x))
        assert result.is_inference()
    assert recorder.kinds == ["inference"]


def test_training_gives_eager_gradients_and_compiles_the_backward_when_it_runs(recorder: Recorder) -> None:
    net, x = model().train(), torch.randn(5, 6)
    reference = copy.deepcopy(net)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    result = recorder.optimize(net)(inputs[0])
    assert recorder.kinds == ["forward"]
    expected = reference(inputs[1])
    torch.testing.assert_close(result, expected)
    result.square().sum().backward()
    expected.square().sum().backward()
    assert recorder.kinds == ["forward", "backward"]
    assert recorder.requests[0].graph_id == recorder.requests[1].graph_id
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(net.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_three_steps_of_training_follow_eager(recorder: Recorder) -> None:
    net = model().train()
    reference = copy.deepcopy(net)
    compiled = recorder.optimize(net)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (net, reference)]
    for step in range(3):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        for run, optimizer in zip((compiled, reference), optimizers, strict=True):
            optimizer.zero_grad()
            run(x).square().mean().backward()
            optimizer.step()
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert recorder.kinds == ["forward", "backward"]


def test_parameters_and_buffers_are_static_inputs(recorder: Recorder) -> None:
    net = model().train()
    recorder.optimize(net)(torch.randn(5, 6)).sum().backward()
    forward, backward = recorder.requests
    state = [*net.parameters(), *net.buffers()]
    assert len(forward.static_inputs) == len(state)
    shapes = sorted(tuple(forward.example_inputs[i].shape) for i in forward.static_inputs)
    assert shapes == sorted(tuple(t.shape) for t in state)
    # the backward reads weights too, and knows them for what they are
    weights = {tuple(backward.example_inputs[i].shape) for i in backward.static_inputs}
    assert {(3, 8), (8, 8)} <= weights
    placeholders = backward.gm.graph.find_nodes(op="placeholder")
    assert all("tangents" not in placeholders[i].name for i in backward.static_inputs)


def test_visible_outputs_count_what_leaves_the_region(recorder: Recorder) -> None:
    x = torch.randn(4, requires_grad=True)
    recorder.optimize(lambda t: (t.sin(), t.exp()))(x)
    request = recorder.requests[0]
    outputs = request.gm.graph.output_node().args[0]
    assert request.visible_outputs == 2
    assert len(outputs) >= 2  # what is kept for the backward follows


def test_dropout_is_reproducible_and_its_backward_uses_the_same_mask(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda t: nn.functional.dropout(t, 0.4, training=True))
    x = torch.ones(4000, requires_grad=True)
    torch.manual_seed(7)
    first = compiled(x)
    first.sum().backward()
    torch.testing.assert_close(x.grad, first.detach())
    torch.manual_seed(7)
    torch.testing.assert_close(compiled(x), first)
    assert not torch.equal(compiled(x), first)
    kept = (first != 0).float().mean().item()
    assert abs(kept - 0.6) < 0.05
    assert "native_dropout" not in "".join(recorder.operators(0))


def test_fallback_random_gives_eager_numbers() -> None:
    torch.compiler.reset()
    recorder = Recorder()

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.rand_like(x) + torch.randn(3, 4) + torch.bernoulli(x)

    x = torch.full((3, 4), 0.5)
    torch.manual_seed(3)
    expected = f(x)
    torch.manual_seed(3)
    result = torch.compile(f, backend=recorder.backend(), options={"fallback_random": True})(x)
    torch.testing.assert_close(result, expected)


def test_graph_breaks_give_several_graphs(recorder: Recorder) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.sin()
        torch._dynamo.graph_break()
        return y.cos() + 1

    x = torch.randn(5)
    torch.testing.assert_close(recorder.optimize(f)(x), x.sin().cos() + 1)
    assert recorder.kinds == ["inference", "inference"]
    ids = [request.graph_id for request in recorder.requests]
    assert ids[0] != ids[1]


def test_autocast_is_in_the_graph(recorder: Recorder) -> None:
    net, x = nn.Linear(6, 8), torch.randn(5, 6)
    compiled = recorder.optimize(net)
    with torch.autocast("cpu", torch.bfloat16):
        result = compiled(x)
        expected = net(x)
    assert result.dtype is torch.bfloat16
    torch.testing.assert_close(result, expected)
    result.float().sum().backward()
    assert recorder.kinds == ["forward", "backward"]
    assert recorder.operators(0)["aten._to_copy.default"] >= 2


def test_input_mutation_is_a_copy_at_the_end(recorder: Recorder) -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.add_(y)
        y.mul_(2)
        return x * y

    ours = [torch.randn(4), torch.randn(4)]
    theirs = [t.clone() for t in ours]
    torch.testing.assert_close(recorder.optimize(f)(*ours), f(*theirs))
    torch.testing.assert_close(ours, theirs)
    targets = [n.target for n in recorder.requests[0].gm.graph.nodes if n.op == "call_function"]
    assert targets[-2:] == [torch.ops.aten.copy_.default] * 2


def test_views_of_inputs_stay_views(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda x: (x.t(), x[1:], x * 2))
    x = torch.randn(3, 4)
    transposed, tail, double = compiled(x)
    assert transposed.data_ptr() == x.data_ptr()
    assert tail.data_ptr() == x[1:].data_ptr()
    torch.testing.assert_close(double, x * 2)


def test_views_of_one_result_share_its_memory(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda x: (lambda y: (y, y.view(-1), y.t()))(x + 1))
    base, flat, transposed = compiled(torch.zeros(2, 3))
    base[0, 1] = 5
    assert flat[1] == 5
    assert transposed[1, 0] == 5


def test_equal_results_are_separate_tensors(recorder: Recorder) -> None:
    first, second = recorder.optimize(lambda x: (x + 1, x + 1))(torch.zeros(3))
    first[0] = 9
    assert second[0] == 1


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5)])
def test_output_strides_are_those_of_eager(recorder: Recorder, shape: tuple[int, ...]) -> None:
    def f(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.transpose(0, 1) + 1, torch.softmax(x.transpose(0, 1), -1), x.sum(0), x.mT.contiguous()

    x = torch.randn(shape)
    for ours, theirs in zip(recorder.optimize(f)(x), f(x), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == theirs.stride()


def test_channels_last_stays_channels_last(recorder: Recorder) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).to(
        memory_format=torch.channels_last
    )
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    result = recorder.optimize(net)(x)
    assert result.is_contiguous(memory_format=torch.channels_last)
    result.sum().backward()
    assert recorder.kinds == ["forward", "backward"]


class _Transposing:
    """Compiles to eager operators whose saved tensors are laid out another way than the trace says."""

    def __init__(self) -> None:
        self.inner = Recorder()

    def compile(self, request: Any) -> Any:
        code = self.inner.compile(request)
        if request.kind != "forward":
            return code
        strides: list[Any] = [None] * len(request.gm.graph.output_node().args[0])

        def run(inputs: list[Any]) -> Any:
            outputs = list(code.run(inputs))
            for i in range(request.visible_outputs, len(outputs)):
                if outputs[i].ndim == 2 and i in self.chosen:
                    outputs[i] = outputs[i].t().contiguous().t()
            return outputs

        self.chosen = set()
        for i, node in enumerate(request.gm.graph.output_node().args[0]):
            if i >= request.visible_outputs and node.op == "call_function" and node.meta["val"].ndim == 2:
                self.chosen.add(i)
                strides[i] = (1, node.meta["val"].shape[0])
        assert self.chosen
        return type(code)(code.name, run, tuple(strides))


def test_a_backward_is_compiled_for_the_strides_that_the_forward_reported() -> None:
    torch.compiler.reset()
    compiler = _Transposing()
    x = torch.randn(3, 4, requires_grad=True)
    result = torch.compile(lambda t: (t.exp() @ t.t()).sin(), backend=backends.make_backend(compiler))(x)
    result.sum().backward()
    backward = compiler.inner.requests[1]
    saved = [t for t in backward.example_inputs if t.ndim == 2 and t.stride() == (1, t.shape[0])]
    assert saved
    for node, value in zip(
        backward.gm.graph.find_nodes(op="placeholder"), backward.example_inputs, strict=True
    ):
        assert node.meta["val"].stride() == value.stride()
    y = x.detach().clone().requires_grad_()
    (y.exp() @ y.t()).sin().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_nested_containers_go_in_and_out(recorder: Recorder) -> None:
    def f(data: dict[str, Any]) -> dict[str, Any]:
        pair = data["pair"]
        return {"sum": pair.first + data["list"][0], "rest": [(pair.second * 2,), {"n": data["n"] + 1}]}

    x, y, z = torch.randn(3), torch.randn(3), torch.randn(3)
    argument = {"pair": Pair(x, y), "list": [z], "n": 3}
    result = recorder.optimize(f)(argument)
    torch.testing.assert_close(result["sum"], x + z)
    torch.testing.assert_close(result["rest"][0][0], y * 2)
    assert result["rest"][1]["n"] == 4


def test_number_arguments(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda x, n, a: x * n + a)
    x = torch.randn(3)
    for n, a in ((2, 0.5), (3, 0.25), (4, 1.5)):
        torch.testing.assert_close(compiled(x, n, a), x * n + a)


def test_empty_graphs_and_returned_inputs(recorder: Recorder) -> None:
    x = torch.randn(3)
    assert recorder.optimize(lambda t: t)(x) is x
    assert recorder.optimize(lambda t: (t, t.add_(0)))(x)[0] is x
    same, none, more = recorder.optimize(lambda t: (t, None, t + 1))(x)
    assert same is x
    assert none is None
    torch.testing.assert_close(more, x + 1)
    assert recorder.optimize(lambda: 3)() == 3


def test_a_gradient_may_be_none(recorder: Recorder) -> None:
    x, y = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    first, second = recorder.optimize(lambda a, b: (a * 2, b.detach() * 3))(x, y)
    assert not second.requires_grad
    first.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3,), 2.0))
    assert y.grad is None


def test_two_graphs_of_one_function(recorder: Recorder) -> None:
    compiled = recorder.optimize(lambda x: x * 2, dynamic=False)
    for size in (3, 4, 3):
        torch.testing.assert_close(compiled(torch.ones(size)), torch.full((size,), 2.0))
    assert recorder.kinds == ["inference", "inference"]


def test_threads_compile_at_once() -> None:
    torch.compiler.reset()
    results: dict[int, bool] = {}

    def work(i: int) -> None:
        recorder = Recorder()
        net = nn.Linear(4, i + 2)
        x = torch.randn(3, 4, requires_grad=True)
        compiled = recorder.optimize(net)
        result = compiled(x)
        result.sum().backward()
        results[i] = torch.allclose(result, net(x)) and recorder.kinds == ["forward", "backward"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


def test_options_reach_the_compiler_and_nobody_else(recorder: Recorder) -> None:
    torch.compile(lambda x: x + 1, backend=recorder.backend(), options={"llvm_opt_level": 0})(torch.ones(2))
    assert recorder.requests[0].config.llvm_opt_level == 0
    assert config.current().llvm_opt_level != 0


def test_unknown_options_and_modes_are_refused() -> None:
    gm = torch.fx.symbolic_trace(lambda x: x + 1)
    with pytest.raises(ConfigError, match="no option 'stict'") as caught:
        backends.braze(gm, [torch.ones(2)], options={"stict": True})
    assert "strict" in str(caught.value)
    with pytest.raises(ConfigError, match="no mode 'fastest'") as caught:
        backends.braze(gm, [torch.ones(2)], mode="fastest")
    assert "max-autotune" in str(caught.value)


@pytest.mark.parametrize("mode", [None, *backends.MODES])
def test_every_mode_compiles(recorder: Recorder, mode: str | None) -> None:
    result = torch.compile(lambda x: x + 1, backend=recorder.backend(), mode=mode)(torch.ones(2))
    torch.testing.assert_close(result, torch.full((2,), 2.0))


def test_the_name_braze_is_known_to_torch_compile() -> None:
    backends.register()
    backends.register()
    assert "braze" in torch.compiler.list_backends()


def test_checkpointed_regions_are_recomputed(recorder: Recorder) -> None:
    from torch.utils.checkpoint import checkpoint

    def block(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x.sin(), 0.5) * 2

    x = torch.randn(50, requires_grad=True)
    torch.manual_seed(1)
    result = recorder.optimize(lambda t: checkpoint(block, t, use_reentrant=False))(x)
    result.sum().backward()
    # where dropped: no gradient; elsewhere the derivative of 4 sin(x)
    expected = torch.where(result == 0, 0.0, 4 * x.cos())
    torch.testing.assert_close(x.grad, expected.detach())


def test_double_use_of_a_parameter_and_a_frozen_one(recorder: Recorder) -> None:
    net = nn.Linear(4, 4)
    net.bias.requires_grad_(False)
    reference = copy.deepcopy(net)
    x = torch.randn(3, 4)
    recorder.optimize(lambda t: net(net(t)))(x).sum().backward()
    reference(reference(x)).sum().backward()
    torch.testing.assert_close(net.weight.grad, reference.weight.grad)
    assert net.bias.grad is None
