"""What models and optimisers do, several operators at a time: the chains that fused kernels are made of."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import Dims, Int, OneOf, Scalar
from braze.inspect.fuzz.operands import FLOAT, INT, Index, Like, Matching, Operand, T, finite, moderate
from braze.inspect.fuzz.operators import Gives, Operator, Rounding

__all__ = ["ROWS"]

_ROW = T(FLOAT, rank=(1, 3), check=finite)
_MATRIX = T(FLOAT, rank=(2, 3), check=finite)
_SQUARE = Matching(((0, -1), (0, -1)), check=finite)
_LAST = Matching(((0, -1),), check=finite)
_SAME = Like(how="same", dtypes=None, check=finite)
_IMAGE = T(FLOAT, rank=(4, 4), check=finite)
_CHANNELS = Matching(((0, 1),), check=finite)


def _model(name: str, form: str, *operands: Operand, gives: Gives = "any", sharp: bool = False) -> Operator:
    rounding: Rounding = "loose"
    return Operator(name, form, operands, gives, rounding, sharp=sharp, weight=0.7)


def _step(name: str, form: str, *operands: Operand) -> Operator:
    """A write of an optimiser's."""
    return Operator(
        name,
        form,
        operands,
        "nothing",
        "loose",
        results=0,
        writes=True,
        weight=0.4,
    )


ROWS: tuple[Operator, ...] = (
    _model(
        "block",
        "({0} + F.linear(F.gelu(F.linear(F.layer_norm({0}, ({0}.shape[-1],)), {1})), {2}))",
        _ROW,
        _SQUARE,
        _SQUARE,
    ),
    _model("gated", "(F.silu({0} @ {1}) * ({0} @ {2}))", _MATRIX, _SQUARE, _SQUARE),
    _model(
        "rms_by_hand",
        "({0}.float() * torch.rsqrt({0}.float().pow(2).mean(-1, keepdim=True) + 1e-6)).type_as({0}) * {1}",
        _ROW,
        _LAST,
    ),
    _model(
        "rotated",
        "({0} * {1}.cos() + torch.cat((-{0}[..., {0}.shape[-1] // 2 :], {0}[..., : {0}.shape[-1] // 2]), -1)"
        " * {1}.sin())",
        _ROW,
        _SAME,
    ),
    _model(
        "self_attention",
        "(torch.softmax(({0} @ {0}.mT) * {1} + torch.full(({0}.shape[-2], {0}.shape[-2]),"
        " -100.0, dtype={0}.dtype).triu(1), -1) @ {0})",
        _MATRIX,
        OneOf((0.5, 1.0, 0.125)),
    ),
    _model(
        "masked_softmax",
        "torch.softmax({0}.masked_fill({1}, float('-inf')), {2})",
        _ROW,
        Like(how="into", dtypes=("bool",)),
        Dims(),
    ),
    _model(
        "looked_up",
        "F.layer_norm({0}[{1}], ({0}.shape[-1],))",
        T(FLOAT, rank=(2, 2), check=finite),
        Index(axis=0),
    ),
    _model(
        "conv_norm",
        "F.relu(F.batch_norm(F.conv2d({0}, {1}, padding=1), None, None, None, None, True))",
        T(("float32", "float64"), rank=(4, 4), check=moderate),
        Matching((2, (0, 1), 3, 3), check=moderate),
    ),
    _model(
        "image_norm",
        "(F.relu(F.batch_norm({0}, {1}, {1}.abs() + 1, {1}, {1})) + {0})",
        _IMAGE,
        _CHANNELS,
    ),
    _model("pooled", "({0}.mean((-2, -1)) @ {1})", _IMAGE, Matching(((0, 1), None), check=finite)),
    _model(
        "entropy",
        "-(torch.softmax({0}, -1) * torch.log_softmax({0}, -1)).sum(-1)",
        _ROW,
    ),
    _model(
        "divergence", "F.kl_div(F.log_softmax({0}, -1), F.softmax({1}, -1), reduction='sum')", _ROW, _SAME
    ),
    _model("contrasted", "({0} @ {0}.mT - {0}.square().sum(-1, keepdim=True))", _MATRIX),
    _model("whitened", "(({0} - {0}.mean({1}, True)) / ({0}.std({1}, keepdim=True) + 1e-3))", _ROW, Dims()),
    _model(
        "scaled_to_unit",
        "({0} / (torch.linalg.vector_norm({0}, dim={1}, keepdim=True) + 1e-3))",
        _ROW,
        Dims(),
    ),
    _model("smoothed", "torch.cumsum({0} * {1}, -1) / torch.arange(1, {0}.shape[-1] + 1)", _ROW, Scalar("f")),
    _model(
        "rounded_to_levels",
        "torch.clamp(torch.round({0} * {1}), -8, 7) / {1}",
        _ROW,
        OneOf((2, 4.0)),
        sharp=True,
    ),
    _model("weighed_pairs", "torch.einsum('...i,...j->...ij', {0}, {1})", _ROW, _SAME),
    _model("several_means", "torch.stack([{0}.mean(-1), {0}.amax(-1), {0}.sum(-1)], -1)", _ROW),
    _model("two_views", "({0}.t().contiguous().view(-1) + {0}.reshape(-1))", T(FLOAT, rank=(2, 2))),
    _model("joined_scaled", "torch.cat([{0}, {0} * 2, {0}.flip(-1)], -1).softmax(-1)", _ROW),
    _model(
        "gathered_targets", "-torch.log_softmax({0}, -1).gather(-1, {1})", _ROW, Index(axis=-1, shape="same")
    ),
    _model("spread", "torch.zeros_like({0}).scatter_add(-1, {1}, {0})", _ROW, Index(axis=-1, shape="same")),
    _model(
        "segment_mean",
        "torch.zeros_like({0}).index_add(0, {1}, {0})"
        " / (torch.bincount({1}, minlength={0}.shape[0])[:, None] + 1)",
        T(("float32", "float64"), rank=(2, 2), check=finite),
        Index(axis=0, length=0),
    ),
    Operator(
        "halves",
        "({0} * 2).chunk(2, {1})",
        (T(FLOAT, rank=(1, 4)), Dims()),
        "same",
        "ieee",
        results=2,
        weight=0.6,
    ),
    Operator(
        "aliased", "(lambda y: (y, y.view(-1)))({0} + 1)", (T(FLOAT),), "same", "ieee", results=2, weight=0.6
    ),
    Operator(
        "rows_of_result",
        "(lambda y: (y, y[1:]))({0} * 2)",
        (T(FLOAT, rank=(1, 3)),),
        "same",
        "ieee",
        results=2,
        weight=0.6,
    ),
    # optimisers
    _step("momentum_step", "{0}.mul_(0.9).add_({1}, alpha={2})", T(FLOAT), _SAME, Int(-1, 2)),
    _step("averaged_step", "{0}.lerp_({1}, 0.25)", T(FLOAT), _SAME),
    _step("adam_step", "{0}.addcdiv_({1}, {2}.abs().sqrt().add_(1e-2), value=-0.5)", T(FLOAT), _SAME, _SAME),
    _step("sign_step", "{0}.sub_(torch.sign({0} * {1}), alpha=2)", T(FLOAT), Scalar("f")),
    _step("clipped_step", "{0}.mul_((1 / ({0}.norm() + 1)).clamp(max=1.0))", T(FLOAT, check=finite)),
    _step("half_of_itself", "{0}[..., ::2].mul_(0.5).add_(1)", T(FLOAT, rank=(1, 4))),
    _step("row_from_row", "{0}[0].copy_({0}[-1] + {1})", T(FLOAT, rank=(2, 3), nonempty=True), Int(0, 3)),
    _step("counted", "{0}.add_({1}.to({0}.dtype))", T(FLOAT), Like(how="into", dtypes=INT)),
)
