"""Each test starts with nothing compiled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import support


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    support.reset()
    yield
    support.reset()
