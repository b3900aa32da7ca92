"""Calling a loaded model: from arguments to leaves, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from braze._torch.devices import in_host_memory
from braze._torch.integers import LEAST
from braze._torch.native import resolved
from braze.artifact.model_info import ArgumentLeaf, CallingConvention, Model
from braze.artifact.schema import GraphInfo, Input, NumberInput, TensorInput
from braze.artifact.trees import flattener, leaf_paths
from braze.errors import InputMismatchError
from braze.runtime.call_checks import describe_difference, fails
from braze.runtime.expr import Expr, Symbol
from braze.runtime.guard import BoolExpr, compare
from braze.runtime.overlaps import overlapping_pair
from braze.runtime.plan import BindSize, CheckRange, CheckSizes, CheckTensor, Plan, SymbolRange
from braze.runtime.spec import TensorSpec, restrided

__all__ = ["CallSignature", "Checks", "argument_paths"]


def argument_paths(parameters: CallingConvention) -> list[str]:
    """How one would write each leaf of the arguments: ``x``, ``opts['a'][0]``."""
    return [path for name, tree in _arguments(parameters) for path in leaf_paths(tree, name)]


def _arguments(parameters: CallingConvention) -> list[tuple[str, Any]]:
    positional = parameters.arguments.children
    names = [*parameters.names, *(f"argument {k}" for k in range(len(parameters.names), len(positional)))]
    keywords = zip(map(str, parameters.keywords.keys), parameters.keywords.children, strict=True)
    return [*zip(names, positional, strict=True), *keywords]


class CallSignature:
    """From positional and keyword arguments to leaves."""

    def __init__(self, parameters: CallingConvention) -> None:
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
                raise TypeError(f"the model lacks its argument {name!r}")
            values.append(left.pop(name))
        for key in self.keywords:
            if key not in left:
                raise TypeError(f"the model lacks its keyword argument {key!r}")
            values.append(left.pop(str(key)))
        if left:
            raise TypeError(f"the model has no argument {sorted(left)[0]!r}, or it is given twice")
        return values


class Checks:
    """What the arguments have to be, beyond what the graph checks by itself; and what is wrong with them."""

    def __init__(self, model: Model, info: GraphInfo, plan: Plan, paths: Sequence[str]) -> None:
        self.paths = paths
        self.items: dict[int, Input] = {
            slot.given: item
            for slot, item in zip(model.slots, info.inputs, strict=True)
            if slot.given is not None
        }
        self.constants = [(leaf, g) for leaf, g in enumerate(model.given) if g.kind == "constant"]
        self.numbers = [leaf for leaf, g in enumerate(model.given) if g.kind == "number"]
        specs = {leaf: item for leaf, item in self.items.items() if isinstance(item, TensorInput)}
        self.tensors = list(specs)
        self.complex = {leaf for leaf, spec in specs.items() if spec.spec.dtype.is_complex}
        self.written = [leaf for leaf, spec in specs.items() if spec.mutated]
        self.weights_written = [
            (position, slot.weight)
            for position, (slot, item) in enumerate(zip(model.slots, info.inputs, strict=True))
            if slot.weight is not None and isinstance(item, TensorInput) and item.mutated
        ]
        self.sizes = _Sizes(self.items, plan, paths)
        self.bounds = list(self._narrower(model.ranges))
        self.least = [
            (leaf, dim, symbol.lower)
            for leaf, dim, symbol in _places(self.items)
            if dim is not None and symbol.lower is not None
        ]

    def _narrower(self, ranges: Sequence[SymbolRange]) -> Iterable[tuple[int, int | None, SymbolRange]]:
        """Leaf, dimension and range of a size to which the export gave a narrower one than the code has."""
        declared = {r.symbol: r for r in ranges}
        for leaf, dim, symbol in _places(self.items):
            known = declared.get(symbol.name)
            lower, upper = symbol.bounds()
            if known is None:
                continue
            if known.lower != lower or (known.upper is not None and (upper is None or known.upper < upper)):
                yield leaf, dim, known

    def too_small(self, leaves: Sequence[Any]) -> bool:
        """Whether some size is surely less than the graph takes."""
        try:
            return any(leaves[leaf].shape[dim] < least for leaf, dim, least in self.least)
        except (AttributeError, IndexError, TypeError):
            return False  # the graph's own check says what it is

    def run(self, leaves: Sequence[Any]) -> None:
        """Raise `InputMismatchError` for a constant that is another, a number that is none, and a size that
        is out of the export's range."""
        for leaf, given in self.constants:
            value = leaves[leaf]
            if value is not given.value and (type(value) is not type(given.value) or value != given.value):
                raise self._constant(leaf, given, value)
        for leaf in self.numbers:
            if type(leaves[leaf]) is not int:
                raise InputMismatchError(f"{self.paths[leaf]} has to be an int, but is {leaves[leaf]!r}")
        for leaf, dim, bounds in self.bounds:
            value = leaves[leaf]
            try:
                size = value if dim is None else value.shape[dim]
            except (AttributeError, IndexError):
                continue  # the graph's own check says what it is
            if not bounds.admits(size):
                raise _out_of_range(_place(self.paths[leaf], dim), size, bounds)

    def _constant(self, leaf: int, given: ArgumentLeaf, value: Any) -> InputMismatchError:
        return InputMismatchError(
            f"{self.paths[leaf]} is part of the program: it has to be {given.value!r}, but is {value!r}",
            hint="export the program anew for another value, or with a tensor there",
        )

    def resolve(self, leaves: list[Any]) -> None:
        """Copy tensors that are negated or conjugated lazily: their memory holds other numbers than they do.
        Raises `InputMismatchError` for one that the program writes to."""
        for leaf in self.tensors:
            value, item = leaves[leaf], self.items[leaf]
            if not isinstance(value, torch.Tensor):
                continue
            if value.is_nested:
                raise InputMismatchError(
                    f"the package was not made for this {self.paths[leaf]}: it is nested"
                )
            if not (value.is_neg() or (leaf in self.complex and value.is_conj())):
                continue
            if isinstance(item, TensorInput) and item.mutated:
                raise InputMismatchError(
                    f"the program writes to {self.paths[leaf]}, which is negated or conjugated lazily",
                    hint="pass a copy: `x.resolve_conj().resolve_neg()`",
                )
            leaves[leaf] = resolved(value)

    def keep_apart(self, leaves: Sequence[Any], inputs: Sequence[Any]) -> None:
        """Raise `InputMismatchError` where the program writes to memory of which another argument has a part:
        what it computes from that one would depend on the order of its own steps. ``inputs`` are the graph's,
        among them the weights."""
        written = [(f"the weight {name!r}", inputs[at]) for at, name in self.weights_written]
        written += [(self.paths[leaf], leaves[leaf]) for leaf in self.written]
        others = [(self.paths[leaf], leaves[leaf]) for leaf in self.tensors if leaf not in set(self.written)]
        written, others = ([one for one in each if _lies_in_memory(one[1])] for each in (written, others))
        every = [*written, *others]
        pair = overlapping_pair([tensor for _, tensor in every], len(written))
        if pair is not None:
            target, other = pair
            raise InputMismatchError(
                f"the program writes to {every[target][0]}, which shares memory with {every[other][0]}",
                hint="pass a copy of one",
            )

    def laid_out(self, leaves: Sequence[Any], error: InputMismatchError) -> tuple[list[Any], list[int]]:
        """The leaves with tensors copied whose strides alone are others than the code's, and which of those
        the program writes to. Raises `InputMismatchError`, by the arguments' names, for other differences."""
        for leaf, item in self.items.items():
            if isinstance(item, TensorInput):
                self._check_kind(leaf, item, leaves[leaf], error)
        self.sizes.check(leaves, error)
        numbers = self.sizes.values(leaves)
        fixed = list(leaves)
        written: list[int] = []
        changed = False
        for leaf, item in self.items.items():
            if not isinstance(item, TensorInput):
                continue
            strides = tuple(e.evaluate(numbers) for e in item.spec.strides)
            tensor = leaves[leaf]
            try:
                fixed[leaf] = restrided(tensor, strides)
            except InputMismatchError as overlapping:
                raise InputMismatchError(
                    f"the package was not made for this {self.paths[leaf]}: {overlapping.what}",
                    hint="export the program with such an argument",
                ) from error
            if fixed[leaf] is not tensor:
                changed = True
                if item.mutated:
                    written.append(leaf)
        if not changed:
            raise error
        return fixed, written

    def _check_kind(self, leaf: int, item: TensorInput, value: Any, error: InputMismatchError) -> None:
        """What a tensor is, but for sizes that may differ from call to call."""
        spec = item.spec
        sizes = tuple(e if e.constant is not None else None for e in spec.sizes)
        loose = TensorSpec(spec.dtype, sizes, (None,) * len(sizes), device=spec.device)
        difference = describe_difference(loose, value, {})
        if difference is not None:
            hint = "sizes that may differ from call to call are declared when a program is exported"
            raise InputMismatchError(
                f"the package was not made for this {self.paths[leaf]}: {difference}",
                hint=hint if "sizes" in difference else "export the program with such an argument",
            ) from error


def _lies_in_memory(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided and in_host_memory(value)


def _places(items: Mapping[int, Input]) -> Iterable[tuple[int, int | None, Symbol]]:
    """Where each size symbol can be read as it is: a leaf, and a dimension of it (None: the leaf is the
    number)."""
    for leaf, item in items.items():
        if isinstance(item, NumberInput) and item.expression.symbol is not None:
            yield leaf, None, item.expression.symbol
        elif isinstance(item, TensorInput):
            for dim, e in enumerate(item.spec.sizes):
                if e.symbol is not None:
                    yield leaf, dim, e.symbol


def _place(path: str, dim: int | None) -> str:
    return path if dim is None else f"size {dim} of {path}"


def _out_of_range(what: str, value: int, bounds: SymbolRange) -> InputMismatchError:
    """What to say of a size that is too small or too large."""
    lower, upper = bounds.lower, bounds.upper
    if upper is None:
        wanted = f"at least {lower}"
    elif lower == LEAST:
        wanted = f"at most {upper}"
    else:
        wanted = f"{lower}" if lower == upper else f"{lower} to {upper}"
    return InputMismatchError(
        f"{what} has to be {wanted}, but is {value}", hint="export the program with another range for it"
    )


class _Sizes:
    """Reads the numbers of a plan from a call's arguments, as the plan does, and tells what is wrong with
    them by the arguments' names. ``items`` are the graph's inputs by leaf, ``paths`` the leaves' names."""

    def __init__(self, items: Mapping[int, Input], plan: Plan, paths: Sequence[str]) -> None:
        self._items = items
        self._paths = paths
        self._numbers = {
            leaf: item.expression.symbol.name
            for leaf, item in items.items()
            if isinstance(item, NumberInput) and item.expression.symbol is not None
        }
        self._binds: list[tuple[int, BindSize]] = []
        self._checks: list[CheckRange | CheckSizes] = []
        leaves = {item.name: leaf for leaf, item in items.items()}
        for one in plan.instructions:
            if isinstance(one, BindSize):
                self._binds.append((leaves[one.tensor], one))
            elif isinstance(one, (CheckRange, CheckSizes)):
                self._checks.append(one)
            elif not isinstance(one, CheckTensor):
                break  # what follows is about results

    def values(self, leaves: Sequence[Any]) -> dict[str, int]:
        """The values of the symbols in a call; ``leaves`` are of the right kinds and ranks."""
        found = {name: leaves[leaf] for leaf, name in self._numbers.items()}
        for leaf, bind in self._binds:
            found[bind.out] = bind.read(leaves[leaf], found)
        return found

    def fit(self, leaves: Sequence[Any]) -> bool:
        """Whether a call's numbers and sizes are such that the graph takes them; False as well where a leaf
        is of another kind or rank."""
        try:
            numbers = self.values(leaves)
            return not any(fails(one, numbers) for one in self._checks) and all(
                tuple(e.evaluate(numbers) for e in item.spec.sizes) == leaves[leaf].shape
                for leaf, item in self._items.items()
                if isinstance(item, TensorInput)
            )
        except (AttributeError, IndexError, TypeError):
            return False

    def check(self, leaves: Sequence[Any], error: InputMismatchError) -> None:
        """Raise `InputMismatchError` for a size that is out of its range, and for sizes that do not fit each
        other. ``leaves`` are of the right kinds and ranks; ``error`` is what the graph itself said."""
        numbers, written = self.values(leaves), self._written()
        for one in self._checks:
            if not fails(one, numbers):
                continue
            if isinstance(one, CheckRange):
                what = self._place(one.symbol, written)
                raise _out_of_range(what, numbers[one.symbol], one) from error
            raise self._unfit(one.condition.substitute(_by_symbol(one.condition, written)), leaves) from error
        for leaf, item in self._items.items():
            if not isinstance(item, TensorInput):
                continue
            for dim, (e, size) in enumerate(zip(item.spec.sizes, leaves[leaf].shape, strict=True)):
                if e.evaluate(numbers) != size:
                    place = Symbol(f"{self._paths[leaf]}.shape[{dim}]")
                    wanted = compare(place.expr, "==", e.substitute(_by_symbol(e, written)))
                    raise self._unfit(wanted, leaves) from error

    def _unfit(self, condition: BoolExpr, leaves: Sequence[Any]) -> InputMismatchError:
        """``condition`` is in terms of what a person can read in ``leaves``."""
        places = {self._paths[leaf]: leaves[leaf] for leaf in self._numbers}
        for leaf, item in self._items.items():
            if isinstance(item, TensorInput):
                path, tensor = self._paths[leaf], leaves[leaf]
                places.update({f"{path}.shape[{dim}]": n for dim, n in enumerate(tensor.shape)})
                places.update({f"{path}.stride({dim})": n for dim, n in enumerate(tensor.stride())})
        used = {s.name for s in condition.free_symbols}
        values = " and ".join(f"{name} is {value}" for name, value in places.items() if name in used)
        return InputMismatchError(
            f"the package is for sizes with {condition}, but {values}",
            hint="export the program for such sizes, and compile that",
        )

    # -- how one would write it -------------------------------------------------------------------------
    def _written(self) -> dict[str, Expr]:
        """For each symbol where its value comes from, as an expression over what a person can read."""
        found = {name: Symbol(self._paths[leaf], LEAST).expr for leaf, name in self._numbers.items()}
        for leaf, bind in self._binds:
            path = self._paths[leaf]
            place = f"{path}.shape[{bind.dim}]" if bind.kind == "size" else f"{path}.stride({bind.dim})"
            rest = bind.rest.substitute(_by_symbol(bind.rest, found))
            found[bind.out] = (Symbol(place).expr - rest) // bind.factor
        return found

    def _place(self, name: str, written: Mapping[str, Expr]) -> str:
        for leaf, bind in self._binds:
            if bind.out == name and bind.kind == "size" and bind.factor == 1 and bind.rest == 0:
                return f"size {bind.dim} of {self._paths[leaf]}"
        return str(written[name])


def _by_symbol(of: Expr | BoolExpr, written: Mapping[str, Expr]) -> dict[Symbol, Expr]:
    return {s: written[s.name] for s in of.free_symbols}
