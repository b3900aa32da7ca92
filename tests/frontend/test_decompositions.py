"""Each decomposition of our own against the operator that it replaces."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from braze.config import Config
from braze.frontend.decompositions import KEPT, decompositions
from tests.frontend.recording import Recorder, operator_name

aten = torch.ops.aten
TABLE = decompositions(Config())

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def compare(operator: Any, *args: Any, **kwargs: Any) -> None:
    """Values within the dtype's tolerance of eager, or at most twice as far from float64's as eager's."""
    ours, theirs = TABLE[operator](*args, **kwargs), operator(*args, **kwargs)
    if isinstance(theirs, torch.Tensor):
        ours, theirs = (ours,), (theirs,)
    wide = operator(*map(widened, args), **{k: widened(v) for k, v in kwargs.items() if k != "dtype"})
    wide = (wide,) if isinstance(wide, torch.Tensor) else wide
    assert len(ours) == len(theirs)
    for x, y, exact in zip(ours, theirs, wide, strict=True):
        if y is None:
            assert x is None
            continue
        assert x.dtype is y.dtype
        assert x.shape == y.shape
        try:
            torch.testing.assert_close(x, y, equal_nan=True)
        except AssertionError:
            assert (x.double() - exact).abs().max() <= 2 * (y.double() - exact).abs().max()


def widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.double()
    if isinstance(value, list) and any(isinstance(v, torch.Tensor) for v in value):
        return [widened(v) for v in value]
    return value


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4), (1, 1), (3, 0), (0, 3)])
@pytest.mark.parametrize("operator", [aten._softmax.default, aten._log_softmax.default])
def test_softmax(operator: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = (torch.randn(shape) * 20).to(dtype)
    for dim in range(-1, len(shape)):
        compare(operator, x, dim, False)


def test_softmax_of_infinities() -> None:
    x = torch.tensor([[-torch.inf] * 3, [1.0, -torch.inf, 2.0], [torch.inf, 1.0, 2.0], [torch.nan, 1.0, 2.0]])
    compare(aten._softmax.default, x, 1, False)
    compare(aten._log_softmax.default, x, 1, False)


def test_softmax_of_a_transposed_tensor_is_contiguous() -> None:
    x = torch.randn(3, 4).t()
    assert TABLE[aten._softmax.default](x, 1, False).stride() == aten._softmax.default(x, 1, False).stride()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "normalized"), [((4, 6), [6]), ((2, 3, 4), [3, 4]), ((5,), [5]), ((1, 1), [1])]
)
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm_and_its_gradient(
    shape: tuple[int, ...], normalized: list[int], affine: bool, dtype: torch.dtype
) -> None:
    x = (torch.randn(shape) * 3 + 5).to(dtype)
    weight = torch.randn(normalized).to(dtype) if affine else None
    bias = torch.randn(normalized).to(dtype) if affine else None
    compare(aten.native_layer_norm.default, x, normalized, weight, bias, 1e-5)
    _, mean, rstd = aten.native_layer_norm.default(x, normalized, weight, bias, 1e-5)
    grad = torch.randn(shape).to(dtype)
    mask = [True, affine, affine]
    compare(aten.native_layer_norm_backward.default, grad, x, normalized, mean, rstd, weight, bias, mask)


def test_layer_norm_of_half_input_with_float_weight_keeps_float_statistics() -> None:
    x, weight = torch.randn(3, 8).to(torch.bfloat16), torch.randn(8)
    compare(aten.native_layer_norm.default, x, [8], weight, torch.randn(8), 1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_and_its_gradient(groups: int, affine: bool, dtype: torch.dtype) -> None:
    n, c, h, w = 2, 6, 3, 5
    x = (torch.randn(n, c, h, w) + 2).to(dtype)
    weight = torch.randn(c).to(dtype) if affine else None
    bias = torch.randn(c).to(dtype) if affine else None
    compare(aten.native_group_norm.default, x, weight, bias, n, c, h * w, groups, 1e-5)
    _, mean, rstd = aten.native_group_norm.default(x, weight, bias, n, c, h * w, groups, 1e-5)
    grad = torch.randn(x.shape).to(dtype)
    mask = [True, affine, affine]
    compare(aten.native_group_norm_backward.default, grad, x, mean, rstd, weight, n, c, h * w, groups, mask)


SPECIAL = [0.0, -0.0, 1e-20, -1e-20, 0.3, -0.7, 1.0, -1.0, 5.0, -5.0, 30.0, -30.0, 100.0, -100.0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("operator", "rest"),
    [
        (aten.gelu.default, {"approximate": "none"}),
        (aten.gelu.default, {"approximate": "tanh"}),
        (aten.silu.default, {}),
        (aten.leaky_relu.default, {"negative_slope": 0.2}),
        (aten.elu.default, {"alpha": 1.3, "scale": 1.1, "input_scale": 0.9}),
        (aten.hardtanh.default, {"min_val": -0.5, "max_val": 2.0}),
    ],
)
def test_activations(operator: Any, rest: dict[str, Any], dtype: torch.dtype) -> None:
    # eager's gelu of infinity is NaN or infinity, as the element falls into its vector loop or behind it
    infinity = [] if operator is aten.gelu.default else [torch.inf]
    compare(operator, torch.tensor([*SPECIAL, *infinity, torch.nan], dtype=torch.float64).to(dtype), **rest)
    compare(operator, torch.randn(200).to(dtype), **rest)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("operator", "rest"),
    [
        (aten.gelu_backward.default, {"approximate": "none"}),
        (aten.gelu_backward.default, {"approximate": "tanh"}),
        (aten.silu_backward.default, {}),
        (aten.sigmoid_backward.default, {}),
        (aten.tanh_backward.default, {}),
    ],
)
def test_gradients_of_activations(operator: Any, rest: dict[str, Any], dtype: torch.dtype) -> None:
    x = torch.tensor(SPECIAL, dtype=torch.float64).to(dtype)
    compare(operator, torch.linspace(-2, 2, len(SPECIAL)).to(dtype), x, **rest)


def test_hardtanh_of_integers() -> None:
    compare(aten.hardtanh.default, torch.arange(-5, 6), -2.7, 2.9)


@pytest.mark.parametrize(
    "operator", [aten.silu.default, aten.sigmoid_backward.default, aten.tanh_backward.default]
)
def test_complex_numbers_are_left_to_eager(operator: Any) -> None:
    z = torch.randn(3, dtype=torch.complex64)
    args = (z,) if operator is aten.silu.default else (z, z)
    assert TABLE[operator](*args) is NotImplemented


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int8])
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 4, 0.5, -0.5, -1.0, -2.0, 2.0, 1.7])
def test_powers(exponent: float, dtype: torch.dtype) -> None:
    values = [0.0, 1.0, 2.0, 3.0, 7.0]
    if TABLE[aten.pow.Tensor_Scalar](torch.tensor(values).to(dtype), exponent) is not NotImplemented:
        compare(aten.pow.Tensor_Scalar, torch.tensor(values).to(dtype), exponent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_quotients_are_added(dtype: torch.dtype) -> None:
    x, a, b = (torch.randn(3, 4).to(dtype) + 3 for _ in range(3))
    for value in (1, 0.3):
        compare(aten.addcdiv.default, x, a, b, value=value)
        compare(aten.addcdiv.default, x, a, torch.tensor(2.0, dtype=torch.float64), value=value)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64])
@pytest.mark.parametrize("eps", [None, 1e-2])
def test_logit(eps: float | None, dtype: torch.dtype) -> None:
    compare(aten.logit.default, torch.tensor([0.0, 1.0, 0.3, 0.004, 0.9, 1.5]).to(dtype), eps)


@pytest.mark.parametrize(
    ("x", "source"),
    [
        (torch.zeros(3, 4), torch.randn(3, 4)),
        (torch.zeros(3, 4, dtype=torch.int32), torch.randn(4)),
        (torch.zeros(3, 4), torch.randn(4, 3).t()),
    ],
)
def test_copy_gives_fresh_memory(x: torch.Tensor, source: torch.Tensor) -> None:
    compare(aten.copy.default, x, source)
    assert TABLE[aten.copy.default](x, source).data_ptr() != source.data_ptr()


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 5, 3, 2)])
def test_gradient_of_nll_loss(shape: tuple[int, ...], weighted: bool, reduction: int) -> None:
    ranks = {4: ("nll_loss2d_forward", "nll_loss2d_backward")}
    forward, backward = ranks.get(len(shape), ("nll_loss_forward", "nll_loss_backward"))
    x = torch.randn(shape)
    target = torch.randint(0, 5, shape[:1] + shape[2:] if len(shape) > 1 else ())
    if target.ndim:
        target.view(-1)[0] = -100
    weight = torch.rand(5) + 0.5 if weighted else None
    loss, total = getattr(aten, forward).default(x, target, weight, reduction, -100)
    operator = getattr(aten, backward).default
    compare(operator, torch.randn(loss.shape), x, target, weight, reduction, -100, total)


def test_parts_and_selections() -> None:
    x = torch.randn(6, 4)
    for ours, theirs in zip(
        TABLE[aten.split_with_sizes.default](x, [1, 2, 3]),
        aten.split_with_sizes.default(x, [1, 2, 3]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
        assert ours.data_ptr() == theirs.data_ptr()


BAGS = [
    {},
    {"padding_idx": 2},
    {"include_last_offset": True},
    {"mode": "mean"},
    {"mode": "mean", "padding_idx": 2},
    {"per_sample_weights": torch.rand(9)},
]


def test_embedding_bags_of_another_kind_are_left_to_eager() -> None:
    arguments = (torch.randn(5, 3), torch.tensor([1, 2]), torch.tensor([0, 1]))
    assert TABLE[aten._embedding_bag.default](*arguments, False, 2) is NotImplemented
    assert TABLE[aten._embedding_bag.default](*arguments, True, 0) is NotImplemented


@pytest.mark.parametrize("options", BAGS)
def test_embedding_bag_and_its_gradient(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    indices = torch.tensor([2, 1, 4, 4, 0, 2, 2, 1, 0])
    offsets = torch.tensor([0, 3, 3, 6, 9] if "include_last_offset" in options else [0, 3, 3, 6])
    options = {"mode": "sum", **options}

    def f(table: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding_bag(indices, table, offsets, **options)

    table = torch.randn(5, 3)
    tables = [table.clone().requires_grad_(), table.clone().requires_grad_()]
    recorder = Recorder()
    ours, theirs = recorder.optimize(f)(tables[0]), f(tables[1])
    torch.testing.assert_close(ours, theirs)
    coefficients = torch.randn(ours.shape)
    (ours * coefficients).sum().backward()
    (theirs * coefficients).sum().backward()
    torch.testing.assert_close(tables[0].grad, tables[1].grad)
    for i in range(2):
        assert not any("embedding_bag" in name for name in recorder.operators(i))


@pytest.mark.parametrize("operator", [aten.max, aten.min])
def test_extrema_with_positions(operator: Any) -> None:
    x = torch.tensor([[3.0, 1.0, 3.0, 1.0], [torch.nan, 2.0, torch.nan, 5.0]])
    for keepdim in (False, True):
        compare(operator.dim, x, 1, keepdim)
        compare(operator.dim, x.to(torch.int64), 0, keepdim)
        compare(operator.dim, x > 1, 1, keepdim)
    compare(operator.default, x)
    compare(operator.default, x[0])
    compare(operator.default, torch.tensor(4))


def test_means() -> None:
    compare(aten.mean.default, torch.randn(3, 4))
    compare(aten.mean.default, torch.randn(()))


def test_an_operator_that_is_defined_later_is_taken_apart_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = aten.sin.default  # stands for `prims.fma`, which Dynamo defines when a program first needs it
    assert late not in decompositions(Config())
    monkeypatch.setattr("braze._torch.decomps.multiply_add", lambda: late)
    assert late in decompositions(Config())


def test_what_is_kept_is_not_in_the_table() -> None:
    for operator, decomposition in TABLE.items():
        kept = operator_name(operator).removeprefix("aten.").split(".")[0] in KEPT
        assert not kept or decomposition.__name__ in ("_kept", "itself")  # the latter holds it to strides
    for name, reason in KEPT.items():
        assert hasattr(aten, name)
        assert reason


def test_common_layers_come_down_to_a_small_set() -> None:
    """One training step of a block with attention, normalisation, dropout and cross entropy."""
    torch.compiler.reset()
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    head = torch.nn.Linear(16, 10)
    recorder = Recorder()

    def loss(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(head(layer(x)).view(-1, 10), target)

    x, target = torch.randn(3, 4, 16), torch.randint(0, 10, (12,))
    recorder.optimize(loss)(x, target).backward()
    used = {name for i in range(2) for name in recorder.operators(i)}
    assert used <= EXPECTED_OPERATORS, sorted(used - EXPECTED_OPERATORS)


EXPECTED_OPERATORS = {
    "seeds",
    "rand",
    "getitem",
    *(
        f"aten.{name}"
        for name in """
        add.Tensor sub.Tensor mul.Tensor mul.Scalar div.Tensor div.Scalar neg.default
        exp.default log.default reciprocal.default rsqrt.default relu.default where.self
        eq.Tensor eq.Scalar ne.Scalar ge.Scalar le.Scalar lt.Scalar bitwise_and.Tensor logical_not.default
        amax.default sum.dim_IntList var_mean.correction any.dim
        view.default permute.default expand.default unsqueeze.default squeeze.dims select.int slice.Tensor
        clone.default full.default arange.start_step gather.default cat.default _to_copy.default
        mm.default addmm.default bmm.default baddbmm.default nll_loss_forward.default
        _scaled_dot_product_flash_attention_for_cpu.default
        _scaled_dot_product_flash_attention_for_cpu_backward.default
        select_scatter.default constant_pad_nd.default slice_scatter.default alias.default
        """.split()
    ),
}
