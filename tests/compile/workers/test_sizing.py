from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from braze.compile import workers as sizing


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 cores and 100 GiB, in a container without bounds."""
    monkeypatch.setattr(sizing, "_cores", lambda: 16)
    memory = psutil.virtual_memory()._replace(available=100 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    return tmp_path


def test_by_cores_up_to_a_limit(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizing.default_workers({}, container) == sizing.MOST_WORKERS
    monkeypatch.setattr(sizing, "_cores", lambda: 3)
    assert sizing.default_workers({}, container) == 3


def test_by_free_memory(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()._replace(available=int(2.5 * sizing.WORKER_BYTES))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert sizing.default_workers({}, container) == 2
    assert sizing.available_bytes(container) == int(2.5 * sizing.WORKER_BYTES)


def test_by_what_a_container_may_use(container: Path) -> None:
    (container / "cpu.max").write_text("250000 100000\n")
    assert sizing.default_workers({}, container) == 2
    (container / "memory.max").write_text(str(5 << 30))
    (container / "memory.current").write_text(str(4 << 30))
    assert sizing.default_workers({}, container) == 1
    (container / "memory.current").write_text(str(6 << 30))
    assert sizing.available_bytes(container) == 0
    assert sizing.default_workers({}, container) == 1


def test_ranks_of_one_machine_share_it(container: Path) -> None:
    assert sizing.default_workers({"LOCAL_WORLD_SIZE": "4"}, container) == 4
    assert sizing.default_workers({"LOCAL_WORLD_SIZE": "64"}, container) == 1
    assert sizing.default_workers({"LOCAL_WORLD_SIZE": "many"}, container) == sizing.MOST_WORKERS
