"""Looking at what was compiled: `explain` for one function, `stats` for the whole process, `replay` for a
request in a file.

They are loaded when they are first used: this package is also imported by whoever only lists its modules.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Explanation", "Replay", "explain", "machine", "replay", "stats"]

# Exported name -> the module that defines it, or that it is.
_LAZY = {
    "Explanation": "braze.inspect.explanation",
    "Replay": "braze.inspect.replaying",
    "explain": "braze.inspect.explaining",
    "machine": "braze.inspect.machine",
    "replay": "braze.inspect.replaying",
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
