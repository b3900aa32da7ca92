"""Text to Python's syntax tree, without a risk: nothing is run, and no text makes Python's own parser run out
of stack. Whoever walks the tree takes the forms that it knows, and refuses all others by `Source.fail`."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from braze.errors import BrazeError, ParseError

__all__ = ["Source"]

MAX_LENGTH: Final = 1 << 25
"""Characters of a text."""
MAX_DEPTH: Final = 40
"""Brackets in each other."""
MAX_CHAIN: Final = 200
"""Signs between two commas: Python makes ``a + b + c + ...`` a tree as deep as it is long."""

_MARK = re.compile(
    r"""(?<![\w"'])(?:"(?:[^"\\\n]|\\(?:[\\'"abfnrtv]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000?[0-9a-f]{5,6}))*"
                    | '(?:[^'\\\n]|\\(?:[\\'"abfnrtv]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000?[0-9a-f]{5,6}))*')
    | \#[^\n]* | [()\[\]{},\n] | [0-9](?:_?[0-9]){40,} | [-+*/%@&|^<>.~]+ | ["'\\\r\f\0]""",
    re.VERBOSE | re.ASCII,
)
_WRONG: Final = {
    **dict.fromkeys("\"'", "not a string"),
    **dict.fromkeys("\\\r\f\0", "nothing in a graph is written like this"),
    **dict.fromkeys("0123456789", "a number of more than 40 digits"),
}


class Source:
    """A text, and ``body``, the statements that it consists of. Raises `ParseError`."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self._bound(text)
        line, column = 1, 0
        try:
            self.body = ast.parse(text).body
        except SyntaxError as error:
            line, column, what = error.lineno or 1, (error.offset or 1) - 1, error.msg
        except (ValueError, RecursionError, MemoryError) as error:
            what = f"Python cannot read this: {error}"
        else:
            return
        self.fail_at(line, column, what)

    def fail(self, at: ast.AST | None, what: str) -> NoReturn:
        """Raise `ParseError`: line, column, and the line with a mark below. Without a place: the end."""
        if at is None:
            self.fail_at(len(self.lines), len(self.lines[-1]), what)
        place: Any = at
        before = self.lines[place.lineno - 1].encode()[: place.col_offset]
        self.fail_at(place.lineno, len(before.decode(errors="replace")), what)

    @contextmanager
    def at(self, place: ast.AST | None, what: str) -> Iterator[None]:
        """What anybody raises inside of the block is a `ParseError` at this place."""
        try:
            yield
        except ParseError:
            raise
        except Exception as error:
            reason = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
            self.fail(place, f"{what}: {reason}")

    def segment(self, e: ast.expr) -> str:
        """The text of an expression that stands on one line."""
        line = self.lines[e.lineno - 1]
        return line[e.col_offset : e.end_col_offset] if line.isascii() and e.end_lineno == e.lineno else ""

    def comment_above(self, at: ast.stmt | ast.arg) -> str | None:
        """The comment in the line above what begins a line; None where there is none."""
        first: Any = next(iter(getattr(at, "decorator_list", ())), at)
        above, line = self.lines[first.lineno - 2].lstrip(), self.lines[first.lineno - 1]
        begins = not line[: first.col_offset].strip(" @")
        return above[1:].strip() if begins and above.startswith("#") else None

    def fail_at(self, line: int, column: int, what: str) -> NoReturn:
        """Raise `ParseError` for a line, from 1, and a column, from 0."""
        shown = self.lines[min(line, len(self.lines)) - 1]
        first = max(0, column - 60)
        quoted = "".join(c if c.isprintable() else "?" for c in shown[first : column + 60])
        mark = " " * (column - first) + "^"
        raise ParseError(f"line {line}, column {column + 1}: {what}\n    {quoted}\n    {mark}")

    def _bound(self, text: str) -> None:
        """Refuse what is too long or too deep for Python's parser, and strings that are not plain ones."""
        if len(text) > MAX_LENGTH:
            self.fail_at(1, 0, f"a text of more than {MAX_LENGTH} characters")
        counts = [0]
        for number, mark in enumerate(_MARK.findall(text)):
            first = mark[0]
            wrong = ""
            if first in ",\n":
                counts[-1] = 0
            elif first in "([{":
                counts[-1] += 1
                counts.append(0)
            elif first in ")]}":
                if len(counts) > 1:
                    counts.pop()
            elif first not in "#\"'" or len(mark) == 1:
                counts[-1] += len(mark)
                wrong = _WRONG.get(first, "")
            if wrong or len(counts) > MAX_DEPTH or counts[-1] > MAX_CHAIN:
                at = next(itertools.islice(_MARK.finditer(text), number, None)).start()
                line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at) - 1
                self.fail_at(line, column, wrong or "this is nested too deeply")
