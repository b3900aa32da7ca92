"""Rules by which eager PyTorch refuses a call that an operator's fake version accepts.

A rule takes the call's arguments and says why it is refused, or None. It may be too wide, never too narrow
for what it is about; see `braze.lowering.refusals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from braze._torch.shapes import true_if_known
from braze._torch.state import default_dtype
from braze.ops.dtypes import compute_dtype, integer_limits, is_float, is_integer, is_supported

aten = torch.ops.aten

Question: TypeAlias = Callable[[Any], bool]


class Arguments(dict[str, Any]):
    """A call's arguments by their names in the schema; tensors are fake ones. ``holds`` tells whether a
    condition on symbolic sizes is true; while tracing it may guard them."""

    def __init__(self, values: dict[str, Any], holds: Question = true_if_known) -> None:
        super().__init__(values)
        self.holds = holds


Rule: TypeAlias = Callable[[Arguments], str | None]

_broadcast: Callable[..., Sequence[Any]] = torch.broadcast_shapes
_NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)


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


def held(*names: str, by: Callable[[Arguments, Any], torch.dtype]) -> Rule:
    """The numbers of these names are converted to the type that ``by`` gives, without overflow."""

    def rule(a: Arguments) -> str | None:
        for name in names:
            value = a.get(name)
            if isinstance(value, (int, float)) and overflows(value, by(a, value)):
                return f"{name}={value}, which {by(a, value)} cannot hold"
            if isinstance(value, torch.SymInt) and (dtype := by(a, value)) in _NARROW:
                low, high = integer_limits(dtype)
                if a.holds(value > high) or a.holds(value < (low or -high)):
                    return f"{name}={value}, which {dtype} cannot hold"
        return None

    return rule


def of_input(a: Arguments, value: Any) -> torch.dtype:
    dtype: torch.dtype = (a["self"] if "self" in a else a["input"]).dtype
    return dtype


def computed(a: Arguments, value: Any) -> torch.dtype:
    return compute_dtype(of_input(a, value))


def promoted(a: Arguments, value: Any) -> torch.dtype:
    """The type of self, other and the number together."""
    dtype = torch.result_type(a["self"], value) if isinstance(a["self"], Tensor) else default_dtype()
    return torch.result_type(a["self"], a["other"]) if isinstance(a.get("other"), Tensor) else dtype


def of_result(a: Arguments, value: Any) -> torch.dtype:
    if isinstance(a.get("dtype"), torch.dtype):
        dtype: torch.dtype = a["dtype"]
        return dtype
    if isinstance(a.get("self"), Tensor):
        return of_input(a, value)
    return default_dtype() if isinstance(value, float) else torch.int64


# -- parameters that have to lie in a range ------------------------------------------------------------------
def when(name: str, bad: Callable[[Any], bool]) -> Rule:
    """The number ``name`` makes ``bad`` true."""

    def rule(a: Arguments) -> str | None:
        value = a.get(name)
        known = isinstance(value, (int, float))
        return f"{name}={value}" if known and bad(value) else None

    return rule


def outside(name: str, low: float, high: float = math.inf) -> Rule:
    return when(name, lambda v: not low <= v <= high)


def not_above(name: str, low: float) -> Rule:
    return when(name, lambda v: not v > low)


def differing(*names: str) -> Rule:
    """The tensors of these names are of several types."""

    def rule(a: Arguments) -> str | None:
        types = {a[n].dtype for n in names if isinstance(a.get(n), Tensor)}
        return f"tensors of {' and '.join(sorted(map(str, types)))}" if len(types) > 1 else None

    return rule


def beside(a: Arguments, value: Any) -> torch.dtype:
    """The type in which `where` chooses between a tensor and a number."""
    tensor = next((t for t in (a["self"], a["other"]) if isinstance(t, Tensor)), None)
    return torch.result_type(tensor, value) if tensor is not None else default_dtype()


def negative_power(a: Arguments) -> str | None:
    base, exponent = a["self"], a["exponent"]
    whole = isinstance(base, Tensor) and is_integer(base.dtype) and isinstance(exponent, int)
    return "negative powers of integers" if whole and exponent < 0 else None


def of_no_floats(a: Arguments) -> str | None:
    dtype = a["dtype"] if a.get("dtype") is not None else default_dtype()
    return None if is_float(dtype) or dtype.is_complex else f"such numbers in {dtype}"


def bernoulli_of_integers(a: Arguments) -> str | None:
    return "probabilities that are integers" if "p" not in a and not is_float(a["self"].dtype) else None


def empty_range(a: Arguments) -> str | None:
    """Of `uniform`: bounds in the wrong order or beyond the type."""
    low, high, dtype = a["from"], a["to"], a["self"].dtype
    if not (isinstance(low, (int, float)) and isinstance(high, (int, float)) and is_float(dtype)):
        return None
    most = torch.finfo(dtype).max
    fine = low <= high and high - low <= most and max(abs(low), abs(high)) <= most
    return None if fine else f"the range from {low} to {high}"


def integers_beyond(a: Arguments) -> str | None:
    """Of `randint`: bounds in the wrong order or beyond the type."""
    low, high = a.get("low", 0), a["high"]
    like = a.get("self")
    dtype = like.dtype if isinstance(like, Tensor) else torch.int64
    if isinstance(a["dtype"], torch.dtype):  # a schema's default is a number of its own
        dtype = a["dtype"]
    if not (isinstance(low, int) and isinstance(high, int)):
        return None
    if is_float(dtype):
        least, most = -torch.finfo(dtype).max, torch.finfo(dtype).max
    else:
        least, most = integer_limits(dtype)
    return None if least <= low < high <= most + 1 else f"integers of {dtype} from {low} to {high}"


def counting_in_bool(a: Arguments) -> str | None:
    return "a range of booleans" if a.get("dtype") is torch.bool else None


BATCH_NORMS = [
    packet
    for name in (
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional"
        " _native_batch_norm_legit_no_training _batch_norm_with_update _batch_norm_with_update_functional"
        " _batch_norm_no_update"
    ).split()
    if (packet := getattr(aten, name, None)) is not None
]
_MIXED_NORM = ("self", "input", "weight", "bias", "running_mean", "running_var")


def mixed_norm(a: Arguments) -> str | None:
    """A normalisation takes parameters of its input's type, or of float32 beside a half type, all alike."""
    types = [t.dtype for t in (a.get(n) for n in _MIXED_NORM) if isinstance(t, Tensor)]
    wide = compute_dtype(types[0])
    fine = set(types[1:]) <= {types[0]} or set(types[1:]) == {wide}
    return (
        None if fine else f"parameters of {' and '.join(sorted({str(t) for t in types[1:]}))} for {types[0]}"
    )


def booleans(a: Arguments) -> str | None:
    operands = [a["self"], a["other"]]
    found = any(x is True or x is False or getattr(x, "dtype", None) is torch.bool for x in operands)
    return "differences of booleans" if found else None


def typed(name: str, *accepted: torch.dtype) -> Rule:
    """The tensor ``name`` is of another type than the accepted ones."""

    def rule(a: Arguments) -> str | None:
        t = a.get(name)
        return f"{name} of {t.dtype}" if isinstance(t, Tensor) and t.dtype not in accepted else None

    return rule


def _unequal(a: Arguments, sizes: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(sizes) != len(others) or any(a.holds(m != n) for m, n in zip(sizes, others, strict=True))


def addmv_sizes(a: Arguments) -> str | None:
    added, matrix, vector = a["self"], a["mat"], a["vec"]
    if added.ndim > 1 or _unequal(a, matrix.shape[1:], vector.shape):
        return "sizes that do not match"
    if not added.ndim or not _unequal(a, added.shape, matrix.shape[:1]):
        return None
    return "a sum of different sizes" if _unequal(a, added.shape, [1]) else None


def slice_sizes(piece: Callable[[Arguments], Sequence[Any]]) -> Rule:
    """``src`` has another shape than the part of ``self`` that it is to replace."""

    def rule(a: Arguments) -> str | None:
        source = a["src"].shape
        return f"a source of shape {tuple(source)}" if _unequal(a, source, piece(a)) else None

    return rule


def targets(a: Arguments) -> str | None:
    x, target = a["self"], a["target"]
    channels = 1 if x.ndim > 1 else 0
    fine = not _unequal(a, [*x.shape[:channels], *x.shape[channels + 1 :]], target.shape)
    fine = fine or (x.ndim == 1 and target.ndim <= 1)
    return None if fine else f"targets of shape {tuple(target.shape)} for {tuple(x.shape)}"


def diagonal(a: Arguments) -> Sequence[Any]:
    shape: Sequence[Any] = a["self"].diagonal(a["offset"], a["dim1"], a["dim2"]).shape
    return shape


def selected(a: Arguments) -> Sequence[Any]:
    sizes = list(a["self"].shape)
    del sizes[a["dim"]]
    return sizes


def sliced(a: Arguments) -> Sequence[Any]:
    """The sizes of a slice; where they depend on symbols, those of the source, which nobody doubts then."""
    sizes, dim, ends = list(a["self"].shape), a["dim"], (a["start"], a["end"])
    if all(isinstance(n, int) or n is None for n in (*ends, sizes[dim])):
        sizes[dim] = len(range(*slice(*ends, a["step"]).indices(sizes[dim])))
    elif len(sizes) == a["src"].ndim:
        sizes[dim] = a["src"].shape[dim]
    return sizes


def added_rows(a: Arguments) -> str | None:
    x, source, index = a["self"], a["source"], a["index"]
    count, sizes = index.numel(), list(x.shape)
    if x.ndim:
        sizes[a["dim"]] = count
    wrong = index.ndim > 1 or _unequal(a, source.shape, sizes) or (not x.ndim and a.holds(count != 1))
    return f"a source of shape {tuple(source.shape)}" if wrong else None


def reduced_kind(a: Arguments) -> str | None:
    kind = a["reduce"]
    return None if kind in ("prod", "mean", "amax", "amin") else f"reduce={kind!r}"


def boolean_mean(a: Arguments) -> str | None:
    return "a mean of booleans" if a["reduce"] == "mean" and a["self"].dtype is torch.bool else None


def segments(a: Arguments) -> str | None:
    """Of `segment_reduce`: lengths or offsets of another shape, or none."""
    x, lengths, offsets, axis = a["data"], a.get("lengths"), a.get("offsets"), a["axis"]
    given = lengths if lengths is not None else offsets
    if given is None or a.get("indices") is not None:
        return "segments without lengths or offsets"
    fits = axis == given.ndim - 1 and x.ndim > axis and not _unequal(a, given.shape[:-1], x.shape[:axis])
    known = a["reduce"] in ("sum", "mean", "prod", "max", "min")
    typed = is_float(x.dtype) and is_integer(given.dtype)
    fine = fits and known and typed and not a.holds(given.numel() == 0)
    return None if fine else f"segments of shape {tuple(given.shape)}"


def span_of_bins(a: Arguments) -> str | None:
    low, high = a["min"], a["max"]
    return None if -math.inf < low <= high < math.inf else f"bins from {low} to {high}"


def grid_of_bins(a: Arguments) -> str | None:
    """Of histograms: bins, weights, or ranges that do not fit."""
    x, bins, weight, ends = a["self"], a["bins"], a.get("weight"), a.get("range")
    each = [bins] if isinstance(bins, (int, Tensor)) else bins
    numbers = [b for b in each if isinstance(b, int)]
    edges = [b for b in each if isinstance(b, Tensor)]
    if any(n <= 0 for n in numbers) or any(t.ndim != 1 or t.dtype is not x.dtype for t in edges):
        return "such bins"
    if any(a.holds(t.shape[0] < 2) for t in edges):
        return "no bins"
    alone = isinstance(bins, (int, Tensor))
    if not alone and (x.ndim < 2 or a.holds(x.shape[-1] != len(each))):
        return f"{len(each)} rows of bins for points of shape {tuple(x.shape)}"
    if isinstance(weight, Tensor):
        points = x.numel() if alone else math.prod(x.shape[:-1])
        shaped = alone or not _unequal(a, weight.shape, x.shape[:-1])
        if weight.dtype is not x.dtype or not shaped or a.holds(weight.numel() != points):
            return f"weights of {weight.dtype} and shape {tuple(weight.shape)}"
    if ends is not None:
        pairs = list(zip(ends[::2], ends[1::2], strict=False))
        if len(ends) != 2 * len(each) or not all(-math.inf < low <= high < math.inf for low, high in pairs):
            return f"bins over {ends}"
    return None


def put_elements(a: Arguments) -> str | None:
    """Of `put`: another number of elements than there are places, or none to replace."""
    x, index, source = a["self"], a["index"], a["source"]
    if a.holds(index.numel() != source.numel()):
        return f"{source.numel()} elements for {index.numel()} places"
    return "places among no elements" if a.holds(x.numel() == 0) else None


def stored_values(a: Arguments) -> str | None:
    """Of `index_put`: values of another type, or that do not broadcast to the elements that are chosen."""
    x, values, indices = a["self"], a["values"], a["indices"]
    if values.dtype is not x.dtype:
        return f"values of {values.dtype} in a tensor of {x.dtype}"
    given = [i for i in indices if i is not None]
    if not given or any(i.dtype in (torch.bool, torch.uint8) for i in given):
        return None
    places = [d for d, i in enumerate(indices) if i is not None]
    together = places == list(range(places[0], places[-1] + 1))
    rest = [n for d, n in enumerate(x.shape) if d not in places]
    first = places[0] if together else 0
    sizes = [*rest[:first], *_broadcast(*[i.shape for i in given]), *rest[first:]]
    pairs = zip(reversed(values.shape), reversed(sizes), strict=False)
    fits = values.ndim <= len(sizes) and all(a.holds(m == 1) or not a.holds(m != n) for m, n in pairs)
    return None if fits else f"values of shape {tuple(values.shape)} for {tuple(sizes)} elements"


def grid(a: Arguments) -> str | None:
    empty = any(a.holds(n == 0) for n in a["input"].shape[2:])
    return "a picture without points" if empty else None


def side(a: Arguments) -> str | None:
    side = a.get("side")
    fine = side in (None, "right") or (side == "left" and not a["right"])
    return None if fine else f"side={side!r}"


def boolean_power(a: Arguments) -> str | None:
    operands = [a["self"], a["exponent"]]
    booleans = all(isinstance(x, Tensor) and x.dtype is torch.bool for x in operands)
    return "powers of booleans" if booleans else None


def negative_strides(a: Arguments) -> str | None:
    return "negative strides" if any(isinstance(s, int) and s < 0 for s in a["stride"]) else None


def one_index(a: Arguments) -> str | None:
    several = a["self"].ndim == 0 and a["index"].ndim and a.holds(a["index"].shape[0] != 1)
    return "several indices into one number" if several else None


def group_sizes(a: Arguments) -> str | None:
    n, c, hxw, groups, weight = a["N"], a["C"], a["HxW"], a["group"], a["weight"]
    wrong = a.holds(n * c * hxw != a["input"].numel()) or a.holds(groups <= 0) or a.holds(c % groups != 0)
    wrong = wrong or (weight is not None and a.holds(weight.numel() != c))
    return f"{groups} groups of {c} channels" if wrong else None


def affine_sizes(a: Arguments) -> str | None:
    n, _, *image = a["size"]
    d = len(image)
    return "matrices of another shape" if _unequal(a, a["theta"].shape, (n, d, d + 1)) else None


def selected_index(a: Arguments) -> str | None:
    index, size = a["index"], a["self"].shape[a["dim"]]
    beyond = a.holds(index >= size) or a.holds(index < -size)
    return f"index {index} of {size}" if beyond else None


PADDING_GRADIENTS = [
    getattr(aten, f"{kind}_pad{n}d_backward") for kind in ("reflection", "replication") for n in (1, 2, 3)
]


def looked_up(a: Arguments) -> str | None:
    """Of `embedding_dense_backward`: a gradient with other rows than there are indices."""
    grad, indices = a["grad_output"], a["indices"]
    rows = math.prod(grad.shape[:-1])
    return f"gradients of {rows} rows" if a.holds(rows != indices.numel()) else None
