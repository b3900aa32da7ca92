"""`braze replay`: requests from files, compiled again, and their results beside eager PyTorch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import braze.inspect
from braze.artifact.output_code import OpaqueCode
from braze.cli.main import main
from braze.compile.debug_file import DebugFileFxCompile, write_request
from braze.compile.in_process import InProcessFxCompile
from braze.compile.messages import Request
from braze.errors import ArtifactError, BrazeWarning, FallbackError, ParseError
from tests.compile.requests import request_of


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(fn: Callable[..., Any], *inputs: Any, dynamic: bool = False) -> Path:
        write_request(tmp_path, Request.of(request_of(fn, *inputs, dynamic=dynamic)))
        return tmp_path / "request.txt"

    return write


def replay(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, words)], env={"COLUMNS": "120"})


def step(x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    state.mul_(2)
    return torch.softmax(x.sin() @ torch.ones(3, 3), -1) + torch.rand_like(x), state.t() + x.shape[0]


def test_a_graph_that_agrees(written: Callable[..., Path]) -> None:
    path = written(step, torch.randn(4, 3), torch.randn(5, 2).t(), dynamic=True)
    found = braze.inspect.replay(path)
    assert found.agrees and found.reason is None and found.not_compared is None and found.versions is None
    assert found.info is not None and found.info.name == found.name and found.kind == "inference"
    assert [one.name for one in found.compared][:2] == ["output 0", "output 1"]
    assert any("written to" in one.name for one in found.compared)
    assert all(one.difference is not None and one.difference < 1e-4 for one in found.compared)
    result = replay(path)
    assert result.exit_code == 0
    for part in (found.name, "fused_", "aten.mm.default", "test_replay.py:", "agrees", "largest difference"):
        assert part in result.output
    assert "differs" not in result.output


def test_a_result_that_differs(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = InProcessFxCompile.compile

    def wrong(self: InProcessFxCompile, request: Any) -> Any:
        code = real(self, request)
        return OpaqueCode(code.name, lambda inputs: [t + 1 for t in code.run(inputs)], code.output_strides)

    monkeypatch.setattr(InProcessFxCompile, "compile", wrong)
    path = written(lambda x: x.sin(), torch.randn(3))
    found = braze.inspect.replay(path)
    assert not found.agrees and found.compared[0].difference == pytest.approx(1.0)
    result = replay(path)
    assert result.exit_code == 1 and "differs" in result.output


def test_fallbacks_are_shown_and_strict_mode_fails(written: Callable[..., Path]) -> None:
    path = written(lambda x: torch._add_relu(x, x), torch.randn(8))
    found = braze.inspect.replay(path)
    assert found.agrees and found.info is not None and len(found.info.metrics.fallbacks) == 1
    assert not found.said  # what is shown as a fallback is not shown as a warning again
    assert "aten._add_relu.Tensor" in replay(path).output
    with pytest.raises(FallbackError):
        braze.inspect.replay(path, strict=True)
    strict = replay(path, "--strict")
    assert strict.exit_code == 1 and "_add_relu" in strict.output


def test_every_stage_is_written_where_one_asks(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(lambda x: x.sin(), torch.randn(3))
    result = replay(path, "--out", tmp_path / "stages")
    assert result.exit_code == 0
    (folder,) = (tmp_path / "stages").iterdir()
    assert (folder / "schedule.txt").exists() and (folder / "summary.txt").exists()


def test_inputs_that_random_numbers_are_not(written: Callable[..., Path]) -> None:
    def solve(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.cholesky(x)  # type: ignore[no-any-return]

    found = braze.inspect.replay(written(solve, torch.eye(4)))
    assert found.not_compared is not None and "does not take random inputs" in found.not_compared
    assert found.agrees and not found.compared


def test_what_cannot_be_compiled_is_shown(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from braze.compile import pipeline

    def broken(*args: Any, **keywords: Any) -> Any:
        raise ZeroDivisionError("in a pass")

    path = written(lambda x: x.sin(), torch.randn(3))
    monkeypatch.setattr(pipeline, "compile_graph", broken)
    found = braze.inspect.replay(path)
    assert found.info is None and found.reason == "ZeroDivisionError: in a pass" and found.agrees
    assert "runs as eager PyTorch: ZeroDivisionError: in a pass" in replay(path).output


def test_a_request_alone_is_enough_where_it_has_no_constants(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    path = written(lambda x: x.sin(), torch.randn(3))
    (tmp_path / "context.json").unlink()
    assert braze.inspect.replay(path).agrees
    (tmp_path / "context.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a context of a request"):
        braze.inspect.replay(path)


def test_files_that_are_no_requests(tmp_path: Path) -> None:
    for content in (b"", b"rubbish\n", b"# braze graph 2\ndef forward():\n    return (1,)\n", b"\xff\xfe"):
        (tmp_path / "request.txt").write_bytes(content)
        with pytest.raises((ParseError, ArtifactError)):
            braze.inspect.replay(tmp_path / "request.txt")
        result = replay(tmp_path / "request.txt")
        assert result.exit_code == 1 and "Traceback" not in result.output
    assert replay(tmp_path / "nothing.txt").exit_code == 2


def test_constants_are_needed_and_checked(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(lambda x: x @ torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.randn(3, 2))
    assert braze.inspect.replay(path).agrees
    constants = tmp_path / "constants.safetensors"
    content = constants.read_bytes()
    constants.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ParseError, match="other contents"):
        braze.inspect.replay(path)
    constants.write_bytes(b"rubbish")
    with pytest.raises(ArtifactError):
        braze.inspect.replay(path)
    constants.unlink()
    with pytest.raises(ParseError, match="given nowhere"):
        braze.inspect.replay(path)


def test_what_the_mode_wrote_is_what_the_command_reads(tmp_path: Path) -> None:
    request = request_of(step, torch.randn(4, 3), torch.randn(2, 5), debug_dir=str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrazeWarning)
        DebugFileFxCompile().compile(request)
    result = replay(tmp_path / f"{request.name}.request" / "request.txt")
    assert result.exit_code == 0 and request.name in result.output
