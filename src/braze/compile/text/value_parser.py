"""Reads arguments and metadata back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import sympy
import torch
from torch.fx import Node

from braze._torch import shape_envs
from braze._torch.devices import HOST_DEVICE
from braze._torch.fakes import make_fake
from braze.compile.text.expression_parser import parse_condition, parse_expression
from braze.compile.text.lexer import Cursor, Token
from braze.compile.text.values import contiguous_strides
from braze.compile.text.vocabulary import ATTRIBUTES, DTYPES, function_named

__all__ = ["TensorType", "Trace", "ValueParser"]

MAX_DEPTH = 40
_KINDS: Mapping[str, type] = {"int": int, "float": float, "bool": bool}
_WORDS: Mapping[str, Any] = {"None": None, "True": True, "False": False, "inf": math.inf, "nan": math.nan}


@dataclass(frozen=True)
class Trace:
    """What fake values are made with: a mode, its ShapeEnv, and the symbols that were declared. `made`: the
    values of nodes so far. Nobody writes to those, so that nodes of one type may have one value."""

    mode: Any
    env: Any
    symbols: Mapping[str, sympy.Symbol]
    made: dict[TensorType, torch.Tensor] = field(default_factory=dict)

    def number(self, expression: Any, kind: type = int) -> Any:
        """A plain number, or the symbolic one, of the given kind."""
        if not isinstance(expression, sympy.Basic):
            return kind(expression)
        if not expression.free_symbols:
            return kind(expression)
        return shape_envs.symbolic(self.env, expression, kind)


@dataclass(frozen=True)
class TensorType:
    """A tensor's metadata as read: integers and sympy expressions."""

    dtype: torch.dtype
    size: tuple[Any, ...]
    stride: tuple[Any, ...]
    offset: Any
    device: torch.device

    def make(
        self, trace: Trace, shares: torch.Tensor | None = None, grad: bool = False, parameter: bool = False
    ) -> torch.Tensor:
        """A fake tensor of this kind. Raises what PyTorch raises for impossible ones."""
        return make_fake(
            trace.mode,
            self.dtype,
            [trace.number(n) for n in self.size],
            [trace.number(n) for n in self.stride],
            trace.number(self.offset),
            self.device,
            shares=shares,
            requires_grad=grad,
            parameter=parameter,
        )


class ValueParser:
    """Reads the values of one graph. `nodes` are those that were defined so far, by name."""

    def __init__(self, cursor: Cursor, trace: Trace) -> None:
        self.cursor = cursor
        self.trace = trace
        self.nodes: dict[str, Node] = {}
        self._depth = 0

    # -- arguments --------------------------------------------------------------------------------------
    def argument(self) -> Any:
        """One argument. Raises `ParseError`."""
        token = self.cursor.next()
        reader = _READERS.get(token.kind)
        if reader is None:
            self.cursor.fail(f"a value was expected, not {token.text!r}", token)
        return reader(self, token)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """All that a call takes, from after its opening parenthesis to the closing one."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        while not self.cursor.accept(")"):
            value, keyword = self._keyword()
            if keyword is None:
                if kwargs:
                    self.cursor.fail("an argument without a name stands behind one with a name")
                args.append(value)
            elif keyword.text in kwargs:
                self.cursor.fail(f"{keyword.text} is given twice", keyword)
            else:
                kwargs[keyword.text] = value
            self._comma(")")
        return tuple(args), kwargs

    def _keyword(self) -> tuple[Any, Token | None]:
        token = self.cursor.token
        if token.kind == "word" and self.cursor.after.text == "=":
            self.cursor.next()
            self.cursor.next()
            return self.argument(), token
        return self.argument(), None

    def _comma(self, closing: str) -> None:
        """A comma, unless the list ends here."""
        if not self.cursor.accept(",") and self.cursor.token.text != closing:
            self.cursor.expected(f"',' or {closing!r}")

    def _items(self, closing: str, read: Callable[[], Any]) -> tuple[list[Any], bool]:
        """What stands before `closing`, and whether the last of it had a comma."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.cursor.fail("this is nested too deeply")
        items: list[Any] = []
        comma = False
        while not self.cursor.accept(closing):
            items.append(read())
            comma = self.cursor.token.text == ","
            self._comma(closing)
        self._depth -= 1
        return items, comma

    def _tuple(self, token: Token, read: Callable[[], Any]) -> tuple[Any, ...]:
        items, comma = self._items(")", read)
        if len(items) == 1 and not comma:
            self.cursor.fail("a tuple of one is written (x,)", token)
        return tuple(items)

    def _dict(self) -> dict[Any, Any]:
        def pair() -> tuple[Any, Any]:
            key = self.argument()
            if type(key) not in (str, int):
                self.cursor.fail("a key is a string or an integer")
            self.cursor.require(":")
            return key, self.argument()

        return dict(self._items("}", pair)[0])

    def _sign(self, token: Token) -> Any:
        if token.text == "(":
            return self._tuple(token, self.argument)
        if token.text == "[":
            return self._items("]", self.argument)[0]
        if token.text == "{":
            return self._dict()
        if token.text == "...":
            return ...
        if token.text == "-":
            value = self.argument()
            if type(value) in (int, float):
                return -value
            return self.cursor.fail("a number was expected behind '-'", token)
        return self.cursor.fail(f"a value was expected, not {token.text!r}", token)

    def _word(self, token: Token) -> Any:
        if token.text in _WORDS:
            return _WORDS[token.text]
        if token.text in _KINDS and self.cursor.accept("{"):
            return self._symbolic(token.text)
        if token.text in ("complex", "slice") and self.cursor.accept("("):
            parts, _ = self._items(")", self.argument)
            try:
                if token.text == "slice":
                    return slice(*parts) if len(parts) == 3 else self._no_such(token)
                return complex(*(float(p) for p in parts)) if len(parts) == 2 else self._no_such(token)
            except TypeError:
                return self._no_such(token)
        if token.text in DTYPES:
            return DTYPES[token.text]
        if token.text in ATTRIBUTES:
            return ATTRIBUTES[token.text]
        return self._no_such(token)

    def _no_such(self, token: Token) -> NoReturn:
        self.cursor.fail(f"no value is written like {token.text!r}", token)

    def _symbolic(self, kind: str) -> Any:
        start = self.cursor.token
        parse = parse_condition if kind == "bool" else parse_expression
        expression = parse(self.cursor, self.trace.symbols)
        self.cursor.require("}")
        if kind == "int" and expression.is_integer is False:
            self.cursor.fail("this is not an integer", start)
        return self.trace.number(expression, _KINDS[kind])

    def _node(self, token: Token) -> Node:
        node = self.nodes.get(token.text[1:])
        if node is None:
            self.cursor.fail(f"{token.text} is used before it is defined", token)
        return node

    def _string(self, token: Token) -> str:
        try:
            value = json.loads(token.text)
        except ValueError as error:
            self.cursor.fail(f"not a string: {error}", token)
        return str(value)

    def operator(self, token: Token) -> Any:
        """The function that a token names."""
        found = function_named(token.text)
        if found is None:
            self.cursor.fail(f"there is no operator {token.text} in this process", token)
        return found

    def _device(self, token: Token) -> torch.device:
        try:
            return torch.device(token.text[1:])
        except RuntimeError:
            self.cursor.fail(f"there is no device {token.text[1:]!r}", token)

    # -- metadata ---------------------------------------------------------------------------------------
    def metadata(self) -> Any:
        """A value's metadata as it is written: `TensorType` for tensors, values for the rest."""
        token = self.cursor.token
        if token.kind == "word" and token.text in DTYPES and self.cursor.after.text == "[":
            return self.tensor()
        if token.text == "(" and token.kind == "sign":
            self.cursor.next()
            return self._tuple(token, self.metadata)
        if self.cursor.accept("["):
            return self._items("]", self.metadata)[0]
        value = self.argument()
        if isinstance(value, (Node, torch.dtype, torch.device, slice)) or callable(value):
            self.cursor.fail("this is not what a value can be", token)
        return value

    def tensor(self) -> TensorType:
        """A tensor's metadata."""
        word = self.cursor.take("word", "an element type")
        if word.text not in DTYPES:
            self.cursor.fail(f"there is no element type {word.text!r}", word)
        self.cursor.require("[")
        size = self._sizes("]")
        stride, offset, device = contiguous_strides(size), 0, HOST_DEVICE
        if self.cursor.accept("strides"):
            self.cursor.require("(")
            start = self.cursor.token
            stride = self._sizes(")")
            if len(stride) != len(size):
                self.cursor.fail(f"{len(size)} strides were expected, not {len(stride)}", start)
        if self.cursor.accept("offset"):
            offset = self._size()
        if self.cursor.token.kind == "at":
            device = self._device(self.cursor.next())
        return TensorType(DTYPES[word.text], size, stride, offset, device)

    def strides(self) -> tuple[Any, ...]:
        """Strides in parentheses: integers and symbolic ones."""
        self.cursor.require("(")
        return tuple(self.trace.number(n) for n in self._sizes(")"))

    def _sizes(self, closing: str) -> tuple[Any, ...]:
        return tuple(self._items(closing, self._size)[0])

    def _size(self) -> Any:
        token = self.cursor.token
        if token.kind == "integer" and self.cursor.after.text in (",", "]", ")"):
            self.cursor.next()
            return int(token.text)
        found = parse_expression(self.cursor, self.trace.symbols)
        if found.is_integer is False:
            self.cursor.fail("a size is an integer", token)
        return int(found) if found.is_Integer else found

    def realised(self, value: Any) -> Any:
        """Metadata as read, with fake tensors in the place of their types."""
        if isinstance(value, TensorType):
            found = self.trace.made.get(value)
            if found is None:
                found = self.trace.made[value] = value.make(self.trace)
            return found
        if isinstance(value, (tuple, list)):
            return type(value)(self.realised(v) for v in value)
        return value


_READERS: dict[str, Callable[[ValueParser, Token], Any]] = {
    "node": ValueParser._node,
    "integer": lambda parser, token: int(token.text),
    "float": lambda parser, token: float(token.text),
    "string": ValueParser._string,
    "operator": ValueParser.operator,
    "at": ValueParser._device,
    "word": ValueParser._word,
    "sign": ValueParser._sign,
}
