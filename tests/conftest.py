"""What holds for every test."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest

# What a test compiles it compiles, and leaves nothing in the user's folders; tests of the cache name one.
os.environ.setdefault("BRAZE_CACHE", "0")

# `quick` gives the same examples every time, so that a red build means that the code has changed. `thorough`
# looks for new ones: HYPOTHESIS_PROFILE=thorough python3 dev.py test tests/ops
_SLOW_IS_FINE = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
hypothesis.settings.register_profile(
    "quick", max_examples=40, derandomize=True, deadline=None, suppress_health_check=_SLOW_IS_FINE
)
hypothesis.settings.register_profile(
    "thorough", max_examples=2000, deadline=None, print_blob=True, suppress_health_check=_SLOW_IS_FINE
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def _clean_state() -> Iterator[None]:
    """Every test starts from the same random numbers and leaves no compiled code behind for the next."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        # torch writes a structured trace of each compile to this logger if anybody listens, which takes as
        # long as the compile; and pytest listens to every logger that does not pass its records on.
        logging.getLogger("torch.__trace").propagate = True
    yield
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and hasattr(dynamo, "reset"):
        dynamo.reset()


@pytest.fixture
def unassigned() -> Iterator[None]:
    """What the test assigns to options holds for nobody after it."""
    from braze import config

    yield
    for option in config.options():
        delattr(config, option.name)
