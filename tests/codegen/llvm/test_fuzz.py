"""Random kernels: machine code at several vector widths, on one thread and two, against the reference
interpreter."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze.codegen.llvm.generate import generate
from braze.ops.interpreter import interpret
from tests.codegen.llvm.kernels import check_guards, execute, guarded
from tests.ops.generators import KINDS, Case, compare

EXAMPLES = int(os.environ.get("BRAZE_FUZZ_EXAMPLES", "25"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("specials", [False, True])
def test_random_kernels(kind: str, specials: bool) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(KINDS[kind](specials), st.sampled_from((1, 4, 8, 16)), st.integers(0, 3), st.sampled_from((1, 2)))
    def run(case: Case, width: int, offset: int, threads: int) -> None:
        expected = case.fresh()
        interpret(case.kernel, expected, case.sizes)
        actual = {name: guarded(t, offset) for name, t in case.buffers.items()}
        errors = execute(generate(case.kernel, width), actual, case.sizes, threads)
        assert errors[0] == 0, errors
        for name in case.outputs:
            check_guards(actual[name])
        compare(case, actual, expected)

    run()
