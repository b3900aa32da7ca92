"""The command line, module path and environment that a compile worker starts with.

A worker is a new interpreter of the same Python (``-I``: no user's site folder, no ``PYTHON*`` variables, not
the folder of a script), that is then told the module path of its parent, so that it finds the same torch and
Braze in a virtual environment, an editable installation, under pytest, in a notebook, or by ``PYTHONPATH``.
The parent's ``__main__`` is never imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["command", "environment", "module_path", "package_root"]

# The path is set, to what it is in the parent, before anything but json is imported.
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from braze.compile.workers.worker import main; main()"
)

# Options and log settings come with each job. Coverage and TorchInductor have no business in a worker.
_DROPPED = (
    "BRAZE_",
    "PYTHON",
    "TORCH_LOGS",
    "TORCH_TRACE",
    "TORCHINDUCTOR_",
    "TORCH_COMPILE_DEBUG",
    "COV_",
    "COVERAGE_",
)


def package_root() -> str:
    """The folder that holds the package `braze`."""
    return str(Path(__file__).absolute().parents[3])


def module_path() -> list[str]:
    """``sys.path`` in absolute terms, and the folders from which Braze and torch were really loaded."""
    path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
    path.append(package_root())
    torch = sys.modules.get("torch")
    if torch is not None and torch.__file__ is not None:
        path.append(str(Path(torch.__file__).absolute().parents[1]))
    return list(dict.fromkeys(path))


def command(path: str) -> list[str]:
    """What to run; ``path`` is `module_path` as JSON."""
    flags = ["-I"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.pycache_prefix is not None:
        flags += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return [sys.executable, *flags, "-c", _BOOTSTRAP, path]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The parent's variables, less those that could change what a worker does unnoticed."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_DROPPED)}
    kept["OMP_NUM_THREADS"] = "1"  # a worker's torch computes next to nothing; compiled code does not know it
    return kept
