"""What holds for every test of the fuser: nothing falls back unnoticed, and kernels are those of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import braze


@pytest.fixture
def strict() -> Iterator[None]:
    """A fallback is an error."""
    with braze.config.patch(strict=True):
        yield
