"""``python -m braze``: the command `braze`, where scripts are not on the path."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("braze.cli", run_name="__main__", alter_sys=True)
