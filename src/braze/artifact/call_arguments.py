"""Calling a loaded model: from arguments to leaves, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from braze._torch.integers import LEAST
from braze.artifact.model_info import Given, Model, Parameters, Range
from braze.artifact.schema import GraphInfo, Input, NumberInput, TensorInput
from braze.artifact.trees import flattener, leaf_paths
from braze.errors import InputMismatchError
from braze.runtime.call_checks import describe_difference
from braze.runtime.expr import Expr
from braze.runtime.plan import CheckTensor

__all__ = ["Checks", "Signature", "argument_paths"]


def argument_paths(parameters: Parameters) -> list[str]:
    """How one would write each leaf of the arguments: ``x``, ``opts['a'][0]``."""
    return [path for name, tree in _arguments(parameters) for path in leaf_paths(tree, name)]


def _arguments(parameters: Parameters) -> list[tuple[str, Any]]:
    positional = parameters.arguments.children
    names = [*parameters.names, *(f"argument {k}" for k in range(len(parameters.names), len(positional)))]
    keywords = zip(map(str, parameters.keywords.keys), parameters.keywords.children, strict=True)
    return [*zip(names, positional, strict=True), *keywords]


class Signature:
    """From positional and keyword arguments to leaves."""

    def __init__(self, parameters: Parameters) -> None:
        self.names = parameters.names
        self.count = len(parameters.arguments.children)
        self.keywords = parameters.keywords.keys
        each = _arguments(parameters)
        self._flat = all(tree.kind == "leaf" for _, tree in each)
        self._flatten = [flattener(tree, name) for name, tree in each]

    def leaves(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves of a call's arguments, in order."""
        if len(args) == self.count and not kwargs and not self.keywords:
            values = list(args)
        else:
            values = self._values(args, kwargs)
        if self._flat:
            return values
        return [leaf for flatten, value in zip(self._flatten, values, strict=True) for leaf in flatten(value)]

    def _values(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        if len(args) > self.count:
            raise TypeError(f"the model takes {self.count} positional arguments, and was given {len(args)}")
        left = dict(kwargs)
        values = list(args)
        for position in range(len(args), self.count):
            name = self.names[position] if position < len(self.names) else f"argument {position}"
            if name not in left:
                raise TypeError(f"the model misses its argument {name!r}")
            values.append(left.pop(name))
        for key in self.keywords:
            if key not in left:
                raise TypeError(f"the model misses its keyword argument {key!r}")
            values.append(left.pop(str(key)))
        if left:
            raise TypeError(f"the model has no argument {sorted(left)[0]!r}, or it is given twice")
        return values


class Checks:
    """What the arguments have to be, beyond what the graph checks by itself; and what is wrong with them."""

    def __init__(self, model: Model, info: GraphInfo, paths: Sequence[str]) -> None:
        self.info = info
        self.paths = paths
        self.items: dict[int, Input] = {
            slot.given: item
            for slot, item in zip(model.slots, info.inputs, strict=True)
            if slot.given is not None
        }
        self.constants = [(leaf, g) for leaf, g in enumerate(model.given) if g.kind == "constant"]
        self.numbers = [leaf for leaf, g in enumerate(model.given) if g.kind == "number"]
        self.bounds = list(_bounds(self.items, model.ranges))
        self.tensors = [leaf for leaf, item in self.items.items() if isinstance(item, TensorInput)]

    def run(self, leaves: Sequence[Any]) -> None:
        """Raise `InputMismatchError` for a constant that is another, a number that is none, and a size that
        is out of its range."""
        for leaf, given in self.constants:
            value = leaves[leaf]
            if value is not given.value and (type(value) is not type(given.value) or value != given.value):
                raise self._constant(leaf, given, value)
        for leaf in self.numbers:
            if type(leaves[leaf]) is not int:
                raise InputMismatchError(f"{self.paths[leaf]} has to be an int, and is {leaves[leaf]!r}")
        for leaf, dim, lower, upper in self.bounds:
            value = leaves[leaf]
            try:
                size = value if dim is None else value.shape[dim]
            except (AttributeError, IndexError):
                continue  # the graph's own check says what it is
            if size < lower or (upper is not None and size > upper):
                raise self._range(leaf, dim, size, lower, upper)
        if self.info.guards:
            self._guards(leaves)

    def _constant(self, leaf: int, given: Given, value: Any) -> InputMismatchError:
        return InputMismatchError(
            f"{self.paths[leaf]} is part of the program: it has to be {given.value!r}, and is {value!r}",
            hint="export the program anew for another value, or with a tensor there",
        )

    def _range(
        self, leaf: int, dim: int | None, size: int, lower: int, upper: int | None
    ) -> InputMismatchError:
        what = self.paths[leaf] if dim is None else f"size {dim} of {self.paths[leaf]}"
        wanted = (
            f"at least {lower}" if upper is None else f"{lower}" if lower == upper else f"{lower} to {upper}"
        )
        return InputMismatchError(
            f"{what} has to be {wanted}, and is {size}", hint="export the program with another range for it"
        )

    def _symbols(self, leaves: Sequence[Any]) -> dict[str, int]:
        """The values of the size symbols in a call."""
        found: dict[str, int] = {}
        for leaf, dim, e in _places(self.items):
            value = leaves[leaf]
            if dim is None:
                found.setdefault(_symbol(e), value)
            elif isinstance(value, torch.Tensor) and dim < value.dim():
                found.setdefault(_symbol(e), value.shape[dim])
        return found

    def _guards(self, leaves: Sequence[Any]) -> None:
        sizes = self._symbols(leaves)
        for guard in self.info.guards:
            if all(s.name in sizes for s in guard.free_symbols) and not guard.evaluate(sizes):
                raise InputMismatchError(
                    f"the package was made for sizes with {guard}",
                    hint="export the program for these sizes, and compile that",
                )

    def resolve(self, leaves: list[Any]) -> None:
        """Copy tensors that are negated or conjugated lazily: their memory holds other numbers than they do.
        Raises `InputMismatchError` for one that the program writes to."""
        for leaf in self.tensors:
            value, item = leaves[leaf], self.items[leaf]
            if not isinstance(value, torch.Tensor) or not (value.is_neg() or value.is_conj()):
                continue
            if isinstance(item, TensorInput) and item.mutated:
                raise InputMismatchError(
                    f"the program writes to {self.paths[leaf]}, which is negated or conjugated lazily",
                    hint="pass a copy: `x.resolve_conj().resolve_neg()`",
                )
            leaves[leaf] = value.resolve_conj().resolve_neg()

    def laid_out(self, leaves: Sequence[Any], error: InputMismatchError) -> tuple[list[Any], list[int]]:
        """The leaves with tensors copied whose strides alone are others than the code's, and which of those
        the program writes to. Raises `InputMismatchError`, by the arguments' names, for other differences."""
        sizes = self._symbols(leaves)
        fixed = list(leaves)
        written: list[int] = []
        changed = False
        for leaf, item in self.items.items():
            if not isinstance(item, TensorInput):
                continue
            loose = CheckTensor(item.name, item.dtype, item.sizes, (None,) * len(item.strides), item.device)
            difference = _difference(loose, leaves[leaf], sizes)
            if difference is not None:
                hint = "sizes that may differ from call to call are declared when a program is exported"
                raise InputMismatchError(
                    f"the package was not made for this {self.paths[leaf]}: {difference}",
                    hint=hint if "sizes" in difference else "export the program with such an argument",
                ) from error
            strides = tuple(e.evaluate(sizes) for e in item.strides)
            tensor = leaves[leaf]
            if tensor.stride() != strides:
                changed = True
                fixed[leaf] = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
                if item.mutated:
                    written.append(leaf)
        if not changed:
            raise error
        return fixed, written


def _places(items: Mapping[int, Input]) -> Iterable[tuple[int, int | None, Expr]]:
    """Where each size symbol can be read: a leaf, and a dimension of it (None: the leaf is the number)."""
    for leaf, item in items.items():
        if isinstance(item, NumberInput) and item.expression.symbol is not None:
            yield leaf, None, item.expression
        elif isinstance(item, TensorInput):
            for dim, e in enumerate(item.sizes):
                if e.symbol is not None:
                    yield leaf, dim, e


def _symbol(e: Expr) -> str:
    assert e.symbol is not None
    return e.symbol.name


def _bounds(
    items: Mapping[int, Input], ranges: Sequence[Range]
) -> Iterable[tuple[int, int | None, int, int | None]]:
    """Leaf, dimension, least and greatest value: of the export's ranges, and of what the code relies on."""
    declared = {r.symbol: r for r in ranges}
    for leaf, dim, e in _places(items):
        lower, upper = e.bounds()
        known = declared.get(_symbol(e))
        lower = max(LEAST if lower is None else lower, known.lower if known else LEAST)
        if known is not None and known.upper is not None:
            upper = known.upper if upper is None else min(upper, known.upper)
        yield leaf, dim, lower, upper


def _difference(check: CheckTensor, tensor: Any, sizes: Mapping[str, int]) -> str | None:
    try:
        return describe_difference(check, tensor, sizes)
    except KeyError:  # a size that was to be read from what is no such tensor
        return None
