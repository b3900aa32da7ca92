"""PyTorch's operator database through `braze.fuse`: elementwise operators and reductions, results and
gradients against eager.

python -m tests.fuser.operators             everything; prints what is wrong and what fell back
python -m tests.fuser.operators softmax     operators with "softmax" in their name
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch

import braze
from tests.numerics import Disagreement, assert_agrees, in_float64, leaves
from tests.opinfo.cases import UNINITIALISED, Database

ALSO = """
    where clamp clamp_min clamp_max lerp addcmul addcdiv masked_fill softmax log_softmax cumsum norm logsumexp
    nn.functional.layer_norm nn.functional.rms_norm nn.functional.softmin nn.functional.normalize
    nn.functional.glu nn.functional.mse_loss nn.functional.huber_loss nn.functional.prelu
    std std_mean var var_mean cat chunk split stack
""".split()
DTYPES = (torch.float32, torch.int64)


@dataclasses.dataclass
class Outcome:
    """What became of one operator and dtype. ``problems``: results or gradients that are not eager's;
    ``fallbacks``: why calls ran as eager PyTorch."""

    name: str
    samples: int = 0
    gradients: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    fallbacks: set[str] = dataclasses.field(default_factory=set)


def operators() -> list[tuple[str, Any]]:
    """Name and entry of each elementwise operator and reduction of the database."""
    from torch.testing._internal.opinfo.core import BinaryUfuncInfo, ReductionOpInfo, UnaryUfuncInfo

    found = []
    for name, op in Database()._by_name.items():
        kind = isinstance(op, (UnaryUfuncInfo, BinaryUfuncInfo, ReductionOpInfo))
        if (kind or name.split(".with")[0] in ALSO) and not name.startswith(
            ("masked.", "_refs", "special.polygamma")
        ):
            found.append((name, op))
    return [item for item in found if item[0] not in UNINITIALISED]


def judge(name: str, op: Any, dtype: torch.dtype, count: int = 3) -> Outcome:
    """Run the first samples of an operator through a fused function."""
    outcome = Outcome(f"{name} {str(dtype).removeprefix('torch.')}")
    wants = dtype.is_floating_point and op.supports_autograd

    def call(*args: Any, **kwargs: Any) -> Any:
        return op.op(*args, **kwargs)

    fused = braze.fuse(call)
    torch.manual_seed(1234)
    for sample in itertools.islice(_samples(op, dtype, wants), count):
        eager, error = _attempt(call, sample, wants)
        if error is not None:
            continue  # not a sample that eager has a result for
        outcome.samples += 1
        before = dict(braze.fuser.stats().fallbacks)
        actual, error = _attempt(fused, sample, wants)
        after = braze.fuser.stats().fallbacks
        outcome.fallbacks |= {reason for reason, n in after.items() if n != before.get(reason, 0)}
        if error is not None:
            outcome.problems.append(f"sample {outcome.samples - 1} raises {type(error).__name__}: {error}")
            continue
        outcome.gradients += bool(eager["gradients"])
        try:
            assert_agrees(actual, eager, lambda s=sample: _attempt(call, _wide(s), wants)[0])
        except Disagreement as wrong:
            outcome.problems.append(f"sample {outcome.samples - 1}: {wrong}")
    return outcome


def _samples(op: Any, dtype: torch.dtype, wants: bool) -> Iterator[Any]:
    for sample in op.sample_inputs("cpu", dtype, requires_grad=wants):
        yield [sample.input, *sample.args], dict(sample.kwargs)


def _wide(sample: Any) -> Any:
    """The sample in float64; what requires gradients does there, too."""
    wide = in_float64(sample)
    for (_, given), (_, made) in zip(leaves(list(sample)), leaves(list(wide)), strict=True):
        if isinstance(given, torch.Tensor) and given.requires_grad:
            made.requires_grad_()
    return wide


def _attempt(function: Any, sample: Any, wants: bool) -> tuple[Any, Exception | None]:
    args, kwargs = copy.deepcopy(sample)
    inputs = [leaf for _, leaf in leaves([args, kwargs]) if isinstance(leaf, torch.Tensor)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.manual_seed(0)
            result = function(*args, **kwargs)
            outputs = [leaf for _, leaf in leaves(result) if isinstance(leaf, torch.Tensor)]
            differentiable = [o for o in outputs if o.requires_grad] if wants else []
            if differentiable:
                generator = torch.Generator().manual_seed(7)
                seeds = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in differentiable]
                torch.autograd.backward(differentiable, seeds)
        except Exception as error:
            return None, error
    gradients = [t.grad for t in inputs if t.grad is not None]
    return {
        "result": result,
        "gradients": gradients if differentiable else [],
        "arguments": [t.detach() for t in inputs],
    }, None


def main(words: list[str]) -> int:
    wrong = fell = total = gradients = 0
    for name, op in operators():
        if words and not any(w in name for w in words):
            continue
        for dtype in DTYPES:
            if dtype not in op.dtypes:
                continue
            outcome = judge(name, op, dtype)
            if not outcome.samples:
                continue
            total += 1
            gradients += outcome.gradients > 0
            wrong += bool(outcome.problems)
            fell += bool(outcome.fallbacks)
            for problem in outcome.problems:
                print(f"WRONG {outcome.name}: {problem[:400]}")
            if outcome.fallbacks or words:
                reasons = "; ".join(sorted(outcome.fallbacks))[:300]
                print(f"{outcome.name}: {outcome.samples} samples, eager for: {reasons}")
    print(f"{total} pairs, {gradients} with gradients, {wrong} wrong, {fell} with fallbacks")
    print(braze.fuser.stats().compiled, "compiled", braze.fuser.stats().traces, "traces")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
