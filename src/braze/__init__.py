"""Braze: a tensor compiler for PyTorch.

Installed is enough: ``torch.compile(model, backend="braze")`` finds it without an import. What this package
exports beyond that is loaded when it is first used, so that ``import braze`` costs a few milliseconds.

What an import does at once, whether torch is imported before it or after it, is to tell
`torch.compiler.load_cache_artifacts` that Braze's entries are among the kinds that there are.
"""

from __future__ import annotations

import importlib
from typing import Any

from braze._torch import cache_artifacts as _cache_artifacts
from braze._torch.when_loaded import CACHE_ARTIFACTS as _CACHE_ARTIFACTS
from braze._torch.when_loaded import when_loaded as _when_loaded
from braze.version import __version__

__all__ = [
    "__version__",
    "aot_compile",
    "aot_load",
    "config",
    "decomposition",
    "errors",
    "explain",
    "extern",
    "fuse",
    "fuser",
    "graph_pass",
    "inspect",
    "is_package",
    "lowering",
    "ops",
    "sign_package",
    "unregister",
]

# Exported name -> the module that it is, or that defines it.
_LAZY = {
    "aot_compile": "braze.frontend.aot_compile",
    "aot_load": "braze.artifact.aot_load",
    "config": "braze.config",
    "decomposition": "braze.extensions.registry",
    "errors": "braze.errors",
    "explain": "braze.inspect.explaining",
    "extern": "braze.extensions.registry",
    "fuse": "braze.fuser.function",
    "fuser": "braze.fuser",
    "graph_pass": "braze.extensions.registry",
    "inspect": "braze.inspect",
    "is_package": "braze.artifact.package",
    "lowering": "braze.lowering",
    "ops": "braze.ops",
    "sign_package": "braze.artifact.package",
    "unregister": "braze.extensions.registry",
}
_LOADER = "braze.cache.mega_cache"


def _load_artifact(content: bytes) -> None:
    importlib.import_module(_LOADER).load(content)


_when_loaded(_CACHE_ARTIFACTS, lambda: _cache_artifacts.register(_load_artifact))


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'braze' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    value = globals()[name] = module if _LAZY[name] == f"braze.{name}" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
