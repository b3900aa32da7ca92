"""`braze explain`: from a name and some inputs to tables, or to one kernel's code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from braze.cli.explain import explain, parse_input, resolve
from braze.errors import BrazeError


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(explain, arguments)


def test_a_function_of_a_library() -> None:
    result = invoke("torch.nn.functional:gelu", "-i", "f32[32,32]")
    assert result.exit_code == 0, result.output
    assert "gelu  became 1 graph, 1 kernel" in result.output and "erf" in result.output


def test_a_function_in_a_file_with_gradients(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("FACTOR = 3\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom helper import FACTOR\ndef f(x, k):\n    return torch.tanh(x) * k * FACTOR\n"
    )
    result = invoke(f"{file}:f", "-i", "f64[17]", "-i", "2.5", "--grad")
    assert result.exit_code == 0, result.output
    assert (
        "f  became 2 graphs, 2 kernels" in result.output and "mine.py:4: return torch.tanh" in result.output
    )


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        ("ir", "kernel fused_"),
        ("plan", "plan for"),
        ("program", "program fused_"),
        ("code", "define void @"),
        ("asm", ".text"),
    ],
)
def test_one_kernel(show: str, expected: str) -> None:
    result = invoke("torch:tanh", "-i", "f32[40]", "--kernel", "1", "--show", show)
    assert result.exit_code == 0, result.output
    assert expected in result.output and "became" not in result.output


def test_a_kernel_that_is_not_there() -> None:
    result = invoke("torch:tanh", "-i", "f32[40]", "--kernel", "fused_cosh")
    assert isinstance(result.exception, BrazeError)
    assert "the kernels: fused_tanh_0" in str(result.exception)


@pytest.mark.parametrize(
    ("target", "said"),
    [("torch", "names no function"), ("torch:sofmax", "there is no 'sofmax'"), ("torch:float32", "cannot be"),
     ("no_such_module:f", "cannot import"), ("nowhere.py:f", "no file"), (":f", "names no function")],
)  # fmt: skip
def test_what_is_no_function(target: str, said: str) -> None:
    with pytest.raises(BrazeError, match=said):
        resolve(target)


def test_inputs() -> None:
    tensor = parse_input("bf16[3, 4]", grad=True)
    assert tensor.shape == (3, 4) and tensor.dtype is torch.bfloat16
    assert tensor.requires_grad and tensor.is_leaf
    assert parse_input("f32[]").shape == ()
    integers = parse_input("i64[1000]", grad=True)
    assert integers.dtype is torch.int64 and set(integers.tolist()) == set(range(10))
    assert parse_input("bool[8]").dtype is torch.bool
    assert parse_input("-1") == -1 and parse_input("None") is None and parse_input("(2, 3)") == (2, 3)


@pytest.mark.parametrize("text", ["f33[2]", "f32(2)", "torch.ones(2)", ""])
def test_what_is_no_input(text: str) -> None:
    with pytest.raises(BrazeError):
        parse_input(text)
