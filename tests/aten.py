"""The operators of ATen that this release of PyTorch has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["functional_operators"]


def functional_operators() -> Iterator[Any]:
    """Every overload that writes to no argument, by name."""
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        namespace, _, rest = name.partition("::")
        packet, _, overload = rest.partition(".")
        if namespace == "aten":
            operator = getattr(getattr(torch.ops.aten, packet), overload or "default", None)
            if operator is not None and not operator._schema.is_mutable:
                yield operator
