"""The sizes of one call of a loaded model: their values, what has to hold between them, and how one would
write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from braze._torch.integers import LEAST
from braze.artifact.schema import Input, NumberInput, TensorInput
from braze.errors import InputMismatchError
from braze.runtime.call_checks import fails
from braze.runtime.expr import Expr, Symbol
from braze.runtime.guard import BoolExpr, compare
from braze.runtime.plan import BindSize, CheckRange, CheckSizes, CheckTensor, Plan

__all__ = ["SizesOfCall", "out_of_range"]


def out_of_range(what: str, value: int, lower: int | None, upper: int | None) -> InputMismatchError:
    """What to say of a size that is too small or too large."""
    if upper is None:
        wanted = f"at least {lower}"
    elif lower is None:
        wanted = f"at most {upper}"
    else:
        wanted = f"{lower}" if lower == upper else f"{lower} to {upper}"
    return InputMismatchError(
        f"{what} has to be {wanted}, but is {value}", hint="export the program with another range for it"
    )


class SizesOfCall:
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
            read = leaves[leaf].shape if bind.kind == "size" else leaves[leaf].stride()
            found[bind.out] = (read[bind.dim] - bind.rest.evaluate(found)) // bind.factor
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
                raise out_of_range(
                    self._place(one.number, written), numbers[one.number], one.lower, one.upper
                ) from error
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
