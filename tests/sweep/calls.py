"""Which arguments operators are called with: the ATen calls that PyTorch's operator database ends up in."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.numerics import leaves, map_tensors
from tests.opinfo.cases import Database
from tests.sweep.more import SIBLINGS, handwritten

LARGEST = 20_000
"""Argument sets with more elements than this say nothing that smaller ones don't, and take longer."""
PER_ENTRY = 6
"""Samples that are run of each entry of the database."""
ENOUGH = 60
"""Argument sets that are noted of an operator before others that call it are passed over, ..."""
MOST = 12
"""... and that are kept."""


@dataclass
class Call:
    """Arguments of one operator, as recorded. They are never passed on: `copies` are."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def copies(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in memory of their own, with the strides that they were recorded with."""
        return map_tensors(self.args, fresh), map_tensors(self.kwargs, fresh)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors among them, in order."""
        found = leaves({"args": self.args, "kwargs": self.kwargs})
        return [value for _, value in found if isinstance(value, torch.Tensor)]

    @property
    def signature(self) -> str:
        """Equal for calls that differ in the values of tensors alone."""

        def shown(tensor: torch.Tensor) -> Any:
            return f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}"

        return repr((map_tensors(self.args, shown), map_tensors(self.kwargs, shown)))

    @property
    def kind(self) -> str:
        """Equal for calls that look alike: ranks, and which arguments there are."""
        return repr([(t.ndim, t.is_floating_point()) for t in self.tensors]) + repr(sorted(self.kwargs))


def fresh(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor with its strides; what it shares with itself (stride 0) is shared in the copy."""
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride())) if tensor.numel() else 0
    offset = tensor.storage_offset()
    whole = torch.zeros(offset + extent, dtype=tensor.dtype)
    if extent:
        whole[offset:] = tensor.detach().as_strided((extent,), (1,), offset)
    return whole.as_strided(tensor.shape, tensor.stride(), offset)


class _Recorder(TorchDispatchMode):
    """Notes the calls of wanted operators, the first ones of each or every one; and the last that raised."""

    def __init__(self, wanted: set[Any], every_call: bool = False) -> None:
        super().__init__()
        self._wanted = wanted
        self._all = every_call
        self.found: dict[Any, dict[str, Call]] = {}
        self.raised: tuple[Any, Call] | None = None

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        call = None
        if op in self._wanted and (self._all or len(self.found.get(op, ())) < ENOUGH):
            call = Call(args, kwargs)
            values = [value for _, value in leaves([args, kwargs])]
            if not all(map(_plain, values)) or sum(t.numel() for t in call.tensors) > LARGEST:
                call = None
            else:
                call = Call(*call.copies())
                self.found.setdefault(op, {}).setdefault(call.signature, call)
        try:
            return op(*args, **kwargs)
        except Exception:
            if call is not None:
                del self.found[op][call.signature]
                self.raised = (op, call)
            raise


_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.layout, torch.device)


def _plain(value: Any) -> bool:
    if not isinstance(value, torch.Tensor):
        return isinstance(value, (*_PLAIN, torch.memory_format, torch.Size))
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and not (value.is_complex() or value.is_quantized or value.is_neg() or value.is_conj())
    )


class Calls:
    """The argument sets of `wanted` operators: `accepted` by dtype of the database's samples, and those that
    eager `refused`."""

    DTYPES = (torch.float32, torch.int64)

    def __init__(self) -> None:
        self._accepted: dict[torch.dtype, dict[str, list[Call]]] = {}
        self._refused: dict[str, dict[str, Call]] = {}

    @classmethod
    def kept_in(cls, path: Path, wanted: Iterable[Any]) -> Calls:
        """Those that another process left in a file; else recorded, and left there."""
        calls = cls()
        if path.exists():
            calls._accepted, calls._refused = torch.load(path, weights_only=False)
        else:
            calls._record(Database(), wanted)
            unfinished = path.with_suffix(f".{os.getpid()}")
            torch.save((calls._accepted, calls._refused), unfinished, pickle_protocol=5)
            unfinished.replace(path)
        return calls

    def _record(self, database: Database, wanted: Iterable[Any]) -> None:
        wanted = set(wanted)
        everything = set(wanted)
        for op in wanted:
            everything.update(_siblings(op))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for dtype in self.DTYPES:
                recorder = _Recorder(everything)
                for entry in database.entries():
                    if dtype in entry.dtypes:
                        _run_samples(recorder, entry, dtype)
                self._accepted[dtype] = {
                    str(op): _by_turns(found.values())[:MOST] for op, found in recorder.found.items()
                }
            for entry in database.entries():
                self._note_refused(entry, wanted)

    def _note_refused(self, entry: Any, wanted: set[Any]) -> None:
        recorder = _Recorder(wanted, every_call=True)
        torch.manual_seed(1234)
        for error_input in _until_it_raises(entry.error_inputs, "cpu") if entry.error_inputs_func else ():
            recorder.raised = None
            try:
                with recorder:
                    _run(entry, error_input.sample_input, backward=False)
            except Exception:
                if recorder.raised is not None:
                    op, call = recorder.raised
                    self._refused.setdefault(str(op), {})[call.signature] = call

    def accepted(self, op: Any, dtype: torch.dtype, count: int) -> list[Call]:
        """At most `count` sets for an operator, of different kinds before others. Samples of a half type are
        those of float32, converted."""
        base = torch.float32 if dtype.is_floating_point else dtype
        found = self._accepted[base]
        calls = list(found.get(str(op), ()))
        calls += [Call(args, kwargs) for args, kwargs in handwritten(op, base)]
        if not calls:
            for sibling in _siblings(op):
                fitted = [_fitted(op, sibling, call) for call in found.get(str(sibling), ())]
                calls = [call for call in fitted if call is not None]
                if calls:
                    break
        if dtype is not base:
            calls = [_converted(call, dtype) for call in calls]
        return _by_turns(calls)[:count]

    def refused(self, op: Any) -> list[Call]:
        """Sets that eager raised an error for."""
        return list(self._refused.get(str(op), {}).values())


def _by_turns(calls: Iterable[Call]) -> list[Call]:
    """One of each kind, then the second ones, and so on."""
    by_kind: dict[str, list[Call]] = {}
    for call in calls:
        by_kind.setdefault(call.kind, []).append(call)
    rounds = itertools.zip_longest(*by_kind.values())
    return [call for each in rounds for call in each if call is not None]


def _run_samples(recorder: _Recorder, entry: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(1234)
    differentiable = dtype.is_floating_point and entry.supports_autograd
    samples = _until_it_raises(entry.sample_inputs, "cpu", dtype, requires_grad=differentiable)
    for sample in itertools.islice(samples, PER_ENTRY):
        try:
            with recorder:
                _run(entry, sample, backward=differentiable)
        except Exception:  # a sample that eager has no result for is none
            continue


def _until_it_raises(make: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """What a generator of the database yields; some of them fail where a library is not built in."""
    try:
        yield from make(*args, **kwargs)
    except Exception:
        return


def _run(entry: Any, sample: Any, backward: bool) -> None:
    result = entry.op(sample.input, *sample.args, **sample.kwargs)
    if backward:
        tensors = [value for _, value in leaves(result) if isinstance(value, torch.Tensor)]
        roots = [t for t in tensors if t.requires_grad and not t.is_complex()]
        if roots:
            torch.autograd.backward(roots, [torch.randn_like(t) for t in roots])


def _converted(call: Call, dtype: torch.dtype) -> Call:
    def convert(tensor: torch.Tensor) -> torch.Tensor:
        return fresh(tensor).to(dtype) if tensor.dtype is torch.float32 else tensor

    args = tuple(dtype if value is torch.float32 else value for value in call.args)
    kwargs = {name: dtype if value is torch.float32 else value for name, value in call.kwargs.items()}
    return Call(map_tensors(args, convert), map_tensors(kwargs, convert))


# -- operators that the database does not reach -----------------------------------------------------------
def _siblings(op: Any) -> list[Any]:
    """Operators with arguments that fit, best first: other overloads, and those in `SIBLINGS`."""
    packet = getattr(op, "overloadpacket", None)
    if packet is None:
        return []
    found = [getattr(packet, name) for name in packet.overloads()]
    for name in SIBLINGS.get(str(op), SIBLINGS.get(str(packet), ())):
        other = getattr(torch.ops.aten, name)
        found += [getattr(other, overload) for overload in other.overloads()]
    return [o for o in found if o is not op and not any(a.is_out for a in o._schema.arguments)]


def _fitted(op: Any, sibling: Any, call: Call) -> Call | None:
    """The arguments of a sibling as `op` takes them: numbers for tensors, tensors for numbers; None where
    that won't do."""
    given = list(call.args)
    known = {a.name: v for a, v in zip(sibling._schema.arguments, given)} | dict(call.kwargs)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for position, argument in enumerate(op._schema.arguments):
        by_position = given[position] if position < len(given) else None
        if argument.name not in known and by_position is None:
            if argument.has_default_value():
                if not argument.kwarg_only:
                    args.append(argument.default_value)
                continue
            return None
        value = _as_type(known.get(argument.name, by_position), str(argument.type))
        if value is _MISFIT:
            return None
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    return Call(tuple(args), kwargs)


_MISFIT = object()


def _as_type(value: Any, wanted: str) -> Any:
    if wanted == "number" and isinstance(value, torch.Tensor):
        return value.reshape(-1)[0].item() if value.numel() else _MISFIT
    if wanted in ("Tensor", "Optional[Tensor]"):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return torch.tensor(value)
        return value if value is None or isinstance(value, torch.Tensor) else _MISFIT
    if wanted == "number":
        return value if isinstance(value, (int, float)) else _MISFIT
    return _MISFIT if isinstance(value, torch.Tensor) else value
