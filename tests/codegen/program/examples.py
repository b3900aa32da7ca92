"""Programs that no lowering makes yet: what templates will be made of."""

from __future__ import annotations

from collections.abc import Callable

import torch

from braze.codegen.program.builder import Builder
from braze.codegen.program.grammar import Along, Var
from braze.codegen.program.program import Program
from braze.ops.kernel import BufferArg
from braze.runtime.expr import Expr, Symbol, as_expr

F32 = torch.float32
Epilogue = Callable[[Builder, Var, Expr, Expr, Along], Var]


def _program(
    name: str, lanes: int, b: Builder, buffers: list[tuple[str, str, Expr]], sizes: tuple[Symbol, ...]
) -> Program:
    args = tuple(BufferArg(n, F32, role, numel) for n, role, numel in buffers)  # type: ignore[arg-type]
    return Program(name, lanes, args, sizes, (), tuple(b.checks), b.body)


def plain(_b: Builder, value: Var, _i: Expr, _j: Expr, _along: Along) -> Var:
    """The epilogue that does nothing."""
    return value


def relu_of_bias(b: Builder, value: Var, _i: Expr, j: Expr, along: Along) -> Var:
    """``relu(value + bias[j])``."""
    shifted = b.op("add", value, b.load("bias", j, F32, along))
    return b.op("maximum", shifted, b.like(0.0, shifted))


def packed_product(lanes: int, rows: int, columns: int, epilogue: Epilogue = plain) -> Program:
    """``c[p, i, j] = epilogue(sum over k of a[p, k, i] * b[k, j], i, j)``: panels of ``rows`` rows of a,
    packed so that what is needed together lies together, times one packed panel of ``columns`` columns of b.
    All of a panel's results stay in registers while k runs. Sizes: ``panels`` and ``depth``."""
    b = Builder()
    panels, depth = Symbol("panels", 0), Symbol("depth", 0)
    for size in (panels, depth):
        b.bound[size] = None
    p, k = Symbol("p", 0, panels.expr - 1), Symbol("k", 0, depth.expr - 1)
    j = Symbol("j", 0, columns - 1)
    vectors = columns // lanes
    copies = [Along(j, lanes, v * lanes, columns) for v in range(vectors)]
    with b.share((p,), None), b.loop(j, 0, columns, columns, runs=True):
        sums = [[b.accumulator(b.constant(0.0, F32, lanes)) for _ in copies] for _ in range(rows)]
        with b.loop(k, 0, depth.expr):
            right = [b.load("b", k.expr * columns + j.expr, F32, along) for along in copies]
            for i in range(rows):
                left = b.load("a", (p.expr * depth.expr + k.expr) * rows + i, F32)
                for v in range(vectors):
                    b.assign(sums[i][v], b.op("fma", b.splat(left, lanes), right[v], sums[i][v]))
        for i in range(rows):
            for total, along in zip(sums[i], copies, strict=True):
                value = epilogue(b, total, p.expr * rows + i, j.expr, along)
                b.store("c", (p.expr * rows + i) * columns + j.expr, value, along)
    a_size, c_size = panels.expr * depth.expr * rows, panels.expr * rows * columns
    buffers = [("a", "in", a_size), ("b", "in", depth.expr * columns), ("c", "out", c_size)]
    if epilogue is relu_of_bias:
        buffers.append(("bias", "in", as_expr(columns)))
    return _program("packed_product", lanes, b, buffers, (panels, depth))


def online_softmax(lanes: int, copies: int = 4) -> Program:
    """``y[i, :] = softmax(x[i, :])`` for rows that fit no registers, each read twice: the greatest value and
    the sum of exponentials in one pass, in which sums are rescaled whenever a greater value comes (Milakov
    and Gimelshein: Online normalizer calculation for softmax, 2018). Sizes: ``rows`` and ``columns``, a
    multiple of ``lanes * copies``, no row all of minus infinity."""
    b = Builder()
    rows, columns = Symbol("rows", 0), Symbol("columns", 1)
    for size in (rows, columns):
        b.bound[size] = None
    step = lanes * copies
    i, j = Symbol("i", 0, rows.expr - 1), Symbol("j", 0, columns.expr - 1)
    group = [Along(j, lanes, v * lanes, step) for v in range(copies)]
    at = i.expr * columns.expr + j.expr
    whole = columns.expr // step * step

    def exp_of(value: Var, top: Var) -> Var:
        return b.op("exp", b.op("sub", value, top))

    def pairwise(op: str, values: list[Var]) -> Var:
        while len(values) > 1:
            values = [b.op(op, one, other) for one, other in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    with b.share((i,), None):
        top = b.accumulator(b.constant(-3.0e38, F32, lanes))
        total = b.accumulator(b.constant(0.0, F32, lanes))
        with b.loop(j, 0, whole, step):
            values = [b.load("x", at, F32, along) for along in group]
            now = b.op("maximum", top, pairwise("maximum", values))
            terms = pairwise("add", [exp_of(v, now) for v in values])
            b.assign(total, b.op("fma", total, exp_of(top, now), terms))
            b.assign(top, now)
        greatest, width = top, lanes
        while width > 1:
            width //= 2
            greatest = b.op("maximum", b.slice(greatest, 0, width), b.slice(greatest, width, width))
        spread = b.splat(greatest, lanes)
        sums, width = b.op("mul", total, exp_of(top, spread)), lanes
        while width > 1:
            width //= 2
            sums = b.op("add", b.slice(sums, 0, width), b.slice(sums, width, width))
        scale = b.splat(b.op("truediv", b.constant(1.0, F32), sums), lanes)
        with b.loop(j, 0, whole, step):
            for along in group:
                value = exp_of(b.load("x", at, F32, along), spread)
                b.store("y", at, b.op("mul", value, scale), along)
    numel = rows.expr * columns.expr
    return _program("online_softmax", lanes, b, [("x", "in", numel), ("y", "out", numel)], (rows, columns))


def multiply_add(lanes: int, chains: int) -> Program:
    """Nothing but ``chains`` independent multiply-adds on vectors, ``count`` times: what the machine can do
    at most."""
    b = Builder()
    count = Symbol("count", 0)
    b.bound[count] = None
    k, j = Symbol("k", 0, count.expr - 1), Symbol("j", 0, lanes - 1)
    along = Along(j, lanes, 0, lanes)
    with b.loop(j, 0, lanes, lanes, runs=True):
        factor = b.load("x", j.expr, F32, along)
        sums = [b.accumulator(b.constant(float(n), F32, lanes)) for n in range(chains)]
        with b.loop(k, 0, count.expr):
            for total in sums:
                b.assign(total, b.op("fma", total, factor, factor))
        for n, total in enumerate(sums):
            b.store("y", j.expr + n * lanes, total, along)
    buffers = [("x", "in", as_expr(lanes)), ("y", "out", as_expr(chains * lanes))]
    return _program("multiply_add", lanes, b, buffers, (count,))


def exponentials(lanes: int, copies: int = 4) -> Program:
    """``y = exp(x)`` for ``count`` elements, a multiple of ``lanes * copies``."""
    b = Builder()
    count = Symbol("count", 0)
    b.bound[count] = None
    step = lanes * copies
    j = Symbol("j", 0, count.expr - 1)
    group = [Along(j, lanes, v * lanes, step) for v in range(copies)]
    with b.loop(j, 0, count.expr // step * step, step):
        values = [b.load("x", j.expr, F32, along) for along in group]
        for value, along in zip([b.op("exp", v) for v in values], group, strict=True):
            b.store("y", j.expr, value, along)
    return _program("exponentials", lanes, b, [("x", "in", count.expr), ("y", "out", count.expr)], (count,))
