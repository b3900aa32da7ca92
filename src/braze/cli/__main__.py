"""``python -m braze.cli``, for environments whose scripts are not on the path."""

from __future__ import annotations

from braze.cli.main import main

if __name__ == "__main__":
    main()
