"""The room is cheap to enter: what is heavy is loaded when it is needed."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("cryptography", "fsspec", "sympy", "torch", "llvmlite", "sqlite3", "aiohttp")


MODULES = ("bundle", "remote", "signatures", "store")


def test_nothing_heavy_is_imported() -> None:
    program = (
        f"import sys; from braze.cache import {', '.join(MODULES)}\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
