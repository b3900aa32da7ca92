"""One operator's decomposition, or lowering, compared with the operator itself on many argument sets."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses import FakeTensorMode

from braze.config import Config
from braze.frontend.decompositions import decompositions
from braze.lowering.registry import LOWERINGS
from tests.numerics import leaves, map_tensors
from tests.opinfo.cases import describe as error_text
from tests.sweep.calls import Call
from tests.sweep.compare import Sample, differences, seeded
from tests.sweep.layouts import describe, variants
from tests.sweep.one_op_graphs import Refused, run_batch

LEVELS = ("decomposition", "lowering")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int64": torch.int64,
}
KINDS = (
    "values",
    "sign of zero",
    "dtype",
    "shape",
    "strides",
    "strides of the trace",
    "shares memory",
    "arguments",
    "accepts",
    "refuses",
    "structure",
)
"""Ways to differ. "strides of the trace": those that later nodes are traced with. "accepts": arguments that
eager and PyTorch's fake version of the operator refuse; "refuses": the reverse."""


@dataclasses.dataclass
class Finding:
    """One way in which a decomposition or lowering differs from its operator: in which sample first, on which
    arguments, how, and in how many samples."""

    level: str
    kind: str
    variant: str
    arguments: str
    detail: str
    times: int = 1


@dataclasses.dataclass
class Swept:
    """What became of an operator with samples of a dtype. ``compared``: results, by level; ``declined``: why
    a lowering gave its node to eager."""

    op: str
    dtype: str
    status: str = "ok"
    reason: str = ""
    findings: list[Finding] = dataclasses.field(default_factory=list)
    compared: dict[str, int] = dataclasses.field(default_factory=dict)
    declined: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.findings = [f if isinstance(f, Finding) else Finding(**f) for f in self.findings]

    def note(self, level: str, kind: str, sample: Sample, detail: str) -> None:
        """A difference; more of its kind count, and are not written down."""
        for finding in self.findings:
            if (finding.level, finding.kind) == (level, kind):
                finding.times += 1
                return
        self.findings.append(Finding(level, kind, sample.variant, describe(sample.call), detail))

    def count(self, level: str) -> None:
        """A result was compared."""
        self.compared[level] = self.compared.get(level, 0) + 1


UNCHECKED = (
    "aten._batch_norm",
    "aten._embedding_bag",
    "aten._native_batch_norm",
    "aten._reshape_alias",
    "aten._weight_norm_interface",
    "aten.batch_norm",
    "aten.native_batch_norm",
)
"""Operators that trust their arguments, and crash where these don't fit each other."""


def operators() -> list[Any]:
    """What there is to look at: functional operators with a decomposition or a lowering. Calls that write to
    arguments are functional by the time that decompositions are asked for, and so are those with ``out``."""
    named = [op for op in (*table(), *LOWERINGS) if isinstance(op, torch._ops.OpOverload)]
    wanted = {op for op in named if not op._schema.is_mutable or op is torch.ops.aten.copy_.default}
    return sorted(wanted, key=str)


@functools.cache
def table() -> dict[Any, Callable[..., Any]]:
    """The decompositions."""
    return dict(decompositions(Config()))


def sweep(
    swept: Swept, op: Any, calls: Sequence[Call], refused: Sequence[Call], levels: Sequence[str]
) -> None:
    """Adds to ``swept`` what is found on the calls and their variants, and on those that eager refuses."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        checks = not str(op).startswith(UNCHECKED)
        samples = [Sample.of(op, name, variant) for call in calls for name, variant in variants(call, checks)]
        samples += [Sample.of(op, "refused", call) for call in refused]
        if "decomposition" in levels and op in table():
            for sample in samples:
                _decomposed(swept, sample)
        if "lowering" in levels and op in LOWERINGS:
            _lowered(swept, samples)


# -- decompositions -----------------------------------------------------------------------------------------
def _decomposed(swept: Swept, sample: Sample) -> None:
    level = "decomposition"
    args, kwargs = sample.call.copies()
    try:
        ours = seeded(table()[sample.op], args, kwargs, 1)
    except Exception as error:
        if not sample.error and not _fake_refuses(sample):
            swept.note(level, "refuses", sample, error_text(error))
        return
    if ours is NotImplemented:
        return
    swept.count(level)
    if sample.error:
        if not sample.unimplemented and not _fake_refuses(sample):
            swept.note(level, "accepts", sample, f"eager: {sample.error}")
        return
    for kind, detail in differences(sample, ours, [args, kwargs]):
        swept.note(level, kind, sample, detail)
    detail = _traced_strides(table()[sample.op], sample)
    if detail:
        swept.note(level, "strides of the trace", sample, detail)


def _traced_strides(function: Callable[..., Any], sample: Sample) -> str:
    """What is wrong with the strides of the fake result, or nothing."""
    try:
        traced = _fake(function, sample)
    except Exception as error:
        return f"raises {error_text(error)}"
    for (path, real), (_, fake) in zip(leaves(sample.result), leaves(traced)):
        tensors = isinstance(real, torch.Tensor) and isinstance(fake, torch.Tensor)
        if tensors and real.shape == fake.shape and real.numel() and real.stride() != fake.stride():
            return f"{path}: {tuple(fake.stride())}, eager {real.stride()} for {tuple(real.shape)}"
    return ""


def _fake(function: Callable[..., Any], sample: Sample) -> Any:
    mode = FakeTensorMode()
    args, kwargs = (map_tensors(tree, mode.from_tensor) for tree in sample.call.copies())
    with mode:
        return function(*args, **kwargs)


def _fake_refuses(sample: Sample) -> bool:
    """Whether tracing raises before anything of ours is asked."""
    try:
        _fake(sample.op, sample)
    except Exception:
        return True
    return False


# -- lowerings ----------------------------------------------------------------------------------------------
BATCH = 24
"""Nodes of one graph: compiling it takes as long as compiling a few of them."""


def _lowered(swept: Swept, samples: Sequence[Sample]) -> None:
    """Eager's good samples in graphs of many, the refused ones each in its own."""
    level = "lowering"
    good = [sample for sample in samples if not sample.error]
    for start in range(0, len(good), BATCH):
        for sample, outcome in run_batch(good[start : start + BATCH]):
            if isinstance(outcome, Refused):
                if outcome.declined:
                    swept.declined += [outcome.reason] if outcome.reason not in swept.declined else []
                else:
                    swept.note(level, "refuses", sample, outcome.reason)
                continue
            swept.count(level)
            for kind, detail in differences(sample, *outcome):
                swept.note(level, kind, sample, detail)
    for sample in samples:
        if sample.error and not sample.unimplemented and not _fake_refuses(sample):
            ((_, outcome),) = run_batch([sample])
            if not isinstance(outcome, Refused):
                swept.note(level, "accepts", sample, f"eager: {sample.error}")
