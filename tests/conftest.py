"""What holds for all tests."""

from __future__ import annotations

import logging

# torch writes a structured trace of each compile to this logger as soon as anybody may be listening, and pytest
# listens to everything: without this, tests that compile take twice as long.
logging.getLogger("torch.__trace").propagate = False
