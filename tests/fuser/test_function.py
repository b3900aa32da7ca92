"""`braze.fuse`: arguments and results of every kind that it takes, against the function itself."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn import functional

import braze
from braze import notices
from braze.errors import BrazeWarning, ConfigError, FallbackError
from tests.fuser.compare import check, made

EPSILON = 1e-3
SCALES = (2.0, 3.0)


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@braze.fuse
def swiglu(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate) * x


def contiguous(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


pytestmark = pytest.mark.usefixtures("strict")


# -- shapes -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(8,), (5, 7), (2, 3, 4), (1,), (1, 1), (2, 1, 3), (), (3, 4, 2, 5, 2)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    check(swiglu, torch.randn(shape), torch.randn(shape))


@pytest.mark.parametrize(
    ("left", "right"),
    [((5, 7), (7,)), ((5, 7), (5, 1)), ((5, 1), (1, 7)), ((), (3,)), ((4, 1, 3), (2, 1)), ((1,), (3, 4))],
)
def test_broadcasting(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    check(swiglu, torch.randn(left), torch.randn(right))
    check(swiglu, torch.randn(right), torch.randn(left))


def test_strides_of_results_are_eagers() -> None:
    x = contiguous(4, 6)
    for other in (
        x.t(),
        contiguous(12, 6)[::3].t(),
        contiguous(12, 4)[::2],
        x.t().contiguous(),
    ):
        check(swiglu, torch.randn(6, 4), other)
        check(swiglu, other, torch.randn(6, 4))
        check(swiglu, other, other)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    check(swiglu, image, image)
    check(swiglu, image, torch.randn(3, 1, 1))
    check(swiglu, image, torch.randn(2, 3, 4, 5))
    check(swiglu, torch.randn(3, 1).expand(3, 4), torch.randn(4).expand(3, 4))


def test_no_elements_nothing_is_launched() -> None:
    before = braze.fuser.stats().empty
    assert swiglu(torch.empty(0, 3), torch.empty(0, 3)).shape == (0, 3)
    assert swiglu(torch.empty(0, 3), torch.empty(3)).shape == (0, 3)
    assert braze.fuser.stats().empty > before


def test_shapes_that_do_not_fit_raise_what_eager_raises() -> None:
    for _ in range(2):
        with braze.config.patch(strict=False), pytest.raises(RuntimeError, match="must match the size"):
            swiglu(torch.randn(3), torch.randn(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_point_types(dtype: torch.dtype) -> None:
    check(swiglu, torch.randn(4, 5).to(dtype), torch.randn(4, 5).to(dtype))
    check(swiglu, torch.randn(4, 5).to(dtype), torch.randn(5))


def test_types_without_dimensions_count_less() -> None:
    add = braze.fuse(lambda x, y: x + y)
    check(add, torch.randn(3), torch.tensor(0.1, dtype=torch.float64))
    check(add, torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64))
    check(add, torch.arange(3), torch.tensor(0.5))
    check(add, torch.randn(1), torch.tensor(0.1, dtype=torch.float64))
    less = braze.fuse(lambda x, y: x < y)
    check(less, torch.tensor([0.1]), torch.tensor(0.1, dtype=torch.float64))
    check(less, torch.tensor(0.1), torch.tensor(0.1, dtype=torch.float64))


def test_one_kernel_serves_every_shape_of_a_kind() -> None:
    @braze.fuse
    def fresh(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) * y - 0.125

    before = made()
    for shape in [(3,), (2, 3), (4, 5, 6), (7, 1, 2), (1, 9)]:
        fresh(torch.randn(shape), torch.randn(shape))
        fresh(torch.randn(shape[::-1]).permute(*range(len(shape))[::-1]), torch.randn(shape[::-1]).permute(
            *range(len(shape))[::-1]))  # fmt: skip
    assert made() == before + 1
    fresh(torch.randn(4, 5), torch.randn(5))
    fresh(torch.randn(2, 4, 5), torch.randn(5))
    fresh(torch.randn(4, 10)[:, ::2][:, :5], torch.randn(4, 5))
    assert made() == before + 3


# -- numbers ------------------------------------------------------------------------------------------------
def test_a_new_number_is_no_new_kernel() -> None:
    @braze.fuse
    def scaled(x: torch.Tensor, scale: float, shift: int = 2) -> torch.Tensor:
        return functional.leaky_relu(x * scale, 0.1).clamp(max=scale) + shift

    x = torch.randn(6)
    check(scaled, x, 0.5)
    before = made()
    for scale in (0.25, -1.5, 0.0, -0.0, 1e30, float("inf"), float("nan")):
        check(scaled, x, scale)
        check(scaled, x, scale, 7)
    check(scaled, x, 0.5, shift=-(1 << 40))
    assert made() == before


def test_numbers_that_branches_and_shapes_depend_on() -> None:
    @braze.fuse
    def halves(x: torch.Tensor, power: float, columns: int) -> torch.Tensor:
        y = x**power
        return y.view(-1, columns).sum(1) if power > 1 else y

    x = torch.rand(4, 6) + 0.5
    for power, columns in [(2, 3), (2.0, 4), (0.5, 3), (2, 3), (3.0, 12)]:
        check(halves, x, power, columns)


def test_integers_and_booleans_are_not_the_same() -> None:
    @braze.fuse
    def f(x: torch.Tensor, n: Any) -> torch.Tensor:
        return x * n if isinstance(n, bool) else x + n

    x = torch.randn(3)
    for n in (True, 1, 1.0, False, 0, 0.0):
        check(f, x, n)


def test_numbers_of_every_size() -> None:
    @braze.fuse
    def add(x: torch.Tensor, n: int) -> torch.Tensor:
        return x + n

    for n in (0, 1, -1, (1 << 63) - 1, -(1 << 63)):
        check(add, torch.arange(3), n)


def test_integer_division_by_zero_is_an_error_as_in_eager() -> None:
    @braze.fuse
    def quotient(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x // y

    check(quotient, torch.tensor([7, -7, 9]), torch.tensor([2, 2, -4]))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            quotient(torch.tensor([1, 2]), torch.tensor([1, 0]))
    check(quotient, torch.tensor([7, -7, 9]), torch.tensor([2, 2, -4]))


# -- structures ---------------------------------------------------------------------------------------------
def test_parameters_of_every_kind() -> None:
    @braze.fuse
    def f(a: Any, /, b: Any, *rest: Any, scale: float = 2.0, **named: Any) -> Any:
        total = a + b
        for one in rest:
            total = total * one
        return {"total": total * scale, **{key: value - 1 for key, value in named.items()}}

    x = torch.randn(3)
    check(f, x, x)
    check(f, x, b=x, scale=3.0)
    check(f, x, x, x, x + 1, other=x, scale=0.5)
    check(f, x, x, x, q=x, p=x)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"):
        f(x)


def test_containers_in_and_out() -> None:
    @braze.fuse
    def f(pairs: Any, named: Any) -> Any:
        constants = (None, "kept", 3, torch.float32)
        return [pairs[0].left + pairs[0].right, Pair(named["a"] * 2, named["b"]), constants]

    x, y = torch.randn(3), torch.randn(3)
    result = check(f, [Pair(x, y)], {"a": x, "b": y})
    assert isinstance(result[1], Pair)
    check(f, [Pair(x, y)], {"b": y, "a": x})


def test_the_same_tensor_comes_back() -> None:
    @braze.fuse
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        z = x + y
        return z, x, z, {"y": y}

    for _ in range(3):
        x, y = torch.randn(3), torch.randn(3)
        z, first, again, named = f(x, y)
        assert first is x and again is z and named["y"] is y


def test_one_tensor_twice_has_a_fast_way_of_its_own() -> None:
    x, y = torch.randn(3), torch.randn(3)
    fused = swiglu.fused  # type: ignore[attr-defined]
    for one, other in [(x, x), (x, y), (y, y), (y, x)] * 2:
        torch.testing.assert_close(swiglu(one, other), swiglu.__wrapped__(one, other))  # type: ignore[attr-defined]
    swiglu(x, x)
    entry = fused.space["_braze_fast"]
    swiglu(y, y)
    assert fused.space["_braze_fast"] is entry


def test_independent_results_of_other_shapes() -> None:
    @braze.fuse
    def f(x: torch.Tensor, y: torch.Tensor) -> Any:
        return x.exp(), y.sin(), x * 2

    check(f, torch.randn(3), torch.randn(3))
    check(f, torch.randn(3), torch.randn(4, 5))
    check(f, torch.randn(2, 3), torch.randn(4))


def test_pieces_and_joined_results() -> None:
    @braze.fuse
    def glued(x: torch.Tensor, y: torch.Tensor, dim: int) -> Any:
        a, b = x.chunk(2, dim)
        return torch.cat([functional.silu(a) * b, y[..., 1:] + 1], dim)

    @braze.fuse
    def stacked(x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.stack([x.t() + 1, x[:, :3].t() * y], -1), x.unsqueeze(0)[..., ::2] - 1

    for columns in (8, 6, 12):
        check(glued, torch.randn(5, columns), torch.randn(5, columns // 2 + 1), -1)
    check(glued, torch.randn(6, 4), torch.randn(3, 5), 0)
    check(stacked, torch.randn(5, 3), torch.randn(3, 5))
    check(stacked, torch.randn(9, 3), torch.randn(3, 9))


def test_reductions_and_rows() -> None:
    @braze.fuse
    def normal(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> Any:
        y = functional.layer_norm(x, x.shape[-1:], w, b)
        return torch.softmax(y, -1), y.sum((0, -1)), x.amax(), y.mean(-1, keepdim=True)

    for shape in [(4, 16), (7, 16), (2, 3, 16), (4, 17)]:
        check(normal, torch.randn(shape), torch.randn(shape[-1]), torch.randn(shape[-1]))


# -- results that are given ---------------------------------------------------------------------------------
def test_out() -> None:
    x, y = torch.randn(4, 5), torch.randn(4, 5)
    expected = swiglu(x, y)
    for out in (
        torch.empty(4, 5),
        torch.empty(5, 4).t(),
        torch.empty(8, 5)[::2],
        torch.empty(0),
        torch.empty(4, 5, dtype=torch.float64),
    ):
        for _ in range(2):
            assert swiglu(x, y, out=out) is out
            torch.testing.assert_close(out, expected.to(out.dtype))
    before = made()
    swiglu(x, y, out=torch.empty(4, 5))
    assert made() == before


def test_out_that_is_or_overlaps_an_argument() -> None:
    x, y = torch.randn(8), torch.randn(8)
    expected = swiglu(x, y)
    assert swiglu(x, y, out=x) is x
    torch.testing.assert_close(x, expected)
    base = torch.randn(9)
    expected = swiglu(base[:8].clone(), y)
    swiglu(base[:8], y, out=base[1:])
    torch.testing.assert_close(base[1:], expected)


def test_out_says_what_is_wrong() -> None:
    x = torch.randn(3)
    with pytest.raises(RuntimeError, match="can't be cast"):
        swiglu(x, x, out=torch.empty(3, dtype=torch.int64))
    with pytest.raises(RuntimeError, match=r"sizes \[4\]"):
        swiglu(x, x, out=torch.empty(4))
    with pytest.raises(RuntimeError, match="not recorded by autograd"):
        swiglu(x.clone().requires_grad_(), x, out=torch.empty(3))
    with pytest.raises(TypeError, match="tuples, lists and dicts"):
        swiglu(x, x, out=(torch.empty(3), torch.empty(3)))
    version = (out := torch.empty(3))._version
    swiglu(x, x, out=out)
    assert out._version > version


def test_out_of_several_results() -> None:
    @braze.fuse
    def two(x: torch.Tensor) -> Any:
        return x.sin(), {"c": x.cos()}

    x = torch.randn(3)
    out = (torch.empty(3), {"c": torch.empty(3)})
    assert two(x, out=out) is out
    torch.testing.assert_close(out[0], x.sin())
    torch.testing.assert_close(out[1]["c"], x.cos())


def test_a_function_with_an_out_of_its_own_keeps_it() -> None:
    @braze.fuse
    def own(x: torch.Tensor, out: float = 2.0) -> torch.Tensor:
        return x * out

    check(own, torch.randn(3), out=0.5)


# -- what it reads besides its arguments --------------------------------------------------------------------
def test_globals_and_closures_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = 2.0

    @braze.fuse
    def f(x: torch.Tensor) -> torch.Tensor:
        return x * factor + EPSILON + SCALES[1]

    x = torch.randn(3)
    check(f, x)
    factor = 5.0
    check(f, x)
    monkeypatch.setattr(__import__(__name__, fromlist=["x"]), "EPSILON", 1.0)
    check(f, x)
    monkeypatch.setattr(__import__(__name__, fromlist=["x"]), "SCALES", (0.0, -1.0))
    check(f, x)


def test_default_dtype_and_grad_mode_are_looked_at() -> None:
    half = braze.fuse(lambda x: x * 0.5)
    check(half, torch.arange(3))
    torch.set_default_dtype(torch.float64)
    try:
        check(half, torch.arange(3))
    finally:
        torch.set_default_dtype(torch.float32)
    check(half, torch.arange(3))


# -- writing to arguments -----------------------------------------------------------------------------------
def test_arguments_that_are_written_to() -> None:
    @braze.fuse
    def update(p: torch.Tensor, g: torch.Tensor, rate: float) -> torch.Tensor:
        p.mul_(1 - rate).add_(g, alpha=-rate)
        return p

    for shape in [(4,), (3, 5)]:
        check(update, torch.randn(shape), torch.randn(shape), 0.1)
    p = torch.randn(6)
    version = p._version
    assert update(p, torch.randn(6), 0.5) is p and p._version > version
    for _ in range(2):  # one tensor twice: what is written is read again
        whole = torch.randn(6)
        expected = whole.clone()
        update.__wrapped__(expected, expected, 0.5)  # type: ignore[attr-defined]
        update(whole, whole, 0.5)
        torch.testing.assert_close(whole, expected)
    with pytest.raises(RuntimeError, match="single memory location"):
        update(whole[:5], whole[1:], 0.5)


# -- what cannot be fused -----------------------------------------------------------------------------------
def fallback(function: Any, *args: Any) -> str:
    """The reason for which a call fell back, having warned of it once."""
    before = dict(braze.fuser.stats().fallbacks)
    with braze.config.patch(strict=False):
        with pytest.warns(BrazeWarning, match="runs as eager PyTorch") as said:
            check(function, *args, times=1)
        assert [one.filename for one in said if one.category is BrazeWarning] == [check.__code__.co_filename]
        check(function, *args, times=2)
    after = braze.fuser.stats().fallbacks
    (reason,) = [r for r in after if after[r] != before.get(r, 0)]
    assert after[reason] - before.get(reason, 0) == 3
    with pytest.raises(FallbackError):
        function(*args)
    return reason


def test_reasons_for_falling_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())  # other tests' functions may have the same names

    class Thing:
        scale = 2

    def fresh() -> Any:
        return braze.fuse(lambda x, *rest: x + 1 if not rest else x * 2)

    assert "is a Thing" in fallback(fresh(), torch.randn(3), Thing())
    assert "complex64" in fallback(fresh(), torch.randn(3).to(torch.complex64))
    assert "without a tensor" in fallback(fresh(), 3)
    assert "could not be traced" in fallback(
        braze.fuse(lambda x: x + 1 if bool(x.sum() > 0) else x), torch.randn(3)
    )
    others = {
        "torch.sparse_coo": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8),
        "lazily": torch.randn(3, dtype=torch.complex64).conj().imag,
        "meta": torch.empty(3, device="meta"),
    }
    for what, tensor in others.items():
        with braze.config.patch(strict=False), pytest.warns(BrazeWarning, match=what):
            fresh()(tensor, 2) if what != "quantized" else braze.fuse(lambda x: x.dequantize())(tensor)


def test_disabling_a_device() -> None:
    x = torch.randn(3)
    swiglu(x, x)
    assert braze.fuser.can_fuse_on("cpu") and not braze.fuser.can_fuse_on("cuda")
    braze.fuser.disable("cpu")
    try:
        assert not braze.fuser.is_enabled("cpu")
        with pytest.raises(FallbackError, match="disabled"):
            swiglu(x, x)
        with braze.config.patch(strict=False), pytest.warns(BrazeWarning, match="disabled"):
            check(swiglu, x, x)
    finally:
        braze.fuser.enable("cpu")
    check(swiglu, x, x)
    with pytest.raises(ValueError, match="no fused kernels for cuda"):
        braze.fuser.enable("cuda")


def test_options() -> None:
    with pytest.raises(ConfigError, match="no option"):
        braze.fuse(options={"stict": True})
    strictly = braze.fuse(lambda x: x + 1, options={"strict": True})
    with braze.config.patch(strict=False), pytest.raises(FallbackError):
        strictly(torch.randn(3).to(torch.complex64))
    with pytest.raises(TypeError, match="takes a function"):
        braze.fuse(3)  # type: ignore[call-overload]


def test_methods_and_names() -> None:
    class Scaler:
        @braze.fuse
        def scaled(self, x: torch.Tensor) -> torch.Tensor:
            """Twice x."""
            return x * 2

    assert Scaler.scaled.__doc__ == "Twice x." and Scaler.scaled.__name__ == "scaled"
    with braze.config.patch(strict=False), pytest.warns(BrazeWarning, match="self is a Scaler"):
        assert torch.equal(Scaler().scaled(torch.ones(3)), torch.full((3,), 2.0))
    assert "fused function" in repr(Scaler.scaled.fused)  # type: ignore[attr-defined]


@pytest.mark.serial
def test_threads() -> None:
    """Eight threads, mixed shapes and types: right results, and each kernel compiled once."""

    @braze.fuse
    def f(x: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
        return torch.sigmoid(x) * y + scale

    cases = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for shape in [(5,), (3, 4), (2, 3, 5)]:
            x, y = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
            cases.append((x, y, f.__wrapped__(x, y, 0.25)))  # type: ignore[attr-defined]
            cases.append((x, y[..., :1], f.__wrapped__(x, y[..., :1], 0.25)))  # type: ignore[attr-defined]
    before, wrong = braze.fuser.stats(), []
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        start.wait()
        for k in range(1500):
            x, y, expected = cases[(k * 7 + seed * 5) % len(cases)]
            got = f(x, y, 0.25)
            if got.dtype is not expected.dtype or not torch.allclose(got, expected, rtol=2e-2, atol=1e-2):
                wrong.append((x.dtype, x.shape, y.shape))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    after = braze.fuser.stats()
    assert after.fallbacks == before.fallbacks
    # for each type: contiguous, a row's first elements with stride, and for one dimension a single one
    assert after.compiled + after.loaded - before.compiled - before.loaded <= 9
