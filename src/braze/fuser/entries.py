"""What a fused function is, and what it remembers for arguments of one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from braze.fuser.arguments import Structure, rebuild
from braze.fuser.outside import Outside
from braze.fuser.signature import Signature

__all__ = ["EMPTY", "Entry", "Subject"]

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
    outside: tuple[Outside, ...]
    options: Mapping[str, Any]

    def read_outside(self) -> list[Any]:
        """The plain values that it reads besides its arguments."""
        return [place.read() for place in self.outside]

    def call_flat(self, structure: Structure, flat: Sequence[Any]) -> Any:
        """Its result, by eager operators, for arguments of this structure with these tensors and numbers."""
        leaves = iter(flat)
        return self.signature.call([rebuild(one, leaves) for one in structure])
