"""Braze: a tensor compiler for PyTorch.

Installed is enough: ``torch.compile(model, backend="braze")`` finds it without an import. What this package
exports beyond that is loaded when it is first used, so that ``import braze`` costs a few milliseconds.
"""

from __future__ import annotations

import importlib
from typing import Any

from braze.version import __version__

__all__ = ["__version__", "aot_compile", "aot_load", "config", "errors", "explain", "inspect"]

# Exported name -> the module that it is, or that defines it.
_LAZY = {
    "aot_compile": "braze.frontend.aot_compile",
    "aot_load": "braze.artifact.aot_load",
    "config": "braze.config",
    "errors": "braze.errors",
    "explain": "braze.inspect.explaining",
    "inspect": "braze.inspect",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'braze' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    value = globals()[name] = module if _LAZY[name] == f"braze.{name}" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
