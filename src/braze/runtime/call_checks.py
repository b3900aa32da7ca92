"""The checks of a compiled call: of its inputs, of what externs return, and of what machine code reports."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from braze._torch.native import same_tensors
from braze.errors import BrazeError, InputMismatchError, InternalError, ResultMismatchError
from braze.runtime.plan import CheckRange, CheckSizes, CheckTensor, ErrorEntry, Plan
from braze.runtime.spec import TensorSpec, restrided

__all__ = ["ErrorBlock", "ErrorWords", "InputChecker", "as_traced", "describe_difference", "fails", "item"]

_LEARN_TIMES: Final = 16


def item(value: Any) -> Any:
    """The number in a one-element tensor; a number stays what it is."""
    return value.item() if isinstance(value, torch.Tensor) else value


def _text(values: Sequence[object]) -> str:
    return f"[{', '.join('any' if v is None else str(v) for v in values)}]"


def describe_difference(spec: TensorSpec[Any], tensor: Any, numbers: Mapping[str, int]) -> str | None:
    """How a value differs from a tensor of a spec; None where it does not. ``numbers`` are the values of the
    symbols."""
    if not isinstance(tensor, torch.Tensor):
        return f"it is of type {type(tensor).__name__}, and not a tensor"
    found = spec.difference(tensor, numbers)
    if found is None:
        return None
    what, have, want = found
    if what == "device":
        return f"it is on {have}, and not on {want}"
    if isinstance(have, tuple) and isinstance(want, tuple):
        if len(have) != len(want):
            return f"it has {len(have)} dimensions, and not {len(want)}"
        return f"its {what} are {_text(have)}, and not {_text(want)}"
    return f"its {what} is {have}, and not {want}"


def as_traced(
    tensor: torch.Tensor, sizes: tuple[int, ...], strides: tuple[int, ...], origin: str
) -> torch.Tensor:
    """``tensor`` with these strides, see `restrided`. Raises ``ResultMismatchError`` where the sizes are
    others, or the strides no copy's; ``origin`` is the operator that returned it."""
    if tensor.shape != sizes:
        raise ResultMismatchError(
            f"{origin} returned sizes {tuple(tensor.shape)}, and was traced to return {sizes}"
        )
    try:
        return restrided(tensor, strides)
    except InputMismatchError:
        returned = tuple(tensor.stride())
        raise ResultMismatchError(
            f"{origin} returned strides {returned}, and was traced to return {strides}"
        ) from None


def fails(check: CheckRange | CheckSizes, numbers: Mapping[str, int]) -> bool:
    """Whether the values of the symbols are known, and not what `check` wants of them."""
    try:
        if isinstance(check, CheckRange):
            return not check.admits(numbers[check.symbol])
        return not check.condition.evaluate(numbers)
    except ZeroDivisionError:
        return True
    except (KeyError, TypeError):
        return False


class InputChecker:
    """The slow side of a plan's tensor checks: telling what is wrong, and learning what is right."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @staticmethod
    def is_fixed(check: CheckTensor) -> bool:
        """Whether a check states every size and stride as a plain number."""
        return all(e is not None and e.constant is not None for e in (*check.spec.sizes, *check.spec.strides))

    def learner(self, checks: Sequence[CheckTensor], names: dict[str, Any], fast: str) -> Callable[..., None]:
        """A function that checks tensors one by one, and then puts a fast test for tensors like these at
        ``names[fast]``, so that it is seldom called again."""
        left = _LEARN_TIMES

        def learn(*tensors: Any) -> None:
            nonlocal left
            for check, tensor in zip(checks, tensors, strict=True):
                difference = describe_difference(check.spec, tensor, {})
                if difference is not None:
                    raise self._error(check, difference)
            if left > 0:
                left -= 1
                names[fast] = same_tensors(tensors)

        return learn

    def _error(self, check: CheckTensor, difference: str) -> BrazeError:
        place = ""
        if check.tensor in self.plan.inputs:
            place = f" (number {self.plan.inputs.index(check.tensor) + 1} of {len(self.plan.inputs)})"
        what = f"{self.plan.name} was not compiled for its input {check.tensor}{place}"
        return InputMismatchError(f"{what}: {difference}")

    def mismatch(self, values: Mapping[str, Any], error: Exception) -> Exception:
        """What to raise after a check of the inputs failed. ``values`` are the function's variables."""
        if isinstance(error, InputMismatchError):
            return error
        for name in self.plan.numbers:
            if name in values and not isinstance(values[name], int):
                kind = type(values[name]).__name__
                return InputMismatchError(f"{self.plan.name} takes an int for {name}, and was given a {kind}")
        for check in self.plan.instructions:
            if isinstance(check, (CheckRange, CheckSizes)) and fails(check, values):
                return InputMismatchError(self.broken(check))
            if isinstance(check, CheckTensor) and check.origin == "input" and check.tensor in values:
                try:
                    difference = describe_difference(check.spec, values[check.tensor], values)
                except KeyError:  # a size that was to be read from what turned out to be no such tensor
                    continue
                if difference is not None:
                    return self._error(check, difference)
        return error

    def no_memory(self, tensor: torch.Tensor, name: str) -> None:
        """Raise `InputMismatchError` for a tensor whose elements are nowhere: a fake one, or one whose memory
        was given back."""
        if tensor.numel():
            kind = type(tensor).__name__
            raise InputMismatchError(f"the input {name} of {self.plan.name} is a {kind} without memory")

    def broken(self, check: CheckRange | CheckSizes) -> str:
        """What to say of sizes that the code is not for."""
        return f"{self.plan.name} was compiled for sizes with {check.condition}"

    def unexpected(self, position: int, values: Mapping[str, Any], error: Exception) -> Exception:
        """What to raise after the check at ``position`` failed, which is not one of an input's."""
        check = self.plan.instructions[position]
        assert isinstance(check, CheckTensor)
        difference = describe_difference(check.spec, values[check.tensor], values)
        if difference is None:
            return error
        if check.origin == "input":
            return self._error(check, difference)
        return ResultMismatchError(f"{check.origin} did not return what its trace said: {difference}")


class ErrorBlock:
    """Four words that machine code writes a failed check to: id, value, bound, reserved."""

    __slots__ = ("address", "words")

    def __init__(self) -> None:
        self.words = (ctypes.c_int64 * 4)()
        self.address = ctypes.addressof(self.words)


class ErrorWords:
    """Error blocks of one plan; a call takes one and, unless something failed, gives it back."""

    def __init__(self, entries: Sequence[ErrorEntry]) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self._spare: list[ErrorBlock] = []
        self._sink = ErrorBlock()

    @property
    def sink(self) -> int:
        """The address for code that reports nothing."""
        return self._sink.address

    def take(self) -> ErrorBlock:
        """A block of zeros for the caller alone."""
        try:
            return self._spare.pop()
        except IndexError:
            return ErrorBlock()

    def give(self, block: ErrorBlock) -> None:
        """Back for the next call; it holds zeros."""
        self._spare.append(block)

    def exception(self, block: ErrorBlock) -> Exception:
        """The exception for what was reported."""
        number, value, bound, _ = block.words
        entry = self._entries.get(number)
        if entry is None:
            return InternalError(f"machine code reported the unknown error {number} ({value}, {bound})")
        return entry.check.error(value, bound)
