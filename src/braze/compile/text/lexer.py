"""Text to tokens, and a cursor over them that says where it stands when something is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from braze.errors import ParseError

__all__ = ["Cursor", "Kind", "Token", "tokens_of"]

Kind = Literal[
    "word",
    "node",
    "at",
    "operator",
    "integer",
    "float",
    "string",
    "hash",
    "sign",
    "comment",
    "newline",
    "end",
]

_TOKEN = re.compile(
    r"""[ \t]*(?:
    (?P<node>%[A-Za-z_]\w*)
  | (?P<operator>[A-Za-z]\w*::[A-Za-z_][\w.]*)
  | (?P<hash>sha256:[0-9a-f]{64})
  | (?P<word>[A-Za-z_]\w*)
  | (?P<float>\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
  | (?P<integer>\d+)
  | (?P<string>"(?:[^"\\\n]|\\.)*")
  | (?P<at>@\w[\w.]*(?::\d+)?)
  | (?P<comment>\#[^\n]*)
  | (?P<newline>\n)
  | (?P<sign>//|\*\*|==|!=|<=|>=|\.\.\.|[-+*%<>=()\[\]{},:])
  | (?P<end>\Z)
    )""",
    re.VERBOSE | re.ASCII,
)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
MAX_DIGITS = 40
"""No number in a graph is longer; Python takes quadratic time to read longer ones."""


@dataclass(frozen=True)
class Token:
    """`start`: its offset in the whole text."""

    kind: str
    text: str
    start: int


def fail(text: str, at: int, what: str) -> NoReturn:
    """Raise `ParseError` for an offset in a text: line, column, and the line itself with a mark below."""
    at = min(at, len(text))
    line = text.count("\n", 0, at) + 1
    begin = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    shown = text[begin : len(text) if end < 0 else end]
    column = at - begin
    first = max(0, column - 60)
    quoted = "".join(c if c.isprintable() else "?" for c in shown[first : column + 60])
    mark = " " * (column - first) + "^"
    raise ParseError(f"line {line}, column {column + 1}: {what}\n    {quoted}\n    {mark}")


def tokens_of(text: str, start: int, end: int) -> list[Token]:
    """The tokens of a part of a text, with one of the kind "end" behind them. Line ends inside brackets are
    none. Raises `ParseError`."""
    found: list[Token] = []
    depth, at, match = 0, start, _TOKEN.match
    while True:
        token = match(text, at, end)
        if token is None:
            blank = re.compile(r"[ \t]*").match(text, at, end)
            fail(text, at if blank is None else blank.end(), "nothing in a graph is written like this")
        kind, at = token.lastgroup or "", token.end()
        content = token[kind]
        begin = token.start(kind)
        if kind == "end":
            found.append(Token(kind, content, begin))
            return found
        if kind == "sign":
            depth += (content in _OPENING) - (content in _CLOSING)
        elif kind in ("integer", "float") and len(content) > MAX_DIGITS:
            fail(text, begin, f"a number of more than {MAX_DIGITS} digits")
        if kind != "newline" or depth <= 0:
            found.append(Token(kind, content, begin))


class Cursor:
    """A place among the tokens of a part of a text."""

    def __init__(self, text: str, start: int = 0, end: int | None = None) -> None:
        self.text = text
        self._tokens = tokens_of(text, start, len(text) if end is None else end)
        self._at = 0

    @property
    def token(self) -> Token:
        """The next token, which stays the next one."""
        return self._tokens[self._at]

    @property
    def after(self) -> Token:
        """The token behind the next one."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    def fail(self, what: str, token: Token | None = None) -> NoReturn:
        """Raise `ParseError` at a token, the next one unless given."""
        fail(self.text, (token or self.token).start, what)

    def expected(self, what: str) -> NoReturn:
        """Raise `ParseError`: something else stands here."""
        token = self.token
        seen = {"newline": "the end of the line", "end": "the end"}.get(token.kind, repr(token.text[:40]))
        self.fail(f"{what} was expected, not {seen}")

    def next(self) -> Token:
        """Take the next token, whatever it is."""
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def take(self, kind: Kind, what: str) -> Token:
        """Take a token of some kind. Raises `ParseError`, which says `what` was expected."""
        if self.token.kind != kind:
            self.expected(what)
        return self.next()

    def accept(self, text: str) -> bool:
        """Take the next token if it is this sign or word."""
        token = self._tokens[self._at]
        if token.text == text and token.kind in ("sign", "word"):
            self._at += 1
            return True
        return False

    def require(self, text: str) -> None:
        """Take this sign or word."""
        if not self.accept(text):
            self.expected(repr(text))

    def integer(self, what: str) -> int:
        """Take an integer, with its sign."""
        negative = self.accept("-")
        value = int(self.take("integer", what).text)
        return -value if negative else value

    def end_line(self) -> str:
        """Take the end of the line, and the comment before it, which is returned without its mark."""
        comment = self.next().text[1:].strip() if self.token.kind == "comment" else ""
        if self.token.kind not in ("newline", "end"):
            self.expected("the end of the line")
        self.next()
        return comment

    def skip_blank(self) -> bool:
        """Skip empty lines and lines of comments; whether something follows."""
        while self.token.kind in ("newline", "comment"):
            self.next()
        return self.token.kind != "end"
