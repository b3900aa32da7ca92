"""Verdicts: what agrees, what rounding excuses, what others share, and what is a fault."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.backends import registry
from torch.export import ExportedProgram

from braze import config
from braze.errors import InputMismatchError, PackageError
from braze.inspect.fuzz import packages
from braze.inspect.fuzz.compare import problems
from braze.inspect.fuzz.execute import Outcome, function_of, make_inputs, reference, run
from braze.inspect.fuzz.generate import MODES
from braze.inspect.fuzz.judge import Settings, judge
from braze.inspect.fuzz.program import DType, Program
from braze.lowering.registry import LOWERINGS
from tests.inspect.fuzz.programs import number, program, statement, tensor

X = tensor("x", (4, 5))
SINE = program([X], [statement("a", "sin", "x")], "a")


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[..., Any]], Settings]]:
    """Makes a backend of a function that is called with the graph and its inputs, instead of the graph."""
    names: list[str] = []

    def make(wrong: Callable[..., Any]) -> Settings:
        def compile_graph(graph: Any, inputs: Any) -> Any:
            return lambda *arguments: wrong(graph, *arguments)

        names.append(f"a_faulty_backend_of_these_tests_{len(names)}")
        registry.register_backend(compile_graph, name=names[-1])
        return Settings(names[-1])

    yield make
    for name in names:
        registry._COMPILER_FNS.pop(name)


@pytest.mark.parametrize("mode", MODES)
def test_what_agrees(mode: str) -> None:
    x = tensor(
        "x", *[(4, 5), (3, 1), (1, 2)][: 3 if mode in ("dynamic", "package") else 1], grad=mode == "gradients"
    )
    one = program([x], [statement("a", "sin", "x"), statement("b", "softmax", "a", 1)], "b", "a", mode=mode)  # type: ignore[arg-type]
    verdict = judge(one, Settings(strict=True))
    assert verdict.status == "agrees" and not verdict.fallbacks and verdict.graphs > 0


@pytest.mark.parametrize("torch_refuses", [False, True])
def test_what_cannot_be_packed_is_pytorchs_fault_where_it_refuses_too(
    monkeypatch: pytest.MonkeyPatch, torch_refuses: bool
) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise PackageError("it is Monday")

    monkeypatch.setattr(packages, "packed", refused)
    if torch_refuses:
        monkeypatch.setattr(ExportedProgram, "run_decompositions", refused)
    one = program([tensor("x", (4,), (3,), (2,))], [statement("a", "sin", "x")], "a", mode="package")
    verdict = judge(one, Settings())
    assert verdict.status == ("discarded" if torch_refuses else "fault")
    assert "it is Monday" in (verdict.why or str(verdict.fault))


@pytest.mark.parametrize(
    ("said", "small", "large"),
    [
        ({}, False, False),
        ({"only": ("arguments[0].shape[0] >= 2", "arguments[0].shape[1] == 4")}, True, False),
        ({"without": ("arguments[0].shape[0] == 1 and arguments[0].shape[1] == 4",)}, True, False),
        ({"without": ("arguments[0].shape[0] == 0", "others of these")}, True, False),
        ({"without": ("arguments[0].shape[0] == 0",)}, False, False),
    ],
)
def test_a_package_may_refuse_what_was_said_beforehand(
    said: dict[str, tuple[str, ...]], small: bool, large: bool
) -> None:
    package = packages.Packed(len, (), 1, **said)
    refusal = InputMismatchError("size 0 of x has to be something else")
    assert package.may_refuse(refusal, [torch.ones(1, 4)]) == small
    assert package.may_refuse(refusal, [torch.ones(3, 4)]) == large
    assert package.may_refuse(InputMismatchError("the program writes to x, which shares memory with y"), [])
    assert not package.may_refuse(RuntimeError("shares memory with"), [])
    assert not package.may_refuse(None, [])


def test_what_both_refuse() -> None:
    index = tensor("i", (3,), dtype="int64", values=(0, 9))
    one = program([X, index], [statement("a", "index_select", "x", 0, "i")], "a")
    verdict = judge(one, Settings())
    assert verdict.status == "both raise" and "out of range" in verdict.why


def test_what_eager_refuses_in_one_call_alone() -> None:
    x, k = tensor("x", (4,), (2,)), number("k", 3, 3)
    one = program([x, k], [statement("a", "item_of", "x", "k")], "a", mode="dynamic")
    assert judge(one, Settings()).status == "discarded"


FAULTS: dict[str, tuple[Callable[..., Any], str]] = {
    "value": (lambda graph, *a: [r * 1.001 for r in graph(*a)], "value"),
    "nan": (lambda graph, *a: [torch.where(r > 0.9, math.nan, r) for r in graph(*a)], "value"),
    "dtype": (lambda graph, *a: [r.double() for r in graph(*a)], "kind"),
    "strides": (lambda graph, *a: [r.t().contiguous().t() for r in graph(*a)], "kind"),
    "memory": (lambda graph, *a: [[r, a[0].add_(1)][0] for r in graph(*a)], "memory"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_fault(name: str, backend: Callable[[Any], Settings]) -> None:
    wrong, kind = FAULTS[name]
    verdict = judge(SINE, backend(wrong))
    assert verdict.status == "fault" and verdict.fault is not None and verdict.fault.kind == kind


def test_an_alias_that_is_missing(backend: Callable[[Any], Settings]) -> None:
    one = program([X], [statement("a", "transpose", "x", 0, 1), statement("", "mul_", "x", 2)], "a")
    eager = run(function_of(one), one, 0)
    ours = run(lambda x: (x.mul_(2).transpose(0, 1).clone(memory_format=torch.preserve_format),), one, 0)
    (problem,) = problems(ours, eager)
    assert problem.kind == "alias" and problem.where == "x and output 0"


def test_what_raises_where_eager_does_not(backend: Callable[[Any], Settings]) -> None:
    def wrong(graph: Any, *arguments: Any) -> Any:
        raise KeyError("gone")

    verdict = judge(SINE, backend(wrong))
    assert verdict.fault is not None and verdict.fault.kind == "raises" and "gone" in verdict.fault.text


def test_what_is_silent_where_eager_raises(backend: Callable[[Any], Settings]) -> None:
    index = tensor("i", (3,), dtype="int64", values=(0, 9))
    one = program([X, index], [statement("a", "index_select", "x", 0, "i")], "a")
    verdict = judge(one, backend(lambda graph, *a: [torch.zeros(3, 5)]))
    assert verdict.fault is not None and verdict.fault.kind == "silent"
    assert "IndexError" in verdict.fault.text or "out of range" in verdict.fault.text


def test_a_fallback_is_a_fault_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LOWERINGS, torch.ops.aten.polygamma.default)
    one = program([tensor("x", (4, 5), values=(1.0, 2.0))], [statement("a", "polygamma", "x", 1)], "a")
    free, strict = judge(one, Settings()), judge(one, Settings(strict=True))
    assert free.status == "agrees" and free.fallbacks
    assert strict.fault is not None and strict.fault.kind == "fallback"


def test_a_fallback_that_hides_a_defect_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def lowering(*arguments: Any) -> Any:
        return {}["nothing"]

    monkeypatch.setitem(LOWERINGS, torch.ops.aten.sin.default, lowering)
    with config.patch(cache=False):
        verdict = judge(SINE, Settings())
    assert verdict.fallbacks and verdict.fault is not None and verdict.fault.kind == "defect"
    assert "KeyError" in verdict.fault.text and verdict.fault.worded


def test_rounding_that_decides_everything_is_undecidable(backend: Callable[[Any], Settings]) -> None:
    """exp(x) less itself by another way: what remains is made of rounding errors."""
    one = program(
        [tensor("x", (64,), values=(3.1, 2.7, 5.3, 1.9, 4.4))],
        [statement("a", "exp", "x"), statement("b", "log", "a"), statement("c", "sub", "b", "x"),
         statement("d", "mul", "c", 1000.0)],
        "d",
    )  # fmt: skip
    verdict = judge(one, backend(lambda graph, *a: [r + 2e-4 for r in graph(*a)]))
    assert verdict.status in ("undecidable", "by float64")
    assert judge(one, backend(lambda graph, *a: [r + 1.0 for r in graph(*a)])).status == "fault"


def test_what_cancels_inside_of_a_statement_is_undecidable(backend: Callable[[Any], Settings]) -> None:
    """A row's product with itself less its squares' sum: the same number, added up in two orders."""
    values = (-1.099, -1.482, 6.0, -3.144, 2.25, 0.7)
    one = program([tensor("x", (5, 5), values=values)], [statement("a", "contrasted", "x")], "a")
    assert judge(one, backend(lambda graph, *a: [r + 2e-5 for r in graph(*a)])).status != "fault"
    assert judge(one, backend(lambda graph, *a: [r + 2e-3 for r in graph(*a)])).status == "fault"


def test_products_that_overflow_in_some_order_are_undecidable(backend: Callable[[Any], Settings]) -> None:
    for values, status in (((1e38, 0.0, 1e38), "undecidable"), ((10.0, 0.0, 10.0), "fault")):
        one = program([tensor("x", (3,), values=values)], [statement("a", "prod", "x", 0, False)], "a")
        assert judge(one, backend(lambda graph, *a: [r * math.nan for r in graph(*a)])).status == status


def test_nothing_is_asked_where_eager_overflows(backend: Callable[[Any], Settings]) -> None:
    """The mean of the greatest numbers is one of them; their sum, which eager takes first, is infinite."""
    one = program([tensor("x", (4,), values=(3e38,))], [statement("a", "mean", "x", 0, False)], "a")
    assert judge(one, backend(lambda graph, *a: [r * 0 + 3e38 for r in graph(*a)])).status != "fault"
    small = program([tensor("x", (4,), values=(3.0,))], [statement("a", "mean", "x", 0, False)], "a")
    assert judge(small, backend(lambda graph, *a: [r * math.nan for r in graph(*a)])).status == "fault"


def test_nothing_is_asked_of_what_follows_where_eager_overflows(backend: Callable[[Any], Settings]) -> None:
    """Eager's mean is infinite, and so its root; of negative numbers it is NaN in every arithmetic."""

    def ones(graph: Any, *arguments: Any) -> list[Any]:
        return [torch.ones_like(r) for r in graph(*arguments)]

    for value, status in ((-3e38, "undecidable"), (-3.0, "fault")):
        mean, root = statement("a", "mean", "x", 0, False), statement("b", "sqrt", "a")
        one = program([tensor("x", (4,), values=(value,))], [mean, root], "b")
        assert judge(one, backend(ones)).status == status
    greatest = tensor("x", (8,), dtype="float64", values=(-1.7976931348623157e308,))
    rest = program([greatest], [statement("a", "remainder", "x", 0.625)], "a")
    assert judge(rest, backend(ones)).status == "undecidable"


def test_noise_in_one_element_excuses_no_other(backend: Callable[[Any], Settings]) -> None:
    """The square of the largest numbers is infinite or not, as it is rounded; those of others are not."""
    one = program(
        [tensor("x", (4,), values=(1.8446743e19, 1.0, 2.0, 3.0))],
        [statement("a", "exp", "x"), statement("b", "pow_number", "x", 2)],
        "b",
    )  # fmt: skip
    wrong = judge(one, backend(lambda graph, *a: [torch.where(r == 4.0, math.inf, r) for r in graph(*a)]))
    assert wrong.status == "fault"


def test_float64_decides_as_eager_does() -> None:
    """1.1 * 1.1 in bfloat16 and in float64 are on two sides of 1.2109375: the reference takes eager's."""
    one = program(
        [tensor("x", (3,), dtype="bfloat16", values=(1.1,))],
        [statement("a", "mul", "x", "x"), statement("b", "gt", "a", 1.2109375),
         statement("c", "where", "a", 0, "b")],
        "c", "b",
    )  # fmt: skip
    eager, exact = run(function_of(one), one, 0), reference(one, 0)
    assert exact.error is None
    assert torch.equal(eager.results[1], exact.results[1])


def test_float64_decides_for_the_same_zero() -> None:
    """1 / -0.0 is minus infinity."""
    one = program(
        [tensor("x", (2,), values=(1.5,)), tensor("y", (2,), values=(-0.0, 0.0), grad=True)],
        [statement("a", "div_trunc", "x", "y")],
        "a",
    )  # fmt: skip
    eager, exact = run(function_of(one), one, 0), reference(one, 0)
    assert torch.equal(eager.results[0].double(), exact.results[0])


def test_the_reference_is_in_float64_also_where_types_are_named() -> None:
    one = program(
        [tensor("x", (3,)), tensor("k", (3,), dtype="int64", values=(1, 2, 3))],
        [statement("a", "to", "x", DType("bfloat16")), statement("b", "div", "k", 3),
         statement("c", "float_bits", "x")],
        "a", "b", "c",
    )  # fmt: skip
    exact = reference(one, 0)
    assert exact.error is None
    assert [r.dtype for r in exact.results] == [torch.float64, torch.float64, torch.int32]
    assert exact.results[1].tolist() == [1 / 3, 2 / 3, 1.0]


def test_what_the_reference_converts_is_not_the_input() -> None:
    """Nor can it be written to where the input must not: a leaf that requires a gradient."""
    one = program(
        [tensor("x", (3,), values=(1.0, 2.0, 3.0), grad=True)],
        [statement("a", "to", "x", DType("float16")), statement("b", "fill_", "a", 2),
         statement("c", "sin", "x")],
        "a", "c", mode="gradients",
    )  # fmt: skip
    exact = reference(one, 0)
    assert exact.error is None
    assert exact.results[0].tolist() == [2.0, 2.0, 2.0]
    assert exact.given.arguments[0].tolist() == [1.0, 2.0, 3.0]


def test_writes_outside_of_an_input_are_seen() -> None:
    one: Program = program([tensor("x", (4,))], [statement("a", "sin", "x")], "a")
    eager = run(function_of(one), one, 0)
    given = make_inputs(one, 0)
    beyond = Outcome(given, eager.results)
    assert not problems(beyond, eager)
    given.memories["x"][-1] += 1
    (problem,) = problems(beyond, eager)
    assert problem.kind == "memory" and problem.where == "memory of x"
