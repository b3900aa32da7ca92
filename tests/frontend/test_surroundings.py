"""Compiled functions in unusual surroundings, and with unusual tensors: as eager PyTorch has it."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fw
from torch import nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as mapped
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

pytestmark = [
    pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def f(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) * 2 + x.sum()


def compiled(function: Callable[..., Any] = f) -> Callable[..., Any]:
    return torch.compile(function, backend="braze")


def draw(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(0))


def jagged() -> torch.Tensor:
    return torch.nested.nested_tensor([draw(2, 3), draw(4, 3)], layout=torch.jagged)


def same(ours: Any, theirs: Any) -> None:
    """Raises ``AssertionError`` for values that differ, or are of different kinds."""
    assert type(ours) is type(theirs)
    if isinstance(ours, (tuple, list)):
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif not isinstance(ours, torch.Tensor):
        assert ours == theirs
    elif ours.is_nested:
        same(list(ours.unbind()), list(theirs.unbind()))
    elif ours.layout is not torch.strided:
        assert ours.layout is theirs.layout
        same(ours.to_dense(), theirs.to_dense())
    elif ours.device.type == "meta" or isinstance(ours, torch._subclasses.FakeTensor):
        assert (ours.shape, ours.stride(), ours.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)
    else:
        torch.testing.assert_close(ours, theirs)
        assert ours.stride() == theirs.stride()


def both(function: Callable[..., Any], *arguments: Any) -> None:
    """Compiled and not, called twice."""
    run = compiled(function)
    for _ in range(2):
        same(run(*arguments), function(*arguments))


def gradients(function: Callable[..., Any], make: Callable[[], torch.Tensor]) -> None:
    """The gradients, too."""
    found = []
    for one in (compiled(function), function):
        x = make().requires_grad_()
        one(x).sum().backward()
        found.append(x.grad)
    same(*found)


# -- functions, and what they are called with: ``both`` of each ---------------------------------------------
class Subclass(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


def of_ones(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return x @ x


CALLS: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "jagged": (lambda x: x * 2 + 1, jagged),
    "jagged, a chain": (lambda x: (x.sin() * x.cos()).relu(), jagged),
    "jagged, summed": (lambda x: x.sum(-1), jagged),
    "jagged, a layer": (lambda x: nn.functional.gelu(nn.functional.linear(x, torch.ones(5, 3))), jagged),
    "jagged, its sizes": (lambda x: x.values().sum(0) * x.shape[2] * x.shape[0], jagged),
    "jagged, made inside": (
        lambda x: torch.nested.nested_tensor_from_jagged(x.values() * 2, x.offsets()),
        jagged,
    ),
    "nested": (lambda x: x * 2 + 1, lambda: torch.nested.nested_tensor([draw(2, 3), draw(4, 3)])),
    "sparse": (lambda x: x * 2, lambda: draw(4, 4).relu().to_sparse()),
    "sparse rows": (lambda x: x @ torch.ones(4, 3), lambda: draw(4, 4).relu().to_sparse_csr()),
    "sparse, made inside": (lambda x: x.relu().to_sparse().to_dense() * 2, lambda: draw(4, 4)),
    "quantized": (
        lambda x: x.dequantize() * 2,
        lambda: torch.quantize_per_tensor(draw(4, 4), 0.1, 0, torch.qint8),
    ),
    "meta": (f, lambda: draw(4, 4).to("meta")),
    "oneDNN's": (lambda x: x.to_dense() * 2, lambda: draw(4, 4).to_mkldnn()),
    "zeros without memory": (lambda x: x + 1, lambda: torch._efficientzerotensor((3,))),
    "conjugated": (lambda x: x * 2, lambda: torch.complex(draw(3), draw(3)).conj()),
    "negated": (lambda x: x * 2, lambda: torch.complex(draw(3), draw(3)).conj().imag),
    "a subclass of functions": (lambda x: x.sin() * 2, lambda: draw(3).as_subclass(Subclass)),
    "two tensors": (lambda x: x.sin() * 2, lambda: TwoTensor(draw(3), draw(3))),
    "autocast inside": (of_ones, lambda: draw(4, 4)),
    "vmap": (torch.vmap(f), lambda: draw(3, 4)),
    "grad": (torch.func.grad(lambda x: x.sin().square().sum()), lambda: draw(3)),
    "vmap of grad": (torch.vmap(torch.func.grad(lambda x: x.sin().square().sum())), lambda: draw(3, 4)),
    "jvp": (lambda x: torch.func.jvp(lambda y: y.sin().sum(), (x,), (x,)), lambda: draw(3)),
    "vjp": (lambda x: torch.func.vjp(torch.sin, x)[1](x), lambda: draw(3)),
    "jacrev": (torch.func.jacrev(lambda x: x.sin() * x.sum()), lambda: draw(3)),
    "jacfwd": (torch.func.jacfwd(lambda x: x.sin() * x.sum()), lambda: draw(3)),
    "cond": (lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)), lambda: draw(3)),
    "while": (
        lambda x: while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (torch.tensor(0), x)),
        lambda: draw(3),
    ),
    "map": (lambda x: mapped(lambda y: y.sin() + 1, x), lambda: draw(3, 4)),
    "associative scan": (
        lambda x: associative_scan(lambda a, b: a + b, x, 0, combine_mode="generic"),
        lambda: draw(3, 4),
    ),
    "flex attention": (lambda q: flex_attention(q, q, q), lambda: draw(1, 2, 16, 16)),
    "a compiled function": (lambda x: compiled()(x) + 1, lambda: draw(3)),
    "a view that folds": (lambda x: (x + x).unfold(1, 4, 2).abs_(), lambda: draw(3, 8)),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    function, make = CALLS[name]
    both(function, make())


@pytest.mark.parametrize("cache", [False, True])
def test_ragged_sizes_are_compiled(cache: bool, tmp_path: Any) -> None:
    options: dict[str, Any] = {"strict": True, "cache": cache, "cache_dir": str(tmp_path)}
    function = CALLS["jagged, a chain"][0]
    x = jagged()
    same(torch.compile(function, backend="braze", options=options)(x), function(x))


# -- gradients ----------------------------------------------------------------------------------------------
def running_tanh(x: torch.Tensor) -> torch.Tensor:
    def step(carry: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        new = torch.tanh(carry + y)
        return new, new * 1

    return scan(step, torch.zeros(3), x)[1]


GRADIENTS: dict[str, tuple[Callable[..., Any], Callable[[], torch.Tensor]]] = {
    "scan": (running_tanh, lambda: draw(5, 3)),
    "two tensors": (lambda x: x.sin() * 2, lambda: TwoTensor(draw(3), draw(3))),
    "a checkpoint": (lambda x: checkpoint(f, x, use_reentrant=False), lambda: draw(3)),
    "jagged": (
        lambda x: torch.nested.nested_tensor_from_jagged(x, torch.tensor([0, 2, 6])).sin().values(),
        lambda: draw(6, 3),
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    gradients(*GRADIENTS[name])


# -- what is on around the call -----------------------------------------------------------------------------
class PassingDispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class PassingFunctions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


AROUND: dict[str, Callable[[], Any]] = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "a dispatch mode": PassingDispatch,
    "a function mode": PassingFunctions,
    "a device": lambda: torch.device("cpu"),
    "a counter of operations": lambda: FlopCounterMode(display=False),
    "anomalies": torch.autograd.detect_anomaly,
    "hooks": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
    "a dual level": fw.dual_level,
}


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("before", [False, True], ids=["compiled inside", "compiled before"])
def test_surroundings(name: str, before: bool) -> None:
    x, run = draw(4, 4), compiled(lambda x: f(x) @ x)
    if before:
        same(run(x), f(x) @ x)
    with AROUND[name]():
        same(run(x), f(x) @ x)
    same(run(x), f(x) @ x)
    y = draw(4, 4).requires_grad_()
    run(y).sum().backward()
    assert y.grad is not None


@pytest.mark.parametrize("before", [False, True], ids=["compiled inside", "compiled before"])
def test_forward_derivatives(before: bool) -> None:
    x, run = draw(3), compiled()
    if before:
        run(x)
    with fw.dual_level():
        dual = fw.make_dual(x, draw(3).cos())
        same(tuple(fw.unpack_dual(run(dual))), tuple(fw.unpack_dual(f(dual))))


@pytest.mark.parametrize("before", [False, True], ids=["compiled inside", "compiled before"])
def test_fake_tensors(before: bool) -> None:
    run = compiled()
    if before:
        run(draw(3, 4))
    with FakeTensorMode():
        x = torch.randn(3, 4)
        same(run(x), f(x))
    same(run(draw(3, 4)), f(draw(3, 4)))


@pytest.mark.parametrize(
    "transform",
    [
        lambda g: torch.vmap(g)(draw(3, 4)),
        lambda g: torch.func.grad(lambda x: g(x).sum())(draw(3)),
        lambda g: torch.func.jvp(g, (draw(3),), (draw(3),)),
    ],
    ids=["vmap", "grad", "jvp"],
)
def test_transforms_of_compiled_functions(transform: Callable[..., Any]) -> None:
    same(transform(compiled()), transform(f))


# -- compiled modules as objects ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["copied", "pickled"],
)
def test_copies_of_compiled_modules(again: Callable[..., Any]) -> None:
    net, x = nn.Linear(3, 3), draw(2, 3)
    run = torch.compile(net, backend="braze")
    same(run(x), net(x))
    other = again(run)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    same(other(x), net(x) * 2)
    same(run(x), net(x))


def test_a_compiled_module_is_exported_as_what_it_was() -> None:
    net, x = nn.Linear(3, 3), draw(2, 3)
    run = torch.compile(net, backend="braze")
    run(x)
    same(torch.export.export(run, (x,)).module()(x), net(x))


def test_parameters_that_are_swapped_for_a_call() -> None:
    net, x = nn.Linear(3, 3), draw(2, 3)
    doubled = {name: p * 2 for name, p in net.named_parameters()}
    run = torch.compile(net, backend="braze")
    ours = torch.func.functional_call(run, {f"_orig_mod.{name}": p for name, p in doubled.items()}, x)
    same(ours, torch.func.functional_call(net, doubled, x))


# -- threads and processes ----------------------------------------------------------------------------------
@pytest.mark.parametrize("with_gradients", [False, True])
def test_threads_that_call_a_function_for_the_first_time(with_gradients: bool) -> None:
    run = compiled(lambda x: f(x).sum())
    found: dict[int, Any] = {}

    def work(i: int) -> None:
        x = draw(3 + i % 2, 4).requires_grad_(with_gradients)
        try:
            found[i] = run(x)
            if with_gradients:
                found[i].backward()
                found[i] = x.grad
        except BaseException as error:
            found[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        x = draw(3 + i % 2, 4).requires_grad_(with_gradients)
        expected: Any = f(x).sum()
        if with_gradients:
            expected.backward()
            expected = x.grad
        assert not isinstance(found[i], BaseException), found[i]
        same(found[i], expected)


def test_a_forked_child_calls_and_compiles() -> None:
    run, x = compiled(), draw(3, 4)
    same(run(x), f(x))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            same(run(x), f(x))
            same(run(draw(7, 2)), f(draw(7, 2)))  # compiled again, for other sizes
            same(compiled(torch.cos)(x), x.cos())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    end = time.monotonic() + 120
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.05)
    assert ended[1] == 0
    same(compiled(lambda x: x.cos() + 1)(x), x.cos() + 1)
