"""A program: statements, and what they run on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from braze.codegen.program.grammar import Statement
from braze.codegen.program.writer import write
from braze.ops.kernel import BufferArg
from braze.runtime.expr import Expr, Symbol

__all__ = ["Program", "Scratch"]


@dataclass(frozen=True)
class Scratch:
    """Memory of a program's own: ``size`` elements of ``dtype``, one for all threads, one for each, or a
    small one that each keeps near (``size`` a number)."""

    name: str
    dtype: torch.dtype
    size: Expr
    kind: Literal["shared", "thread", "stack"]


@dataclass(eq=False)
class Program:
    """What every thread runs. ``checks[k]`` is what a failure of number ``k`` means, ``lanes`` the number of
    32-bit elements of a vector that it was built for."""

    name: str
    lanes: int
    buffers: tuple[BufferArg, ...]
    sizes: tuple[Symbol, ...]
    scratch: tuple[Scratch, ...]
    checks: tuple[str, ...]
    body: list[Statement]

    def __str__(self) -> str:
        return write(self)
