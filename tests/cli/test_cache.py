"""`braze cache`: tables that show what is there, JSON with the same, and why something was missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from braze import config
from braze.cache.keys import Key
from braze.cache.store import CacheStore
from braze.cli.main import main

CONFIG = "llvm_opt_level=1\ntarget_cpu=None"


def key_of(graph: str, options: str = CONFIG) -> Key:
    return Key.of({"graph": f"graph:\n  {graph}\n  return x", "inputs": "f32[8]", "config": options})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheStore:
    monkeypatch.setenv("COLUMNS", "140")
    return CacheStore(tmp_path / "cache")


@pytest.fixture
def filled(store: CacheStore) -> CacheStore:
    for number, name in enumerate(("relu", "tanh", "[gelu]")):
        key = key_of(f"aten.{name}(x)")
        store.put(key, bytes(1000) + b"x" * number, name=name, kind="forward", guards=f"s0 > {number}")
    store.put(
        key_of("aten.relu(x)"), b"y", name="relu", kind="forward", level=2, origin="1f2e", guards="s0 == 1"
    )
    for _ in range(3):
        store.touch(store.get(key_of("aten.tanh(x)").digest)[0])
    missed = key_of("aten.relu(x)", CONFIG.replace("1", "2"))
    store.record_miss(missed, store.nearest(missed), name="relu_again")
    store.record_miss(Key.of({"graph": "new"}), None, name="novel")
    store.close()
    return store


def run(store: CacheStore, *arguments: str, **more: Any) -> Result:
    with config.patch(cache_dir=str(store.folder), cache_size_mb=10):
        return CliRunner().invoke(main, ["cache", *arguments], **more)


def printed(store: CacheStore, *arguments: str) -> Any:
    result = run(store, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_ls_lists_the_entries(filled: CacheStore) -> None:
    output = run(filled, "ls").output
    assert "key" in output and "4 entries" in output and "[gelu]" in output and "1f2e" in output
    assert key_of("aten.tanh(x)").digest[:10] in output
    names = [entry["name"] for entry in printed(filled, "ls", "--sort", "hits")]
    assert names[0] == "tanh" and sorted(names) == ["[gelu]", "relu", "relu", "tanh"]
    short = run(filled, "ls", "-n", "1", "--sort", "name").output
    assert "3 of them not shown" in short and "relu" not in short


def test_an_empty_cache_has_tables_too(store: CacheStore) -> None:
    assert "nothing is kept yet" in run(store, "ls").output
    assert printed(store, "ls") == [] and printed(store, "stats")["entries"] == 0
    assert "no miss is recorded" in run(store, "why").output
    assert "entries" in run(store, "stats").output


def test_show_takes_the_first_digits(filled: CacheStore) -> None:
    digest = key_of("aten.relu(x)").digest
    output = run(filled, "show", digest[:8].upper()).output
    assert digest in output and "s0 == 1" in output and "inputs" in output and "f32[8]" in output
    assert "… 2 more lines" in output
    assert run(filled, "show", digest, "--part", "config").output == CONFIG + "\n"
    shown = printed(filled, "show", digest)
    assert shown["key"] == digest and shown["parts"] == dict(key_of("aten.relu(x)").parts)
    assert [entry["level"] for entry in shown["entries"]] == [2, 1]


def test_show_shows_keys_that_were_missed(filled: CacheStore) -> None:
    output = run(filled, "show", Key.of({"graph": "new"}).digest).output
    assert "looked for and not found" in output


def test_show_says_what_it_does_not_find(filled: CacheStore) -> None:
    for arguments, words in (
        (["show", "xyz"], "no keys begin with 'xyz'"),
        (["show", ""], "5 keys begin with ''"),
        (["show", key_of("aten.relu(x)").digest, "--part", "colour"], "its parts are graph, inputs, config"),
    ):
        result = run(filled, *arguments)
        assert result.exit_code == 1 and words in result.stderr


def test_stats_say_how_it_is_used(filled: CacheStore) -> None:
    output = run(filled, "stats").output
    assert "4 under 3 keys" in output and "3 of level 1, 1 of level 2" in output and "1 from 1f2e" in output
    assert "60% of 5 looks" in output and "10.0 MB" in output
    found = printed(filled, "stats")
    assert (found["entries"], found["hits"], found["misses"]) == (4, 3, 2)
    assert found["folder"] == str(filled.folder) and found["levels"] == {"1": 3, "2": 1}


def test_why_says_which_part_differed(filled: CacheStore) -> None:
    output = run(filled, "why").output
    assert output.index("novel") < output.index("relu_again")
    assert "no entry had a graph like this one" in output
    assert "part config differed" in output and "graph differed" not in output
    lines = [line.strip() for line in output.splitlines()]
    assert "-llvm_opt_level=1" in lines and "+llvm_opt_level=2" in lines and "target_cpu=None" in lines
    assert key_of("aten.relu(x)").digest[:10] in output
    (miss,) = printed(filled, "why", "relu")
    assert miss["nearest"] == key_of("aten.relu(x)").digest and not miss["kept"]
    assert [one["part"] for one in miss["differences"]] == ["config"]
    (miss,) = printed(filled, "why", miss["key"][:9])
    assert miss["name"] == "relu_again"
    assert "no miss of 'tanh' is recorded" in run(filled, "why", "tanh").output


def test_why_says_when_guards_failed_and_what_was_kept_since(filled: CacheStore) -> None:
    key = key_of("aten.tanh(x)")
    filled.record_miss(key, filled.nearest(key), name="larger")
    output = run(filled, "why", "larger").output
    assert "no entry's guards held" in output and "is kept since" in output


def test_clear_asks_first(filled: CacheStore) -> None:
    assert run(filled, "clear", input="n\n").exit_code == 1
    assert len(printed(filled, "ls")) == 4
    assert "deleted 4 entries" in run(filled, "clear", input="y\n").output
    assert printed(filled, "ls") == []
    assert "deleted 0 entries" in run(filled, "clear", "--yes").output


def test_gc_makes_room(filled: CacheStore) -> None:
    assert "deleted 0 entries" in run(filled, "gc").output
    output = run(filled, "gc", "--limit", "0").output
    assert "deleted 4 entries" in output and "0 entries" in output


def test_a_cache_that_cannot_be_used_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "file").write_text("")
    for command in ("ls", "stats", "why", "gc", "clear"):
        result = run(CacheStore(tmp_path / "file"), command)
        assert result.exit_code == 1 and "cannot be used" in result.stderr and "to do:" in result.stderr
