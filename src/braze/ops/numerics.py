"""The one numerical rule, as an assertion.

A result agrees with eager's if `torch.testing.assert_close` accepts it with the defaults of its dtype (NaN
equal to NaN, infinities equal), or if its error against a float64 reference is at most twice eager's own.

Errors are measured in units of the tolerance, |x - reference| / (atol + rtol * |reference|), and compared
by their maximum over a tensor: an error counts against the size of the element in which it occurs, and an
eager result that is exact in one element by luck does not make the rule impossible there. NaN and infinity
have to be where the reference or eager has them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from braze.runtime.spec import same_strides

__all__ = [
    "FACTOR",
    "TOLERANCES",
    "Disagreement",
    "assert_agrees",
    "difference",
    "difference_in_kind",
    "in_float64",
    "leaves",
    "map_tensors",
    "scaled_error",
    "scaled_errors",
    "within_factor",
    "zip_leaves",
]

# The defaults of torch.testing.assert_close, by dtype: (rtol, atol). Everything else is compared exactly.
TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex32: (1e-3, 1e-5),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
}
FACTOR = 2.0


class Disagreement(AssertionError):
    """Two results differ by more than the numerical rule allows, or in kind."""


def assert_agrees(
    actual: Any,
    eager: Any,
    float64_reference: Any | Callable[[], Any] | None = None,
    *,
    check_strides: bool = True,
    check_values: bool = True,
) -> None:
    """Asserts that `actual` agrees with `eager`, two equal trees of tensors and plain values.

    float64_reference: the same tree computed in float64, or a function that computes it, called only when
    the tolerances alone do not settle the matter. check_values=False compares everything but values (for
    random numbers and uninitialised memory). Raises `Disagreement`, which names every leaf that differs.
    """
    pairs = list(zip_leaves(actual, eager))
    problems = []
    numeric = []
    for path, left, right in pairs:
        problem = difference_in_kind(left, right, check_strides)
        if problem is not None:
            problems.append(f"{path}: {problem}")
        elif check_values:
            problem = difference(left, right)
            if problem is not None:
                numeric.append((path, left, right, problem))
    notes = []
    if numeric and float64_reference is not None:
        try:
            references = dict(
                leaves(float64_reference() if callable(float64_reference) else float64_reference)
            )
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            references = {}
            notes.append(f"(there is no float64 reference: {_first_line(error)})")
        numeric = [item for item in numeric if not within_factor(*item[1:3], references.get(item[0]))]
    problems += [f"{path}: {problem}" for path, _, _, problem in numeric]
    if problems:
        raise Disagreement("does not agree with eager\n" + "\n".join(f"  {p}" for p in problems + notes))


def leaves(tree: Any, path: str = "result") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree of mappings, sequences and values, with the path to each, in order."""
    if isinstance(tree, Mapping):
        for key in tree:
            yield from leaves(tree[key], f"{path}[{key!r}]")
    elif isinstance(tree, (list, tuple)) and not isinstance(tree, torch.Size):
        for position, item in enumerate(tree):
            yield from leaves(item, f"{path}[{position}]")
    else:
        yield path, tree


def zip_leaves(actual: Any, eager: Any) -> Iterator[tuple[str, Any, Any]]:
    """Leaves of two trees side by side. Raises `Disagreement` where the trees have different shapes."""
    left, right = list(leaves(actual)), list(leaves(eager))
    if [path for path, _ in left] != [path for path, _ in right]:
        extra = [p for p, _ in left if p not in dict(right)] or [p for p, _ in right if p not in dict(left)]
        raise Disagreement(
            f"the results are different trees: {len(left)} and {len(right)} leaves, {extra[:4]}"
        )
    for (path, one), (_, other) in zip(left, right):
        yield path, one, other


def map_tensors(tree: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """A copy of the tree in which `function` is applied to each tensor; mappings become dicts."""
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(value, function) for key, value in tree.items()}
    if isinstance(tree, torch.Size):
        return tree
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(item, function) for item in tree))
    if isinstance(tree, (list, tuple)):
        items = [map_tensors(item, function) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    return tree


def in_float64(tree: Any) -> Any:
    """The tree with floating tensors in float64 and complex ones in complex128; a module becomes a copy of
    itself.
    """
    if isinstance(tree, torch.nn.Module):
        return copy.deepcopy(tree).double()

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        if tensor.is_floating_point():
            return tensor.to(torch.float64)
        return tensor.to(torch.complex128) if tensor.is_complex() else tensor

    return map_tensors(tree, convert)


def difference(actual: Any, eager: Any) -> str | None:
    """What `torch.testing.assert_close` has against two leaves of one kind, in one line; None if nothing."""
    if isinstance(eager, torch.Tensor):
        try:
            torch.testing.assert_close(_dense(actual), _dense(eager), equal_nan=True)
        except AssertionError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return "; ".join(lines[:4])
        return None
    if isinstance(eager, (float, complex)) and eager != eager:
        return None if actual != actual else f"{actual!r} where eager has {eager!r}"
    if isinstance(eager, float):
        return (
            None
            if math.isclose(actual, eager, rel_tol=1e-6, abs_tol=1e-9)
            else f"{actual!r}, eager {eager!r}"
        )
    if isinstance(eager, (bool, int, complex, str, bytes, torch.dtype, torch.device, torch.Size, type(None))):
        return None if actual == eager else f"{actual!r} where eager has {eager!r}"
    return None


def scaled_error(values: torch.Tensor, reference: torch.Tensor, dtype: torch.dtype) -> float:
    """Largest error in units of the tolerance of `dtype`; infinite where NaN or infinity are in the wrong
    places.
    """
    errors = scaled_errors(values, reference, dtype)
    return float(errors.max()) if errors.numel() else 0.0


def scaled_errors(values: torch.Tensor, reference: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The error of each element in units of the tolerance of `dtype`, in float64."""
    rtol, atol = TOLERANCES[dtype]
    wide = torch.complex128 if reference.is_complex() or values.is_complex() else torch.float64
    x, r = _dense(values).to(wide), _dense(reference).to(wide)
    # Values beyond the range of dtype become what dtype makes of them.
    r = r.to(dtype).to(wide).where(~torch.isfinite(r.to(dtype)), r)
    same = (x == r) | (torch.isnan(x) & torch.isnan(r))
    error = (x - r).abs() / (atol + rtol * r.abs())
    error = torch.where(same, torch.zeros_like(error), error)
    return torch.where(torch.isnan(error), torch.full_like(error, math.inf), error)


def within_factor(actual: Any, eager: Any, reference: Any) -> bool:
    """Whether the error of a tensor against its float64 reference is at most twice eager's own. An element in
    which both are NaN, or the same infinity, is one in which eager is matched, whatever float64 has there.
    """
    if not isinstance(actual, torch.Tensor) or not isinstance(reference, torch.Tensor):
        return False
    if actual.dtype not in TOLERANCES or reference.shape != actual.shape:
        return False
    ours, theirs, exact = _dense(actual), _dense(eager), _dense(reference)
    matched = ~torch.isfinite(theirs) & ((ours == theirs) | (torch.isnan(ours) & torch.isnan(theirs)))
    exact = torch.where(matched, theirs.to(exact.dtype), exact)
    error = scaled_error(ours, exact, actual.dtype)
    return math.isfinite(error) and error <= FACTOR * scaled_error(theirs, exact, eager.dtype)


def difference_in_kind(actual: Any, eager: Any, check_strides: bool) -> str | None:
    """In what two leaves differ besides their values, in one line; None if in nothing."""
    if not isinstance(eager, torch.Tensor) or not isinstance(actual, torch.Tensor):
        if isinstance(actual, torch.Tensor) != isinstance(eager, torch.Tensor) or type(actual) is not type(
            eager
        ):
            return f"is {type(actual).__name__}, eager has {type(eager).__name__}"
        return None
    for name in ("dtype", "device", "layout", "shape", "requires_grad"):
        ours, theirs = getattr(actual, name), getattr(eager, name)
        if ours != theirs:
            return f"{name} is {ours}, eager has {theirs}"
    strided = check_strides and eager.layout is torch.strided
    if strided and not same_strides(eager.shape, actual.stride(), eager.stride()):
        return f"strides are {actual.stride()}, eager has {eager.stride()} for shape {tuple(eager.shape)}"
    return None


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.is_nested:
        return tensor.to_padded_tensor(0.0)
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
