"""``python -m braze.cli``; ``python -m braze`` does the same."""

from __future__ import annotations

from braze.cli.main import main

if __name__ == "__main__":
    main(prog_name="python -m braze")
