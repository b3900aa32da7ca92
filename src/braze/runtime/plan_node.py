"""What the parts of a launch plan have in common."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Node", "listed"]


class Node(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a plan: immutable, and stored without what is as always."""


def listed(values: Sequence[object]) -> str:
    """Values as plans print them; None stands for what does not matter."""
    return ", ".join("_" if v is None else str(v) for v in values)
