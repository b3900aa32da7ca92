"""What eager makes of arguments, and in what a result of ours differs from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.numerics import Disagreement, assert_agrees, in_float64, leaves
from tests.opinfo.cases import describe as error_text
from tests.sweep.calls import Call

UNINITIALISED = ("empty", "new_empty", "resize_as")


@dataclasses.dataclass
class Sample:
    """Arguments, and what eager makes of them: ``result`` and the ``arguments`` afterwards, or ``error``."""

    op: Any
    variant: str
    call: Call
    result: Any = None
    arguments: Any = None
    error: str = ""
    values: bool = True
    sharing: Any = None

    @classmethod
    def of(cls, op: Any, variant: str, call: Call) -> Sample:
        """Run by eager."""
        sample = cls(op, variant, call)
        args, kwargs = call.copies()
        try:
            sample.result = seeded(op, args, kwargs, 1)
            again = seeded(op, *call.copies(), 2)
        except Exception as error:
            sample.error = error_text(error)
            return sample
        sample.arguments = [args, kwargs]
        sample.sharing = _sharing(sample.result, sample.arguments)
        sample.values = not str(op).split(".")[1].startswith(UNINITIALISED) and _agree(sample.result, again)
        return sample

    @property
    def unimplemented(self) -> bool:
        """Whether eager merely has no kernel for the type."""
        return "not implemented for" in self.error or "not supported for" in self.error


def seeded(function: Callable[..., Any], args: Any, kwargs: Any, seed: int) -> Any:
    """The function's result, random numbers from a seed."""
    torch.manual_seed(seed)
    return function(*args, **kwargs)


def differences(sample: Sample, ours: Any, arguments: Any) -> Iterator[tuple[str, str]]:
    """(kind, detail) of each way in which a result differs from eager's; `arguments` as they are after the
    call that made it, in the places where they were before."""
    left, right = list(leaves(ours)), list(leaves(sample.result))
    if [type(a) for _, a in left] != [type(b) for _, b in right]:
        yield "structure", f"{len(left)} results, eager {len(right)}, or of other types"
        return
    same = True
    for (path, a), (_, b) in zip(left, right):
        if not isinstance(b, torch.Tensor):
            continue
        if a.dtype != b.dtype:
            yield "dtype", f"{path}: {a.dtype}, eager {b.dtype}"
            same = False
        if a.shape != b.shape:
            yield "shape", f"{path}: {tuple(a.shape)}, eager {tuple(b.shape)}"
            same = False
        # also those of dimensions of size 1: they tell a convolution in which format to compute
        elif b.numel() and a.stride() != b.stride():
            yield "strides", f"{path}: {a.stride()}, eager {b.stride()} for {tuple(b.shape)}"
    sharing = _sharing(ours, arguments)
    if sharing != sample.sharing:
        yield "shares memory", f"{sharing}, eager {sample.sharing} (result, with)"
    if same and sample.values:
        yield from _values(sample, ours)
    if not _agree(arguments, sample.arguments):
        yield "arguments", "they are others after the call"


def _values(sample: Sample, ours: Any) -> Iterator[tuple[str, str]]:
    def reference() -> Any:
        args, kwargs = sample.call.copies()
        return seeded(sample.op, in_float64(args), in_float64(kwargs), 1)

    try:
        assert_agrees(ours, sample.result, reference, check_strides=False)
    except Disagreement as error:
        yield "values", "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        return
    for (path, a), (_, b) in zip(leaves(ours), leaves(sample.result)):
        if isinstance(b, torch.Tensor) and b.is_floating_point():
            wrong = (a == 0) & (b == 0) & (torch.signbit(a) != torch.signbit(b))
            if wrong.any():
                yield "sign of zero", f"{path}: {int(wrong.sum())} of {b.numel()}"
                return


def _sharing(result: Any, arguments: Any) -> list[tuple[str, str]]:
    """Which results share memory with which arguments, and with which earlier results."""
    known = [(path.removeprefix("result"), t) for path, t in leaves(arguments) if isinstance(t, torch.Tensor)]
    known = [(f"argument{path}", t) for path, t in known if t.numel()]
    found = []
    for path, tensor in leaves(result):
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            place = tensor.untyped_storage().data_ptr()
            found += [(path, other) for other, t in known if t.untyped_storage().data_ptr() == place]
            known.append((path, tensor))
    return found


def _agree(one: Any, other: Any) -> bool:
    try:
        assert_agrees(one, other, check_strides=False)
    except Disagreement:
        return False
    return True
