"""Calls that eager PyTorch refuses on CPU, though the operator's fake version accepts them.

A fake version knows the shapes and types of results; that a kernel lacks a type, or wants a parameter to be
positive, often only the kernel knows. Who computes such a call in another way would give numbers where eager
gives an error. So a call that is found here is neither decomposed nor lowered: eager PyTorch runs it, and
raises what it raises. A rule that is too wide costs time, never a result.

A rule takes the call's arguments by their names in the schema (tensors are fake ones) and says why, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from braze._torch.schema import bind, is_operator
from braze._torch.shapes import true_if_known
from braze._torch.state import default_dtype
from braze.lowering.kernel_dtypes import FIRST, PROMOTED
from braze.ops.dtypes import compute_dtype, integer_limits, is_float, is_integer, is_supported

__all__ = ["refusal"]

aten = torch.ops.aten

Arguments: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Arguments], str | None]


def refusal(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Why eager PyTorch may refuse this call of an operator; None where it does not, as far as is known."""
    if not is_operator(target):
        return None
    packet = target.overloadpacket
    rules = RULES.get(packet)
    if rules is None and packet not in FIRST and packet not in PROMOTED:
        return None
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    if any(t.device.type != "cpu" for t in tensors):
        return None
    return _lacking(packet, tensors) or _broken(rules or (), bind(target, args, dict(kwargs)))


def _lacking(packet: Any, tensors: Sequence[Tensor]) -> str | None:
    """That the kernel has no version for the type in which it would compute."""
    if not tensors:
        return None
    dtype, accepted = tensors[0].dtype, FIRST.get(packet)
    if accepted is None:
        accepted = PROMOTED.get(packet)
        for t in tensors[1:]:
            dtype = torch.promote_types(dtype, t.dtype)
    if accepted is None or dtype in accepted:
        return None
    return f"eager PyTorch has no kernel of it for {dtype}"


def _broken(rules: Iterable[Rule], arguments: Arguments) -> str | None:
    return next((f"eager PyTorch refuses {why}" for rule in rules if (why := rule(arguments))), None)


# -- numbers that a type cannot hold -------------------------------------------------------------------------
def overflows(value: object, dtype: torch.dtype) -> bool:
    """Whether converting a number to ``dtype`` is an error in ATen: out of range, but for infinities of
    floating types, booleans, and negative numbers as unsigned ones, which wrap."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_supported(dtype):
        return False
    if dtype is torch.bool:
        return False
    if is_float(dtype):
        return math.isfinite(value) and abs(value) > torch.finfo(dtype).max
    if math.isnan(value):
        return True
    low, high = integer_limits(dtype)
    return not (low if low < 0 else -high) <= value <= high


def _held(*names: str, by: Callable[[Arguments, Any], torch.dtype]) -> Rule:
    """The numbers of these names are converted to the type that ``by`` gives, without overflow."""

    def rule(a: Arguments) -> str | None:
        given = [(n, a[n]) for n in names if isinstance(a.get(n), (int, float))]
        return next(
            (f"{n}={v}, which {by(a, v)} cannot hold" for n, v in given if overflows(v, by(a, v))), None
        )

    return rule


def _of_input(a: Arguments, value: Any) -> torch.dtype:
    dtype: torch.dtype = (a["self"] if "self" in a else a["input"]).dtype
    return dtype


def _computed(a: Arguments, value: Any) -> torch.dtype:
    return compute_dtype(_of_input(a, value))


def _promoted(a: Arguments, value: Any) -> torch.dtype:
    """The type of self, other and the number together."""
    dtype = torch.result_type(a["self"], value) if isinstance(a["self"], Tensor) else default_dtype()
    return torch.result_type(a["self"], a["other"]) if isinstance(a.get("other"), Tensor) else dtype


def _of_result(a: Arguments, value: Any) -> torch.dtype:
    if isinstance(a.get("dtype"), torch.dtype):
        dtype: torch.dtype = a["dtype"]
        return dtype
    if isinstance(a.get("self"), Tensor):
        return _of_input(a, value)
    return default_dtype() if isinstance(value, float) else torch.int64


# -- parameters that have to lie in a range ------------------------------------------------------------------
def _when(name: str, bad: Callable[[Any], bool]) -> Rule:
    """The number ``name`` makes ``bad`` true."""

    def rule(a: Arguments) -> str | None:
        value = a.get(name)
        known = isinstance(value, (int, float))
        return f"{name}={value}" if known and bad(value) else None

    return rule


def _outside(name: str, low: float, high: float = math.inf) -> Rule:
    return _when(name, lambda v: not low <= v <= high)


def _not_above(name: str, low: float) -> Rule:
    return _when(name, lambda v: not v > low)


def _differing(*names: str) -> Rule:
    """The tensors of these names are of several types."""

    def rule(a: Arguments) -> str | None:
        types = {a[n].dtype for n in names if isinstance(a.get(n), Tensor)}
        return f"tensors of {' and '.join(sorted(map(str, types)))}" if len(types) > 1 else None

    return rule


def _beside(a: Arguments, value: Any) -> torch.dtype:
    """The type in which `where` chooses between a tensor and a number."""
    tensor = next((t for t in (a["self"], a["other"]) if isinstance(t, Tensor)), None)
    return torch.result_type(tensor, value) if tensor is not None else default_dtype()


def _negative_power(a: Arguments) -> str | None:
    base, exponent = a["self"], a["exponent"]
    whole = isinstance(base, Tensor) and is_integer(base.dtype) and isinstance(exponent, int)
    return "negative powers of integers" if whole and exponent < 0 else None


def _of_no_floats(a: Arguments) -> str | None:
    dtype = a["dtype"] if a.get("dtype") is not None else default_dtype()
    return None if is_float(dtype) or dtype.is_complex else f"such numbers in {dtype}"


def _bernoulli_of_integers(a: Arguments) -> str | None:
    return "probabilities that are integers" if "p" not in a and not is_float(a["self"].dtype) else None


def _empty_range(a: Arguments) -> str | None:
    """Of `uniform`: bounds in the wrong order or beyond the type."""
    low, high, dtype = a["from"], a["to"], a["self"].dtype
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float)) and is_float(dtype)):
        return None
    most = torch.finfo(dtype).max
    fine = low <= high and high - low <= most and max(abs(low), abs(high)) <= most
    return None if fine else f"the range from {low} to {high}"


def _integers_beyond(a: Arguments) -> str | None:
    """Of `randint`: bounds in the wrong order or beyond the type."""
    low, high = a.get("low", 0), a["high"]
    like = a.get("self")
    dtype = a["dtype"] or (like.dtype if isinstance(like, Tensor) else torch.int64)
    if not (isinstance(low, int) and isinstance(high, int)):
        return None
    if is_float(dtype):
        least, most = -torch.finfo(dtype).max, torch.finfo(dtype).max
    else:
        least, most = integer_limits(dtype)
    return None if least <= low < high <= most + 1 else f"integers of {dtype} from {low} to {high}"


def _counting_in_bool(a: Arguments) -> str | None:
    return "a range of booleans" if a.get("dtype") is torch.bool else None


_BATCH_NORMS = [
    packet
    for name in (
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional"
        " _native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_with_update_functional"
        " _batch_norm_no_update"
    ).split()
    if (packet := getattr(aten, name, None)) is not None
]
_MIXED_NORM = ("self", "input", "weight", "bias", "running_mean", "running_var")


def _mixed_norm(a: Arguments) -> str | None:
    """A normalisation takes parameters of its input's type, or of float32 beside a half type, all alike."""
    types = [t.dtype for t in (a.get(n) for n in _MIXED_NORM) if isinstance(t, Tensor)]
    wide = compute_dtype(types[0])
    fine = set(types[1:]) <= {types[0]} or set(types[1:]) == {wide}
    return (
        None if fine else f"parameters of {' and '.join(sorted({str(t) for t in types[1:]}))} for {types[0]}"
    )


def _booleans(a: Arguments) -> str | None:
    operands = [a["self"], a["other"]]
    found = any(x is True or x is False or getattr(x, "dtype", None) is torch.bool for x in operands)
    return "differences of booleans" if found else None


def _typed(name: str, *accepted: torch.dtype) -> Rule:
    """The tensor ``name`` is of another type than the accepted ones."""

    def rule(a: Arguments) -> str | None:
        t = a.get(name)
        return f"{name} of {t.dtype}" if isinstance(t, Tensor) and t.dtype not in accepted else None

    return rule


def _unequal(sizes: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(sizes) != len(others) or any(true_if_known(m != n) for m, n in zip(sizes, others, strict=True))


def _addmv_sizes(a: Arguments) -> str | None:
    added, matrix, vector = a["self"], a["mat"], a["vec"]
    fine = added.ndim <= 1 and not _unequal(matrix.shape[1:], vector.shape)
    fine = fine and not (
        added.ndim and _unequal(added.shape, matrix.shape[:1]) and _unequal(added.shape, [1])
    )
    return None if fine else "sizes that do not match"


def _slice_sizes(piece: Callable[[Arguments], Sequence[Any]]) -> Rule:
    """``src`` has another shape than the part of ``self`` that it is to replace."""

    def rule(a: Arguments) -> str | None:
        return f"a source of shape {tuple(a['src'].shape)}" if _unequal(a["src"].shape, piece(a)) else None

    return rule


def _targets(a: Arguments) -> str | None:
    x, target = a["self"], a["target"]
    channels = 1 if x.ndim > 1 else 0
    fine = not _unequal([*x.shape[:channels], *x.shape[channels + 1 :]], target.shape)
    fine = fine or (x.ndim == 1 and target.ndim <= 1)
    return None if fine else f"targets of shape {tuple(target.shape)} for {tuple(x.shape)}"


RULES: Mapping[Any, tuple[Rule, ...]] = {
    # numbers that are stored
    aten.full: (_held("fill_value", by=_of_result),),
    aten.full_like: (_held("fill_value", by=_of_result),),
    aten.new_full: (_held("fill_value", by=_of_result),),
    aten.fill: (_held("value", by=_of_input),),
    aten.scalar_tensor: (_held("s", by=_of_result),),
    aten.masked_fill: (_held("value", by=_of_input),),
    aten.index_fill: (_held("value", by=_of_input), _typed("index", torch.int64)),
    aten.scatter: (_held("value", by=_of_input), _typed("index", torch.int64, torch.int32)),
    aten.scatter_add: (_typed("index", torch.int64, torch.int32), _differing("self", "src")),
    aten.scatter_reduce: (_typed("index", torch.int64, torch.int32), _differing("self", "src")),
    aten.constant_pad_nd: (_held("value", by=_of_input),),
    aten.where: (_held("other", "self", by=_beside),),
    # numbers that are computed with
    aten.clamp: (_held("min", "max", by=_promoted),),
    aten.clamp_min: (_held("min", by=_promoted),),
    aten.clamp_max: (_held("max", by=_promoted),),
    aten.hardtanh: (_held("min_val", "max_val", by=_of_input),),
    aten.threshold: (_held("value", by=_of_input), _held("threshold", by=_computed)),
    aten.hardshrink: (_held("lambd", by=_of_input),),
    aten.softshrink: (_held("lambd", by=_of_input), _outside("lambd", 0)),
    aten.add: (_held("alpha", by=_promoted),),
    aten.sub: (_held("alpha", by=_promoted), _booleans),
    aten.rsub: (_held("alpha", by=_promoted), _booleans),
    aten.pow: (_held("exponent", by=_promoted), _negative_power),
    aten.addcmul: (_held("value", by=_computed),),
    aten.addcdiv: (_held("value", by=_computed),),
    aten.lerp: (_held("weight", by=_computed), _differing("self", "end", "weight")),
    aten.elu: (_held("alpha", "scale", "input_scale", by=_computed),),
    aten.celu: (_held("alpha", by=_computed), _when("alpha", lambda v: v == 0)),
    aten.softplus: (_held("beta", "threshold", by=_computed),),
    aten.logit: (_held("eps", by=_of_input),),
    aten.addmv: (
        _held("alpha", "beta", by=_of_input),
        _differing("self", "mat", "vec"),
        _addmv_sizes,
    ),
    aten.addr: (_held("alpha", "beta", by=_of_input),),
    # ranges
    aten.smooth_l1_loss: (_outside("beta", 0),),
    aten.huber_loss: (_not_above("delta", 0),),
    aten.bernoulli: (_outside("p", 0, 1), _bernoulli_of_integers),
    aten.native_dropout: (_outside("p", 0, 1),),
    aten.normal: (_outside("std", 0),),
    aten.normal_functional: (_outside("std", 0),),
    aten.exponential: (_not_above("lambd", 0),),
    aten.geometric: (_when("p", lambda v: not 0 < v < 1),),
    aten.log_normal: (_not_above("std", 0),),
    aten.cauchy: (_not_above("sigma", 0),),
    aten.uniform: (_empty_range,),
    aten.rand: (_of_no_floats,),
    aten.randn: (_of_no_floats,),
    aten.randint: (_integers_beyond,),
    aten.randint_like: (_integers_beyond,),
    aten.arange: (_counting_in_bool,),
    aten.linspace: (_counting_in_bool,),
    aten.logspace: (_counting_in_bool,),
    # types that go together
    aten.mv: (_differing("self", "vec"),),
    aten.dot: (_differing("self", "tensor"),),
    aten.vdot: (_differing("self", "other"),),
    aten.linalg_cross: (_differing("self", "other"),),
    aten.heaviside: (_differing("self", "values"),),
    aten.ldexp: (lambda a: "exponents that are booleans" if a["other"].dtype is torch.bool else None,),
    aten.binary_cross_entropy: (_differing("self", "target", "weight"),),
    aten.native_layer_norm: (_mixed_norm,),
    aten.native_group_norm: (_mixed_norm,),
    **dict.fromkeys(_BATCH_NORMS, (_mixed_norm,)),
    # indices and targets
    aten.nll_loss_forward: (
        _typed("target", torch.int64, torch.uint8),
        _targets,
        _differing("self", "weight"),
    ),
    aten.nll_loss2d_forward: (
        _typed("target", torch.int64, torch.uint8),
        _targets,
        _differing("self", "weight"),
    ),
    aten.index_select: (_typed("index", torch.int64, torch.int32),),
    aten.index_add: (
        _held("alpha", by=_of_input),
        _typed("index", torch.int64, torch.int32),
        _differing("self", "source"),
    ),
    aten.index_copy: (_typed("index", torch.int64), _differing("self", "source")),
    aten.gather: (_typed("index", torch.int64, torch.int32),),
    aten.take: (_typed("index", torch.int64),),
    aten.embedding: (_typed("indices", torch.int64, torch.int32),),
    # parts
    aten.diagonal_scatter: (
        _slice_sizes(lambda a: a["self"].diagonal(a["offset"], a["dim1"], a["dim2"]).shape),
    ),
    aten.select_scatter: (_slice_sizes(lambda a: a["self"].select(a["dim"], a["index"]).shape),),
}
