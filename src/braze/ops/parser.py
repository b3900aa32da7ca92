"""Reads the printed form of a kernel back: ``str(parse_kernel(str(k), dag)) == str(k)``.

Every line of a stage is Python in form (a call, a literal), so Python's own parser reads it; the names and
keywords that it may contain are those of the vocabulary. Nothing is evaluated.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from typing import cast

import torch

from braze._torch.devices import HOST
from braze.errors import BrazeError, ParseError
from braze.ops.dag import Dag, Node
from braze.ops.dtypes import BY_SHORT
from braze.ops.kernel import BufferArg, Kernel, Stage, Store, StoreMode
from braze.ops.vocabulary import COMBINING, OPS, REDUCTIONS
from braze.runtime.expr import Expr, Symbol
from braze.runtime.expr_parser import expr_from_ast, parse_expr

_HEAD = re.compile(
    r"kernel (?P<name>[\w.]+)\((?P<buffers>.*?)(?:; (?P<sizes>.*))?\)(?: on (?P<device>\w+))?:"
)
_BUFFER = re.compile(r"(?P<role>in|out|inout|local) (?P<name>\w+): (?P<type>\w+)\[(?P<numel>.*)\]")
_SIZE = re.compile(r"(?P<name>\w+) >= (?P<lower>-?\d+)|(?P<low>-?\d+) <= (?P<bounded>\w+) <= (?P<upper>.*)")
_WORDS = {"nan": math.nan, "inf": math.inf}


def parse_kernel(text: str, dag: Dag) -> Kernel:
    """The kernel that ``text`` is the print of, its nodes in ``dag``. Origins and sources are not printed, so
    it has none. Raises ``ParseError``, which names the line."""
    return _Parser(text, dag).kernel()


class _Parser:
    def __init__(self, text: str, dag: Dag) -> None:
        self.dag = dag
        self.lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.at = 0
        self.scope: dict[str, Symbol] = {}

    def kernel(self) -> Kernel:
        try:
            return self._kernel()
        except (BrazeError, ValueError, KeyError, IndexError, SyntaxError) as error:
            line = self.lines[min(self.at, len(self.lines) - 1)] if self.lines else ""
            what = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
            raise ParseError(f"not a kernel, at line {self.at + 1}: {line!r} ({what})") from error

    def _kernel(self) -> Kernel:
        head = _HEAD.fullmatch(self.lines[0])
        if head is None:
            raise ParseError("a kernel starts with its name, buffers and sizes")
        sizes = tuple(self._size(part) for part in _split(head["sizes"] or ""))
        buffers = tuple(self._buffer(part) for part in _split(head["buffers"]))
        self.at = 1
        outer: tuple[Symbol, ...] = ()
        if self._line().startswith("for "):
            outer = self._loops(self._line()[4:].rstrip(":"))
            self.at += 1
        stages = []
        while self.at < len(self.lines):
            stages.append(self._stage())
        return Kernel(head["name"], outer, tuple(stages), buffers, sizes, device=head["device"] or HOST)

    def _line(self) -> str:
        return self.lines[self.at] if self.at < len(self.lines) else ""

    # -- declarations -----------------------------------------------------------------------------------
    def _expr(self, text: str) -> Expr:
        return parse_expr(text, self.scope)

    def _size(self, text: str) -> Symbol:
        found = _SIZE.fullmatch(text)
        if found is None:
            raise ParseError(f"not a size: {text!r}")
        if found["name"]:
            symbol = Symbol(found["name"], int(found["lower"]))
        else:
            symbol = Symbol(found["bounded"], int(found["low"]), self._expr(found["upper"]))
        self.scope[symbol.name] = symbol
        return symbol

    def _buffer(self, text: str) -> BufferArg:
        found = _BUFFER.fullmatch(text)
        if found is None:
            raise ParseError(f"not a buffer: {text!r}")
        role = found["role"]
        return BufferArg(found["name"], BY_SHORT[found["type"]], role, self._expr(found["numel"]))  # type: ignore[arg-type]

    def _loops(self, text: str) -> tuple[Symbol, ...]:
        loops = []
        for part in _split(text):
            name, size = part.split(" < ", 1)
            loops.append(Symbol(name, 0, self._expr(size) - 1))
            self.scope[name] = loops[-1]
        return tuple(loops)

    # -- stages -----------------------------------------------------------------------------------------
    def _stage(self) -> Stage:
        if not self._line().startswith("stage "):
            raise ParseError("a stage was expected")
        outside = dict(self.scope)
        loops, _, reduced = self._line()[6:].rstrip(":").partition(" reduce ")
        vars = () if loops == "once" else self._loops(loops)
        body = _Body(self.dag, self.scope, vars, self._loops(reduced))
        self.at += 1
        while self._line() and not self._line().startswith("stage "):
            body.line(self._line())
            self.at += 1
        self.scope = outside
        return Stage(body.vars, body.rvars, tuple(body.stores))


class _Body:
    """The lines of one stage. ``scope`` holds the names that its index expressions may use."""

    def __init__(
        self, dag: Dag, scope: dict[str, Symbol], vars: tuple[Symbol, ...], rvars: tuple[Symbol, ...]
    ) -> None:
        self.dag = dag
        self.scope = scope
        self.vars = vars
        self.rvars = rvars
        self.values: dict[str, Node] = {}
        self.stores: list[Store] = []

    def line(self, text: str) -> None:
        dtype: torch.dtype | None = None
        rest, colon, short = text.rpartition(": ")
        if colon and short in BY_SHORT:
            text, dtype = rest, BY_SHORT[short]
        statement = ast.parse(text).body[0]
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            self._store(statement.value)
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            self._define(statement.targets[0].id, statement.value, dtype)
        else:
            raise ParseError("neither a value nor a store")

    def _store(self, call: ast.Call) -> None:
        modes = cast(dict[str, StoreMode], {"store": "set", **{mode: mode for mode in COMBINING}})
        buffer, index, value = call.args
        masks = self._masks(call)
        mode = modes[_word(call.func)]
        self.stores.append(
            Store(_word(buffer), self._index(index), self._value(value), mode, *(masks[:1] or (None,)))
        )

    def _define(self, name: str, value: ast.expr, dtype: torch.dtype | None) -> None:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "bounded":
            self._bind(name, self._value(value.args[0]), self._index(value.args[1]))
            return
        node = self._node(value, dtype)
        self.values[name] = node
        if node.op == "check_index":
            size = node.attrs[0]
            assert isinstance(size, Expr)
            self._bind(name, node, size)

    def _bind(self, name: str, node: Node, size: Expr) -> None:
        symbol = self.dag.indirect(node, size).symbol
        if symbol is None:
            raise ParseError(f"{name} is not computed at run time")
        self.scope[name] = symbol

    def _node(self, value: ast.expr, dtype: torch.dtype | None) -> Node:
        if not isinstance(value, ast.Call):
            return self.dag.make("constant", (), (_literal(value),), _typed(dtype))
        if isinstance(value.func, ast.Attribute):
            return self._loop_operation(_word(value.func.value), value.func.attr, value)
        op = {"index": "index_expr"}.get(_word(value.func), _word(value.func))
        masks = self._masks(value)
        if op == "load":
            attrs = (_word(value.args[0]), self._index(value.args[1]))
            return self.dag.make("load", masks, attrs, _typed(dtype))
        if op == "index_expr":
            return self.dag.make(op, (), (self._index(value.args[0]),), _typed(dtype))
        if op == "check_index":
            size, wrap, error = self._index(value.args[1]), _keyword(value, "wrap"), _keyword(value, "error")
            attrs3 = (size, _literal(wrap), ast.literal_eval(error))
            return self.dag.make(op, (self._value(value.args[0]), *masks), attrs3, torch.int64)
        args = tuple(self._value(a) for a in value.args)
        if op in ("check_nonzero", "check"):
            error = ast.literal_eval(_keyword(value, "error"))
            return self.dag.make(op, (*args, *masks), (error,), args[0].dtype)
        if OPS[op].result == "explicit":
            return self.dag.make(op, args, (), _typed(dtype))
        return self.dag.op(op, *args)

    def _loop_operation(self, op: str, kind: str, call: ast.Call) -> Node:
        args = [self._value(a) for a in call.args]
        if op == "scan":
            return self.dag.scan(kind, args[0], self.scope[_word(_keyword(call, "along"))])
        if op != "reduce":
            raise ParseError(f"no operation {op}.{kind}")
        over = _keyword(call, "over")
        if not isinstance(over, ast.List):
            raise ParseError("over= takes a list of loops")
        component = int(_literal(_keyword(call, "component"))) if len(REDUCTIONS[kind].components) > 1 else 0
        return self.dag.reduction(kind, args, [self.scope[_word(v)] for v in over.elts], component)

    def _value(self, node: ast.expr) -> Node:
        return self.values[_word(node)]

    def _index(self, node: ast.expr) -> Expr:
        return expr_from_ast(node, self.scope)

    def _masks(self, call: ast.Call) -> tuple[Node, ...]:
        return tuple(self._value(k.value) for k in call.keywords if k.arg == "mask")


def _split(text: str) -> Iterator[str]:
    """The parts between the commas that stand in no bracket."""
    depth, start = 0, 0
    for position, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            yield text[start:position].strip()
            start = position + 1
    if text[start:].strip():
        yield text[start:].strip()


def _word(node: ast.expr) -> str:
    if not isinstance(node, ast.Name):
        raise ParseError(f"a name was expected, not {ast.unparse(node)!r}")
    return node.id


def _keyword(call: ast.Call, name: str) -> ast.expr:
    for k in call.keywords:
        if k.arg == name:
            return k.value
    raise ParseError(f"{name}= is missing")


def _literal(node: ast.expr) -> bool | int | float:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_literal(node.operand)
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        return node.value
    raise ParseError(f"a number was expected, not {ast.unparse(node)!r}")


def _typed(dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        raise ParseError("the type is missing")
    return dtype
