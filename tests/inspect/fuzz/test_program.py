"""Programs: from a seed always the same, as bytes and back, as a script that runs; what is drawn."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from braze.inspect.fuzz.execute import function_of, make_inputs, run
from braze.inspect.fuzz.generate import MODES, generate, mode_of
from braze.inspect.fuzz.program import Program, Tensor
from braze.inspect.fuzz.script import script_of
from tests.inspect.fuzz.programs import number, program, statement, tensor

SOME = [p for p in (generate(7, index) for index in range(60)) if p is not None]


def test_most_seeds_give_programs_and_the_modes_take_turns() -> None:
    assert len(SOME) > 50
    assert {p.mode for p in SOME} == set(MODES)
    assert [mode_of(index) for index in range(4)] == list(MODES)


def test_a_seed_gives_the_same_program_in_every_process() -> None:
    code = (
        "from braze.inspect.fuzz.generate import generate\n"
        "print([p and p.to_bytes().hex() for p in (generate(7, index) for index in range(12))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([p and p.to_bytes().hex() for p in (generate(7, i) for i in range(12))])


@pytest.mark.parametrize("one", SOME, ids=lambda p: p.origin)
def test_a_program_survives_as_bytes(one: Program) -> None:
    again = Program.from_bytes(one.to_bytes())
    assert again.source() == one.source() and script_of(again) == script_of(one)


@pytest.mark.parametrize("one", SOME, ids=lambda p: p.origin)
def test_a_program_runs_eagerly_wherever_it_is_called_and_twice_the_same(one: Program) -> None:
    for call in range(one.calls):
        first, second = (run(function_of(one), one, call) for _ in range(2))
        assert (first.error is None) == (second.error is None)
        for left, right in zip(first.results, second.results):
            torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def test_inputs_have_the_layout_that_is_asked_for() -> None:
    given = Tensor("x", "float32", ((2, 3),), (1, 0), (1, 2), 5, (), (1.0, math.nan, -0.0))
    made = make_inputs(program([given], [], "x"), 0)
    (x,) = made.arguments
    assert x.shape == (2, 3) and x.stride() == (1, 4) and x.storage_offset() == 5
    assert x.stride() == given.strides(0) and made.memories["x"].numel() == given.reach(0) + 3
    assert str(made.memories["x"][:4].tolist()) == "[1.0, nan, -0.0, 1.0]"


def test_an_expanded_input_has_a_stride_of_zero() -> None:
    given = Tensor("x", "int64", ((4, 3),), (0, 1), (1, 1), 0, (0,), (7, 8, 9))
    (x,) = make_inputs(program([given], [], "x"), 0).arguments
    assert x.stride() == (0, 1) and x.tolist() == [[7, 8, 9]] * 4


def test_inputs_can_share_memory() -> None:
    one, other = tensor("x", (4,)), tensor("y", (4,), shares="x", offset=2)
    x, y = make_inputs(program([one, other], [], "x"), 0).arguments
    x.fill_(3.0)
    assert y.tolist()[:2] == [3.0, 3.0] and y.tolist()[2:] != [3.0, 3.0]


def runs(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_script_stands_alone(mode: str) -> None:
    calls = 2 if mode in ("dynamic", "package") else 1
    x = tensor(
        "x", *[(3, 4), (5, 2)][:calls], grad=mode == "gradients", values=(1.5, -math.inf, math.nan, -0.0)
    )
    y = tensor("y", *[(3, 4), (5, 2)][:calls], dtype="int32", values=(1, 2))
    z = tensor("z", *[(3, 2), (5, 1)][:calls], dtype="int32", values=(3, 4))
    w = tensor("w", *[(3, 2), (5, 1)][:calls], dtype="int32", values=(0,), shares="z", offset=1)
    one = program(
        [x, y, z, w, number("k", *[2, 3][:calls])],
        [statement("a", "mul", "x", "y"), statement("b", "add", "a", "k"), statement("c", "sub", "z", "w")],
        "b", "c", "w", mode=mode,
    )  # type: ignore[arg-type]  # fmt: skip
    done = runs(script_of(one, "what it\nis about"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agrees with eager"


def test_a_script_of_a_fault_fails() -> None:
    one = program([tensor("x", (3,))], [statement("a", "exp", "x")], "a")
    script = script_of(one).replace(
        'torch.compile(program, backend="braze"', 'torch.compile(wrong, backend="eager"'
    )
    done = runs(
        script.replace("compiled = ", "def wrong(x0):\n    return (torch.exp(x0) * 1.01,)\n\ncompiled = ")
    )
    assert done.returncode == 1 and "Disagreement" in done.stderr


def test_programs_cover_the_kinds_of_inputs() -> None:
    tensors = [given for p in SOME for given in p.inputs if isinstance(given, Tensor)]
    assert (
        any(t.expanded for t in tensors) and any(t.offset for t in tensors) and any(t.shares for t in tensors)
    )
    assert any(t.order != tuple(sorted(t.order)) for t in tensors) and any(
        max(t.gaps, default=1) > 1 for t in tensors
    )
    assert any(0 in shape for t in tensors for shape in t.shapes) and any(() in t.shapes for t in tensors)
    values = [v for t in tensors for v in t.values if isinstance(v, float)]
    assert any(math.isnan(v) for v in values) and any(math.isinf(v) for v in values)
    assert {"float32", "bfloat16", "float16", "float64", "int64", "bool"} <= {t.dtype for t in tensors}
