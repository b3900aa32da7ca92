"""One (operator, dtype) pair of PyTorch's operator database: compiled, compared with eager, and judged."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_leaves, tree_map

from tests import support
from tests.numerics import Disagreement, assert_agrees, in_float64

KINDS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "int64": (torch.int64, False),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
    "float32 gradients": (torch.float32, True),
    "bfloat16 gradients": (torch.bfloat16, True),
    "float16 gradients": (torch.float16, True),
}
"""What a pair is judged in: a dtype, and whether gradients of all that it gives are compared as well."""
RECORDED = ("float32", "int64")
"""The kinds that lists are kept of."""
# Operators whose result is memory that nobody wrote.
UNINITIALISED = frozenset(
    ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
)
# Backends that draw other random numbers than eager even when they are asked for eager's.
OWN_RANDOM = frozenset(("inductor",))

Status = Literal["ok", "wrong", "no graph", "no sample", "crashed", "timeout"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """An operator, by the database's full name, and one of `KINDS`, by name."""

    op: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.op} {self.dtype}"


@dataclasses.dataclass
class Verdict:
    """What became of a pair.

    status: "ok" or "wrong" for pairs with at least one graph; "no sample" where eager has no result for any
    sample. strict: whether every sample compiled in strict mode with no other extern than those that are
    kept whole; `fallbacks` says why not. here: why graphs were compiled in this process, where the strategy
    is one that goes through bytes. seconds: compiling and running, all samples.
    """

    op: str
    dtype: str
    status: Status
    reason: str = ""
    strict: bool = False
    fallbacks: list[str] = dataclasses.field(default_factory=list)
    here: list[str] = dataclasses.field(default_factory=list)
    graphs: int = 0
    samples: int = 0
    seconds: float = 0.0

    @property
    def pair(self) -> Pair:
        return Pair(self.op, self.dtype)

    @property
    def has_graph(self) -> bool:
        return self.status in ("ok", "wrong", "crashed", "timeout")


class Database:
    """PyTorch's `op_db` by full name. Importing it takes seconds and changes torch's defaults, so workers
    do.
    """

    def __init__(self) -> None:
        from torch.testing._internal.common_methods_invocations import op_db

        for name, module in list(sys.modules.items()):
            # Random operators are wrapped in this, which seeds the generator and so keeps Dynamo from
            # tracing them; the generator is seeded here before every call.
            if name.startswith("torch.testing._internal.") and hasattr(module, "wrapper_set_seed"):
                module.wrapper_set_seed = _call
        self._by_name = {self._name(op): op for op in op_db}
        if len(self._by_name) != len(op_db):
            raise RuntimeError("two operators of the database have one name")

    def entries(self) -> list[Any]:
        """The entries themselves, sorted by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    @staticmethod
    def _name(op: Any) -> str:
        return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else str(op.name)

    def pairs(self) -> list[Pair]:
        """All pairs of an operator and one of `KINDS` that it takes, sorted."""
        found = [
            Pair(name, kind)
            for name, op in self._by_name.items()
            for kind, (dtype, gradients) in KINDS.items()
            if dtype in (op.supported_backward_dtypes("cpu") if gradients else op.dtypes)
            and (op.supports_autograd or not gradients)
        ]
        return sorted(found, key=lambda pair: (pair.op, pair.dtype))

    def samples(self, pair: Pair, count: int) -> list[tuple[Callable[..., Any], list[Any], dict[str, Any]]]:
        """The first samples of a pair: (function, arguments, keyword arguments), the same ones each time."""
        op = self._by_name[pair.op]
        torch.manual_seed(1234)
        dtype, gradients = KINDS[pair.dtype]
        samples = op.sample_inputs("cpu", dtype, requires_grad=gradients)
        return [(op.op, [s.input, *s.args], dict(s.kwargs)) for s in itertools.islice(samples, count)]


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def judge(database: Database, pair: Pair, backend: str, count: int) -> Verdict:
    """Compiles and runs the first `count` samples of a pair. Raises what generating the samples raises."""
    verdict = Verdict(pair.op, pair.dtype, "no sample", strict=True)
    problems: list[str] = []
    excuse = ""
    for number, (function, args, kwargs) in enumerate(database.samples(pair, count)):
        seen = len(_reasons)
        try:
            eager = _eager(function, args, kwargs, seed=1)
            values = pair.op not in UNINITIALISED
            random = values and not _same(eager, _eager(function, args, kwargs, seed=2))
        except Exception as error:  # Not a sample that eager has a result for; anything may be wrong with it.
            excuse = describe(error)
            continue
        verdict.samples += 1
        problem = _sample(verdict, _Sample(function, args, kwargs, eager, values, random), backend)
        verdict.here += _reasons[seen:]
        if problem:
            problems.append(f"sample {number}: {problem}")
    if verdict.samples:
        verdict.status = "wrong" if problems else "ok" if verdict.graphs else "no graph"
    verdict.strict = verdict.strict and verdict.graphs > 0
    verdict.reason = " | ".join(problems) if verdict.samples else excuse
    return verdict


_reasons: list[str] = []


def note_graphs_compiled_here() -> None:
    """From now on, have `Verdict.here` filled in."""
    from braze.compile import round_trip  # not for other backends
    from braze.compile.report import ledger

    real = round_trip.compile_here
    expected: list[str] = []

    def noted(request: Any, reason: str, level: int) -> Any:
        expected.append(reason.partition("\n")[0])
        try:
            return real(request, reason, level)
        finally:
            _reasons.append(expected.pop())

    def compiled(report: object) -> None:
        if not expected:
            _reasons.append("it never was to go through bytes")

    round_trip.compile_here = noted
    ledger.listen(compiled)


@dataclasses.dataclass
class _Sample:
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: dict[str, Any]
    eager: Any
    values: bool
    random: bool

    def compare(self, actual: Any, values: bool) -> str:
        """The first lines of what is wrong, or nothing."""

        def reference() -> Any:
            return _eager(self.function, _in_float64(list(self.args)), _in_float64(self.kwargs), seed=1)

        def part(tree: Any, gradients: bool) -> Any:
            return {key: value for key, value in tree.items() if (key == "gradients") == gradients}

        try:
            for gradients in (False, True):  # the strides of gradients are nobody's promise
                assert_agrees(
                    part(actual, gradients),
                    part(self.eager, gradients),
                    lambda gradients=gradients: part(reference(), gradients),
                    check_values=values,
                    check_strides=not gradients,
                )
        except Disagreement as error:
            return "; ".join(line.strip() for line in str(error).splitlines()[1:4]) or str(error)
        return ""


def _sample(verdict: Verdict, sample: _Sample, backend: str) -> str:
    """Compiles one sample, strictly first; adds to the verdict; returns what is wrong, or nothing."""
    result, error, stats = _compiled(sample, backend, strict=True)
    verdict.graphs += stats.graphs
    reasons = [str(fallback) for fallback in stats.fallbacks]
    reasons += [f"{name}: called in ATen" for name in stats.undeclared_externs]
    values = sample.values and not sample.random
    if error is not None and backend == "braze":
        strict_error = describe(error)
        result, error, stats = _compiled(sample, backend, strict=False)
        verdict.graphs += stats.graphs
        reasons = [str(fallback) for fallback in stats.fallbacks] or [strict_error]
        values = sample.values
    elif sample.random and backend not in OWN_RANDOM:
        # Own random numbers are compared in kind only; asked for eager's, they have to be eager's.
        if error is None:
            problem = sample.compare(result, values=False)
            if problem:
                return problem
        result, error, _ = _compiled(sample, backend, strict=False, fallback_random=True)
        values = sample.values
    if reasons or error is not None:
        verdict.strict = False
        verdict.fallbacks += [reason for reason in reasons if reason not in verdict.fallbacks]
    if error is not None:
        return f"raises {describe(error)}"
    return sample.compare(result, values)


def _compiled(
    sample: _Sample, backend: str, *, strict: bool, fallback_random: bool = False
) -> tuple[Any, Exception | None, support.Stats]:
    support.reset()

    def call(args: list[Any], kwargs: dict[str, Any]) -> Any:
        return sample.function(*args, **kwargs)

    random = fallback_random or (sample.random and not strict)
    compiled = support.compile_with(call, backend, strict=strict, fallback_random=random)
    args, kwargs = _fresh(list(sample.args)), _fresh(sample.kwargs)
    result, error = None, None
    with support.watch(backend) as stats, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        try:
            result = _outcome(compiled(args, kwargs), args, kwargs)
        except Exception as caught:  # Whatever a compiler raises is a finding.
            error = caught
    return result, error, stats


def _eager(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], seed: int) -> Any:
    """Result and arguments after the call (which may have been written to)."""
    args, kwargs = _fresh(list(args)), _fresh(kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        return _outcome(function(*args, **kwargs), args, kwargs)


def _fresh(tree: Any) -> Any:
    """A copy, in which tensors that require gradients are leaves."""

    def leaf(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            return copy.deepcopy(value)
        return copy.deepcopy(value.detach()).requires_grad_()

    return tree_map(leaf, tree)


def _in_float64(tree: Any) -> Any:
    """The tree in float64, requiring gradients where it did."""

    def leaf(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return in_float64(value).requires_grad_(value.requires_grad)

    return tree_map(leaf, tree)


def _outcome(result: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a call has done: its result, its arguments afterwards, and gradients of a weighted sum of the
    result where an argument requires them."""
    leaves = [
        v
        for v in tree_leaves((args, kwargs))
        if isinstance(v, torch.Tensor) and v.is_leaf and v.requires_grad
    ]
    terms = [_weighted(v) for v in tree_leaves(result) if isinstance(v, torch.Tensor) and v.requires_grad]
    gradients: Sequence[Any] = []
    if leaves and terms:
        gradients = torch.autograd.grad(torch.stack(terms).sum(), leaves, allow_unused=True)
    shown = tree_map(lambda v: v.detach() if isinstance(v, torch.Tensor) else v, (result, list(args), kwargs))
    return {"result": shown[0], "arguments": shown[1], "keywords": shown[2], "gradients": list(gradients)}


def _differentiable(tree: Any) -> list[torch.Tensor]:
    return [v for v in tree_leaves(tree) if isinstance(v, torch.Tensor) and v.requires_grad]


def _weighted(value: torch.Tensor) -> torch.Tensor:
    """The sum of all elements, each with a weight of its own."""
    value = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=torch.float64).reshape(value.shape)
    return (value.double() * weights).sum()


def _same(one: Any, other: Any) -> bool:
    try:
        assert_agrees(one, other)
    except Disagreement:
        return False
    return True


def describe(error: BaseException) -> str:
    """The error at the bottom of a chain, in one line: Dynamo wraps what a backend raises."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"
