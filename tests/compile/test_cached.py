"""The cache's two levels from end to end: nothing but what a graph would be compiled to comes out of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from braze import config
from braze.artifact import container
from braze.cache.keyring import KeyRing
from braze.cache.records import CacheEntry
from braze.cache.store import CacheStore, open_store
from braze.compile.report import ledger
from braze.errors import BrazeWarning


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CacheStore]:
    """The cache that the options name; it is empty."""
    with config.patch(cache=True, cache_dir=str(tmp_path), keyring_dir=str(tmp_path / "ring"), strict=True):
        found = open_store(config.current())
        assert found is not None
        yield found
    found.close()


def compiled(fn: Callable[..., Any], *args: Any) -> Any:
    torch.compiler.reset()
    return torch.compile(fn, backend="braze")(*args)


def loads() -> int:
    return ledger.totals().loaded


def entries(store: CacheStore, level: int) -> list[CacheEntry]:
    digests = dict.fromkeys(e.key for e in store.entries() if e.level == level)
    return [entry for digest in digests for entry in store.get(digest)]


def put_again(store: CacheStore, entry: CacheEntry, payload: bytes, origin: str = "local") -> None:
    key = store.key(entry.key)
    assert key is not None
    store.remove([entry])
    put = store.put(
        key, payload, name=entry.name, kind=entry.kind, level=entry.level, guards=entry.guards, origin=origin
    )
    assert put


X = torch.tensor([1.0, 2.0, 3.0])


def test_tensors_in_the_program_are_kept(store: CacheStore) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([0.5, 1.5, 2.5])

    for _ in range(2):
        torch.testing.assert_close(compiled(fn, X), X + torch.tensor([0.5, 1.5, 2.5]))
    assert {entry.level for entry in store.entries()} == {1, 2}
    torch.testing.assert_close(
        compiled(lambda x: x + torch.tensor([0.5, 1.5, 9.5]), X), X + torch.tensor([0.5, 1.5, 9.5])
    )


def test_the_default_dtype_is_part_of_the_key(store: CacheStore) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x > 16777216.5

    x = torch.tensor([2**24 + 1])
    assert not compiled(fn, x)  # 2^24 + 1 is no float32
    torch.set_default_dtype(torch.float64)
    try:
        assert compiled(fn, x)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("level", [1, 2])
def test_the_artefact_of_another_graph_is_not_run(
    store: CacheStore, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    def other(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sin(), x.cos()

    compiled(other, X)
    (foreign,) = entries(store, 1)
    store.clear()
    compiled(fn, X)
    (entry,) = entries(store, level)
    payload = foreign.payload
    if level == 2:
        sections = {name: bytes(content) for name, content in container.unpack(entry.payload).items()}
        payload = container.pack({**sections, "forward": payload})
        store.remove(entries(store, 1))
    else:
        store.remove(entries(store, 2))
    put_again(store, entry, payload)
    torch.testing.assert_close(compiled(fn, X), X.sin())
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize("level", [1, 2])
def test_who_is_no_longer_trusted_is_not_run(store: CacheStore, level: int) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    ring = KeyRing()
    key = ring.generate("somebody")
    compiled(fn, X)
    (entry,) = entries(store, level)
    store.remove(entries(store, 3 - level))
    put_again(store, entry, entry.payload, origin=key.id)
    before = loads()
    compiled(fn, X)
    assert loads() == before + 1
    ring.distrust("somebody")
    if level == 1:
        store.remove(entries(store, 2))
    compiled(fn, X)
    assert loads() == before + 1


def test_an_entry_with_a_fallback_is_not_taken_by_strict_mode(store: CacheStore) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch._add_relu(x, x)

    x = torch.eye(3)
    with warnings.catch_warnings(), config.patch(strict=False):
        warnings.simplefilter("ignore", BrazeWarning)
        compiled(fn, x)
        before = loads()
        compiled(fn, x)
    assert loads() == before + 1
    with pytest.raises(Exception, match="would run as eager PyTorch"):
        compiled(fn, x)


def test_entries_are_plain_structs(store: CacheStore) -> None:
    """What a hit of level 2 reads is typed data, and damaged data are an entry that is not there."""
    compiled(lambda x: x.sin(), X)
    (entry,) = entries(store, 2)
    sections = {name: bytes(content) for name, content in container.unpack(entry.payload).items()}
    put_again(store, entry, container.pack({**sections, "entry": msgspec.msgpack.encode({"spec": 1})}))
    torch.testing.assert_close(compiled(lambda x: x.sin(), X), X.sin())
