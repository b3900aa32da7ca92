"""A program run: by eager PyTorch, by a `torch.compile` backend, or statement by statement in float64."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from braze.dtypes import dtype_named
from braze.inspect.fuzz.noise import noise_of
from braze.inspect.fuzz.program import Name, Number, Program, Statement, Tensor
from braze.inspect.fuzz.table import known_of

__all__ = [
    "HALF",
    "Function",
    "Given",
    "Outcome",
    "apply",
    "backend_function",
    "function_of",
    "make_inputs",
    "reference",
    "run",
]

Function = Callable[..., tuple[Any, ...]]

HALF = (torch.float16, torch.bfloat16)
_LARGE = 1e150
"""Beyond it the squares of float64 numbers overflow, and their sums before long."""
MARGIN = 3
"""Elements of memory behind an input's last one. Nobody may write to them."""


@dataclass
class Given:
    """The inputs of one call: what the function takes, and the whole memory of each tensor, by name."""

    arguments: list[Any]
    memories: dict[str, torch.Tensor]


@dataclass
class Outcome:
    """What one call left behind. ``error``: what it raised, and then there are no results. ``beyond``: a step
    of a float64 reference overflowed, or one of eager's where the reference's did not, so that the reference
    says nothing of what is not finite in eager. ``unordered``: a product of many numbers leaves its type's
    range in some order of multiplying them."""

    given: Given
    results: tuple[Any, ...] = ()
    gradients: dict[str, torch.Tensor | None] = field(default_factory=dict)
    error: Exception | None = None
    beyond: bool = False
    unordered: bool = False


def make_inputs(program: Program, call: int, *, double: bool = False) -> Given:
    """The inputs of one call, always the same. `double`: floating ones are float64, of the same values."""
    memories: dict[str, torch.Tensor] = {}
    arguments: list[Any] = []
    tensors = [given for given in program.inputs if isinstance(given, Tensor)]
    for given in program.inputs:
        if isinstance(given, Number):
            arguments.append(given.values[call])
            continue
        owner = given.shares or given.name
        if owner not in memories:
            sharing = [other for other in tensors if (other.shares or other.name) == owner]
            reach = max(other.reach(call) for other in sharing) + MARGIN
            first = next(other for other in tensors if other.name == owner)
            memories[owner] = _memory(first, reach, double)
        tensor = memories[owner].as_strided(given.shapes[call], given.strides(call), given.offset)
        if given.plain and not any(other.shares == given.name for other in tensors):
            tensor = memories[owner] = tensor.clone()  # its memory ends where it does, and it is no view
        arguments.append(tensor.requires_grad_(given.requires_grad))
    return Given(arguments, memories)


def _memory(given: Tensor, length: int, double: bool) -> torch.Tensor:
    values = (given.values * (length // len(given.values) + 1))[:length]
    memory = torch.tensor(values, dtype=dtype_named(given.dtype))
    return memory.double() if double and memory.is_floating_point() else memory


def apply(statement: Statement, variables: dict[str, Any], *, float_dtype: str | None = None) -> None:
    """Run one statement; its results are put with the variables. Raises what PyTorch raises."""
    exec(statement.text(float_dtype), {"torch": torch, "F": F}, variables)


def function_of(program: Program) -> Function:
    """The program as a function."""
    namespace: dict[str, Any] = {"torch": torch, "F": F}
    exec(compile(program.source(), f"<program {program.origin}>", "exec"), namespace)
    function: Function = namespace["program"]
    return function


def backend_function(program: Program, backend: str) -> Function:
    """The program compiled by a backend, when it is first called. What was compiled before is forgotten."""
    torch.compiler.reset()
    compiled: Function = torch.compile(
        function_of(program), backend=backend, dynamic=program.mode == "dynamic"
    )
    return compiled


def run(function: Function, program: Program, call: int) -> Outcome:
    """One call on fresh inputs, with gradients where the mode has them."""
    given = make_inputs(program, call)
    outcome = Outcome(given)
    try:
        with _modes(program):
            outcome.results = tuple(function(*given.arguments))
            if program.mode == "gradients":
                outcome.gradients = _gradients(program, given, outcome.results)
    except Exception as error:
        outcome.error = error
    return outcome


def _modes(program: Program) -> AbstractContextManager[Any]:
    return nullcontext() if program.mode == "gradients" else torch.no_grad()


def _gradients(program: Program, given: Given, results: Sequence[Any]) -> dict[str, torch.Tensor | None]:
    """Of the results' weighted sum, with regard to each input that requires one."""
    wanted = {
        one.name: argument
        for one, argument in zip(program.inputs, given.arguments)
        if isinstance(one, Tensor) and one.requires_grad
    }
    parts = [(result.double() * _weights(result)).sum() for result in results if _has_gradient(result)]
    if not parts or not wanted:
        return {}
    total = torch.stack(parts).sum()
    found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    return dict(zip(wanted, found))


def _has_gradient(result: Any) -> bool:
    return isinstance(result, torch.Tensor) and result.requires_grad


def _weights(result: torch.Tensor) -> torch.Tensor:
    """Numbers from -1.25 to 1.25, different from element to element."""
    numbers = torch.arange(result.numel(), dtype=torch.float64) * 7 % 11
    return ((numbers - 5) / 4).reshape(result.shape)


def reference(program: Program, call: int, noise: random.Random | None = None) -> Outcome:
    """The program in float64, beside the same in its own types, statement by statement.

    What acts on values discontinuously (a comparison, a rounding, the order of elements) takes the values
    that eager PyTorch has there, so that both decide alike. With `noise`, what a statement rounds is changed
    by as much as its type's rounding may, and what an approximation is given, too: what the result then
    differs by says how well it is determined.
    """
    own, wide = make_inputs(program, call), make_inputs(program, call, double=True)
    names = [given.name for given in program.inputs]
    eager: dict[str, Any] = dict(zip(names, own.arguments))
    exact: dict[str, Any] = dict(zip(names, wide.arguments))
    outcome = Outcome(wide)
    default = torch.get_default_dtype()
    try:
        with _modes(program):
            for statement in program.statements:
                decided = _decided(statement, eager, exact)
                if noise is not None:
                    _blur(statement, eager, decided, noise)
                apply(statement, eager)
                torch.set_default_dtype(torch.float64)
                try:
                    before = list(decided.values())
                    with _errors_inside(statement, eager, noise):
                        apply(statement, decided, float_dtype=None if _by_bits(statement) else "float64")
                    _part(statement, decided, before, eager)
                finally:
                    torch.set_default_dtype(default)
                outcome.beyond |= _overflows(statement, eager, decided)
                outcome.unordered |= _leaves_its_range(statement, eager)
                exact.update((name, _widened(decided[name])) for name in statement.results)
                if noise is not None and known_of(statement.operator).rounding != "exact":
                    _disturb(statement, eager, exact, noise)
            outcome.results = tuple(exact[name] for name in program.outputs)
            if program.mode == "gradients":
                outcome.beyond |= any(_is_wide(x) and bool((x.abs() > _LARGE).any()) for x in eager.values())
                coarse = _coarsest(eager.values())
                with nullcontext() if noise is None or coarse is None else noise_of(coarse, noise):
                    outcome.gradients = _gradients(program, wide, outcome.results)
    except Exception as error:
        outcome.error = error
    return outcome


def _part(
    statement: Statement, decided: dict[str, Any], before: Sequence[Any], eager: Mapping[str, Any]
) -> None:
    """Copy what is an operand itself in float64, and a conversion of it in the program's own types."""
    for name in statement.results:
        result = decided[name]
        itself = isinstance(result, torch.Tensor) and any(result is x for x in before)
        if itself and not any(eager[name] is x for other, x in eager.items() if other != name):
            decided[name] = result.clone()


def _errors_inside(
    statement: Statement, eager: Mapping[str, Any], noise: random.Random | None
) -> AbstractContextManager[Any]:
    """Rounding errors of a statement's types in each of its steps, where it is an approximation."""
    operator = known_of(statement.operator)
    if noise is None or operator.rounding != "loose" or operator.sharp or operator.bits:
        return nullcontext()
    coarse = _coarsest(eager[name] for name in (*statement.reads(), *statement.results))
    return nullcontext() if coarse is None else noise_of(coarse, noise)


def _coarsest(values: Iterable[Any]) -> torch.dtype | None:
    """The floating-point type with the greatest rounding error among those of tensors."""
    found = {x.dtype for x in values if isinstance(x, torch.Tensor) and x.is_floating_point()}
    return max(found, key=lambda dtype: torch.finfo(dtype).eps, default=None)


def _overflows(statement: Statement, typed: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Whether what an operator computes inside overflows where its value does not: finite numbers make one
    that is not finite in eager, and is in float64. Where the type is float64, numbers so large that their
    products overflow say as much."""
    operator = known_of(statement.operator)
    if operator.rounding != "loose" and not operator.sharp:
        return False
    taken = [typed[name] for name in statement.reads() if _is_floating(typed[name])]
    if not all(bool(x.isfinite().all()) for x in taken):
        return False
    large = any(_is_wide(x) and bool((x.abs() > _LARGE).any()) for x in taken)
    for value, wide in ((typed[name], seen[name]) for name in statement.results):
        if _is_floating(value) and value.shape == wide.shape:
            has = wide.to(value.dtype).isfinite() | (large and _is_wide(value))
            if bool((has & ~value.isfinite()).any()):
                return True
    return False


def _leaves_its_range(statement: Statement, typed: Mapping[str, Any]) -> bool:
    """Whether some of the numbers that a statement multiplies give more, or less, than their type holds."""
    if not known_of(statement.operator).multiplies:
        return False
    for value in (typed[name] for name in statement.reads()):
        if _is_floating(value):
            limits = torch.finfo(value.dtype)
            exponents = value[value.isfinite() & (value != 0)].double().abs().log2()
            most, least = exponents.clamp(min=0).sum(), exponents.clamp(max=0).sum()
            if most > math.log2(limits.max) or least < math.log2(limits.tiny):
                return True
    return False


def _is_wide(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.float64


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _by_bits(statement: Statement) -> bool:
    return known_of(statement.operator).bits


def _decided(statement: Statement, eager: Mapping[str, Any], exact: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that a statement shall see in float64."""
    operator = known_of(statement.operator)
    seen = dict(exact)
    if not (operator.sharp or operator.bits) or operator.writes:
        return seen
    for name in set(statement.reads()):
        value = eager[name]
        if _is_floating(value):
            seen[name] = value if operator.bits else _InPlaceOf.apply(exact[name], value)  # type: ignore[no-untyped-call]
    return seen


class _InPlaceOf(torch.autograd.Function):
    """Another value, down to the signs of its zeros, with the gradient of the one that it stands for."""

    @staticmethod
    def forward(ctx: Any, exact: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.detach().double()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def _widened(value: Any) -> Any:
    return value.double() if _is_floating(value) else value


def _blur(statement: Statement, eager: Mapping[str, Any], seen: dict[str, Any], noise: random.Random) -> None:
    """Change what an approximation is given: its errors inside are like such changes, and may cancel less
    than those of its result."""
    operator = known_of(statement.operator)
    if operator.rounding != "loose" or operator.sharp or operator.writes:
        return
    for name in sorted(set(statement.reads())):
        value = seen[name]
        if _is_floating(value):
            seen[name] = value * _factors(value, eager[name].dtype, noise)


def _factors(value: torch.Tensor, dtype: torch.dtype, noise: random.Random) -> torch.Tensor:
    epsilon = torch.finfo(dtype).eps
    factors = [1 + epsilon * noise.uniform(-1, 1) for _ in range(value.numel())]
    return torch.tensor(factors, dtype=value.dtype).reshape(value.shape)


def _disturb(
    statement: Statement, eager: Mapping[str, Any], exact: dict[str, Any], noise: random.Random
) -> None:
    written = [a.name for a in statement.arguments[:1] if isinstance(a, Name)]
    for name in statement.results or tuple(written):
        value, typed = exact[name], eager[name]
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        factors = _factors(value, typed.dtype, noise)
        if statement.results:
            exact[name] = value * factors
        else:
            value.mul_(factors)
