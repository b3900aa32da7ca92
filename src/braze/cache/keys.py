"""What a compiled graph is looked up by: named texts, so that a miss can say which of them differed."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

__all__ = ["GRAPH", "INPUTS", "Difference", "Key", "differences", "explain", "text_digest"]

GRAPH: Final = "graph"
"""The part that holds the graph's canonical text."""
INPUTS: Final = "inputs"
"""The part that holds what is known of the inputs: dtypes, sizes, strides, devices."""

SHORT: Final = 100
"""Characters up to which a part is shown whole."""
_EXCERPT_LINES: Final = 14
_WINDOW: Final = 60
_WIDTH: Final = 160


def text_digest(text: str) -> bytes:
    """SHA-256 of a text, 32 bytes. Lone surrogates (of undecodable paths) have a digest, too."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, eq=False)
class Key:
    """A set of named texts, in the order in which people read them.

    Two keys are the same if they have the same names with the same texts: the order does not count. Names are
    words such as ``graph``, ``inputs``, ``config``, ``versions.torch``, ``target.cpu``, each of them once
    (else `ValueError`).
    """

    parts: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if len({name for name, _ in self.parts}) != len(self.parts):
            raise ValueError(f"a key names a part twice: {', '.join(name for name, _ in self.parts)}")

    @classmethod
    def of(cls, parts: Mapping[str, str] | Iterable[tuple[str, str]]) -> Key:
        """A key of a mapping from name to text, or of such pairs."""
        return cls(tuple(parts.items() if isinstance(parts, Mapping) else parts))

    @cached_property
    def part_digests(self) -> Mapping[str, bytes]:
        """The SHA-256 (32 bytes) of each part's text, by its name."""
        return {name: text_digest(text) for name, text in self.parts}

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits: SHA-256 over the names in order, each with its length, and the parts'
        digests. No two different keys are hashed as the same bytes."""
        whole = hashlib.sha256(b"braze key 1\n")
        for name, part in sorted(self.part_digests.items()):
            spelled = name.encode("utf-8", "surrogatepass")
            whole.update(len(spelled).to_bytes(4, "little") + spelled + part)
        return whole.hexdigest()

    def text(self, name: str) -> str | None:
        """The text of a part, or None if there is no such part."""
        return dict(self.parts).get(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class Difference:
    """A part in which two keys differ. ``old`` or ``new`` is None where a key has no such part."""

    name: str
    old: str | None
    new: str | None

    @property
    def brief(self) -> str:
        """The difference in one line: both texts if they are short, else the first lines that differ."""
        if self.old is None:
            return f"is new: {_shortened(self.new or '')}"
        if self.new is None:
            return f"is no longer there: {_shortened(self.old)}"
        if _is_short(self.old) and _is_short(self.new):
            return f"{self.old or 'nothing'} -> {self.new or 'nothing'}"
        old, new, same = _split(self.old, self.new)
        before, after = old[same:] or ["the end"], new[same:] or ["the end"]
        return f"line {same + 1}: {_shortened(before[0])} -> {_shortened(after[0])}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The difference as lines: those of the old text begin with ``-``, those of the new one with ``+``,
        those of both with a blank, and a line that begins with ``@`` says where. Long differences are cut."""
        if self.old is None or self.new is None or (_is_short(self.old) and _is_short(self.new)):
            gone = () if self.old is None else tuple(f"-{line}" for line in _cut(self.old.splitlines()))
            here = () if self.new is None else tuple(f"+{line}" for line in _cut(self.new.splitlines()))
            return gone + here
        old, new, same = _split(self.old, self.new)
        start = max(same - 1, 0)
        # Only a window is compared: the comparison of two whole graphs can take seconds.
        window = slice(start, start + _WINDOW)
        found = list(difflib.unified_diff(old[window], new[window], n=1, lineterm=""))
        body = [text for text in found[2:] if not text.startswith("@@")]  # the first two name the files
        return (f"@ from line {start + 1}", *_cut(body))


def _is_short(text: str) -> bool:
    return len(text) <= SHORT and "\n" not in text


def _shortened(text: str) -> str:
    first, *rest = text.splitlines() or [""]
    return first if len(first) <= SHORT and not rest else first[: SHORT - 2] + " …"


def _cut(lines: list[str]) -> list[str]:
    shown = [line if len(line) <= _WIDTH else line[: _WIDTH - 2] + " …" for line in lines[:_EXCERPT_LINES]]
    return shown + ([f" … and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else [])


def _split(old: str, new: str) -> tuple[list[str], list[str], int]:
    """The lines of both texts, and how many they have in common at the start."""
    before, after = old.splitlines(), new.splitlines()
    same = 0
    for a, b in zip(before, after):
        if a != b:
            break
        same += 1
    return before, after, same


def differences(old: Key, new: Key) -> tuple[Difference, ...]:
    """The parts in which two keys differ, in the order of ``new``; what only ``old`` has comes last."""
    before, after = dict(old.parts), dict(new.parts)
    names = [*after, *(name for name in before if name not in after)]
    return tuple(
        Difference(name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )


def explain(old: Key, new: Key) -> str:
    """In one line, which parts of ``new`` differ from those of ``old``."""
    found = differences(old, new)
    if not found:
        return "every part is the same, but no entry's guards hold"
    return "; ".join(f"part {one.name} differed: {one.brief}" for one in found)
