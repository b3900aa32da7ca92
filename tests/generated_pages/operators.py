"""docs/operators.md: what becomes of each operator of ATen's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from braze.frontend.decompositions import takes_apart
from braze.frontend.passes import random as random_pass
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.externs import BY_DESIGN
from braze.lowering.registry import COMPLEX_LOWERINGS, LOWERINGS, extern_of
from tests.aten import functional_operators

__all__ = ["RELEASE", "page"]

_NATIVE = {**COMPLEX_LOWERINGS, **LOWERINGS}

RELEASE = ".".join(torch.__version__.split(".")[:2])
"""Of PyTorch: each has other operators."""

_NATIVE = {**COMPLEX_LOWERINGS, **LOWERINGS}

_HEAD = """# Operators

What becomes of each operator of ATen's that writes to no argument, in PyTorch {release}. `python dev.py
pages` writes this page from the tables that compile. What PyTorch itself always takes apart before a
compiler sees it ({composed} overloads, such as `reshape` or `linalg_norm`) is not listed; some operators,
such as `mean`, are in two rows with different overloads.

| | operators | overloads | what it means |
| --- | ---: | ---: | --- |
{counts}

**An extern by design** is no fallback: nothing is said of it, `strict` allows it, `explain` and `stats()`
show it among extern calls. PyTorch has a kernel that loops alone would not reach, or the operator is no
loop at all. What it reads is stored and planned as for any extern, its results are PyTorch's own tensors
with eager's strides, and gradients go through it as through other operators. TorchInductor, too, calls
PyTorch's kernels for products, convolutions, Fourier transforms, linear algebra and pooling; PyTorch
publishes a list of what it may so call (`torchgen/aoti/fallback_ops.py`).

**A fallback** runs as eager PyTorch, with one warning that names the user's line, and is an error under
`strict`. A call of a native or decomposed operator becomes one for a reason of its own: a type that is not
compiled, a layout, arguments that its lowering declines.
"""

_MEANING = {
    "native": "has a lowering, from which kernels are made",
    "native, as random numbers": "a graph pass draws its numbers in kernels",
    "decomposed": "is taken apart into native ones",
    "extern by design": "PyTorch's own kernel is called",
    "fallback": "runs as eager PyTorch, with a warning",
    "of no compiled tensor": "belongs to sparse, nested or quantised tensors, or to other devices",
}

_ELSEWHERE: tuple[tuple[str, str], ...] = (
    ("nested tensors", r"nested|jagged|to_padded"),
    (
        "sparse tensors",
        r"sparse|spdiags|spsolve|hspmm|coalesce|crow_|ccol_|col_indices|row_indices|_(dimI|dimV|nnz)$|dense_dim"
        r"|^_?(indices|values)(_copy)?$|_to_dense$|native_norm$|indices_from_c",
    ),
    (
        "quantised tensors",
        r"quantize|^q_|qscheme|int_repr|_empty_(affine|per_channel)|fake_quant|fused_moving",
    ),
    ("tensors in oneDNN's own layout", r"mkldnn"),
    ("other devices", r"cudnn|miopen|mps|cuda"),
    (
        "PyTorch's own use",
        r"^_test_|_foobar|_philox|_make_dep_token|_lazy_clone|_has_same_storage|_make_dual|_fw_pr",
    ),
)
"""What no compiled tensor meets: a title, and the names."""

_GROUPS: tuple[tuple[str, str], ...] = (
    ("lists of tensors, for optimizers", r"^_(foreach|fused_(ada|sgd)|amp)"),
    ("special functions", r"^special_|polygamma|igamma|^gcd$|^lcm$|frexp"),
    (
        "sampling with a generator of one's own, and into memory",
        r"^(_?rand|random|bernoulli|normal|_fused_drop|rrelu)",
    ),
    ("copies of views", r"_copy$|_copy_|slice_inverse|as_strided_scatter"),
    (
        "sizes that follow from data",
        r"nonzero|unique|masked_select|bincount|repeat_interleave|equal|allclose",
    ),
    ("order statistics and scans", r"median|mode|kthvalue|cum|hist|segment_reduce|logcumsum"),
    ("resampling", r"upsample|grid_sampler"),
    ("complex numbers", r"complex|conj|polar|view_as_real"),
    ("windows", r"_window$"),
)
"""Fallbacks by subject; what fits none of these comes last."""


def _kind(operator: Any) -> str:
    if operator in _NATIVE:
        return "native"
    if operator in random_pass._REWRITES:
        return "native, as random numbers"
    if takes_apart(operator):
        return "decomposed"
    if extern_of(operator) is not None:
        return "extern by design"
    return "of no compiled tensor" if _group(operator, _ELSEWHERE) or _is_elsewhere(operator) else "fallback"


def _name(operator: Any) -> str:
    return str(operator.overloadpacket.__name__)


def _group(operator: Any, groups: Sequence[tuple[str, str]]) -> str | None:
    return next((title for title, names in groups if re.search(names, _name(operator))), None)


def _is_elsewhere(operator: Any) -> bool:
    """Whether no kernel of the operator runs on plain tensors of a CPU."""
    keys = ("CPU", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    return not any(torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key) for key in keys)


def page() -> str:
    """The whole page."""
    kinds: dict[str, list[Any]] = {kind: [] for kind in _MEANING}
    composed = 0
    for operator in functional_operators():
        if operator._can_decompose() and operator not in _NATIVE and not takes_apart(operator):
            composed += 1
        else:
            kinds[_kind(operator)].append(operator)
    counts = "\n".join(
        f"| {kind} | {len(set(map(_name, found)))} | {len(found)} | {_MEANING[kind]} |"
        for kind, found in kinds.items()
    )
    parts = [
        _HEAD.format(release=RELEASE, composed=composed, counts=counts),
        "## Externs by design\n",
        *_rows("why", ((reason, names.split()) for reason, names in BY_DESIGN)),
        "## Fallbacks\n",
        *_rows("subject", _grouped(kinds["fallback"], _GROUPS, "others")),
        "## Native\n",
        *_rows("in `lowering/`", _by(kinds["native"], lambda o: f"`{_file(_NATIVE[o])}`")),
        *_rows("in `frontend/passes/`", [("`random.py`", map(_name, kinds["native, as random numbers"]))]),
        "## Decomposed\n",
        *_rows("first letter", _by(kinds["decomposed"], lambda o: f"`{_name(o).lstrip('_')[0]}`")),
        "## Of no compiled tensor\n",
        *_rows("of", _grouped(kinds["of no compiled tensor"], _ELSEWHERE, "other devices")),
    ]
    return "\n".join(parts)


def _file(lowering: Callable[..., Any]) -> str:
    return lowering.__module__.rpartition(".")[2] + ".py"


def _grouped(
    operators: Iterable[Any], groups: Sequence[tuple[str, str]], rest: str
) -> Iterable[tuple[str, Iterable[str]]]:
    found: dict[str, list[str]] = {title: [] for title, _ in groups}
    for operator in operators:
        found.setdefault(_group(operator, groups) or rest, []).append(_name(operator))
    return [(title, names) for title, names in found.items() if names]


def _by(operators: Iterable[Any], key: Callable[[Any], str]) -> Iterable[tuple[str, Iterable[str]]]:
    found: dict[str, list[str]] = {}
    for operator in operators:
        found.setdefault(key(operator), []).append(_name(operator))
    return sorted(found.items())


def _rows(title: str, rows: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """A table of names, each once."""
    lines = [f"| {title} | operators |", "| --- | --- |"]
    lines += [f"| {what} | {' '.join(f'`{n}`' for n in dict.fromkeys(names))} |" for what, names in rows]
    return [*lines, ""]
