from __future__ import annotations

import pytest

from braze import config
from braze.codegen.llvm import pool
from braze.runtime.target import Target, current_target, host_target, lanes_of, named_target

VECTORS = """
define void @f(ptr %a) {
  %x = load <16 x float>, ptr %a, align 4
  %y = fadd <16 x float> %x, %x
  store <16 x float> %y, ptr %a, align 4
  ret void
}
"""


@pytest.mark.parametrize(
    ("features", "lanes"),
    [
        ("+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma", 16),
        ("+avx512f,-avx512bw,+avx512dq,+avx512vl,+avx2,+fma", 8),
        ("+avx2,+fma", 8),
        ("+avx2,-fma", 4),
        ("+neon", 4),
        ("", 4),
    ],
)
def test_lanes(features: str, lanes: int) -> None:
    assert lanes_of(features) == lanes


def test_named_targets() -> None:
    assert named_target("generic").lanes == 4
    assert named_target("x86-64-v3") == Target("x86-64-v3", "", 8)
    assert named_target("x86-64-v4") == Target("x86-64-v4", "-prefer-256-bit", 16)
    assert named_target("host") is host_target()
    assert named_target("x86-64-v3").has("f16c")
    assert not named_target("generic").has("f16c")


def test_configuration_overrides() -> None:
    assert current_target() == host_target()
    with config.patch(target_cpu="x86-64-v3", vector_width=4):
        assert current_target() == Target("x86-64-v3", "", 4)
    with config.patch(vector_width=1):
        assert (current_target().cpu, current_target().lanes) == (host_target().cpu, 1)


@pytest.mark.parametrize(("name", "register"), [("x86-64-v4", "%zmm"), ("x86-64-v3", "%ymm")])
def test_code_uses_the_widest_registers(name: str, register: str) -> None:
    target = named_target(name)
    made = pool.compile_ir(VECTORS, cpu=target.cpu, features=target.features, emit=("asm",)).result()
    assert register in made.asm


def test_skylake_is_not_left_to_split_its_vectors() -> None:
    features = "+avx512f,+avx512bw,+avx512dq,+avx512vl,+prefer-256-bit,-prefer-256-bit"
    made = pool.compile_ir(VECTORS, cpu="skylake-avx512", features=features, emit=("asm",)).result()
    assert "%zmm" in made.asm
