"""What templates will be made of can be said as a program: a register-blocked product with a hole for what
follows it, and a softmax in one pass."""

from __future__ import annotations

import pytest
import torch

from braze.codegen.program.interpreter import run_program
from braze.codegen.program.program import Program
from braze.codegen.program.verifier import verify_program
from tests.codegen.program.examples import Epilogue, online_softmax, packed_product, plain, relu_of_bias
from tests.codegen.program.running import run


def agree(
    program: Program, buffers: dict[str, torch.Tensor], sizes: dict[str, int], wanted: torch.Tensor, out: str
) -> None:
    """As machine code, and by the interpreter, on one thread and on two."""
    verify_program(program)
    for threads in (1, 2):
        for how in (run, run_program):
            buffers[out].fill_(-1.0)
            how(program, buffers, sizes, threads)
            torch.testing.assert_close(buffers[out].reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("epilogue", [plain, relu_of_bias])
@pytest.mark.parametrize(("lanes", "rows", "columns"), [(16, 14, 32), (8, 6, 16)])
def test_a_product_of_packed_panels(epilogue: Epilogue, lanes: int, rows: int, columns: int) -> None:
    panels, depth = 3, 5
    a, b, bias = torch.randn(panels * rows, depth), torch.randn(depth, columns), torch.randn(columns)
    packed = a.reshape(panels, rows, depth).transpose(1, 2).contiguous()
    wanted = a @ b if epilogue is plain else torch.relu(a @ b + bias)
    buffers = {"a": packed.flatten(), "b": b.flatten(), "c": torch.empty(wanted.numel()), "bias": bias}
    program = packed_product(lanes, rows, columns, epilogue)
    agree(program, buffers, {"panels": panels, "depth": depth}, wanted, "c")


def test_an_online_softmax() -> None:
    x = torch.randn(3, 192) * 30
    x[1, 17], x[2, :100] = 1e4, -torch.inf
    buffers = {"x": x.flatten(), "y": torch.empty(x.numel())}
    agree(online_softmax(16), buffers, {"rows": 3, "columns": 192}, torch.softmax(x, -1), "y")
