"""Something that is to be done as soon as a module of torch is there, by a package that does not load torch.

This file imports nothing of torch.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

__all__ = ["CACHE_ARTIFACTS", "when_loaded"]

_log = logging.getLogger("braze")

CACHE_ARTIFACTS: Final = "torch.compiler._cache"
"""Where `torch.compiler.save_cache_artifacts` keeps its list of kinds; ``import torch`` loads it."""


def when_loaded(module: str, action: Callable[[], None]) -> None:
    """Call ``action`` once: now if ``module`` is loaded, else at the end of its import, in the importing
    thread. What ``action`` raises is logged, and fails no import."""
    loaded = sys.modules.get(module)
    if loaded is not None and not getattr(loaded.__spec__, "_initializing", False):
        _done(action)
    else:
        # Never taken out again: that would make an import that runs in another thread skip a finder.
        sys.meta_path.insert(0, _Finder(module, action))


class _Finder:
    """Finds one module, where the others find it, and makes its loader call ``action`` at the end."""

    def __init__(self, module: str, action: Callable[[], None]) -> None:
        self._module: str | None = module
        self._action = action

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Part of the import system's protocol."""
        if name != self._module or self not in sys.meta_path:
            return None
        finders: list[Any] = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :]:  # those before it may be of its kind, and ask it
            spec: ModuleSpec | None = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                self._follow(spec)
                return spec
        return None

    def _follow(self, spec: ModuleSpec) -> None:
        # A loader belongs to its spec; one in place of it would lack what tracebacks ask loaders for.
        loader: Any = spec.loader
        execute = loader.exec_module

        def executed(module: ModuleType) -> None:
            loader.exec_module = execute
            execute(module)
            self._module = None
            _done(self._action)

        loader.exec_module = executed


def _done(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:
        _log.warning("Braze could not make itself known to this PyTorch", exc_info=True)
