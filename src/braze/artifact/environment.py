"""What generated code depends on besides the graph and the options: versions, and what it is made for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from braze.artifact.schema import Versions
from braze.runtime.engines import engine, engines
from braze.version import __version__

__all__ = ["key_parts", "versions"]


def key_parts() -> tuple[tuple[str, str], ...]:
    """Name and text of each: parts of a cache key. The targets are those of the options that hold here."""
    named = [(f"versions.{name}", text) for name, text in versions().named().items()]
    return (*named, *[part for one in engines() for part in one.key_parts()])


def versions() -> Versions:
    """Those of everything whose change may change what is generated."""
    return Versions(*_own_and_torch(), {k: v for one in engines() for k, v in _tools(one.kind).items()})


@lru_cache(maxsize=16)
def _tools(kind: str) -> Mapping[str, str]:
    return engine(kind).tools()


@lru_cache(maxsize=1)
def _own_and_torch() -> tuple[str, str]:
    """A version of Braze between releases says what is in its source files, too."""
    own = f"{__version__} {_sources()}" if "dev" in __version__ else __version__
    build = torch.version.git_version or ""
    return own, f"{torch.__version__} {build[:12]}".strip()


def _sources() -> str:
    """A digest of the package's files."""
    root = Path(__file__).parent.parent
    whole = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                whole.update(os.path.relpath(path, root).encode() + b"\0")
                with open(path, "rb", buffering=0) as file:
                    whole.update(file.read())
    return whole.hexdigest()[:16]
