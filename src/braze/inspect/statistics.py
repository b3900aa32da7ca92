"""Counts of what this process has compiled.

A file of its own: it is asked by programs that load nothing else of this room.
"""

from __future__ import annotations

from braze.compile.report import Totals, ledger

__all__ = ["stats"]


def stats() -> Totals:
    """What was compiled since the process began: ``graphs``, ``kernels``, ``eager_graphs`` (given to eager
    PyTorch as a whole), ``externs`` (calls by operator), ``fallbacks`` (each with ``op``, ``reason`` and
    ``source``). A copy: later compilations do not change it."""
    return ledger.totals()
