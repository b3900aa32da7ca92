"""The scalar vocabulary, loop bodies as data, and the reference interpreter. The functions of values, which
lowerings are written with, are its attributes: ``braze.ops.exp``."""

from __future__ import annotations

import importlib
from typing import Any

_FUNCTIONS = "braze.ops.functions"


def __getattr__(name: str) -> Any:
    functions = importlib.import_module(_FUNCTIONS)
    if name.startswith("_") or name not in getattr(functions, "__all__", ()):
        raise AttributeError(f"module 'braze.ops' has no attribute {name!r}")
    return getattr(functions, name)
