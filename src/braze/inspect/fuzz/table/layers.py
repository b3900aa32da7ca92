"""Activations, normalisations and losses."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import ByGradients, Dims, Either, Fixed, OneOf, Scalar
from braze.inspect.fuzz.operands import FLOAT, Index, Like, Matching, Operand, T, finite
from braze.inspect.fuzz.operators import Operator, Rounding

__all__ = ["ROWS"]

_FLOATS = T(FLOAT)
_SOME = T(FLOAT, rank=(1, 4))
_REDUCTION = OneOf(("mean", "sum", "none"))
# (what infinite weights make of these, infinities or NaN, is a matter of the formula: docs/fuzz.md)
_LAST = Either((Matching(((0, -1),), check=finite), Fixed(None)))
_ANY_LAST = Either((ByGradients(Matching(((0, -1),), check=finite), Matching(((0, -1),))), Fixed(None)))
_CHANNELS = Either((Matching(((0, 1),), check=finite), Fixed(None)))
_TORN = frozenset({"relu6", "elu", "selu", "celu", "hardswish", "hardshrink", "softshrink"})
_UNIT = T(FLOAT, domain="unit", check=finite)


def _activations(words: str, rounding: Rounding = "loose") -> list[Operator]:
    return [
        Operator(name, f"F.{name}({{0}})", (_FLOATS,), "same", rounding, torn=name in _TORN, weight=0.7)
        for name in words.split()
    ]


def _with_number(name: str, number: Operand, rounding: Rounding = "loose", sharp: bool = False) -> Operator:
    form, torn = f"F.{name}({{0}}, {{1}})", name in _TORN
    return Operator(name, form, (_FLOATS, number), "same", rounding, sharp=sharp, torn=torn, weight=0.7)


def _loss(name: str, *more: Operand) -> Operator:
    extra = "".join(f", {{{3 + place}}}" for place in range(len(more)))
    form = f"F.{name}({{0}}, {{1}}{extra}, reduction={{2}})"
    operands: tuple[Operand, ...] = (_FLOATS, Like(how="same", dtypes=None), _REDUCTION, *more)
    return Operator(name, form, operands, "same", "loose", weight=0.8)


ROWS: tuple[Operator, ...] = (
    *_activations("relu relu6", "exact"),
    *_activations("silu mish softplus elu selu celu hardswish hardsigmoid logsigmoid softsign tanhshrink"),
    Operator(
        "gelu",
        "F.gelu({0}, approximate={1})",
        (_FLOATS, OneOf(("none", "tanh"))),
        "same",
        "loose",
        weight=1.5,
    ),
    _with_number("leaky_relu", Scalar("f", 0, 1), "ieee"),
    Operator(
        "hardtanh",
        "F.hardtanh({0}, {1}, {2})",
        (_FLOATS, Scalar("f", -3, -1), Scalar("f", 1, 3)),
        torn=True,
        weight=0.7,
    ),
    _with_number("hardshrink", Scalar("f", 0, 2), "exact", sharp=True),
    _with_number("softshrink", Scalar("f", 0, 2), "ieee", sharp=True),
    Operator(
        "threshold", "F.threshold({0}, {1}, {2})", (_FLOATS, Scalar("f"), Scalar("f")), sharp=True, weight=0.7
    ),
    Operator("glu", "F.glu({0}, {1})", (_SOME, Dims()), "same", "loose"),
    Operator(
        "prelu", "F.prelu({0}, {1})", (T(FLOAT, rank=(2, 4)), Matching(((0, 1),))), "same", "ieee", weight=0.7
    ),
    Operator("swiglu", "F.silu({0}) * {1}", (_FLOATS, Like(dtypes=None)), "same", "loose"),
    # normalisations
    Operator(
        "layer_norm",
        "F.layer_norm({0}, ({0}.shape[-1],), {1}, {2})",
        (_SOME, _LAST, _LAST),
        "same",
        "loose",
        weight=2,
    ),
    Operator(
        "layer_norm_two",
        "F.layer_norm({0}, {0}.shape[-2:])",
        (T(FLOAT, rank=(2, 4)),),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator("rms_norm", "F.rms_norm({0}, ({0}.shape[-1],), {1}, 1e-5)", (_SOME, _ANY_LAST), "same", "loose"),
    Operator(
        "group_norm", "F.group_norm({0}, {1})", (T(FLOAT, rank=(2, 4)), OneOf((1, 1, 2, 3))), "same", "loose"
    ),
    Operator("instance_norm", "F.instance_norm({0})", (T(FLOAT, rank=(3, 4)),), "same", "loose", weight=0.6),
    Operator(
        "batch_norm",
        "F.batch_norm({0}, {1}, {2})",
        (T(FLOAT, rank=(2, 4)), Matching(((0, 1),)), Matching(((0, 1),), domain="positive")),
        "same",
        "loose",
    ),
    Operator(
        "batch_norm_train",
        "F.batch_norm({0}, None, None, {1}, {2}, True)",
        (T(FLOAT, rank=(2, 4)), _CHANNELS, _CHANNELS),
        "same",
        "loose",
    ),
    Operator("normalize", "F.normalize({0}, dim={1})", (_SOME, Dims()), "same", "loose"),
    Operator(
        "cosine_similarity",
        "F.cosine_similarity({0}, {1}, dim={2})",
        (_SOME, Like(how="same", dtypes=None), Dims()),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator(
        "pairwise_distance",
        "F.pairwise_distance({0}, {1})",
        (T(FLOAT, rank=(1, 2)), Like(how="same", dtypes=None)),
        "same",
        "loose",
        weight=0.5,
    ),
    Operator(
        "local_response_norm",
        "F.local_response_norm({0}, 2)",
        (T(FLOAT, rank=(3, 4), nonempty=True),),
        "same",
        "loose",
        weight=0.3,
    ),
    # losses
    *(_loss(name) for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss")),
    Operator(
        "binary_cross_entropy",
        "F.binary_cross_entropy({0}, {1}, reduction={2})",
        (_UNIT, Like(how="same", dtypes=None, domain="unit"), _REDUCTION),
        "same",
        "loose",
        weight=0.8,
    ),
    Operator(
        "binary_cross_entropy_with_logits",
        "F.binary_cross_entropy_with_logits({0}, {1}, reduction={2})",
        (_FLOATS, Like(how="same", dtypes=None, domain="unit"), _REDUCTION),
        "same",
        "loose",
        weight=0.8,
    ),
    Operator(
        "kl_div",
        "F.kl_div({0}, {1}, reduction={2}, log_target={3})",
        (
            _FLOATS,
            Like(how="same", dtypes=None, domain="positive"),
            OneOf(("sum", "none")),
            OneOf((False, True)),
        ),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator(
        "cross_entropy",
        "F.cross_entropy({0}, {1}, reduction={2}, label_smoothing={3})",
        (T(FLOAT, rank=(2, 2)), Index(axis=1, length=0), _REDUCTION, OneOf((0.0, 0.0, 0.1))),
        "same",
        "loose",
    ),
    Operator(
        "cross_entropy_ignore",
        "F.cross_entropy({0}, {1}, ignore_index=1)",
        (T(FLOAT, rank=(2, 2)), Index(axis=1, length=0)),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator(
        "nll_loss",
        "F.nll_loss({0}, {1}, reduction={2})",
        (T(FLOAT, rank=(2, 2)), Index(axis=1, length=0), _REDUCTION),
        "same",
        "loose",
    ),
    Operator(
        "cross_entropy_soft",
        "F.cross_entropy({0}, torch.softmax({1}, 1))",
        (T(FLOAT, rank=(2, 2)), Like(how="same", dtypes=None)),
        "same",
        "loose",
        weight=0.5,
    ),
    Operator(
        "margin_ranking_loss",
        "F.margin_ranking_loss({0}, {1}, {2})",
        (T(FLOAT, rank=(1, 1)), Like(how="same", dtypes=None), Like(how="same", dtypes=None)),
        "same",
        "loose",
        weight=0.4,
    ),
)
