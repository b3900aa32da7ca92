"""What a fused function is, and what it remembers for arguments of one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import torch

from braze import config
from braze._torch import surroundings
from braze.fuser.arguments import Structure, Unfusable, rebuild, same_containers
from braze.fuser.outside import Surroundings
from braze.fuser.signature import Signature

__all__ = ["EMPTY", "Entry", "Prepares", "Subject"]

EMPTY: Final = "a tensor has no elements"
"""Why a function that looks at shapes is run as it is: there is little to compute, and less to launch."""


@dataclass(frozen=True)
class Entry:
    """What to do for arguments of one kind, sizes and strides. ``fast`` looks whether the arguments are such,
    and is None where that would take too long; ``run`` takes it for granted."""

    run: Callable[..., Any]
    fast: Callable[..., Any] | None


@dataclass(frozen=True)
class Subject:
    """The function that is fused, and the options that it is fused with."""

    name: str
    signature: Signature
    surroundings: Surroundings
    options: Mapping[str, Any]

    @cached_property
    def _compile_key(self) -> Callable[[], tuple[object, ...]]:
        return config.key_reader(self.options)

    def state(self) -> tuple[object, ...]:
        """What decides, besides the arguments, what a call runs: the thread's modes, the options that hold,
        and what the function reads elsewhere."""
        return (*surroundings.thread_state(), self._compile_key(), *self.surroundings.read())

    def call_flat(self, structure: Structure, flat: Sequence[Any]) -> Any:
        """Its result, by eager operators, for arguments of this structure with these tensors and numbers."""
        leaves = iter(flat)
        return self.signature.call([rebuild(one, leaves) for one in structure])

    def trace_flat(self, structure: Structure, flat: Sequence[Any]) -> Any:
        """The same for a trace: what is done to lists and dicts that are passed is lost there, and so it is
        refused. Raises `Unfusable`."""
        leaves, again = iter(flat), iter(flat)
        values = [rebuild(one, leaves) for one in structure]
        result = self.signature.call(values)
        if not same_containers(values, [rebuild(one, again) for one in structure]):
            raise Unfusable("it changes a list or dict that is passed to it")
        if any(result is value for value in values if isinstance(value, (list, dict))):
            raise Unfusable("it returns a list or dict that is passed to it")
        return result


class Prepares(Protocol):
    """What finds out about arguments that are new: `braze.fuser.preparing`, which is loaded when that first
    comes up. Arguments are given as their structure and their leaves."""

    def forget(self) -> None:
        """Nothing that was prepared may be used any more; traces and kernels may."""
        ...

    def numbers_that_count(self, structure: Structure) -> frozenset[int]:
        """The positions, among the leaves, of numbers whose values are part of the code."""
        ...

    def entry(self, structure: Structure, leaves: Sequence[Any]) -> Entry | str:
        """What to do for such arguments: traced and compiled if need be; or why they are not fused."""
        ...

    def launched_into(
        self, structure: Structure, leaves: Sequence[Any], results: Structure, outputs: Sequence[torch.Tensor]
    ) -> bool:
        """Launch the kernel for these arguments on tensors that are given, made like ``results``. False where
        it cannot write to them itself; nothing has happened then."""
        ...

    def source(self, structure: Structure, leaves: Sequence[Any]) -> str:
        """The generated code for such arguments, compiled if need be. Raises ``FallbackError``."""
        ...

    def launched(self, structure: Structure, leaves: Sequence[Any]) -> Any:
        """What a call returns for such arguments, by compiled code and nothing else. Raises
        ``FallbackError``."""
        ...
