from __future__ import annotations

import pytest
import sympy
import torch
from hypothesis import given
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.functions import (
    CleanDiv,
    FloorDiv,
    IntTrueDiv,
    Max,
    Min,
    Mod,
    ModularIndexing,
    PythonMod,
    Where,
)

from braze.errors import ExpressionError
from braze.runtime.expr import Symbol
from braze.runtime.guard import FALSE, TRUE
from braze.symbolic.from_sympy import SymbolTable, condition_from_sympy, expr_from_sympy, expr_to_sympy
from tests.runtime.exprs import BY_NAME, Tree, build, names_in, points, trees

S, T = sympy.Symbol("s0", integer=True, positive=True), sympy.Symbol("s1", integer=True, nonnegative=True)
U = sympy.Symbol("u0", integer=True)
ORDINARY = torch.empty(12, 10)


def table() -> SymbolTable:
    ranges = {"s0": (1, 64), "s1": (0, None), "u0": (-5, 5)}
    return SymbolTable(lambda name: ranges.get(name, (0, None)))


@pytest.mark.parametrize(
    "e",
    [
        sympy.Integer(-7),
        S,
        3 * S * T - T + 4,
        (S + T) ** 3,
        -(S * S),
        FloorDiv(S * T + 3, 4),
        FloorDiv(T, S),
        CleanDiv(S * 4, 2),
        Mod(T, 8),
        PythonMod(U * 3, 7),
        ModularIndexing(T, 4, 16),
        Min(S, T, 9),
        Max(S + 1, T - 4),
        sympy.floor(S / 4),
        sympy.floor((S * T + 1) / (2 * S)),
        sympy.ceiling(T / 4),
        1 + 2 * Max(1, FloorDiv(T - 3, 2)),
        Mod(Min(S, 5) * T, FloorDiv(S, 3) + 1),
    ],
    ids=str,
)
def test_means_what_sympy_means(e: sympy.Expr) -> None:
    if e.has(sympy.ceiling):
        e = e.rewrite(sympy.floor)
    converted = expr_from_sympy(e, table())
    for s in (1, 2, 3, 17, 64):
        for t in (0, 1, 5, 40):
            for u in (-5, 0, 4):
                expected = int(e.subs({S: s, T: t, U: u}))
                assert converted.evaluate({"s0": s, "s1": t, "u0": u}) == expected


@given(trees())
def test_there_and_back(tree: Tree) -> None:
    e = build(tree)
    ranges = SymbolTable(lambda name: (BY_NAME[name].lower, None))
    back = expr_from_sympy(expr_to_sympy(e), ranges)
    for env in points(names_in(tree)):
        assert back.evaluate(env) == e.evaluate(env)


@pytest.mark.parametrize(
    "e",
    [
        S / 2,
        S / T,
        sympy.Float(1.5),
        IntTrueDiv(S, 2),
        sympy.sqrt(S),
        S**T,
        S**-1,
        S**100,
        FloorDiv(S, U),
        PythonMod(S, U),
        Where(S > 3, S, T),
        sympy.Symbol("z0", real=True, integer=False),
        sympy.oo,
        sympy.sin(S),
    ],
    ids=str,
)
def test_what_has_no_place_is_refused(e: sympy.Expr) -> None:
    with pytest.raises(ExpressionError):
        expr_from_sympy(e, table())


def test_symbols_have_their_bounds_and_are_made_once() -> None:
    symbols = table()
    assert expr_from_sympy(Min(S, 64), symbols) == symbols["s0"].expr
    assert symbols["s0"] == Symbol("s0", 1, 64)
    assert symbols["s0"] is symbols["s0"]
    assert expr_from_sympy(5, symbols) == 5
    assert set(symbols) == {"s0"}


@pytest.mark.parametrize(
    "e",
    [
        sympy.Eq(S, T),
        sympy.Ne(S, T),
        S < T,
        S <= T + 1,
        T > 3,
        T >= S,
        sympy.And(S < T, T < 30),
        sympy.Or(S < 4, sympy.Eq(Mod(T, 4), 0)),
        sympy.Not(sympy.Or(S < 4, sympy.Eq(Mod(T, 4), 0))),
    ],
    ids=str,
)
def test_guards_mean_what_sympy_means(e: sympy.Basic) -> None:
    converted = condition_from_sympy(e, table())
    for s in (1, 2, 3, 17, 64):
        for t in (0, 1, 3, 4, 17, 40):
            assert converted.evaluate({"s0": s, "s1": t}) is bool(e.subs({S: s, T: t}))


def test_constant_guards() -> None:
    assert condition_from_sympy(sympy.true, table()) is TRUE
    assert condition_from_sympy(False, table()) is FALSE
    assert condition_from_sympy(S > 0, table()) is TRUE
    with pytest.raises(ExpressionError):
        condition_from_sympy(S, table())
    with pytest.raises(ExpressionError):
        condition_from_sympy(S / 2 > 3, table())


def test_to_sympy_uses_the_symbols_that_it_is_given() -> None:
    mine = sympy.Symbol("s0", integer=True)
    e = BY_NAME["s0"].expr * 2 + 1
    assert expr_to_sympy(e, {"s0": mine}) == 2 * mine + 1
    assert expr_to_sympy(e).free_symbols == {sympy.Symbol("s0", integer=True, positive=True)}


def test_what_the_shape_environment_makes() -> None:
    """Sizes of views of a tensor of unknown size, as tracing computes them."""
    env = ShapeEnv()
    with FakeTensorMode(shape_env=env) as mode:
        x = mode.from_tensor(ORDINARY, static_shapes=False)
        n, m = x.shape
        sizes = [
            n,
            n * m,
            (n * m) // 4,
            x[1::3].shape[0],
            x.unfold(0, 4, 2).shape[0],
            x.flatten().shape[0] % 7,
        ]
        names = {"n": n.node.expr.name, "m": m.node.expr.name}
        symbols = SymbolTable(lambda name: (2, None))
        for size in sizes:
            assert isinstance(size, torch.SymInt)
            value = expr_from_sympy(size.node.expr, symbols).evaluate({names["n"]: 12, names["m"]: 10})
            assert value == size.node.hint
