"""Programs: verified, and run by their interpreter at every width and number of threads, against the
reference interpreter of kernels. No LLVM is needed to find a wrong tail, strip, identity or barrier."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze.codegen.program.build import build_program
from braze.codegen.program.interpreter import run_program
from braze.codegen.program.loop_plan import plan_kernel
from braze.codegen.program.program import Program
from braze.codegen.program.verifier import verify_program
from braze.ops.interpreter import interpret
from braze.ops.kernel import Kernel
from tests.codegen.llvm.kernels import check_guards, guarded
from tests.ops.generators import KINDS, Case, compare

EXAMPLES = int(os.environ.get("BRAZE_FUZZ_EXAMPLES", "15"))


def program_of(kernel: Kernel, lanes: int, masks: bool) -> Program:
    """The program of a kernel, verified."""
    program = build_program(kernel, plan_kernel(kernel, lanes, masks))
    verify_program(program)
    return program


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("specials", [False, True])
def test_random_kernels(kind: str, specials: bool) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        KINDS[kind](specials), st.sampled_from((1, 2, 4, 8, 16)), st.booleans(), st.sampled_from((1, 2, 3))
    )
    def run(case: Case, width: int, masks: bool, threads: int) -> None:
        expected = case.fresh()
        interpret(case.kernel, expected, case.sizes)
        program = program_of(case.kernel, width, masks)
        actual = {name: guarded(t) for name, t in case.buffers.items()}
        run_program(program, actual, case.sizes, threads)
        for name in case.outputs:
            check_guards(actual[name])
        compare(case, actual, expected)

    run()
