from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

import pytest

from braze._torch.native import native_address
from braze.errors import LinkError
from braze.runtime.elf import read_symbols
from braze.runtime.linker import link
from tests.runtime.kernels import ADD_ONE, TEAM, compiled, constant_function, linked

CALLS_LIBM = """
declare float @cosf(float)
declare float @Sleef_sinf1_u10(float)
define float @f(float %x) {
  %c = call float @cosf(float %x)
  ret float %c
}
"""
CALLER = "declare i64 @f()\ndefine i64 @g() {\n %x = call i64 @f()\n %y = add i64 %x, 1\n ret i64 %y\n}\n"
NOBODY = CALLER.replace("@f", "@braze_nobody_defines_this")


def call(address: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(address)())


def test_symbols_of_an_object() -> None:
    (team,) = compiled(TEAM)
    symbols = read_symbols(team)
    assert symbols is not None
    assert symbols.defined == {"team"}
    assert {"GOMP_parallel", "GOMP_barrier", "omp_get_num_threads"} <= symbols.undefined
    assert read_symbols(b"not ELF") is None
    for cut in (7, 100, len(team) // 2, len(team) - 1):
        with pytest.raises(ValueError, match="not a whole ELF file"):
            read_symbols(team[:cut])


def test_names_of_two_artefacts_do_not_clash() -> None:
    one = linked(["f"], constant_function(1))
    two = linked(["f"], constant_function(2))
    assert (call(one.address("f")), call(two.address("f"))) == (1, 2)


def test_objects_call_each_other_in_any_order() -> None:
    f, g = compiled(constant_function(7), CALLER)
    for objects in ([f, g], [g, f], [g, f, f]):
        assert call(link(objects, exports=["g"]).address("g")) == 8


def test_calls_libm() -> None:
    code = linked(["f"], CALLS_LIBM)
    assert ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)(code.address("f"))(0.0) == 1.0


def test_what_torch_brings_is_found() -> None:
    for name in ("GOMP_parallel", "GOMP_barrier", "omp_get_num_threads", "omp_get_thread_num", "memcpy"):
        assert native_address(name)
    assert native_address("braze_nobody_defines_this") is None


def test_the_team_is_torchs() -> None:
    """The OpenMP runtime is the one that torch is linked to, not a second copy."""
    address = native_address("GOMP_parallel")
    assert address is not None
    homes = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
    ]
    assert len(homes) == 1
    assert "torch" in homes[0] or "omp" in homes[0]
    others = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line
    }
    assert len(others) <= 1


def test_missing_symbol_is_named() -> None:
    with pytest.raises(LinkError, match="braze_nobody_defines_this"):
        linked(["g"], NOBODY)


def test_name_defined_twice() -> None:
    with pytest.raises(LinkError, match="two objects define f"):
        linked(["f"], constant_function(1), constant_function(2))


def test_damaged_and_foreign_objects() -> None:
    (data,) = compiled(ADD_ONE)
    with pytest.raises(LinkError, match="damaged"):
        link([data[:300]], exports=["add_one"])
    with pytest.raises(LinkError, match="could not be linked"):
        link([b"not an object"], exports=["add_one"])
    foreign = bytearray(data)
    foreign[18] = 183  # EM_AARCH64
    with pytest.raises(LinkError, match="could not be linked"):
        link([bytes(foreign)], exports=["add_one"])


def test_export_that_is_not_there() -> None:
    with pytest.raises(LinkError, match="nothere"):
        linked(["nothere"], constant_function(1))
    code = linked(["f"], constant_function(1))
    assert "f" in code
    assert code.exports == ("f",)
    with pytest.raises(LinkError, match="exports no 'g'"):
        code.address("g")


def test_code_is_freed() -> None:
    """Some kilobytes of ORC's records stay for each artefact; its code does not."""
    data = f'@data = constant [{1 << 19} x i8] c"{"x" * (1 << 19)}"\n'
    objects = compiled(data + "define ptr @f1() { ret ptr @data }\n")
    assert len(objects[0]) > 256 << 10

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cycle(n: int) -> None:
        for _ in range(n):
            link(objects, exports=["f1"])
        gc.collect()

    cycle(5)
    before = resident()
    cycle(50)
    assert resident() - before < 25 * len(objects[0])


def test_threads_link_at_once() -> None:
    objects = [compiled(constant_function(i))[0] for i in range(8)]
    wrong = []

    def use(number: int) -> None:
        for _ in range(20):
            code = link([objects[number]], exports=["f"])
            if call(code.address("f")) != number:
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_export_that_no_object_defines_is_found_before_llvm_is_asked(monkeypatch) -> None:
    from braze.runtime import linker

    objects = compiled(constant_function(1))
    monkeypatch.setattr(linker, "_llvm", lambda: pytest.fail("LLVM was asked"))
    with pytest.raises(LinkError, match="defines no 'g'"):
        link(objects, exports=["f", "g"])
