"""Bounds of PyTorch's symbolic integers."""

from __future__ import annotations

from typing import Final

__all__ = ["LEAST"]

LEAST: Final = -(1 << 63)
"""The lower bound of an integer of which nothing is known: they have 64 bits."""
