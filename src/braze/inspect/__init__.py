"""Looking at what was compiled: `explain` for one function, `stats` for the whole process.

Both are loaded when they are first used: this package is also imported by whoever only lists its modules.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Explanation", "explain", "machine", "stats"]

# Exported name -> the module that defines it, or that it is.
_LAZY = {
    "Explanation": "braze.inspect.explanation",
    "explain": "braze.inspect.explaining",
    "machine": "braze.inspect.machine",
    "stats": "braze.inspect.statistics",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'braze.inspect' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    value = globals()[name] = module if _LAZY[name].endswith(f".{name}") else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
