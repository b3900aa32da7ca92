"""A printed request, read back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch.fx import GraphModule

from braze._torch import shape_envs, tracing
from braze._torch.fakes import new_fake_mode
from braze._torch.shape_envs import SymbolFacts
from braze.compile.fx_compile import CompileRequest, GraphKind
from braze.compile.text.constants import content_hash, with_strides
from braze.compile.text.expression_parser import parse_condition
from braze.compile.text.graph_parser import GraphParser
from braze.compile.text.lexer import Cursor, fail
from braze.compile.text.value_parser import Trace, ValueParser
from braze.compile.text.vocabulary import FORMAT
from braze.config import Config
from braze.errors import BrazeError, ParseError

__all__ = ["parse_request", "sections_of"]

_HEADING = re.compile(r"^\[([^\]\n]+)\][ \t]*$", re.MULTILINE)
_HEADER = {"kind": "kind", "graph": "graph_id", "visible outputs": "visible_outputs"}
_OURS = frozenset({"request", "config", "symbols", "where", "constants", "promised strides", "graph"})


def parse_request(text: str, constants: Mapping[str, torch.Tensor] | None = None) -> CompileRequest:
    """The request that `text` is the print of, with a trace of its own: symbols, ranges and hints are those
    of the text, and so is the metadata of every node. `constants` are the tensors that were printed with it.

    Raises `ParseError`, which names line and column, for a text that is damaged, or that needs operators
    which this process does not have."""
    sections = _split(text)
    at = 0
    try:
        return _Request(text, sections, constants or {}).parse()
    except BrazeError:
        raise
    except Exception as error:  # PyTorch or sympy refused what the text says
        at = max((s.start for s in sections.values()), default=0)
        fail(text, at, f"not a graph: {type(error).__name__}: {error}")


def sections_of(text: str) -> dict[str, list[str]]:
    """The sections that somebody sent along with a request, as lines by name. Raises `ParseError`."""
    found = {}
    for name, section in _split(text).items():
        if not _is_ours(name):
            lines = text[section.start : section.end].strip("\n").split("\n")
            found[name] = [line.removeprefix("  ") for line in lines if line]
    return found


@dataclass(frozen=True)
class _Section:
    """Offsets of a section's content."""

    start: int
    end: int


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith("graph ")


def _split(text: str) -> dict[str, _Section]:
    if text.split("\n", 1)[0].rstrip() != FORMAT:
        fail(text, 0, f"a request begins with the line {FORMAT!r}")
    found: dict[str, _Section] = {}
    headings = list(_HEADING.finditer(text))
    before = text[len(FORMAT) : headings[0].start() if headings else len(text)]
    if before.strip():
        fail(text, len(FORMAT) + 1, "a section was expected")
    for heading, following in zip(headings, [*headings[1:], None][: len(headings)], strict=True):
        name = heading[1].strip()
        if name in found:
            fail(text, heading.start(), f"there are two sections {name!r}")
        found[name] = _Section(heading.end(), len(text) if following is None else following.start())
    return found


class _Request:
    """One text being read, section by section."""

    def __init__(
        self, text: str, sections: Mapping[str, _Section], constants: Mapping[str, torch.Tensor]
    ) -> None:
        self.text = text
        self.sections = sections
        self.given = constants
        self.facts: dict[str, Any] = {}

    def parse(self) -> CompileRequest:
        header = self._header()
        config = self._config()
        trace = self._trace()
        with shape_envs.suppressed_guards(trace.env):
            attributes: dict[str, Any] = dict(self._constants(trace))
            main = self._graphs(trace, attributes)
            gm = main.gm
            self._promises(trace, gm)
        return CompileRequest(
            gm=gm,
            shape_env=trace.env,
            static_inputs=frozenset(main.static),
            config=config,
            **header,
        )

    def _cursor(self, name: str) -> Cursor | None:
        section = self.sections.get(name)
        return None if section is None else Cursor(self.text, section.start, section.end)

    def _needed(self, name: str) -> Cursor:
        cursor = self._cursor(name)
        if cursor is None:
            fail(self.text, len(self.text), f"the section [{name}] is missing")
        return cursor

    def _header(self) -> dict[str, Any]:
        cursor = self._needed("request")
        found: dict[str, Any] = {}
        while cursor.skip_blank():
            start = cursor.token
            words = []
            while cursor.token.kind == "word":
                words.append(cursor.next().text)
            cursor.require("=")
            key = _HEADER.get(" ".join(words))
            if key is None or key in found:
                cursor.fail("a request has a kind, a graph and visible outputs", start)
            if key == "kind":
                word = cursor.take("word", "a kind of graph")
                if word.text not in get_args(GraphKind):
                    cursor.fail(f"there are no {word.text} graphs", word)
                found[key] = word.text
            else:
                found[key] = cursor.integer("a number")
            cursor.end_line()
        if len(found) != 3:
            cursor.fail("a request has a kind, a graph and visible outputs")
        return found

    def _config(self) -> Config:
        cursor = self._cursor("config")
        config = Config()
        if cursor is None:
            return config
        values = ValueParser(cursor, Trace(None, None, {}))
        while cursor.skip_blank():
            name = cursor.take("word", "an option")
            cursor.require("=")
            try:
                config = config.replace(**{name.text: values.argument()})
            except ParseError:
                raise
            except BrazeError as error:
                cursor.fail(error.what, name)
            cursor.end_line()
        return config

    def _trace(self) -> Trace:
        facts: dict[str, SymbolFacts] = {}
        cursor = self._cursor("symbols")
        while cursor is not None and cursor.skip_blank():
            start = cursor.token
            fact = _declaration(cursor)
            if fact.name in facts:
                cursor.fail(f"{fact.name} is declared twice", start)
            facts[fact.name] = fact
        env, symbols = shape_envs.new_shape_env(facts.values())
        cursor = self._cursor("where")
        while cursor is not None and cursor.skip_blank():
            start = cursor.token
            condition = parse_condition(cursor, symbols)
            if condition.free_symbols:
                try:
                    shape_envs.assume(env, condition)
                except Exception as error:
                    cursor.fail(f"PyTorch cannot assume this: {error}", start)
            cursor.end_line()
        return Trace(new_fake_mode(env), env, symbols)

    def _constants(self, trace: Trace) -> dict[str, torch.Tensor]:
        cursor = self._cursor("constants")
        found: dict[str, torch.Tensor] = {}
        while cursor is not None and cursor.skip_blank():
            token = cursor.take("at", "a constant")
            path = token.text[1:]
            cursor.require("=")
            kind = ValueParser(cursor, trace).tensor()
            wanted = cursor.take("hash", "the hash of a constant")
            stored = self.given.get(path)
            if stored is None or path in found:
                cursor.fail(f"the constant {path} is given {'twice' if path in found else 'nowhere'}", token)
            if stored.dtype is not kind.dtype or tuple(stored.shape) != kind.size:
                cursor.fail(f"the constant {path} that was given is another one", token)
            stored = stored.contiguous()
            if content_hash(stored) != wanted.text.removeprefix("sha256:"):
                cursor.fail(f"the constant {path} that was given has other contents", wanted)
            try:
                found[path] = with_strides(stored, kind.stride)
            except ValueError as error:
                cursor.fail(str(error), token)
            cursor.end_line()
        return found

    def _graphs(self, trace: Trace, attributes: dict[str, Any]) -> GraphParser:
        # a graph is needed by those whose names are shorter
        names = [n for n in self.sections if n.startswith("graph ")]
        for name in sorted(names, key=lambda n: -n.count(".")):
            path = name.removeprefix("graph ").strip()
            attributes[path] = GraphParser(self._needed(name), trace, path, attributes).parse().gm
        return GraphParser(self._needed("graph"), trace, "", attributes).parse()

    def _promises(self, trace: Trace, gm: GraphModule) -> None:
        promised = tracing.strides_of_outputs(gm)
        cursor = self._cursor("promised strides")
        while cursor is not None and cursor.skip_blank():
            cursor.require("output")
            start = cursor.token
            position = cursor.integer("the number of an output")
            cursor.require("=")
            if not 0 <= position < len(promised):
                cursor.fail(f"the graph has {len(promised)} outputs", start)
            none = cursor.accept("None")
            promised[position] = None if none else ValueParser(cursor, trace).strides()
            cursor.end_line()
        tracing.set_promised_strides(gm, promised)


def _declaration(cursor: Cursor) -> SymbolFacts:
    """One line of the section of symbols."""
    name = cursor.take("word", "a symbol")
    lower = upper = hint = None
    is_float = cursor.accept("float")
    if not is_float:
        cursor.require("in")
        if cursor.accept("("):
            cursor.require("-")
            cursor.require("inf")
        else:
            cursor.require("[")
            lower = cursor.integer("the least value")
        cursor.require(",")
        if cursor.accept("inf"):
            cursor.require(")")
        else:
            upper = cursor.integer("the greatest value")
            cursor.require("]")
        if lower is not None and upper is not None and lower > upper:
            cursor.fail(f"{name.text} has no value", name)
    size_like = cursor.accept("size")
    sign = "signed" if cursor.accept("signed") else "positive" if cursor.accept("positive") else None
    if cursor.accept("hint"):
        start = cursor.token
        hint = ValueParser(cursor, Trace(None, None, {})).argument()
        if type(hint) is not (float if is_float else int):
            cursor.fail("a hint is a number of the symbol's kind", start)
        if not is_float and ((lower is not None and hint < lower) or (upper is not None and hint > upper)):
            cursor.fail("the hint is out of range", start)
    if hint is None and re.fullmatch(r"(zuf|u)\d{1,9}", name.text) is None:
        cursor.fail("a symbol without a hint is called u0, u1, ... or zuf0, zuf1, ...", name)
    facts = SymbolFacts(name.text, lower, upper, hint, is_float, False, size_like)
    positive = facts.is_positive_by_name if sign is None else sign == "positive"
    cursor.end_line()
    return SymbolFacts(name.text, lower, upper, hint, is_float, positive, size_like)
