"""Faults put into the compiler, each found in a program of many operators and shrunk to a few."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from braze.inspect.fuzz.campaign import Plan, Session
from braze.inspect.fuzz.execute import function_of, run
from braze.inspect.fuzz.program import Tensor
from braze.inspect.minify.cut import parts
from braze.inspect.minify.minifying import Minified, smaller
from braze.inspect.minify.watch import Noted, Watch, noted_in

FAULTY = Plan(table="tests.inspect.minify.faulty_jobs", limit=60.0)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    one = Session(FAULTY)
    yield one
    one.close()


def noted(
    folder: Path, function: Callable[..., object], *arguments: object, dynamic: bool = False
) -> list[Noted]:
    torch.compiler.reset()
    torch.compile(function, backend=Watch(folder), dynamic=dynamic)(*arguments)
    torch.compiler.reset()
    return noted_in(folder)


def network(inner: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Many operators, with `inner` in the middle."""

    def function(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        h = F.layer_norm(F.relu(x @ w + b), (w.shape[1],))
        h = h.view(x.shape[0] * 2, -1).reshape(x.shape[0], w.shape[1])
        q, k = h.chunk(2, -1)
        h = torch.cat([inner(q), k.softmax(-1)], -1)
        return (h * torch.sigmoid(h) + b).clamp(-50, 50)

    return function


def arguments(width: int = 14) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(6, 8), torch.randn(8, width), torch.randn(width)]


FAULTS = {
    "another's value": (torch.erf, "value", "erf", 1),
    "a lowering raises": (torch.asinh, "defect", "asinh", 1),
    "no code": (torch.cosh, "defect", "cosh", 1),
    "wrong strides": (lambda x: torch.atan(x), "kind", "atan", 1),
    "one size": (torch.expm1, "value", "expm1", 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_seeded_fault_is_found_and_shrunk(name: str, session: Session, tmp_path: Path) -> None:
    inner, kind, operator, most = FAULTS[name]
    (note,) = noted(tmp_path, network(inner), *arguments())
    assert note.program is not None and len(note.program.statements) > 12
    verdict = session.check(note.program)
    assert verdict.fault is not None and verdict.fault.kind == kind, verdict
    small, fault, trials = smaller(session, note.program, verdict.fault, 300.0, lambda words: None)
    assert fault.kind == kind and fault.signature == verdict.fault.signature
    assert len(small.statements) <= most and trials
    assert any(f"aten.{operator}." in s.operator for s in small.statements)
    assert all("network" not in s.source and "test_minifying.py" in s.source for s in small.statements)
    assert len(small.inputs) == 1
    sizes = [n for given in small.inputs if isinstance(given, Tensor) for n in given.shapes[0]]
    assert max(sizes, default=0) == {"one size": 7, "wrong strides": 2}.get(name, 0)
    script = Minified(1, 1, (), fault, note.program, small).script("a comment")
    assert script.startswith("# a comment\nimport torch\n") and f"torch.ops.aten.{operator}." in script
    assert ('"strict": True' in script) == (kind == "defect")
    compile(script, "script.py", "exec")


def test_a_graph_that_ends_the_process(session: Session, tmp_path: Path) -> None:
    (note,) = noted(tmp_path, lambda x: torch.sinh(x.cos()), torch.ones(3))
    assert note.program is not None
    verdict = session.check(note.program)
    assert verdict.fault is not None and verdict.fault.kind == "crash"
    small, fault, _ = smaller(session, note.program, verdict.fault, 60.0, lambda words: None)
    assert len(small.statements) < len(note.program.statements) and fault.kind == "crash"


def test_what_a_program_has_of_its_graph(tmp_path: Path) -> None:
    """Layouts, shared memory, numbers, what is drawn at random, sizes, several results, writes."""
    base = torch.arange(40.0).reshape(5, 8)

    def function(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, k: float) -> tuple[torch.Tensor, ...]:
        z.add_(1)
        var, mean = torch.var_mean(x * k, -1)
        return var + torch.rand(x.shape[0]), mean, y[:, None].expand(-1, 2) @ torch.ones(2, x.shape[0] // 2)

    given = base[:, 1:6], base.t()[3], torch.zeros(2, 3).t()[1:], 2.5
    (note,) = noted(tmp_path, function, *given, dynamic=True)
    program = note.program
    assert program is not None, note.why
    outcome = run(function_of(program), program, 0)
    assert outcome.error is None
    tensors = {one.name: one for one in program.inputs if isinstance(one, Tensor)}
    for one, value in zip(("x", "y", "z"), given):
        assert isinstance(value, torch.Tensor)
        assert tensors[one].shapes == (tuple(value.shape),) and tensors[one].strides(0) == value.stride()
    assert tensors["y"].shares == "x" and any("rand" in name for name in tensors)
    assert all("aten.rand" not in statement.operator for statement in program.statements)
    torch.testing.assert_close(outcome.results[1], given[0].mean(-1) * 2.5)


def test_arithmetic_on_sizes(tmp_path: Path) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rows, columns = x.shape[0] * x.shape[1], y.shape[0]
        return x.reshape(rows * 2 // (columns * 3), -1) * ((rows - 1) // (columns * 2)) + torch.sin(y).sum()

    given = torch.arange(36.0).reshape(4, 9), torch.ones(8)
    (note,) = noted(tmp_path, function, *given, dynamic=True)
    assert note.program is not None, note.why
    outcome = run(function_of(note.program), note.program, 0)
    torch.testing.assert_close(outcome.results[0], function(*given))
    assert note.program.mode == "dynamic"


def test_parts_of_a_program_compute_what_they_did(tmp_path: Path) -> None:
    (note,) = noted(tmp_path, network(torch.erf), *arguments())
    assert note.program is not None
    whole = run(function_of(note.program), note.program, 0)
    found = list(parts(note.program))
    assert len(found) > len(note.program.statements)
    for part in found:
        if part.outputs == note.program.outputs:
            assert torch.equal(run(function_of(part), part, 0).results[0], whole.results[0])
        assert len(part.statements) < len(note.program.statements)
