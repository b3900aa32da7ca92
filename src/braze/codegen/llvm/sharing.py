"""Loops that threads share out: which units are this thread's, and how one walks through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from braze.codegen.llvm.builder import I64, Value
from braze.codegen.llvm.indices import Indices, number
from braze.codegen.program.grammar import Blocks, Share
from braze.runtime.expr import Symbol, product

__all__ = ["share"]


def share(ix: Indices, s: Share, body: Callable[[], None]) -> None:
    """``body`` for each of this thread's units: points of the loops, each with a range of blocks if there
    are blocks."""
    fb, x = ix.fb, s.blocks
    rows = ix.scalar(product(v.size for v in s.loops))
    size = blocks = None
    if x is not None:
        size = ix.scalar(x.symbol.size)
        blocks = ix.scalar((x.symbol.size + x.length - 1) // x.length)
    low, high = _range(ix, rows if blocks is None else fb.mul(rows, blocks), s.serial)
    with fb.if_then(fb.icmp("slt", low, high), "share"), ix.block():
        if x is None or size is None or blocks is None:
            _flat_loop(ix, s.loops, low, high, body)
        elif not s.loops:
            stop = fb.integer_minmax("smin", fb.mul(high, x.length), size)
            ix.bind(x.low, fb.mul(low, x.length))
            ix.bind(x.high, stop)
            body()
        else:
            _block_loop(ix, s.loops, x, (blocks, size), low, high, body)


def _range(ix: Indices, total: Value, serial: bool) -> tuple[Value, Value]:
    """This thread's range of ``total`` units: as even as possible, in order."""
    fb = ix.fb
    tid, threads = fb.params["tid"], fb.params["nt"]
    if serial:
        return number(0), fb.select(fb.icmp("eq", tid, 0), total, number(0))
    each = fb.udiv(total, threads)
    rest = fb.sub(total, fb.mul(each, threads))
    low = fb.add(fb.mul(tid, each), fb.integer_minmax("smin", tid, rest))
    more = fb.icmp("slt", tid, rest)
    return low, fb.add(fb.add(low, each), fb.zext(more, "i64"))


def _decode(ix: Indices, loops: Sequence[Symbol], flat: Value) -> list[Value]:
    """The values of ``loops`` at a flat position."""
    fb = ix.fb
    out: list[Value] = []
    for v in reversed(loops[1:]):
        n = ix.scalar(v.size)
        out.append(fb.urem(flat, n))
        flat = fb.udiv(flat, n)
    out.append(flat)
    return out[::-1]


def _advance(ix: Indices, loops: Sequence[Symbol], values: Sequence[Value]) -> list[Value]:
    """The next point in row-major order, without division."""
    fb = ix.fb
    out: list[Value] = []
    carry = number(1)
    for position in range(len(loops) - 1, -1, -1):
        following = fb.add(values[position], carry)
        if position:
            full = fb.icmp("eq", following, ix.scalar(loops[position].size))
            following = fb.select(full, 0, following)
            carry = fb.zext(full, "i64")
        out.append(following)
    return out[::-1]


def _flat_loop(
    ix: Indices, loops: Sequence[Symbol], low: Value, high: Value, body: Callable[[], None]
) -> None:
    """One loop over flat positions; the variables are decoded once and then counted on. Not empty."""
    start = _decode(ix, loops, low) if len(loops) > 1 else []
    with ix.fb.for_range(low, high, 1, start, label="unit", runs=True) as loop, ix.block():
        values = loop.carried if len(loops) > 1 else [loop.index][: len(loops)]
        for symbol, value in zip(loops, values, strict=True):
            ix.bind(symbol, value)
        body()
        if len(loops) > 1:
            loop.set_next(*_advance(ix, loops, values))


def _block_loop(
    ix: Indices,
    loops: Sequence[Symbol],
    x: Blocks,
    extents: tuple[Value, Value],
    low: Value,
    high: Value,
    body: Callable[[], None],
) -> None:
    """Units are (row, block): a thread may start and end inside a row. ``extents``: the blocks of a row, and
    its length."""
    fb = ix.fb
    blocks, size = extents
    first_row, first_block = fb.udiv(low, blocks), fb.urem(low, blocks)
    start = _decode(ix, loops, first_row)
    head = fb.current
    again, done = fb.block("rows"), fb.block("rows.end")
    fb.br(again)
    fb.place(again)
    unit = fb.phi(I64, (low, head))
    at = fb.phi(I64, (first_block, head))
    values = [fb.phi(I64, (v, head)) for v in start]
    count = fb.integer_minmax("smin", fb.sub(blocks, at), fb.sub(high, unit))
    stop = fb.integer_minmax("smin", fb.mul(fb.add(at, count), x.length), size)
    with ix.block():
        for symbol, value in zip(loops, values, strict=True):
            ix.bind(symbol, value)
        ix.bind(x.low, fb.mul(at, x.length))
        ix.bind(x.high, stop)
        body()
    following = fb.add(unit, count)
    advanced = _advance(ix, loops, values)
    latch = fb.current
    fb.cond_br(fb.icmp("slt", following, high), again, done)
    unit.add(following, latch)
    at.add(number(0), latch)
    for phi, after in zip(values, advanced, strict=True):
        phi.add(after, latch)
    fb.place(done)
