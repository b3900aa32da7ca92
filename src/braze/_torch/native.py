"""What is taken from PyTorch's native libraries and C bindings: symbols for linked code, and the fast ways to
make and look at tensors, to read the number of threads, and to show a block of work to the profiler."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch._C import _dynamo
from torch._ops import OpOverload

__all__ = [
    "assert_size_stride",
    "empty_strided_here",
    "fast_operator",
    "find_operator",
    "native_address",
    "num_threads",
    "profiler_enabled",
    "record_function",
    "reinterpret_bytes",
    "reinterpret_tensor",
    "resolved",
    "same_tensors",
    "storage_id",
]

_guards = cast(Any, _dynamo.guards)

empty_strided_here = cast(
    "Callable[[Sequence[int], Sequence[int], torch.dtype], torch.Tensor]", _guards._empty_strided_cpu
)
"""An uninitialised CPU tensor of these sizes, strides (in elements) and dtype; half the time of
`torch.empty_strided`."""

assert_size_stride = cast(
    "Callable[[torch.Tensor, Sequence[int], Sequence[int]], None]", _guards.assert_size_stride
)
"""Raises ``AssertionError`` unless a tensor has these sizes, and these strides wherever a size is not 0 or
1."""

reinterpret_tensor = cast(
    "Callable[[torch.Tensor, Sequence[int], Sequence[int], int], torch.Tensor]",
    _guards._reinterpret_tensor,
)
"""Another view of a tensor's storage: sizes, strides, and how many elements further on it begins. It is no
view to autograd, and shares no version counter."""

num_threads: Callable[[], int] = torch.get_num_threads
"""Threads of a parallel region started by the calling thread."""

profiler_enabled: Callable[[], bool] = torch._C._autograd._profiler_enabled
"""Whether a profiler records in the calling thread."""


def reinterpret_bytes(
    base: torch.Tensor, dtype: torch.dtype, sizes: Sequence[int], strides: Sequence[int], offset: int
) -> torch.Tensor:
    """`reinterpret_tensor` with another dtype, which ``offset`` and ``strides`` count in; the base's first
    byte must lie at a multiple of its size in the storage, or this raises ``ValueError``."""
    start = base.storage_offset() * base.dtype.itemsize
    if start % dtype.itemsize:
        raise ValueError(f"byte {start} of a storage is no place for a {dtype}")
    with torch.no_grad():
        view = torch.empty(0, dtype=dtype, device=base.device)
        at = start // dtype.itemsize + offset
        return view.set_(base.untyped_storage(), at, tuple(sizes), tuple(strides))


def resolved(value: Any) -> Any:
    """A tensor without lazy conjugation or negation: a copy where there is one. Anything else as it is."""
    if isinstance(value, torch.Tensor) and (value.is_conj() or value.is_neg()):
        return value.resolve_conj().resolve_neg()
    return value


def storage_id(tensor: torch.Tensor) -> int:
    """A number that tensors share, fake ones too, exactly if they share a storage; for as long as that
    lives."""
    return cast(int, tensor.untyped_storage()._cdata)


def same_tensors(tensors: Sequence[torch.Tensor]) -> Callable[..., bool]:
    """A fast test whether other tensors are like these in every way that matters to compiled code: class,
    dtype, device, sizes, strides, and how the dispatcher sees them. It keeps no tensor alive."""
    return cast(
        "Callable[..., bool]",
        _guards.TensorGuards(
            *tensors,
            dynamic_dims_sizes=[list(t.shape) for t in tensors],
            dynamic_dims_strides=[list(t.stride()) for t in tensors],
        ).check,
    )


_FAST_NAMES = frozenset(
    """
    mm addmm bmm baddbmm mv addmv dot addbmm convolution sort topk embedding
    avg_pool1d max_pool2d_with_indices native_layer_norm
    """.split()
)


def fast_operator(name: str) -> Callable[..., Any]:
    """`find_operator`, or where it costs less per call the function behind it: the hand-written argument
    parser of ``torch.<name>`` (a third less than the operator's), else the overload's own binding. They take
    the same arguments and end in the same dispatcher entry."""
    operator = find_operator(name)
    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    fast = getattr(torch, base, None) if namespace == "aten" and base in _FAST_NAMES else None
    if fast is not None and overload in ("", "default", "out"):
        return cast("Callable[..., Any]", fast)
    return cast("Callable[..., Any]", getattr(operator, "_op", operator))


def record_function(name: str) -> AbstractContextManager[Any]:
    """A block of work that profilers show under ``name``."""
    return cast("AbstractContextManager[Any]", torch._C._profiler._RecordFunctionFast(name))


def find_operator(name: str) -> Callable[..., Any]:
    """The callable of an operator overload, by its qualified name: ``aten::mm.out``, ``aten::relu`` (for
    ``.default``). Raises ``AttributeError`` where there is no such operator."""
    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), base)
    operator = getattr(packet, overload or "default")
    if not isinstance(operator, OpOverload):  # torch.ops has functions of its own, such as one to load code
        raise AttributeError(f"{name} is not an operator")
    return cast("Callable[..., Any]", operator)


@lru_cache(maxsize=1)
def _libraries() -> tuple[ctypes.CDLL, ...]:
    """Where symbols are looked for. The process comes first, since that is where libtorch_cpu finds its
    OpenMP runtime (another one may have been preloaded); then libtorch_cpu, with everything it is linked
    to."""
    suffix = "dylib" if sys.platform == "darwin" else "so"
    return (
        ctypes.CDLL(None),
        ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / f"libtorch_cpu.{suffix}")),
    )


def native_address(name: str) -> int | None:
    """The address of a C symbol that the process or PyTorch's libraries define; None where nobody does."""
    for library in _libraries():
        try:
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            continue
    return None
