"""Keys of the second cache level: what changes them, what does not, and what has none."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._functorch import config as functorch_config
from torch.utils._python_dispatch import TorchDispatchMode

from braze import config
from braze.errors import Refused
from braze.frontend.dynamo_key import DynamoKey, describe


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


def _keys(fn: Callable[..., Any], *inputs: Any, **options: Any) -> list[DynamoKey | Refused]:
    """The keys of the graphs that one call hands to the backend."""
    found: list[DynamoKey | Refused] = []

    def backend(gm: Any, example_inputs: Any) -> Any:
        try:
            found.append(describe(gm, example_inputs, config.current()))
        except Refused as refusal:
            found.append(refusal)
        return gm.forward

    torch.compiler.reset()
    torch.compile(fn, backend=backend, **options)(*inputs)
    return found


def _key(fn: Callable[..., Any], *inputs: Any, **options: Any) -> DynamoKey:
    (key,) = _keys(fn, *inputs, **options)
    assert isinstance(key, DynamoKey), key
    return key


def _reason(fn: Callable[..., Any], *inputs: Any, **options: Any) -> str:
    (key,) = _keys(fn, *inputs, **options)
    assert isinstance(key, Refused), "it has a key"
    return key.reason


def _differ(a: DynamoKey, b: DynamoKey) -> list[str]:
    """The names of the parts in which two keys differ."""
    assert [name for name, _ in a.parts] == [name for name, _ in b.parts]
    return [name for (name, x), (_, y) in zip(a.parts, b.parts) if x != y]


X = torch.ones(4, 6)


def test_names_in_the_users_code_do_not_count() -> None:
    def one(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = x * y
        return z.relu()

    def other(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left * right).relu()

    assert _key(one, X, X.clone()) == _key(other, X, X.clone())


def test_a_key_is_the_same_in_a_second_trace_with_symbols() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x.view(-1) * x.shape[0]

    def same(another: torch.Tensor) -> torch.Tensor:
        return another.view(-1) * another.shape[0]

    a, b = _key(fn, X, dynamic=True), _key(same, torch.ones(8, 6), dynamic=True)
    assert a == b
    assert set(a.names.values()) == {"s0", "s1"}


CHANGES: list[tuple[str, Callable[[torch.Tensor], Any], torch.Tensor, list[str]]] = [
    ("constant", lambda x: x * 3, X, ["graph"]),
    ("type_of_constant", lambda x: x * 2.0, X, ["graph"]),
    ("operator", lambda x: x + 2, X, ["graph"]),
    ("sizes", lambda x: x * 2, torch.ones(4, 8), ["inputs"]),
    ("strides", lambda x: x * 2, torch.ones(6, 4).t(), ["inputs"]),
    ("offset", lambda x: x * 2, torch.ones(5, 6)[1:], ["inputs"]),
    ("dtype", lambda x: x * 2, X.double(), ["inputs"]),
    ("requires_grad", lambda x: x * 2, torch.ones(4, 6, requires_grad=True), ["inputs"]),
    ("parameter", lambda x: x * 2, nn.Parameter(torch.ones(4, 6), False), ["inputs"]),
]


@pytest.mark.parametrize(("fn", "x", "parts"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_what_changes_a_key(fn: Callable[..., Any], x: torch.Tensor, parts: list[str]) -> None:
    assert _differ(_key(lambda x: x * 2, X), _key(fn, x)) == parts


def test_inputs_that_share_memory_change_a_key() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    assert _differ(_key(fn, X, X.clone()), _key(fn, X, X.view(4, 6))) == ["inputs"]


@contextlib.contextmanager
def _undone(set_it: Callable[[Any], None], new: Any, old: Any) -> Iterator[None]:
    set_it(new)
    try:
        yield
    finally:
        set_it(old)


def _switched(turn: str) -> contextlib.AbstractContextManager[Any]:
    """A context in which tracing would go another way."""
    if turn == "no_grad":
        return torch.no_grad()
    if turn == "inference_mode":
        return torch.inference_mode()
    if turn == "autocast":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    if turn == "default_dtype":
        return _undone(torch.set_default_dtype, torch.float64, torch.float32)
    if turn == "deterministic":
        return _undone(torch.use_deterministic_algorithms, True, False)
    if turn == "flash":
        return _undone(torch.backends.cuda.enable_flash_sdp, False, True)
    if turn == "option":
        return config.patch(fallback_random=True)
    raise ValueError(turn)


@pytest.mark.parametrize(
    ("turn", "part"),
    [
        ("no_grad", "tracing.state"),
        ("inference_mode", "tracing.state"),
        ("autocast", "tracing.state"),
        ("default_dtype", "tracing.state"),
        ("deterministic", "tracing.state"),
        ("flash", "tracing.state"),
        ("option", "config"),
    ],
)
def test_the_state_that_tracing_reads_changes_a_key(turn: str, part: str) -> None:
    before = _key(lambda x: x * 2, X)
    with _switched(turn):
        assert part in _differ(before, _key(lambda x: x * 2, X))


def test_settings_of_aotautograd_change_a_key() -> None:
    before = _key(lambda x: x * 2, X)
    with functorch_config.patch(activation_memory_budget=0.5):
        assert _differ(before, _key(lambda x: x * 2, X)) == ["tracing.settings"]


def test_what_was_assumed_of_sizes_changes_a_key() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def branching(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] < 10 else x * 3

    assert _differ(_key(fn, X, dynamic=True), _key(branching, X, dynamic=True)) == ["sizes"]


def test_symbolic_floats_are_told_apart_by_where_they_are_read() -> None:
    def fn(x: torch.Tensor, a: float, b: float) -> torch.Tensor:
        return x * a + b if a < 3 else x

    def swapped(x: torch.Tensor, a: float, b: float) -> torch.Tensor:
        return x * a + b if b < 3 else x

    a, b = _key(fn, X, 2.5, 1.5, dynamic=True), _key(swapped, X, 2.5, 1.5, dynamic=True)
    assert _differ(a, b)
    assert a == _key(fn, X, 2.0, 7.5, dynamic=True)


def test_a_graph_inside_is_part_of_the_key() -> None:
    def checkpointed(body: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: torch.utils.checkpoint.checkpoint(body, x, use_reentrant=False)

    x = torch.ones(4, requires_grad=True)
    a = _key(checkpointed(lambda t: t.sin()), x)
    b = _key(checkpointed(lambda t: t.cos()), x)
    assert _differ(a, b) == ["graph"]


def test_pooling_functions_that_are_made_alike_have_names_of_their_own() -> None:
    x = torch.ones(1, 2, 8)
    a = _key(lambda x: nn.functional.max_pool1d(x, 2), x)
    b = _key(lambda x: nn.functional.adaptive_max_pool1d(x, 4), x)
    assert "max_pool1d" in dict(a.parts)["graph"]
    assert _differ(a, b) == ["graph"]


# -- what has no key ----------------------------------------------------------------------------------------
@torch.library.custom_op("braze_test::tripled", mutates_args=())
def _tripled(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@_tripled.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def test_an_operator_of_somebody_else_has_no_key() -> None:
    assert "tripled" in _reason(lambda x: _tripled(x), X)


@pytest.mark.parametrize("key", ["AutogradMeta", "CompositeImplicitAutograd", "FuncTorchBatched"])
def test_kernels_that_somebody_registered_for_aten_leave_no_key(key: str) -> None:
    own = torch.library.Library("aten", "IMPL")
    try:
        own.impl("hardswish", lambda x: x * 7, key)
        reason = _reason(lambda x: nn.functional.gelu(x), X)
        assert "kernels for ATen" in reason and f"aten::hardswish in {__file__}" in reason
    finally:
        own._destroy()
    assert _key(lambda x: nn.functional.gelu(x), X)


def test_kernels_that_somebody_registered_by_a_name_leave_no_key() -> None:
    program = (
        "import torch; from braze._torch import trace_state; print(list(trace_state.obstacles()));"
        "torch.library.impl('aten::hardswish', 'AutogradMeta', lambda x: x * 7);"
        "print(list(trace_state.obstacles()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = run.stdout.splitlines()
    assert before == "[]" and "aten::hardswish" in after


def test_kernels_that_pytorch_registers_later_leave_the_key() -> None:
    before = _key(lambda x: nn.functional.gelu(x), X)
    torch.func.vmap(torch.addr)(torch.ones(2, 3, 4), torch.ones(2, 3), torch.ones(2, 4))
    assert any(name.endswith("/FuncTorchBatched") for name in torch.library._impls)
    assert _key(lambda x: nn.functional.gelu(x), X) == before


def test_a_function_that_somebody_allowed_in_graphs_has_no_key() -> None:
    @torch.compiler.allow_in_graph
    def own(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert "own" in _reason(lambda x: own(x), X)


def test_a_function_put_in_the_place_of_pytorchs_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.compiler.allow_in_graph
    def relu(x: torch.Tensor) -> torch.Tensor:
        return x * 7

    relu.__module__ = "torch.nn.functional"
    monkeypatch.setattr(nn.functional, "relu", relu)
    assert "relu" in _reason(lambda x: nn.functional.relu(x), X)


class _Wrapped(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_tensor_subclass_has_no_key() -> None:
    assert "_Wrapped" in _reason(lambda x: x * 2, X.as_subclass(_Wrapped))


def test_sizes_that_depend_on_data_have_no_key() -> None:
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert "data" in _reason(lambda x: x.nonzero() * 2, X)


def test_hooks_for_saved_tensors_have_no_key() -> None:
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        keys = _keys(lambda x: x * 2, torch.ones(4, requires_grad=True))
    assert keys and all(isinstance(key, Refused) and "hooks" in key.reason for key in keys)


def test_a_checkpoint_with_a_policy_has_no_key() -> None:
    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
        return torch.utils.checkpoint.CheckpointPolicy.PREFER_RECOMPUTE

    def contexts() -> Any:
        return torch.utils.checkpoint.create_selective_checkpoint_contexts(policy)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.utils.checkpoint.checkpoint(
            lambda t: t.sin(), x, use_reentrant=False, context_fn=contexts
        )

    assert "checkpoint" in _reason(fn, torch.ones(4, requires_grad=True))


def test_a_dispatch_mode_has_no_key() -> None:
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

        @classmethod
        def ignore_compile_internals(cls) -> bool:
            return True

    gm = torch.fx.symbolic_trace(lambda x: x * 2)
    with Mode(), pytest.raises(Refused, match=r"^a torch dispatch mode is active$"):
        describe(gm, [X], config.current())


def test_inputs_of_another_graph_have_no_key() -> None:
    gm = torch.fx.symbolic_trace(lambda x: x * 2)
    for inputs in ([X], [X, X]):
        with pytest.raises(Refused):
            describe(gm, inputs, config.current())


def test_a_large_graph_is_described_quickly() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        for _ in range(300):
            x = torch.sin(x) * 1.5
        return x

    seconds = []

    def backend(gm: Any, example_inputs: Any) -> Any:
        for _ in range(3):
            start = time.perf_counter()
            assert isinstance(describe(gm, example_inputs, config.current()), DynamoKey)
            seconds.append(time.perf_counter() - start)
        return gm.forward

    torch.compile(fn, backend=backend)(X)
    assert min(seconds) < 0.1
