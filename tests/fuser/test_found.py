"""Cases that were found by trying to break fused functions: each was wrong once."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from torch.nn import functional

import braze
from braze.errors import BrazeWarning
from tests.fuser.compare import check

FACTOR = 2.0


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(shape, requires_grad=True)


@pytest.fixture
def strictly(strict: None) -> None:
    """Nothing may fall back."""


# -- results ------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("strictly")
def test_results_of_which_some_have_no_elements() -> None:
    two = braze.fuse(lambda x, y: (x * 2, y * 2, x + y))
    check(two, torch.ones(3), torch.ones(1))
    check(two, torch.ones(0), torch.ones(1))
    check(two, leaf(0), leaf(1))
    joined = braze.fuse(lambda x: torch.cat([x[:1] + 1, x[1:] * 2]))
    check(joined, torch.ones(4, 4))
    with braze.config.patch(strict=False):
        check(joined, torch.ones(1, 4))
        check(braze.fuse(lambda x: [c.sin() for c in x.split([1, x.shape[-1] - 1], -1)]), torch.ones(5, 1))


@pytest.mark.usefixtures("strictly")
def test_what_is_joined_and_returned() -> None:
    def after(x: torch.Tensor) -> Any:
        y = x + 1
        return torch.cat([y, x - 1]), y

    check(braze.fuse(after), torch.ones(3))
    check(braze.fuse(lambda x: after(x)[::-1]), torch.ones(3))


@pytest.mark.usefixtures("strictly")
def test_gradients_do_not_depend_on_what_was_called_before() -> None:
    f = braze.fuse(lambda x, z: (x + z, z * 2))
    check(f, torch.zeros(3), leaf(2, 3))
    check(f, torch.zeros(2, 3), leaf(3))
    check(f, torch.zeros(2, 3), leaf(2, 3))
    check(f, torch.zeros(1, 3), leaf(2, 3))


@pytest.mark.usefixtures("strictly")
def test_memory_formats_that_are_asked_for() -> None:
    f = braze.fuse(lambda x: x.contiguous() * 2)
    check(f, torch.randn(4, 5))
    check(f, torch.randn(5, 4).t())
    f = braze.fuse(lambda x: x.clone(memory_format=torch.contiguous_format) + 1)
    check(f, torch.randn(4, 5))
    check(f, torch.randn(5, 4).t())


# -- numbers ------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("strictly")
def test_functions_that_look_at_what_their_numbers_are() -> None:
    def helper(s: Any) -> bool:
        return isinstance(s, (int, float))

    for function in (
        lambda x, s: x * s if helper(s) else x + 100,
        lambda x, s: x * len(str(s)),
        lambda x, s: x * len(f"{s:.3f}"),
        lambda x, s: x * 2 if type(s) is float else x,
    ):
        fused = braze.fuse(function)
        for s in (3.0, 7, 12.5):
            check(fused, torch.ones(2), s)


@pytest.mark.usefixtures("strictly")
def test_numbers_that_python_divides() -> None:
    f = braze.fuse(lambda x, s: x * (1 / s))
    check(f, torch.ones(2), 2.0)
    with pytest.raises(ZeroDivisionError), braze.config.patch(strict=False):
        f(torch.ones(2), 0.0)
    check(f, torch.ones(2), 4.0)
    check(braze.fuse(lambda x, s: x * (s // 2)), torch.ones(2), 1e308)


@pytest.mark.usefixtures("strictly")
def test_a_scaled_sum_with_a_number() -> None:
    for fused in (
        braze.fuse(lambda x, s: torch.add(x, s, alpha=3)),
        braze.fuse(lambda x, s: torch.sub(x, other=s, alpha=3)),
    ):
        check(fused, torch.zeros(2), 2.5)
        check(fused, torch.zeros(2), 0.5)
        check(fused, torch.zeros(2, dtype=torch.int64), 2)


# -- what it reads besides its arguments --------------------------------------------------------------------
@braze.fuse
def calls_what_is_defined_later(x: torch.Tensor) -> torch.Tensor:
    return defined_later(x)


def defined_later(x: torch.Tensor) -> torch.Tensor:
    return x * FACTOR


@pytest.mark.usefixtures("strictly")
def test_names_that_are_defined_later_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    here = sys.modules[__name__]
    x = torch.ones(1)
    check(calls_what_is_defined_later, x)
    monkeypatch.setattr(here, "FACTOR", 3.0)
    check(calls_what_is_defined_later, x)
    monkeypatch.setattr(here, "defined_later", lambda x: x - FACTOR)
    check(calls_what_is_defined_later, x)
    monkeypatch.setattr(here, "FACTOR", 4.0)
    check(calls_what_is_defined_later, x)
    act: Any = torch.sin
    f = braze.fuse(lambda x: act(x))
    check(f, x)
    act = torch.cos
    check(f, x)


@pytest.mark.usefixtures("strictly")
def test_values_that_are_equal_and_not_the_same() -> None:
    k: Any = 1
    f, g = braze.fuse(lambda x: x * k), braze.fuse(lambda x: x / k)
    for k in (1, 1.0, True, 0.0, -0.0, 2, (2, 2.0)[1]):
        check(f, torch.arange(3))
        if not isinstance(k, bool):
            check(g, torch.ones(3))


def test_autocast_to_another_type() -> None:
    f, x = braze.fuse(lambda x, w: functional.linear(x, w)), torch.ones(2, 2)
    for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            assert f(x, x).dtype is dtype
    assert f(x, x).dtype is torch.float32


# -- names --------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("strictly")
def test_parameters_may_have_any_name() -> None:
    f = braze.fuse(
        lambda _out0, type, len=2, tuple=3, _fast=4, *, _like=5, _args=6: _out0 + type * len + tuple
    )
    check(f, torch.zeros(2), 1)
    check(f, torch.zeros(2), type=2, _args=7)

    @braze.fuse
    def _fast(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    check(_fast, torch.zeros(2))


def test_callables_of_every_kind() -> None:
    x = torch.randn(3)

    class Doubles:
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    for function in (functools.partial(defined_later), torch.nn.ReLU(), Doubles()):
        torch.testing.assert_close(braze.fuse(function)(x), function(x))  # type: ignore[type-var]


# -- writing ------------------------------------------------------------------------------------------------
def test_one_tensor_twice_is_written_to() -> None:
    f = braze.fuse(lambda x, y: (x.mul_(2), (x, y))[1])
    f(torch.ones(2), torch.ones(2))
    t = torch.ones(2)
    first, second = f(t, t)
    assert first is t and second is t and torch.equal(t, torch.full((2,), 2.0))


def test_lists_and_dicts_that_are_changed() -> None:
    def keeps(d: dict[str, torch.Tensor]) -> torch.Tensor:
        d["y"] = d["x"] * 2
        return d["y"]

    def grows(values: list[torch.Tensor]) -> list[torch.Tensor]:
        values.append(values[0] + 1)
        return values

    for function, argument in ((keeps, {"x": torch.ones(2)}), (grows, [torch.ones(2)])):
        with pytest.warns(BrazeWarning, match="changes a list or dict"):
            braze.fuse(function)(argument)  # type: ignore[type-var]
        assert len(argument) == 2


def test_leaves_that_require_gradients_are_not_written_to() -> None:
    f = braze.fuse(lambda x: x.add_(1))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="leaf Variable"):
            f(torch.ones(3, requires_grad=True))
    g = braze.fuse(lambda x, y: x.mul_(y).sin())
    x, y = leaf(3) + 1, leaf(3)
    g(x, y).sum().backward()
    assert y.grad is not None


def test_tensors_that_overlap_themselves() -> None:
    out = torch.zeros(1, 3).expand(2, 3)
    with pytest.raises(RuntimeError, match="single memory location"):
        braze.fuse(lambda x: x * 2)(torch.ones(2, 3), out=out)
    with pytest.raises(RuntimeError, match="meta"):
        braze.fuse(lambda x: x * 2)(torch.ones(2, 3), out=torch.empty(2, 3, device="meta"))


def test_no_tensor_is_kept_alive() -> None:
    f = braze.fuse(lambda x: x.mul_(2))
    g = braze.fuse(lambda x, w: torch.softmax(x * w, -1))
    x, w = torch.ones(3), torch.ones(3)
    gone = [weakref.ref(x), weakref.ref(w)]
    f(x)
    g(x, w)
    g(x.requires_grad_(), w).sum().backward()
    del x, w
    gc.collect()
    assert [r() for r in gone] == [None, None]


# -- state --------------------------------------------------------------------------------------------------
def test_what_a_trace_cannot_stand_for_is_run_as_it_is() -> None:
    for function in (
        lambda x: (x * 2).requires_grad_(),
        lambda x: x * 2 if x.is_leaf else x,
        lambda x: x + x.storage_offset(),
        lambda x: torch.mul(x, 2, out=torch.empty(0)),
    ):
        fused = braze.fuse(function)
        with pytest.warns(BrazeWarning, match="state of a tensor"):
            check(fused, torch.randn(6)[2:5])
    f = braze.fuse(lambda x: x * 2 if torch.is_grad_enabled() else x * 3)
    with pytest.warns(BrazeWarning, match="another in a trace: is_grad_enabled"):
        check(f, torch.ones(3))
    with torch.no_grad():
        check(f, torch.ones(3))
    f = braze.fuse(lambda x: x * 2 if isinstance(x, torch.nn.Parameter) else x * 3)
    for x in (torch.ones(3), torch.nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True)):
        torch.testing.assert_close(f(x), f.__wrapped__(x))  # type: ignore[attr-defined]


def test_a_kernel_that_cannot_be_made_for_a_part_with_gradients() -> None:
    f = braze.fuse(lambda x: torch.polygamma(101, x))
    x = torch.full((3,), 90.0, dtype=torch.float64).requires_grad_()
    with pytest.warns(BrazeWarning, match="runs as eager PyTorch"):
        torch.testing.assert_close(f(x), torch.polygamma(101, x))


def test_compiling_a_fused_function_itself() -> None:
    f = braze.fuse(lambda x: torch.tanh(x) * 2)
    x = torch.randn(3)
    f(x)
    torch.testing.assert_close(torch.compile(f, backend="aot_eager", fullgraph=True)(x), f(x))


def test_a_size_that_happens_to_be_one_is_broadcast() -> None:
    def last(y: torch.Tensor) -> torch.Tensor:
        return torch.cat([y, y * 3]) + torch.chunk(y, 2)[1]

    f = braze.fuse(last)
    check(f, torch.randn(3, 1))  # of whose chunks the last has one row
    check(f, torch.randn(2, 1))
    with pytest.raises(RuntimeError):
        f(torch.randn(5, 1))


def test_nested_tensors_do_not_end_the_process() -> None:
    program = """
import torch, braze
f = braze.fuse(lambda x: x * 2)
nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
for x in (nested, torch.ones(2), torch.ones(2), nested, torch.ones(3), nested):
    r = f(x)
print(r.is_nested)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and done.stdout.split() == ["True"], done.stderr


def test_traces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from braze.fuser import specialize

    monkeypatch.setattr(specialize, "_MOST_TRACES", 4)  # one finds out that the exponent counts
    f = braze.fuse(lambda x, p: x**p)
    x = torch.rand(3)
    for p in (1.5, 2.5, 3.5):
        check(f, x, p, times=1)
    with pytest.warns(BrazeWarning, match="traced 4 times"):
        check(f, x, 4.5, times=1)
    check(f, x, 2.5, times=1)
