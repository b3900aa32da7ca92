"""What generated code depends on besides the graph and the options: versions, and the CPU it is made for."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from functools import lru_cache
from pathlib import Path

import torch

from braze.artifact.schema import Versions
from braze.runtime.target import current_target
from braze.version import __version__

__all__ = ["key_parts", "versions"]


def key_parts() -> tuple[tuple[str, str], ...]:
    """Name and text of each: parts of a cache key. The target is that of the options that hold here."""
    made_by, target = versions(), current_target()
    return (
        ("versions.braze", made_by.braze),
        ("versions.torch", made_by.torch),
        ("versions.llvmlite", made_by.llvmlite),
        ("target.cpu", f"{target.cpu}, {target.lanes} lanes"),
        ("target.features", target.features),
    )


@lru_cache(maxsize=1)
def versions() -> Versions:
    """Those of the packages whose change may change what is generated. A version of Braze between releases
    says what is in its source files, too."""
    own = f"{__version__} {_sources()}" if "dev" in __version__ else __version__
    build = torch.version.git_version or ""
    return Versions(own, f"{torch.__version__} {build[:12]}".strip(), importlib.metadata.version("llvmlite"))


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
