"""``python -m braze``: the command `braze`, where scripts are not on the path."""

from __future__ import annotations

from braze.cli.main import main

if __name__ == "__main__":
    main(prog_name="python -m braze")
