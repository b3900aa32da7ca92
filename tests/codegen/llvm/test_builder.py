"""The LLVM text builder: what it prints parses, verifies and runs; what it refuses raises."""

from __future__ import annotations

import ctypes
import math
import struct
import time
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braze.codegen.llvm.builder import (
    F32,
    F64,
    I1,
    I32,
    I64,
    PTR,
    FunctionBuilder,
    IRBuildError,
    ModuleBuilder,
    Type,
    Value,
    constant,
)
from tests.codegen.llvm.machine import compile_module

V16F = Type("float", 16)
V16I = Type("i32", 16)
V16B = Type("i1", 16)


def run(emit: Callable[[FunctionBuilder], None], *arrays: np.ndarray) -> str:
    """Build ``void f(ptr a0, ptr a1, ...)``, run it on the arrays' data, return the IR."""
    module = ModuleBuilder("test")
    fb = FunctionBuilder(module, "f", [(f"a{i}", PTR, "noalias") for i in range(len(arrays))])
    emit(fb)
    fb.ret()
    engine = compile_module(module.text())
    address = engine.get_function_address("f")
    ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays))(address)(*[a.ctypes.data for a in arrays])
    return module.text()


def test_types_are_interned_and_print() -> None:
    assert Type("float", 16) is V16F
    assert Type("float") is F32
    assert (V16F.text, V16F.suffix, PTR.suffix, F32.text) == ("<16 x float>", "v16f32", "p0", "float")
    with pytest.raises(IRBuildError):
        Type("quad", 2)
    with pytest.raises(IRBuildError):
        Type("float", 0)


@given(st.floats(width=32))
def test_float_constants_are_exact(value: float) -> None:
    text = constant(F32, value).text
    assert struct.pack("<d", value) == struct.pack("<Q", int(text, 16)) or math.isnan(value)
    assert constant(V16F, value).text == f"splat (float {text})"


@pytest.mark.parametrize(
    ("elem", "value", "text"),
    [
        ("float", -0.0, "0x8000000000000000"),
        ("float", math.inf, "0x7FF0000000000000"),
        ("float", 1e300, "0x7FF0000000000000"),
        ("float", 0.1, "0x3FB99999A0000000"),
        ("double", 0.1, "0x3FB999999999999A"),
        ("half", 1.5, "0xH3E00"),
        ("half", -1e9, "0xHFC00"),
        ("bfloat", 1.0, "0xR3F80"),
        ("i1", True, "true"),
        ("i8", 255, "-1"),
        ("i64", -(2**63), str(-(2**63))),
        ("i32", 0xFFFFFFFF, "-1"),
        ("ptr", 0, "null"),
    ],
)
def test_scalar_constants(elem: str, value: float, text: str) -> None:
    assert constant(Type(elem), value).text == text


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=16, max_size=16))
def test_arithmetic_matches_numpy(values: list[float]) -> None:
    a = np.array(values, np.float32)
    b = np.roll(a, 3)
    out = np.zeros((6, 16), np.float32)

    def emit(fb: FunctionBuilder) -> None:
        x = fb.load(fb.params["a0"], V16F)
        y = fb.load(fb.params["a1"], V16F)
        results = [fb.fadd(x, y), fb.fsub(x, y), fb.fmul(x, y), fb.fdiv(x, y), fb.fneg(x), fb.fadd(x, 0.5)]
        for i, result in enumerate(results):
            fb.store(result, fb.gep(fb.params["a2"], constant(I64, 16 * i), "float"))

    run(emit, a, b, out)
    with np.errstate(all="ignore"):
        expected = np.stack([a + b, a - b, a * b, a / b, -a, a + np.float32(0.5)])
    np.testing.assert_array_equal(out, expected)


def test_everything_runs() -> None:
    """One function through nearly all the instructions that other tests don't run."""
    ints = np.arange(-8, 8, dtype=np.int32)
    out = np.zeros(64, np.int32)
    floats = np.linspace(-2.5, 5, 16, dtype=np.float32)
    fout = np.zeros((8, 16), np.float32)

    def emit(fb: FunctionBuilder) -> None:
        x = fb.load(fb.params["a0"], V16I)
        mask = fb.icmp("sgt", x, 0)
        y = fb.select(mask, fb.mul(x, 3), fb.sub(x, 1))
        y = fb.xor(fb.or_(fb.and_(y, 0xFF), 0x100), fb.shl(x, 4))
        y = fb.add(fb.ashr(y, 1), fb.lshr(fb.not_(x), 28))
        fb.masked_store(y, fb.params["a1"], mask)
        stats = [fb.reduce(k, x) for k in ("add", "smax", "smin", "and", "or", "xor")]
        wide = fb.trunc(fb.add(fb.zext(x, "i64"), fb.sext(x, "i64")), "i32")
        stats += [fb.reduce("umax", wide), fb.zext(fb.any(mask), "i32"), fb.zext(fb.all(mask), "i32")]
        stats += [fb.extract(x, 5), fb.reduce("add", fb.slice(x, 4, 4)), fb.reduce("add", fb.ctpop(x))]
        stats.append(fb.reduce("add", fb.concat([fb.slice(x, 0, 8), fb.slice(x, 8, 8)])))
        for i, value in enumerate(stats):
            fb.store(value, fb.gep(fb.params["a1"], constant(I64, 16 + i), "i32"))
        fb.atomicrmw("add", fb.params["a1"], constant(I32, 77))
        slot = fb.alloca(V16I, align=64)
        fb.store(x, slot, 64)
        fb.scatter(
            fb.load(slot, V16I, 64),
            fb.gep(fb.params["a1"], fb.add(fb.lane_ids(Type("i64", 16)), 48), "i32"),
            fb.icmp("slt", x, 0),
        )
        v = fb.load(fb.params["a2"], V16F)
        lanes = fb.gep(fb.params["a2"], fb.lane_ids(Type("i64", 16)), "float")
        got = [
            fb.fma(v, v, 1.0),
            fb.sqrt(fb.fabs(v)),
            fb.floor(v),
            fb.ceil(v),
            fb.roundeven(v),
            fb.copysign(v, -1.0),
            fb.minimum(fb.maximum(v, 0.0), 1.0),
            fb.masked_load(fb.params["a2"], V16F, fb.fcmp("ogt", v, 0.0), 9.0),
        ]
        got[2] = fb.select(fb.fcmp("ord", v, v), got[2], fb.gather(lanes, V16F))
        for i, value in enumerate(got):
            fb.store(value, fb.gep(fb.params["a3"], constant(I64, 16 * i), "float"))

    run(emit, ints, out, floats, fout)
    x = ints
    y = np.where(x > 0, x * 3, x - 1)
    y = ((y & 0xFF) | 0x100) ^ (x << 4)
    y = (y >> 1) + (~x).view(np.uint32) // 2**28
    expected = np.where(x > 0, y, 0)
    expected[0] += 77
    np.testing.assert_array_equal(out[:16], expected)
    doubled = (x.view(np.uint32).astype(np.int64) + x).astype(np.uint32)
    pops = sum(bin(int(i)).count("1") for i in x.view(np.uint32))
    assert out[16:29].tolist() == [
        -8, 7, -8, 0, -1, 0, doubled.view(np.int32)[doubled.argmax()], 1, 0, -3, -10, pops, -8,
    ]  # fmt: skip
    np.testing.assert_array_equal(out[48:], np.where(x < 0, x, 0))
    v = floats
    np.testing.assert_array_equal(fout[0], (v.astype(np.float64) ** 2 + 1).astype(np.float32))
    np.testing.assert_array_equal(fout[1], np.sqrt(np.abs(v)))
    np.testing.assert_array_equal(fout[2], np.floor(v))
    np.testing.assert_array_equal(fout[3], np.ceil(v))
    np.testing.assert_array_equal(fout[4], np.round(v))
    np.testing.assert_array_equal(fout[5], -np.abs(v))
    np.testing.assert_array_equal(fout[6], np.clip(v, 0, 1))
    np.testing.assert_array_equal(fout[7], np.where(v > 0, v, 9))


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_loop_carries_values(count: int) -> None:
    out = np.zeros(2, np.int64)
    size = np.array([count], np.int64)

    def emit(fb: FunctionBuilder) -> None:
        n = fb.load(fb.params["a0"], I64)
        hints = ["llvm.loop.unroll.disable"]
        with fb.for_range(constant(I64, 0), n, 1, [constant(I64, 5), constant(I64, 1)], hints=hints) as loop:
            total = fb.add(loop.carried[0], loop.index)
            with fb.for_range(constant(I64, 0), 4, 2, [loop.carried[1]], runs=True) as inner:
                inner.set_next(fb.add(inner.carried[0], 1))
            loop.set_next(total, inner.results[0])
        for i, value in enumerate(loop.results):
            fb.store(value, fb.gep(fb.params["a1"], constant(I64, i), "i64"))

    run(emit, size, out)
    assert out.tolist() == [5 + sum(range(count)), 1 + 2 * count]


@pytest.mark.parametrize("flag", [0, 1, 2])
def test_branches(flag: int) -> None:
    out = np.zeros(3, np.int32)
    given_flag = np.array([flag], np.int32)

    def emit(fb: FunctionBuilder) -> None:
        value = fb.load(fb.params["a0"], I32)
        cond = fb.icmp("eq", value, 1)
        (chosen,) = fb.if_else(cond, lambda: [constant(I32, 10)], lambda: [fb.add(value, 20)])
        fb.store(chosen, fb.params["a1"])
        with fb.if_then(cond):
            fb.store(constant(I32, 1), fb.gep(fb.params["a1"], constant(I64, 1), "i32"))
        one, other, after = fb.block("one"), fb.block("other"), fb.block("after")
        fb.switch(value, other, [(0, one), (1, one)])
        fb.place(one)
        fb.br(after)
        fb.place(other)
        fb.br(after)
        fb.place(after)
        joined = fb.phi(I32, (constant(I32, 7), one), (constant(I32, 8), other))
        fb.store(joined, fb.gep(fb.params["a1"], constant(I64, 2), "i32"))
        masked = fb.masked_load(fb.params["a0"], I32, cond, 3)
        fb.masked_store(masked, fb.params["a0"], fb.not_(cond))

    run(emit, given_flag, out)
    assert out.tolist() == [10 if flag == 1 else flag + 20, int(flag == 1), 8 if flag == 2 else 7]
    assert given_flag[0] == (1 if flag == 1 else 3)


def test_pairwise_sum_has_a_fixed_order() -> None:
    values = np.array([1e8, 1, -1e8, 1, 3, 5, 7, 9], np.float32)
    out = np.zeros(1, np.float32)
    run(
        lambda fb: fb.store(fb.reduce("fadd", fb.load(fb.params["a0"], Type("float", 8))), fb.params["a1"]),
        values,
        out,
    )
    a = values
    while a.size > 1:
        a = a[: a.size // 2] + a[a.size // 2 :]
    assert out[0] == a[0]


def test_splat_table_and_call() -> None:
    out = np.zeros(8, np.float64)
    module = ModuleBuilder("test")
    inner = FunctionBuilder(module, "twice", [("x", F64)], F64, linkage="internal")
    inner.ret(inner.fmul(inner.params["x"], 2.0))
    fb = FunctionBuilder(module, "f", [("a0", PTR)])
    table = module.constant_table("double", [1.5, 2.5])
    assert module.constant_table("double", [1.5, 2.5]).text == table.text
    scalar = fb.call("twice", F64, [fb.load(fb.gep(table, constant(I64, 1), "double"), F64)])
    fb.store(fb.splat(scalar, 8), fb.params["a0"])
    fb.ret()
    engine = compile_module(module.text())
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("f"))(out.ctypes.data)
    assert out.tolist() == [5.0] * 8


def _fresh() -> FunctionBuilder:
    return FunctionBuilder(ModuleBuilder(), "f", [("p", PTR), ("x", F32), ("i", I32), ("v", V16F)])


@pytest.mark.parametrize(
    "mistake",
    [
        lambda fb: fb.fadd(fb.params["x"], fb.params["i"]),
        lambda fb: fb.fma(fb.params["x"], fb.params["v"], 0.0),
        lambda fb: fb.icmp("eq", fb.params["i"], fb.params["x"]),
        lambda fb: fb.select(fb.params["i"], fb.params["x"], 0.0),
        lambda fb: fb.select(constant(I1, True), 1.0, 0.0),
        lambda fb: fb.load(fb.params["x"], F32),
        lambda fb: fb.store(fb.params["x"], fb.params["i"]),
        lambda fb: fb.bitcast(fb.params["v"], F32),
        lambda fb: fb.cond_br(fb.params["i"], fb.block(), fb.block()),
        lambda fb: fb.ret(fb.params["x"]),
        lambda fb: fb.insert(fb.params["v"], fb.params["i"], 0),
        lambda fb: fb.masked_load(fb.params["p"], V16F, constant(I1, True)),
        lambda fb: fb.text(),
        lambda fb: fb.place(fb.block()),
        lambda fb: (fb.ret(), fb.ret()),
        lambda fb: (fb.ret(), fb.fadd(fb.params["x"], 1.0)),
        lambda fb: (fb.phi(F32), fb.ret(), fb.text()),
        lambda fb: fb.phi(F32, (fb.params["i"], fb.entry)),
        lambda fb: FunctionBuilder(fb.module, "f", []),
        lambda fb: FunctionBuilder(fb.module, "g", [("a", I32), ("a", I32)]),
        lambda fb: (fb.module.declare("h", F32, []), fb.module.declare("h", F64, [])),
        lambda fb: constant(PTR, 8),
    ],
)
def test_mistakes_raise(mistake: Callable[[FunctionBuilder], object]) -> None:
    with pytest.raises(IRBuildError):
        mistake(_fresh())


def test_module_text_has_all_parts() -> None:
    module = ModuleBuilder("m", triple="x86_64-unknown-linux-gnu")
    FunctionBuilder(module, "f", [], attributes=["nounwind", '"target-cpu"="x86-64-v3"']).ret()
    text = module.text()
    assert 'target triple = "x86_64-unknown-linux-gnu"' in text
    assert 'attributes #0 = { nounwind "target-cpu"="x86-64-v3" }' in text
    llvm.parse_assembly(text).verify()


def test_emission_is_fast() -> None:
    def emit() -> None:
        fb = _fresh()
        value: Value = fb.params["v"]
        for _ in range(250):
            value = fb.fma(fb.fadd(value, 1.0), value, 0.5)
        fb.ret()
        fb.module.text()

    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        emit()
        best = min(best, time.perf_counter() - start)
    assert best < 0.01
