"""How a tensor lies in memory, less its sizes: what a trace of a function that looks at shapes is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import sympy
import torch

from braze._torch import shape_envs
from braze._torch.fakes import make_fake, new_fake_mode
from braze._torch.shape_envs import SymbolFacts
from braze.fuser.strides import contiguous, is_dense

__all__ = [
    "Example",
    "LayoutClass",
    "Symbols",
    "is_number",
    "layout_class",
    "number_symbol",
    "symbols_of",
    "traceable",
]

LayoutClass: TypeAlias = tuple[object, ...]


def layout_class(tensor: torch.Tensor) -> LayoutClass:
    """The rank, which sizes are 1, and the order of the dimensions: dense, or with which strides."""
    sizes, strides = tuple(tensor.shape), tensor.stride()
    ones = tuple([n == 1 for n in sizes])
    kept = [d for d, one in enumerate(ones) if not one]
    steps = [strides[d] for d in kept]
    wanted = contiguous(sizes)
    if 0 in sizes or steps == [wanted[d] for d in kept]:
        return ones, "contiguous"
    order = tuple(sorted(kept, key=lambda d: (-strides[d], d)))
    if is_dense(sizes, strides):
        return ones, "dense", order
    return ones, "strided", order, tuple([min(s, 2) for s in steps])


Symbols: TypeAlias = dict[str, int]
"""The values of the size symbols of a call, by name."""


def symbols_of(position: int, tensor: torch.Tensor) -> Symbols:
    """The values that the symbols of input ``position`` have for this tensor."""
    found = {f"s{position}_{d}": n for d, n in enumerate(tensor.shape)}
    found |= {f"t{position}_{d}": n for d, n in enumerate(tensor.stride())}
    return found


def number_symbol(position: int) -> str:
    """The symbol of a number that is an argument."""
    return f"number{position}"


def is_number(symbol: str) -> bool:
    """Whether a symbol is that of a number, and not that of a size."""
    return symbol.startswith("number")


Example: TypeAlias = "torch.Tensor | float | int"


def traceable(
    examples: Sequence[Example], gradients: bool, live: Sequence[int]
) -> tuple[Any, dict[str, Any], list[Any]]:
    """A fake mode; the size symbols by name, as symbolic integers; and fake tensors and symbolic numbers like
    the ``examples`` at the positions ``live``.

    Every size but 1 is a symbol of its own, as are strides that do not follow from sizes. ``gradients``:
    tensors that require gradients in the examples do so here."""
    stand_ins = _stand_ins(examples)
    facts: list[SymbolFacts] = []
    plans: list[Callable[[Any, Callable[[Any], Any]], Any]] = []
    for position in live:
        example = examples[position]
        if isinstance(example, torch.Tensor):
            plans.append(_tensor(position, example, stand_ins, facts, gradients and example.requires_grad))
        else:
            is_float = isinstance(example, float)
            hint = example if not is_float or abs(example) < 1e300 else 0.5  # NaN and infinity are no hints
            facts.append(SymbolFacts(number_symbol(position), hint=hint, is_float=is_float))
            plans.append(_number(number_symbol(position)))
    env, symbols = shape_envs.new_shape_env(facts)
    mode = new_fake_mode(env)

    def symbolic(value: Any) -> Any:
        expression = symbols[value] if isinstance(value, str) else value.subs(_named(symbols))
        if expression.is_Integer:
            return int(expression)
        is_float = isinstance(value, str) and not symbols[value].is_integer
        return shape_envs.symbolic(env, expression, float if is_float else int)

    sizes = {fact.name: symbolic(fact.name) for fact in facts if not is_number(fact.name)}
    return mode, sizes, [plan(mode, symbolic) for plan in plans]


def _number(name: str) -> Callable[[Any, Callable[[Any], Any]], Any]:
    return lambda mode, symbolic: symbolic(name)


def _named(symbols: dict[str, sympy.Symbol]) -> dict[sympy.Symbol, sympy.Symbol]:
    return {sympy.Symbol(name): symbol for name, symbol in symbols.items()}


def _stand_ins(examples: Sequence[Example]) -> dict[int, int]:
    """For sizes of 0 a size that no tensor has: what is traced must not depend on there being no element."""
    sizes = {n for e in examples if isinstance(e, torch.Tensor) for n in e.shape}
    free = next(n for n in range(7, 7 + len(sizes) + 1) if n not in sizes)
    return {0: free}


def _tensor(
    position: int,
    example: torch.Tensor,
    stand_ins: dict[int, int],
    facts: list[SymbolFacts],
    requires_grad: bool,
) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """How to make the stand-in for a tensor; its symbols are added to ``facts``."""
    sizes = [stand_ins.get(n, n) for n in example.shape]
    expressions: list[Any] = []
    for d, n in enumerate(sizes):
        if n == 1:
            expressions.append(sympy.Integer(1))
        else:
            facts.append(SymbolFacts(f"s{position}_{d}", 2, None, n, positive=True))
            expressions.append(sympy.Symbol(f"s{position}_{d}"))
    steps = _steps(position, example, expressions, facts)

    def make(mode: Any, symbolic: Callable[[Any], Any]) -> torch.Tensor:
        size, stride = [symbolic(e) for e in expressions], [symbolic(e) for e in steps]
        parameter = isinstance(example, torch.nn.Parameter)
        return make_fake(mode, example.dtype, size, stride, requires_grad=requires_grad, parameter=parameter)

    return make


def _steps(position: int, example: torch.Tensor, sizes: Sequence[Any], facts: list[SymbolFacts]) -> list[Any]:
    kind, *rest = layout_class(example)[1:]
    steps: list[Any] = [sympy.Integer(1)] * len(sizes)
    if kind == "strided":
        for d in rest[0]:  # type: ignore[attr-defined]
            step = example.stride(d)
            if step > 1:
                facts.append(SymbolFacts(f"t{position}_{d}", 2, None, step, positive=True))
                steps[d] = sympy.Symbol(f"t{position}_{d}")
            else:
                steps[d] = sympy.Integer(step)
        return steps
    order = range(len(sizes)) if kind == "contiguous" else rest[0]
    running: Any = sympy.Integer(1)
    for d in reversed(list(order)):  # type: ignore[call-overload]
        steps[d] = running
        running = running * sizes[d]
    return steps
