"""Reductions, scans, softmaxes, and what goes by the order of elements."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import Dims, Int, OneOf
from braze.inspect.fuzz.operands import ANY, FLOAT, INTEGERS, NUMERIC, Cast, Like, T, distinct, finite, no_nan
from braze.inspect.fuzz.operators import Operator

__all__ = ["ROWS"]

_DIMS = Dims(most=3, whole=True)
_DIM = Dims()
_SOME = T(rank=(1, 4))
_FLOATS = T(FLOAT, rank=(1, 4))
_NUMBERS = T(FLOAT, rank=(1, 4), check=finite, domain="large")
_KEEP = OneOf((False, True))
_CORRECTION = OneOf((0, 1, 1, 2))


def _over_dims(
    name: str, gives: str, operand: T = _SOME, rounding: str = "loose", sharp: bool = False
) -> Operator:
    form = f"torch.{name}({{0}}, dim={{1}}, keepdim={{2}})"
    return Operator(name, form, (operand, _DIMS, _KEEP), gives, rounding, sharp=sharp)  # type: ignore[arg-type]


ROWS: tuple[Operator, ...] = (
    Operator("sum_all", "{0}.sum()", (T(),), "sum", "loose"),
    Operator(
        "sum_typed",
        "torch.sum({0}, dim={1}, dtype={2})",
        (_SOME, _DIM, Cast(dtypes=FLOAT)),
        "argument",
        "loose",
    ),
    Operator("mean_all", "{0}.mean()", (T(FLOAT),), "same", "loose"),
    Operator(
        "prod",
        "torch.prod({0}, dim={1}, keepdim={2})",
        (_SOME, _DIM, _KEEP),
        "sum",
        "loose",
        multiplies=True,
    ),
    _over_dims("sum", "sum"),
    _over_dims("mean", "same", _FLOATS),
    _over_dims("nansum", "sum"),
    _over_dims("nanmean", "same", _FLOATS),
    _over_dims("logsumexp", "same", T(FLOAT, rank=(1, 4), check=no_nan)),
    Operator("amax", "torch.amax({0}, dim={1}, keepdim={2})", (_SOME, Dims(most=3), _KEEP)),
    Operator("amin", "torch.amin({0}, dim={1}, keepdim={2})", (_SOME, Dims(most=3), _KEEP)),
    Operator("aminmax", "torch.aminmax({0}, dim={1}, keepdim={2})", (_SOME, _DIM, _KEEP), results=2),
    Operator("max_all", "{0}.max()", (T(nonempty=True),)),
    Operator("min_all", "{0}.min()", (T(nonempty=True),)),
    Operator(
        "max_dim", "torch.max({0}, {1}, keepdim={2})", (_SOME, _DIM, _KEEP), "any", results=2, sharp=True
    ),
    Operator(
        "min_dim", "torch.min({0}, {1}, keepdim={2})", (_SOME, _DIM, _KEEP), "any", results=2, sharp=True
    ),
    Operator(
        "argmax",
        "torch.argmax({0}, dim={1}, keepdim={2})",
        (T(NUMERIC, rank=(1, 4)), _DIM, _KEEP),
        "int64",
        sharp=True,
    ),
    Operator(
        "argmin",
        "torch.argmin({0}, dim={1}, keepdim={2})",
        (T(NUMERIC, rank=(1, 4)), _DIM, _KEEP),
        "int64",
        sharp=True,
    ),
    Operator("argmax_all", "{0}.argmax()", (T(NUMERIC, nonempty=True),), "int64", sharp=True),
    # (eager's median and k-th value of an expanded dimension read memory that is not theirs)
    Operator(
        "median",
        "torch.median({0}.contiguous(), {1}, {2}).values",
        (T(NUMERIC, rank=(1, 4)), _DIM, _KEEP),
        weight=0.6,
    ),
    Operator(
        "kthvalue",
        "torch.kthvalue({0}.contiguous(), {2}, {1}).values",
        (T(NUMERIC, rank=(1, 4), check=no_nan), _DIM, Int(1, 2)),
        weight=0.6,
    ),
    Operator(
        "var",
        "torch.var({0}, dim={1}, correction={2}, keepdim={3})",
        (_FLOATS, _DIMS, _CORRECTION, _KEEP),
        "same",
        "loose",
    ),
    Operator(
        "std",
        "torch.std({0}, dim={1}, correction={2}, keepdim={3})",
        (_FLOATS, _DIMS, _CORRECTION, _KEEP),
        "same",
        "loose",
    ),
    # (whether eager's mean of infinities is NaN goes by their places in a row)
    Operator(
        "var_mean",
        "torch.var_mean({0}, dim={1}, keepdim={2})",
        (_NUMBERS, _DIMS, _KEEP),
        "same",
        "loose",
        results=2,
    ),
    Operator(
        "std_mean",
        "torch.std_mean({0}, dim={1}, keepdim={2})",
        (_NUMBERS, _DIMS, _KEEP),
        "same",
        "loose",
        results=2,
    ),
    Operator(
        "vector_norm",
        "torch.linalg.vector_norm({0}, {1}, dim={2}, keepdim={3})",
        (_FLOATS, OneOf((2, 1, 0.5, 3, 2, float("inf"), float("-inf"))), _DIMS, _KEEP),
        "same",
        "loose",
    ),
    Operator(
        "vector_norm_zero",
        "torch.linalg.vector_norm({0}, 0, dim={1})",
        (_FLOATS, _DIM),
        "same",
        sharp=True,
        weight=0.4,
    ),
    Operator("norm", "torch.norm({0}, dim={1})", (_FLOATS, _DIM), "same", "loose"),
    Operator(
        "dist",
        "torch.dist({0}, {1}, {2})",
        (T(FLOAT), Like(dtypes=None), OneOf((1, 2, 3))),
        "same",
        "loose",
        weight=0.4,
    ),
    Operator("all", "torch.all({0}, dim={1}, keepdim={2})", (_SOME, _DIM, _KEEP), "any", sharp=True),
    Operator("any", "torch.any({0}, dim={1}, keepdim={2})", (_SOME, _DIM, _KEEP), "any", sharp=True),
    Operator("any_all", "{0}.any()", (T(),), "any", sharp=True),
    Operator("count_nonzero", "torch.count_nonzero({0}, dim={1})", (_SOME, _DIMS), "int64", sharp=True),
    # scans
    Operator("cumsum", "torch.cumsum({0}, dim={1})", (_SOME, _DIM), "sum", "loose", weight=1.5),
    Operator("cumprod", "torch.cumprod({0}, dim={1})", (_SOME, _DIM), "sum", "loose", multiplies=True),
    Operator("cummax", "torch.cummax({0}, dim={1})", (_SOME, _DIM), "any", results=2, sharp=True),
    Operator("cummin", "torch.cummin({0}, dim={1})", (_SOME, _DIM), "any", results=2, sharp=True),
    Operator("logcumsumexp", "torch.logcumsumexp({0}, dim={1})", (_FLOATS, _DIM), "same", "loose"),
    Operator("diff", "torch.diff({0}, dim={1})", (_SOME, _DIM), "same", "ieee"),
    Operator("trapezoid", "torch.trapezoid({0}, dim={1})", (_FLOATS, _DIM), "same", "loose", weight=0.5),
    # softmaxes
    Operator("softmax", "torch.softmax({0}, dim={1})", (T(FLOAT), _DIM), "same", "loose", weight=2),
    Operator("log_softmax", "torch.log_softmax({0}, dim={1})", (T(FLOAT), _DIM), "same", "loose"),
    Operator("softmin", "F.softmin({0}, dim={1})", (T(FLOAT), _DIM), "same", "loose", weight=0.5),
    Operator(
        "softmax_typed",
        "torch.softmax({0}, dim={1}, dtype={2})",
        (_SOME, _DIM, Cast(dtypes=FLOAT)),
        "argument",
        "loose",
    ),
    # order
    Operator(
        "sort",
        "torch.sort({0}, dim={1}, descending={2}, stable=True)",
        (T(), _DIM, _KEEP),
        "any",
        results=2,
        sharp=True,
    ),
    Operator("msort", "torch.msort({0})", (_SOME,), weight=0.5),
    Operator(
        "argsort",
        "torch.argsort({0}, dim={1}, descending={2}, stable=True)",
        (_SOME, _DIM, _KEEP),
        "int64",
        sharp=True,
    ),
    Operator(
        "topk_values",
        "torch.topk({0}, {2}, dim={1}).values",
        (T(NUMERIC, rank=(1, 4), check=no_nan), _DIM, Int(1, 3)),
    ),
    Operator(
        "topk",
        "torch.topk({0}, {2}, dim={1}, largest={3})",
        (T(NUMERIC, rank=(1, 3), check=distinct), _DIM, Int(1, 3), _KEEP),
        "any",
        results=2,
        sharp=True,
    ),
    Operator(
        "searchsorted",
        "torch.searchsorted(torch.sort({0}).values, {1}, right={2})",
        (T(NUMERIC, rank=(1, 1), check=no_nan), T(NUMERIC, check=finite), _KEEP),
        "int64",
        sharp=True,
    ),
    Operator(
        "bucketize",
        "torch.bucketize({0}, torch.sort({1}).values, right={2})",
        (T(NUMERIC, check=finite), T(NUMERIC, rank=(1, 1), check=no_nan), _KEEP),
        "int64",
        sharp=True,
    ),
    Operator(
        "isin", "torch.isin({0}, {1})", (T(NUMERIC), T(NUMERIC, rank=(1, 1))), "bool", sharp=True, weight=0.6
    ),
    Operator(
        "bincount",
        "torch.bincount({0}.flatten() & 7, minlength=8)",
        (T(("int64", "int32")),),
        "int64",
        weight=0.4,
    ),
    # compositions that a fused kernel keeps a row for
    Operator("centred", "({0} - {0}.mean({1}, keepdim=True))", (_FLOATS, _DIM), "same", "loose"),
    Operator("scaled_by_max", "({0} / {0}.abs().amax({1}, keepdim=True))", (_FLOATS, _DIM), "same", "ieee"),
    Operator("sum_of_product", "({0} * {1}).sum({2})", (_SOME, Like(dtypes=ANY), _DIM), "any", "loose"),
    Operator("xor_sum", "({0} ^ 1).sum({1})", (T(INTEGERS, rank=(1, 4)), _DIM), "int64"),
)
