"""``verify``: what a broken kernel does is reported when it runs, with the step that is wrong."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import braze
from braze.codegen.llvm import generate, operations, render, report
from braze.codegen.program.build import build_program
from braze.codegen.program.loop_plan import LoopPlan
from braze.codegen.program.program import Program
from braze.compile.verifying import again
from braze.errors import VerifyError
from braze.ops.kernel import Kernel
from tests.codegen.program.test_broken import no_barrier, no_mask, wrong_identity, wrong_strip, wrong_tail

Damage = Callable[[Program], None]


@pytest.fixture(autouse=True)
def verifying() -> Iterator[None]:
    torch._dynamo.reset()
    with braze.config.patch(verify=True, strict=True, target_cpu="x86-64-v3"):
        yield


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Damage], None]:
    def install(damage: Damage) -> None:
        def broken(kernel: Kernel, plan: LoopPlan) -> Program:
            program = build_program(kernel, plan)
            damage(program)
            return program

        monkeypatch.setattr(generate, "build_program", broken)
        monkeypatch.setattr(report, "build_program", broken)

    return install


def rows(x: torch.Tensor) -> torch.Tensor:
    return (x * 2).sum(-1)


def whole(x: torch.Tensor) -> torch.Tensor:
    return x.amax()


def run(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, folder: Path) -> torch.Tensor:
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(
        function, backend="braze", options={"debug_dir": str(folder)}
    )
    return compiled(x)


CASES: list[tuple[Damage, Callable[[torch.Tensor], torch.Tensor], tuple[int, ...], str]] = [
    (wrong_strip, rows, (2, 9001), "the program differs from the kernel: buf1 is not what its loops say"),
    (wrong_identity, rows, (3, 37), "the program differs from the kernel: buf1 is not what its loops say"),
    (no_barrier, whole, (201, 1001), "the program breaks a rule: Load of .*no barrier stands between"),
]


@pytest.mark.parametrize(("damage", "function", "shape", "told"), CASES, ids=[c[0].__name__ for c in CASES])
def test_a_broken_program_is_reported(
    damage: Damage,
    function: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, ...],
    told: str,
    breaking: Callable[[Damage], None],
    tmp_path: Path,
) -> None:
    breaking(damage)
    with pytest.raises(VerifyError, match=told) as caught:
        run(function, torch.randn(shape), tmp_path)
    assert __file__ in str(caught.value)
    (folder,) = tmp_path.rglob("verify-*")
    assert str(folder) in str(caught.value)
    assert (folder / "found.txt").read_text().startswith(told.split(":")[0])
    for name in ("kernel.txt", "plan.txt", "program.txt", "code.txt", "again.py"):
        assert (folder / name).stat().st_size > 20
    assert json.loads((folder / "sizes.json").read_text()) == {}


@pytest.mark.parametrize("damage", [wrong_tail, no_mask])
def test_a_wrong_mask_is_reported_before_memory_behind_is_believed(
    damage: Damage, breaking: Callable[[Damage], None], tmp_path: Path
) -> None:
    breaking(damage)
    with braze.config.patch(target_cpu="x86-64-v4" if "avx512" in _flags() else None):
        if "avx512" not in _flags():  # tails are scalar then, and nothing is masked
            run(rows, torch.randn(3, 37), tmp_path)
            return
        with pytest.raises(VerifyError, match=r"the program breaks a rule: Load .*no mask says so"):
            run(rows, torch.randn(3, 37), tmp_path)


def _flags() -> str:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""


def test_broken_code_of_a_right_program_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(fb, op, dtype, args, result):  # type: ignore[no-untyped-def]
        return operations.compute(fb, "sub" if op == "add" else op, dtype, args, result)

    monkeypatch.setattr(render, "compute", wrong)
    with pytest.raises(VerifyError, match="the code differs from the program: buf1 is not"):
        run(lambda x: x + 3, torch.randn(5), tmp_path)
    (folder,) = tmp_path.rglob("verify-*")
    assert again(folder) is None  # the program is right


def test_a_kept_kernel_runs_again(
    breaking: Callable[[Damage], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaking(wrong_identity)
    with pytest.raises(VerifyError):
        run(rows, torch.randn(4, 50), tmp_path)
    (folder,) = tmp_path.rglob("verify-*")
    runpy.run_path(str(folder / "again.py"))
    assert "the program differs from the kernel: buf1" in capsys.readouterr().out


def test_what_is_right_passes_with_gradients_sizes_and_failed_checks(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(24, 48), torch.nn.GELU(), torch.nn.LayerNorm(48))
    x = torch.randn(7, 24, requires_grad=True)
    torch.compile(model, backend="braze")(x).square().sum().backward()
    assert x.grad is not None

    def function(x: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.softmax(x, -1).cumsum(0), x[i].half() * 3, x.var(0), x.argmax(-1)

    compiled = torch.compile(function, backend="braze", dynamic=True)
    for rows_ in (7, 9, 2):
        compiled(torch.randn(rows_, 33), torch.arange(rows_) % 2)
    with pytest.raises(IndexError):
        compiled(torch.randn(4, 33), torch.tensor([0, 4]))
    assert not list(tmp_path.rglob("verify-*"))
