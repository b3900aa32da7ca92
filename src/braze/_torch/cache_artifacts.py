"""Braze's kind among the artefacts of `torch.compiler.save_cache_artifacts` and `load_cache_artifacts`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from braze._torch.when_loaded import CACHE_ARTIFACTS

__all__ = ["KIND", "record", "register"]

KIND = "braze"


def register(load: Callable[[bytes], None]) -> None:
    """Make the kind known; ``load`` is what `load_cache_artifacts` calls with each content. torch has to be
    loaded. The first call counts."""
    manager = sys.modules[CACHE_ARTIFACTS]
    factory: Any = manager.CacheArtifactFactory
    if KIND not in factory._artifact_types:
        factory.register(_kind(manager.CacheArtifact, load))


def record(key: str, content: Callable[[], bytes]) -> None:
    """Have `save_cache_artifacts` carry what ``content`` returns, which is called then and not before, and
    must not raise. What was recorded under the same key before stands. Nothing happens without torch, or
    before `register`."""
    manager: Any = sys.modules.get(CACHE_ARTIFACTS)
    if manager is not None and KIND in manager.CacheArtifactFactory._artifact_types:
        manager.CacheArtifactManager.record_artifact(KIND, key, content)


def _kind(base: Any, load: Callable[[bytes], None]) -> Any:
    """The class, which cannot be made before torch is loaded: this file is read before that."""

    class BrazeArtifact(base):  # type: ignore[misc]
        """An entry of Braze's cache. Two are the same if their keys are: comparing them makes no content."""

        @property
        def content(self) -> bytes:
            made: bytes | Callable[[], bytes] = self.__dict__["made"]
            return made if isinstance(made, bytes) else made()

        @content.setter
        def content(self, value: bytes | Callable[[], bytes]) -> None:
            self.__dict__["made"] = value  # the base class is frozen

        def __eq__(self, other: object) -> bool:
            return isinstance(other, BrazeArtifact) and bool(other.key == self.key)

        def __hash__(self) -> int:
            return hash(self.key)

        @staticmethod
        def encode(content: Any) -> Any:
            return content

        @staticmethod
        def type() -> str:
            return KIND

        def populate_cache(self) -> None:
            load(self.content)

    return BrazeArtifact
