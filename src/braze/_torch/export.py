"""What `torch.export` captured, as one functional graph of ATen operators with everything it uses as an
input."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch._export import utils
from torch.export import ExportedProgram

from braze._torch.integers import LEAST

__all__ = ["decomposed", "value_range"]


def decomposed(program: ExportedProgram, decompositions: Mapping[Any, Callable[..., Any]]) -> ExportedProgram:
    """`program` in terms of operators that are not in the table and are no mere compositions of others:
    `torch.export` keeps the latter, which AOTAutograd takes apart."""
    table: dict[Any, Any] = {op: utils._get_decomp_for_cia(op) for op in utils._collect_all_valid_cia_ops()}
    table.update(decompositions)
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch's own copying of the program uses what PyTorch says is deprecated
        warnings.simplefilter("ignore", FutureWarning)
        return cast(ExportedProgram, program.run_decompositions(table))


def value_range(constraint: Any) -> tuple[int, int | None]:
    """The least and greatest value of a symbol by a program's range constraint; None: no greatest. Without a
    least value it has that of 64 bits."""
    lower, upper = constraint.lower, constraint.upper
    return (
        int(lower) if getattr(lower, "is_Integer", False) else LEAST,
        int(upper) if getattr(upper, "is_Integer", False) else None,
    )
