"""Keys: what makes two of them the same, and what is said of the difference."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze.cache.keys import Key, differences, explain

names = st.text(min_size=1, max_size=6)
keys = st.dictionaries(names, st.text(max_size=12), max_size=4).map(Key.of)


@given(keys, keys)
def test_keys_are_the_same_if_their_parts_are(a: Key, b: Key) -> None:
    same = dict(a.parts) == dict(b.parts)
    assert (a.digest == b.digest) == same
    assert (a == b) == same
    assert (not differences(a, b)) == same
    assert not same or hash(a) == hash(b)


@given(keys)
def test_the_order_of_the_parts_does_not_count(key: Key) -> None:
    assert Key(tuple(reversed(key.parts))).digest == key.digest


def test_where_one_part_ends_is_part_of_the_digest() -> None:
    spellings = [{"ab": "c"}, {"a": "bc"}, {"a": "b", "c": ""}, {"a": "", "b": "c"}, {"abc": ""}, {}]
    assert len({Key.of(parts).digest for parts in spellings}) == len(spellings)


def test_the_digest_is_the_same_in_every_process_and_version() -> None:
    key = Key.of({"graph": "return x", "inputs": "f32[2]"})
    assert key.digest == "ad60ca7e8d09ac5353e29ce26cecf49cd7c874450101f26aad1dc29e746600f2"


def test_a_name_stands_once() -> None:
    with pytest.raises(ValueError, match="a part twice"):
        Key((("graph", "a"), ("graph", "b")))


def test_undecodable_text_has_a_digest() -> None:
    assert Key.of({"path": "\udcff"}).digest != Key.of({"path": "?"}).digest


def test_short_parts_are_shown_whole() -> None:
    old = Key.of({"graph": "g", "versions.torch": "2.12", "gone": "1"})
    new = Key.of({"graph": "g", "versions.torch": "2.13", "added": "2"})
    assert [one.name for one in differences(old, new)] == ["versions.torch", "added", "gone"]
    assert explain(old, new) == (
        "part versions.torch differed: 2.12 -> 2.13; part added differed: is new: 2; "
        "part gone differed: is no longer there: 1"
    )
    assert differences(old, new)[0].lines == ("-2.12", "+2.13")


def test_long_parts_are_shown_where_they_differ_first() -> None:
    lines = [f"%{i} = aten.relu(%{i - 1})" for i in range(500)]
    changed = [*lines[:300], "%300 = aten.gelu(%299)", *lines[301:]]
    old, new = (Key.of({"graph": "\n".join(text)}) for text in (lines, changed))
    (found,) = differences(old, new)
    assert found.brief == "line 301: %300 = aten.relu(%299) -> %300 = aten.gelu(%299)"
    assert found.lines == (
        "@ from line 300",
        " %299 = aten.relu(%298)",
        "-%300 = aten.relu(%299)",
        "+%300 = aten.gelu(%299)",
        " %301 = aten.relu(%300)",
    )


def test_lines_that_look_like_the_head_of_a_diff_are_shown() -> None:
    (found,) = differences(Key.of({"graph": "a\n-- x\nb"}), Key.of({"graph": "a\n++ x\nb"}))
    assert found.lines == ("@ from line 1", " a", "--- x", "+++ x", " b")


def test_a_difference_is_of_bounded_size_and_found_fast() -> None:
    old, new = (Key.of({"graph": "\n".join(f"{word} {i}" * 40 for i in range(20_000))}) for word in "ab")
    start = time.perf_counter()
    (found,) = differences(old, new)
    assert len(found.brief) < 400
    assert len(found.lines) < 20 and all(len(line) < 200 for line in found.lines)
    assert time.perf_counter() - start < 5


def test_equal_keys_with_nothing_found_are_a_matter_of_guards() -> None:
    key = Key.of({"graph": "g"})
    assert explain(key, key) == "every part is the same, but no entry's guards hold"
