from __future__ import annotations

from typing import Any

import torch

from braze._torch import shapes


def traced(fn: Any, *sizes: int) -> list[Any]:
    """What `fn` gives for the symbolic sizes of a tensor, in the middle of a trace."""
    seen: list[Any] = []

    def backend(gm: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        seen.extend(fn(v) for v in inputs if isinstance(v, torch.SymInt))
        return gm

    torch.compiler.reset()
    torch.compile(lambda x: x + 1, backend=backend, dynamic=True)(torch.zeros(sizes))
    return seen


def test_expressions_carry_their_environment_and_bounds() -> None:
    def look(size: torch.SymInt) -> tuple[Any, ...]:
        expression, env = shapes.expression_of(size * 2 + 1)
        (symbol,) = expression.free_symbols
        return (
            str(expression),
            shapes.range_of(symbol, env)[0],
            shapes.is_unbacked(env, symbol),
            shapes.hint(size),
        )

    ((text, lower, unbacked, hint),) = traced(look, 5)
    assert text.startswith("2*s")
    assert lower == 2
    assert not unbacked
    assert hint == 5


def test_known_truths_need_no_guard() -> None:
    assert traced(lambda s: (shapes.true_if_known(s >= 2), shapes.true_if_known(s == 5)), 5) == [
        (True, False)
    ]


def test_a_guard_decides() -> None:
    assert traced(lambda s: (shapes.guard(s < 6), shapes.guard_int(s)), 5) == [(True, 5)]


def test_sizes_compare_by_what_they_are() -> None:
    def look(size: torch.SymInt) -> tuple[bool, ...]:
        return (
            shapes.same_size(size, size * 1),
            shapes.same_size(size, size + 1),
            shapes.same_size(size, 5),
            shapes.same_size(5, 5),
        )

    assert traced(look, 5) == [(True, False, False, True)]


def test_layouts_compare_sizes_and_strides() -> None:
    x = torch.zeros(2, 3)
    assert shapes.same_layout(x, torch.ones(2, 3))
    assert not shapes.same_layout(x, torch.zeros(3, 2).t())
    assert not shapes.same_layout(x, torch.zeros(2, 3, 1))


def test_numbers_are_their_own_hints() -> None:
    assert shapes.hint(4) == 4
    assert not shapes.is_symbolic(4)
    assert shapes.shape_env_of([4, torch.zeros(1)]) is None
