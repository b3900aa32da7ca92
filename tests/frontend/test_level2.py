"""Graphs from the cache's second level behave as those that AOTAutograd made, and as eager."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import torch
import torch.utils._pytree as pytree
from torch import nn

from braze import config
from braze._torch import shapes
from braze.artifact.call_spec import CallSpec, SameAsInput
from braze.artifact.output_code import OutputCode
from braze.compile.fx_compile import CompileRequest
from tests.frontend.memory_entries import Eager, MemoryEntries, real, twice
from tests.models import zoo

Make = Callable[[], list[Any]]


def _tensor(*sizes: int, grad: bool = False, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(sizes))
    return torch.randn(sizes, generator=generator).requires_grad_(grad)


@dataclass(frozen=True)
class Case:
    """A function, its inputs (made anew for each run), and which settings it runs in."""

    name: str
    fn: Callable[..., Any]
    inputs: Make
    options: dict[str, Any] = field(default_factory=dict)


def _mutate(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.add_(y)
    return x * 2


def _mutate_and_return(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x.mul_(2)
    return x, y + x


def _mutate_nonleaf(x: torch.Tensor) -> torch.Tensor:
    z = x * 1
    z.mul_(3)
    return z


def _hidden_mutation(x: torch.Tensor) -> torch.Tensor:
    x.detach().mul_(2)
    return x + 1


def _no_grad_inside(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        y = x * 2
    return x * 3, y


def _leaves_grad_off(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    torch.set_grad_enabled(False)
    return y


def _views_of_one(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x * 2
    return y, y.t(), y.view(-1)


def _views_without_base(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x * 2
    return y.t(), y.view(-1)


def _enable_inside(x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        return x * x


def _autocast(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ w


def _checkpointed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    def body(t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(t @ w) * t

    return torch.utils.checkpoint.checkpoint(body, x, use_reentrant=False) + x


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


def _two(grad: bool = False, other: bool = False) -> Make:
    return lambda: [_tensor(4, 4, grad=grad), _tensor(4, 4, grad=other, seed=1)]


def _one(grad: bool = False) -> Make:
    return lambda: [_tensor(4, 4, grad=grad)]


CASES = [
    Case("pointwise", lambda x, y: torch.sin(x) + y, _two()),
    Case("pointwise_grad", lambda x, y: torch.sin(x) * y, _two(True, True)),
    Case("partial_grad", lambda x, y: torch.sin(x) * y, _two(True, False)),
    Case("second_partial_grad", lambda x, y: (torch.sin(x) * y, x.sum()), _two(False, True)),
    Case("several_outputs", lambda x, y: (x + y, x * y, (x > 0).sum()), _two(True, True)),
    Case("integers", lambda x: (x * 2, x.argmax(0), 3, None), _one(True)),
    Case("mutated_input", _mutate, _two()),
    Case("mutated_input_other_grad", _mutate_and_return, _two(False, True)),
    Case("mutated_nonleaf", _mutate_nonleaf, _one(True)),
    Case("mutation_hidden", _hidden_mutation, _one(True)),
    Case("mutation_hidden_no_grad", _hidden_mutation, _one()),
    Case("output_is_input", lambda x, y: (x, x + y), _two()),
    Case("output_is_input_grad", lambda x, y: (x, x * y), _two(True, True)),
    Case("output_is_view_of_input", lambda x, y: (x.t(), x[1], y.view(-1), x * y), _two()),
    Case("output_is_view_of_input_grad", lambda x, y: (x.t(), y.view(-1), x * y), _two(True, True)),
    Case("detached_view", lambda x, y: (x.detach(), x * y), _two(True, True)),
    Case("duplicate_outputs", lambda x: [x * 2] * 2, _one()),
    Case("duplicate_outputs_grad", lambda x: [x * 2] * 2, _one(True)),
    Case("views_of_one", _views_of_one, _one()),
    Case("views_of_one_grad", _views_of_one, _one(True)),
    Case("views_without_base_grad", _views_without_base, _one(True)),
    Case("one_view_grad", lambda x: (x * 2).t(), _one(True)),
    Case("no_grad_inside", _no_grad_inside, _one(True)),
    Case("leaves_grad_off", _leaves_grad_off, _one(True)),
    Case("dropout", lambda x: nn.functional.dropout(x, 0.5, True) * 2, _one(True)),
    Case("dropout_inference", lambda x: nn.functional.dropout(x, 0.5, True) * 2, _one()),
    Case("random", lambda x: torch.rand_like(x) + x, _one()),
    Case("autocast", _autocast, _two(True, True)),
    Case("autocast_inference", _autocast, _two()),
    Case("checkpoint", _checkpointed, _two(True, True)),
    Case("custom_function", lambda x: _Cube.apply(x) * 2, _one(True)),
    Case("dynamic", lambda x, y: torch.tanh(x) + y.sum(0), _two(), {"dynamic": True}),
    Case("dynamic_grad", lambda x, y: torch.tanh(x @ y), _two(True, True), {"dynamic": True}),
    Case(
        "dynamic_size_output",
        lambda x: (x * 2, x.shape[0] * 2, x.view(-1)),
        _one(True),
        {"dynamic": True},
    ),
    Case("layer_norm", lambda x, w: nn.functional.layer_norm(x, (4,), w[0]), _two(True, True)),
    Case("softmax", lambda x: torch.softmax(x, -1).expand(2, 4, 4), _one(True)),
    Case("max_pool", lambda x: nn.functional.max_pool1d(x[None], 2), _one(True)),
    Case("complex", lambda x: torch.view_as_complex(x.view(4, 2, 2)) * 1j, _one()),
    Case("empty", lambda x, y: x + 1, lambda: [torch.empty(0, 3), _tensor(2)]),
    Case("float_inputs", lambda x, a, b: x * a + b, lambda: [_tensor(3), 2.5, 7.25], {"dynamic": True}),
    Case("number_input", lambda x, n: x * n, lambda: [_tensor(3, grad=True), 5], {"dynamic": True}),
]


def _observe(fn: Callable[..., Any], make: Make) -> dict[str, Any]:
    """What a caller sees of one call: results, how they relate to inputs and each other, what was written,
    and gradients."""
    torch.manual_seed(11)
    leaves = make()
    inputs = [x * 1 if isinstance(x, torch.Tensor) and x.requires_grad else x for x in leaves]
    try:
        outputs = pytree.tree_leaves(fn(*inputs), is_leaf=lambda x: x is None)
        grad_after = torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    tensors = [o for o in outputs if isinstance(o, torch.Tensor)]
    seen: dict[str, Any] = {
        "values": [o.detach().clone() if isinstance(o, torch.Tensor) else o for o in outputs],
        "requires_grad": [o.requires_grad for o in tensors],
        "differentiable": [o.grad_fn is not None for o in tensors],
        "strides": [o.stride() for o in tensors],
        "is_input": [[o is i for i in inputs] for o in outputs],
        "is_output": [[a is b for b in outputs] for a in tensors],
        "shares_input": [[_shares(o, i) for i in inputs] for o in tensors],
        "shares_output": [[_shares(a, b) for b in tensors] for a in tensors],
        "inputs_after": [i.detach().clone() if isinstance(i, torch.Tensor) else i for i in inputs],
        "grad_after": grad_after,
    }
    wanted = [o for o in tensors if o.requires_grad and o.is_floating_point()]
    if wanted:
        sum((o * _tensor(*o.shape, seed=3).to(o.dtype)).sum() for o in wanted).backward()
        seen["gradients"] = [x.grad for x in leaves if isinstance(x, torch.Tensor)]
    return seen


def _shares(a: torch.Tensor, b: Any) -> bool:
    return (
        isinstance(b, torch.Tensor)
        and a.numel() > 0
        and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hit_is_like_the_compilation_that_it_stores(case: Case) -> None:
    entries = MemoryEntries()
    with config.patch(fallback_random=True):  # else random numbers are not those of eager
        eager, missed, hit = twice(case.fn, entries, lambda fn: _observe(fn, case.inputs), **case.options)
    torch.testing.assert_close(hit, missed, rtol=0, atol=0)
    for seen in ("values", "inputs_after", "gradients"):
        torch.testing.assert_close(hit.get(seen), eager.get(seen), msg=lambda m, s=seen: f"{s}: {m}")
    assert hit["shares_input"] == eager["shares_input"]
    assert hit["requires_grad"] == eager["requires_grad"]
    assert hit["grad_after"] == eager["grad_after"]


def test_buffers_of_a_module_are_written() -> None:
    def use(module: Any) -> Any:
        x = _tensor(8, 4)
        for _ in range(3):
            y = module(x)
        y.sum().backward()
        inner = getattr(module, "_orig_mod", module)
        return [y.detach(), dict(inner.named_buffers()), [p.grad for p in inner.parameters()]]

    modules = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(3)]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())
    entries = MemoryEntries()
    eager = use(modules[0])
    missed = use(torch.compile(modules[1], backend=entries))
    before = dict(entries.kinds)
    torch.compiler.reset()
    hit = use(torch.compile(modules[2], backend=entries))
    assert dict(entries.kinds) == before
    torch.testing.assert_close(hit, missed, rtol=0, atol=0)
    torch.testing.assert_close(hit, eager)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


def _hit(fn: Callable[..., Any], *inputs: Any, **options: Any) -> Callable[..., Any]:
    """`fn` compiled from an entry that a first compilation left."""
    entries = MemoryEntries()
    first = torch.compile(fn, backend=entries, **options)
    results = first(*copy.deepcopy(inputs))
    for result in pytree.tree_leaves(results):
        if isinstance(result, torch.Tensor) and result.requires_grad:
            result.sum().backward()
            break
    torch.compiler.reset()
    compiled = dict(entries.kinds)
    second = torch.compile(fn, backend=entries, **options)
    second(*copy.deepcopy(inputs))
    assert dict(entries.kinds) == compiled
    return second


def test_a_saved_tensor_that_was_written_to_is_an_error() -> None:
    x, y = _tensor(4, grad=True), _tensor(4, seed=2)
    result = _hit(lambda x, y: (x * y).sin(), x, y)(x, y)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_the_graph_can_be_kept_and_is_freed() -> None:
    x = _tensor(4, grad=True)
    result = _hit(lambda x: (x * x).sin(), x)(x).sum()
    result.backward(retain_graph=True)
    once = x.grad.clone()
    result.backward()
    torch.testing.assert_close(x.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        result.backward()


def test_a_second_derivative_is_an_error_when_it_is_asked_for() -> None:
    x = _tensor(4, grad=True)
    result = _hit(lambda x: (x * x).sin(), x)(x).sum()
    (gradient,) = torch.autograd.grad(result, x, create_graph=True)
    assert gradient.requires_grad
    torch.testing.assert_close(gradient, 2 * x * (x * x).cos())
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.sum().backward()


def test_hooks_see_gradients() -> None:
    x = _tensor(4, grad=True)
    seen = []
    result = _hit(lambda x: x * 2, x)(x)
    result.register_hook(seen.append)
    x.register_hook(lambda gradient: gradient * 10)
    result.sum().backward()
    torch.testing.assert_close(seen, [torch.ones(4)])
    torch.testing.assert_close(x.grad, torch.full((4,), 20.0))


def test_gradients_in_another_layout() -> None:
    x = _tensor(4, 6, grad=True)
    result = _hit(lambda x: x.sin(), x)(x)
    gradient = _tensor(6, 4).t()
    result.backward(gradient)
    torch.testing.assert_close(x.grad, gradient * x.detach().cos())


def test_gradients_that_nobody_gives_are_zeros() -> None:
    x = _tensor(4, grad=True)
    first, _ = _hit(lambda x: (x * 2, x * 3), x)(x)
    first.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((4,), 2.0))


def test_no_walk_into_inputs_without_a_gradient() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y.detach()

    entries = MemoryEntries()

    def use(call: Callable[..., Any]) -> Any:
        x, source = _tensor(4, grad=True), _tensor(4, grad=True, seed=5)
        y = source * source
        y.sum().backward()  # frees the graph behind y, which eager does not need again
        call(x, y).sum().backward()
        return [x.grad, source.grad]

    eager, _, hit = twice(fn, entries, use)
    torch.testing.assert_close(hit, eager)


def test_modes_of_the_caller() -> None:
    x = _tensor(4, 4, grad=True)
    call = _hit(lambda x: x @ x, x)
    expected = x.detach() @ x.detach()
    result = call(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32
    torch.testing.assert_close(result.detach(), expected)


def test_deterministic_algorithms_turned_on_too_late() -> None:
    x = _tensor(4, grad=True)
    result = _hit(lambda x: x.sin(), x)(x)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="use_deterministic_algorithms"):
            result.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


# -- what is not stored, and what is not used ---------------------------------------------------------------
def _stored(fn: Callable[..., Any], *inputs: Any, **options: Any) -> int:
    """How many entries one call of `fn`, and a backward where it can be, leave."""
    entries = MemoryEntries()
    result = torch.compile(fn, backend=entries, **options)(*inputs)
    for one in pytree.tree_leaves(result):
        if isinstance(one, torch.Tensor) and one.requires_grad:
            one.sum().backward()
            break
    return entries.stored


def test_a_differentiable_function_is_stored_when_its_backward_is_there() -> None:
    entries = MemoryEntries()
    result = torch.compile(lambda x: x.sin(), backend=entries)(_tensor(4, grad=True))
    assert entries.stored == 0
    result.sum().backward()
    assert entries.stored == 1


def _write_both(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.add_(1)
    y.mul_(2)
    return x + y


def test_overlapping_inputs_that_are_written_to_are_not_stored() -> None:
    base = torch.zeros(4)
    assert _stored(_write_both, base[:], base.view(2, 2).view(4)) == 0
    assert _stored(_write_both, torch.zeros(4), torch.zeros(4)) == 1


def test_views_with_another_element_type_are_not_stored() -> None:
    assert _stored(lambda x: x.view(torch.int32), _tensor(4)) == 0
    assert _stored(lambda x: torch.view_as_real(x), torch.ones(3, dtype=torch.complex64)) == 0
    assert _stored(lambda x: x.conj(), torch.ones(3, dtype=torch.complex64)) == 0


def test_the_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="braze"):
        _stored(lambda x: x.view(torch.int32), _tensor(4))
    assert "output 0 is a view of torch.float32 as torch.int32" in caplog.text


class _Halving(Eager):
    """A compiler whose code needs an even first size."""

    def compile(self, request: CompileRequest) -> OutputCode:
        for value in request.example_inputs:
            if isinstance(value, torch.Tensor) and value.ndim == 2:
                shapes.guard(value.shape[0] % 2 == 0)
                shapes.guard(value.shape[1] >= 3)
        return super().compile(request)


def test_guards_of_the_compilation_hold_for_a_hit() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    entries = MemoryEntries(_Halving())
    torch.compile(fn, backend=entries, dynamic=True)(_tensor(4, 6))
    ((entry,),) = entries.entries.values()
    assert len(entry.guards) == 2
    torch.compiler.reset()
    hit = torch.compile(fn, backend=entries, dynamic=True)
    for rows, compiled in ((8, 1), (2, 1), (6, 1), (5, 2), (7, 2), (8, 2)):
        x = _tensor(rows, 6)
        torch.testing.assert_close(hit(x), x * 2)
        assert entries.kinds["inference"] == compiled, rows
    # under one key there are now two entries, and each serves the sizes that it was made for
    assert [len(found) for found in entries.entries.values()] == [2]
    for rows in (3, 4):
        torch.compiler.reset()
        x = _tensor(rows, 6)
        torch.testing.assert_close(torch.compile(fn, backend=entries, dynamic=True)(x), x * 2)
    assert entries.kinds["inference"] == 2


def test_an_entry_that_cannot_be_used_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    x = _tensor(4, 6)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    entries = MemoryEntries()
    torch.compile(fn, backend=entries, dynamic=True)(x)
    ((good,),) = entries.entries.values()
    strange = [
        msgspec.structs.replace(good, forward=b"lost"),
        msgspec.structs.replace(good, guards=("s0 ==",)),
        msgspec.structs.replace(good, guards=("s77 >= 2",)),
        msgspec.structs.replace(good, spec=CallSpec(1, (SameAsInput(7),))),
        msgspec.structs.replace(good, spec=msgspec.structs.replace(good.spec, written=(9,))),
    ]
    for bad in strange:
        for key in entries.entries:
            entries.entries[key] = [bad]
        torch.compiler.reset()
        before = entries.kinds["inference"]
        with caplog.at_level("WARNING", logger="braze"):
            torch.testing.assert_close(torch.compile(fn, backend=entries, dynamic=True)(x), x * 2)
        assert entries.kinds["inference"] == before + 1
        assert "compiled again" in caplog.text
        caplog.clear()


def test_numbers_of_another_call() -> None:
    def fn(x: torch.Tensor, n: int, a: float) -> torch.Tensor:
        return x * n - a

    call = _hit(fn, _tensor(3), 4, 0.5, dynamic=True)
    for n, a in ((4, 0.5), (9, 0.25), (-3, 1e6)):
        torch.testing.assert_close(call(_tensor(3), n, a), _tensor(3) * n - a)


def test_an_optimizer_step() -> None:
    def steps(compiled: Callable[..., Any]) -> Any:
        parameters = [nn.Parameter(_tensor(4, seed=i)) for i in range(3)]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        for parameter in parameters:
            parameter.grad = torch.ones(4)
        optimizer.step()
        step = compiled(optimizer.step)
        step()
        step()
        return [p.detach() for p in parameters]

    entries = MemoryEntries()
    eager = steps(lambda step: step)
    missed = steps(lambda step: torch.compile(step, backend=entries))
    compiled = dict(entries.kinds)
    torch.compiler.reset()
    hit = steps(lambda step: torch.compile(step, backend=entries))
    assert dict(entries.kinds) == compiled
    torch.testing.assert_close(hit, missed, rtol=0, atol=0)
    torch.testing.assert_close(hit, eager)


def test_calls_from_several_threads() -> None:
    x = _tensor(64, 64)
    call = _hit(lambda x, w: torch.tanh(x @ w), x, _tensor(64, 64, grad=True))

    def work(seed: int) -> bool:
        w = _tensor(64, 64, grad=True, seed=seed)
        call(x, w).sum().backward()
        twin = w.detach().clone().requires_grad_()
        torch.tanh(x @ twin).sum().backward()
        return torch.allclose(w.grad, twin.grad, atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


def test_compiled_autograd_around_a_hit() -> None:
    x, w = _tensor(4, 4), _tensor(4, 4, grad=True)
    call = _hit(lambda x, w: (x @ w).sin().sum(), x, w)
    call(x, w).backward()
    expected, w.grad = w.grad, None
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        call(x, w).backward()
    torch.testing.assert_close(w.grad, expected)


@pytest.mark.parametrize("name", ["dlrm", "convnet-train", "mlp-train"])
def test_models(name: str) -> None:
    model = zoo.find(name)
    module, inputs = model.make("test")
    modules = [copy.deepcopy(module), copy.deepcopy(module)]
    entries = real()

    def use() -> Any:
        inner = modules.pop()
        result = zoo.run(model, torch.compile(inner, backend=entries), inputs)
        gradients = [p.grad for p in inner.parameters()]
        return [t.detach() for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)], gradients

    missed = use()
    compiled = dict(entries.kinds)
    torch.compiler.reset()
    hit = use()
    assert dict(entries.kinds) == compiled
    torch.testing.assert_close(hit, missed, rtol=0, atol=0)
