"""A printed request, read back: Python's syntax tree of it, of which only known forms mean something."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
import sympy
import torch
from torch.fx import Graph, GraphModule, Node

from braze._torch import shape_envs, tracing
from braze._torch.devices import HOST_DEVICE
from braze._torch.fakes import make_fake, new_fake_mode, new_graph_module
from braze._torch.provenance import with_source
from braze._torch.schema import bind, is_operator
from braze._torch.shape_envs import SymbolFacts
from braze.compile.fx_compile import CompileRequest, GraphKind
from braze.compile.text.constants import content_hash, with_strides
from braze.compile.text.expressions import ExpressionReader
from braze.compile.text.graphs import contiguous_strides
from braze.compile.text.source import Source
from braze.compile.text.vocabulary import DTYPES, FORMAT, WORDS, function_named
from braze.config import Config

__all__ = ["parse_request", "sections_of"]

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_KINDS: Mapping[str, type] = {"int": int, "float": float, "bool": bool}


def parse_request(text: str, constants: Mapping[str, torch.Tensor] | None = None) -> CompileRequest:
    """The request that `text` is the print of, with a trace of its own: symbols, ranges and hints are those
    of the text, and so is the metadata of every node. `constants` are the tensors that were printed with it.

    Raises `ParseError`, which names line and column, for a text that is damaged, or that needs operators
    which this process does not have."""
    source = _source(text)
    with source.at(None, "not a graph"):
        return _request(source, constants or {})


def sections_of(text: str) -> dict[str, list[str]]:
    """The sections that somebody sent along with a request, as lines by name. Raises `ParseError`."""
    source = _source(text)
    values, found = _Values(source, _Trace(None, None, {})), dict[str, list[str]]()
    for call in _calls(source, "section"):
        words = [values.argument(a) for a in call.args]
        if not words or not all(isinstance(w, str) for w in words) or words[0] in found:
            source.fail(call, "a section has a name, which no other has, and lines")
        found[words[0]] = words[1:]
    return found


def _source(text: str) -> Source:
    source = Source(text)
    if source.lines[0].rstrip() != FORMAT:
        source.fail_at(1, 0, f"a request begins with the line {FORMAT!r}")
    return source


@dataclass(frozen=True)
class _Trace:
    """What fake values are made with: a mode, its ShapeEnv, and the symbols that were declared. `made`: the
    tensors of nodes so far, by their texts; nobody writes to them, so nodes of one type can share one."""

    mode: Any
    env: Any
    symbols: Mapping[str, sympy.Symbol]
    made: dict[str, torch.Tensor] = field(default_factory=dict)

    def number(self, expression: Any, kind: type = int) -> Any:
        """A plain number, or the symbolic one, of the given kind."""
        if not isinstance(expression, sympy.Basic) or not expression.free_symbols:
            return kind(expression)
        return shape_envs.symbolic(self.env, expression, kind)


# -- a request ----------------------------------------------------------------------------------------------
class _Header(msgspec.Struct, forbid_unknown_fields=True):
    kind: GraphKind
    graph: int
    visible_outputs: int


class _Symbol(msgspec.Struct, forbid_unknown_fields=True):
    least: int | None = None
    most: int | None = None
    size: bool = False
    positive: bool | None = None
    hint: int | float | None = None


_KNOWN = ("request", "config", "section", "assume", "promised_strides")


def _calls(source: Source, name: str) -> list[ast.Call]:
    """The statements that are calls of this name."""
    values = [s.value for s in source.body if isinstance(s, ast.Expr)]
    return [v for v in values if isinstance(v, ast.Call) and _name_called(v) == name]


def _request(source: Source, given: Mapping[str, torch.Tensor]) -> CompileRequest:
    facts: dict[str, SymbolFacts] = {}
    mains: list[ast.FunctionDef] = []
    values = _Values(source, _Trace(None, None, {}))
    for statement in source.body:
        if isinstance(statement, ast.Assign):
            fact = _declaration(values, statement)
            if fact.name in facts:
                source.fail(statement, f"{fact.name} is declared twice")
            facts[fact.name] = fact
        elif isinstance(statement, ast.FunctionDef) and statement.name == "forward" and not mains:
            mains.append(statement)
        elif not isinstance(statement, ast.Expr) or _name_called(statement.value) not in _KNOWN:
            source.fail(statement, "this is no part of a request")
    headers = _calls(source, "request")
    if len(headers) != 1 or not mains:
        source.fail(None, "there has to be one request(...), and one function 'forward'")
    header = values.keywords(headers[0], _Header)
    config = Config()
    for keyword in (k for one in _calls(source, "config") for k in one.keywords):
        with source.at(keyword, "config(...)"):
            config = config.replace(**{str(keyword.arg): values.argument(keyword.value)})
    env, symbols = shape_envs.new_shape_env(facts.values())
    trace = _Trace(new_fake_mode(env), env, symbols)
    for call in _calls(source, "assume"):
        condition = values.one(call, ExpressionReader(source, symbols).condition)
        if condition.free_symbols:
            with source.at(call, "PyTorch cannot assume this"):
                shape_envs.assume(env, condition)
    with shape_envs.suppressed_guards(env):
        graph = _GraphReader(source, trace, given, set())
        gm = graph.read(mains[0])
        promised = tracing.strides_of_outputs(gm)
        for call in _calls(source, "promised_strides"):
            for keyword in call.keywords:
                position = re.fullmatch(r"output(\d+)", str(keyword.arg))
                if position is None or int(position[1]) >= len(promised):
                    source.fail(keyword, f"the graph has {len(promised)} outputs")
                none = isinstance(keyword.value, ast.Constant) and keyword.value.value is None
                strides = None if none else tuple(map(trace.number, graph.sizes(keyword.value)))
                promised[int(position[1])] = strides
        tracing.set_promised_strides(gm, promised)
    static = frozenset(graph.static)
    return CompileRequest(
        gm, env, static, header.visible_outputs, config, kind=header.kind, graph_id=header.graph
    )


def _declaration(values: _Values, statement: ast.Assign) -> SymbolFacts:
    """A symbol: ``s0 = integer(least=2, hint=8)``."""
    fail, call, target = values.source.fail, statement.value, statement.targets[0]
    is_float = _name_called(call) == "real"
    if not isinstance(target, ast.Name) or _name_called(call) not in ("integer", "real"):
        fail(statement, "a symbol is an integer(...) or a real(...)")
    name, known = target.id, values.keywords(call, _Symbol)
    least = -math.inf if known.least is None else known.least
    most = math.inf if known.most is None else known.most
    if known.hint is not None and isinstance(known.hint, float) != is_float:
        fail(call, "the hint is of another kind")
    if least > most:
        fail(call, f"{name} has no value")
    if known.hint is not None and not least <= known.hint <= most:
        fail(call, "the hint is out of range")
    if known.hint is None and re.fullmatch(r"(zuf|u)\d{1,9}", name) is None:
        fail(target, "a symbol without a hint is called u0, u1, ... or zuf0, zuf1, ...")
    facts = SymbolFacts(name, known.least, known.most, known.hint, is_float, False, known.size)
    return replace(facts, positive=facts.is_positive_by_name if known.positive is None else known.positive)


# -- values -------------------------------------------------------------------------------------------------
class _Values:
    """Reads arguments and metadata. `nodes` are those that were defined so far, by name."""

    def __init__(self, source: Source, trace: _Trace) -> None:
        self.source = source
        self.trace = trace
        self.nodes: dict[str, Node] = {}
        self._expressions = ExpressionReader(source, trace.symbols)

    def one(self, call: ast.expr, read: Callable[[ast.expr], Any]) -> Any:
        """What stands in a call that takes one value."""
        if not isinstance(call, ast.Call) or len(call.args) != 1 or call.keywords:
            self.source.fail(call, "one value is expected here")
        return read(call.args[0])

    def keywords(self, call: ast.expr, kind: type[_Struct]) -> _Struct:
        """What a call says by keywords, as a structure of this kind."""
        args, kwargs = self.arguments(call) if isinstance(call, ast.Call) else ((None,), {})
        with self.source.at(call, f"{_name_called(call)}(...)"):
            return msgspec.convert({"": args, **kwargs} if args else kwargs, kind)

    # -- arguments --------------------------------------------------------------------------------------
    def argument(self, e: ast.expr) -> Any:
        """One argument. Raises `ParseError`."""
        reader = _READERS.get(type(e))
        return self._no_value(e) if reader is None else reader(self, e)

    def arguments(self, call: ast.Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """All that a call takes."""
        kwargs: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in kwargs:
                self.source.fail(keyword, f"{keyword.arg} is given twice")
            kwargs[keyword.arg] = self.argument(keyword.value)
        return tuple([self.argument(a) for a in call.args]), kwargs

    def _no_value(self, e: ast.expr) -> NoReturn:
        self.source.fail(e, f"no value is written like {self.source.segment(e)[:40]!r}")

    def _constant(self, e: ast.Constant) -> Any:
        value = e.value
        plain = value is None or value is ... or type(value) in (bool, int, str)
        return value if plain or (type(value) is float and math.isfinite(value)) else self._no_value(e)

    def _name(self, e: ast.Name) -> Any:
        found = self.nodes.get(e.id)
        if found is None and e.id not in WORDS:
            self.source.fail(e, f"{e.id} is used before it is defined, and no value is written like this")
        return WORDS[e.id] if found is None else found

    def function(self, e: ast.expr) -> Any:
        """The function that a name with dots stands for."""
        parts: list[str] = []
        left = e
        while isinstance(left, ast.Attribute):
            parts.append(left.attr)
            left = left.value
        if not parts or not isinstance(left, ast.Name):
            self._no_value(e)
        word = ".".join([left.id, *parts[::-1]])
        found = function_named(word)
        return self.source.fail(e, f"there is no operator {word} in this process") if found is None else found

    def _dict(self, e: ast.Dict) -> dict[Any, Any]:
        found = {}
        for key, value in zip(e.keys, e.values, strict=True):
            name = None if key is None else self.argument(key)
            if type(name) not in (str, int):
                self.source.fail(key or e, "a key is a string or an integer")
            found[name] = self.argument(value)
        return found

    def _negative(self, e: ast.UnaryOp) -> Any:
        value = self.argument(e.operand)
        if not isinstance(e.op, ast.USub) or type(value) not in (int, float):
            self.source.fail(e, "a number was expected behind '-'")
        return -value

    def _call(self, e: ast.Call) -> Any:
        word = _name_called(e)
        if word in _KINDS:
            return self.trace.number(self.one(e, self._symbolic(word)), _KINDS[word])
        args, kwargs = self.arguments(e)
        device = word == "device" and len(args) == 1 and isinstance(args[0], str)
        with self.source.at(e, f"there is no device {args[0]!r}" if device else "no such number"):
            if device and not kwargs:
                return torch.device(args[0])
            if word == "complex" and len(args) == 2 and not kwargs:
                return complex(*map(float, args))
        if word == "slice" and len(args) == 3 and not kwargs:
            return slice(*args)
        return self._no_value(e)

    def _symbolic(self, word: str) -> Callable[[ast.expr], Any]:
        def read(e: ast.expr) -> Any:
            found = self._expressions.condition(e) if word == "bool" else self._expressions.number(e)
            if word == "int" and found.is_integer is False:
                self.source.fail(e, "this is not an integer")
            return found

        return read

    # -- metadata ---------------------------------------------------------------------------------------
    def metadata(self, e: ast.expr) -> Any:
        """A value of this kind: fake tensors, numbers, tuples and lists of those."""
        if isinstance(e, (ast.Subscript, ast.BinOp)):
            text = self.source.segment(e)
            found = self.trace.made.get(text)
            if found is None:
                found = self.fake(self.tensor(*_marks(e)))
                if text:
                    self.trace.made[text] = found
            return found
        if isinstance(e, (ast.Tuple, ast.List)):
            return (tuple if isinstance(e, ast.Tuple) else list)([self.metadata(v) for v in e.elts])
        value = self.argument(e)
        if isinstance(value, (Node, torch.dtype, torch.device, slice)) or callable(value):
            self.source.fail(e, "this is not what a value can be")
        return value

    def tensor(self, e: ast.expr, marks: list[ast.expr]) -> _TensorType:
        """A tensor's metadata: what stands before the first ``&``, and what stands behind it."""
        word = e.value.id if isinstance(e, ast.Subscript) and isinstance(e.value, ast.Name) else ""
        if not isinstance(e, ast.Subscript) or word not in DTYPES:
            self.source.fail(e, f"there is no element type {word or self.source.segment(e)!r}")
        size = self.sizes(e.slice)
        kind = _TensorType(DTYPES[word], size, contiguous_strides(size))
        for mark in marks:
            name = _name_called(mark)
            if name == "device":
                kind = kind._replace(device=self.argument(mark))
            elif name == "offset":
                kind = kind._replace(offset=self.one(mark, self._size))
            elif name == "strides" and isinstance(mark, ast.Call):
                kind = kind._replace(stride=tuple(map(self._size, mark.args)))
                if len(kind.stride) != len(size):
                    self.source.fail(mark, f"{len(size)} strides were expected, not {len(kind.stride)}")
            else:
                self.source.fail(mark, "a tensor has strides, an offset and a device")
        return kind

    def fake(self, kind: _TensorType, **given: Any) -> torch.Tensor:
        """A tensor of this kind. Raises what PyTorch raises for impossible ones."""
        size, stride = ([self.trace.number(n) for n in numbers] for numbers in (kind.size, kind.stride))
        offset = self.trace.number(kind.offset)
        return make_fake(self.trace.mode, kind.dtype, size, stride, offset, kind.device, **given)

    def sizes(self, e: ast.expr) -> tuple[Any, ...]:
        """Integers and expressions: one, or a tuple or list of them."""
        return tuple(map(self._size, e.elts)) if isinstance(e, (ast.Tuple, ast.List)) else (self._size(e),)

    def _size(self, e: ast.expr) -> Any:
        if isinstance(e, ast.Constant) and type(e.value) is int:
            return e.value
        found = self._expressions.number(e)
        if found.is_integer is False:
            self.source.fail(e, "a size is an integer")
        return int(found) if found.is_Integer else found


_READERS: dict[type[ast.expr], Callable[[_Values, Any], Any]] = {
    ast.Constant: _Values._constant,
    ast.Name: _Values._name,
    ast.Attribute: _Values.function,
    ast.Tuple: lambda values, e: tuple([values.argument(v) for v in e.elts]),
    ast.List: lambda values, e: [values.argument(v) for v in e.elts],
    ast.Dict: _Values._dict,
    ast.UnaryOp: _Values._negative,
    ast.Call: _Values._call,
}


class _TensorType(NamedTuple):
    """A tensor's metadata as read: integers and sympy expressions."""

    dtype: torch.dtype
    size: tuple[Any, ...]
    stride: tuple[Any, ...]
    offset: Any = 0
    device: torch.device = HOST_DEVICE


def _marks(e: ast.expr) -> tuple[ast.expr, list[ast.expr]]:
    """What stands before the first ``&``, and what stands between and behind them."""
    marks: list[ast.expr] = []
    while isinstance(e, ast.BinOp) and isinstance(e.op, ast.BitAnd):
        marks.append(e.right)
        e = e.left
    return e, marks[::-1]


# -- graphs -------------------------------------------------------------------------------------------------
class _GraphReader(_Values):
    """Reads one graph. `inputs` are the values of its parameters, and `static` the positions of those that
    are parameters or buffers of the model. `given`: the constants that came with the text; `used`: the paths
    of those that graphs had so far."""

    def __init__(
        self, source: Source, trace: _Trace, given: Mapping[str, torch.Tensor], used: set[str], path: str = ""
    ) -> None:
        super().__init__(source, trace)
        self.inputs: list[Any] = []
        self.static: list[int] = []
        self._given = given
        self._used = used
        self._path = path
        self._graph = Graph()
        self._root = torch.nn.Module()
        self._comment = ""

    def read(self, function: ast.FunctionDef) -> GraphModule:
        """The module of the graph. Raises `ParseError`."""
        fail, a = self.source.fail, function.args
        plain = ast.arguments([], a.args, None, [], [], None, [])
        odd = function.returns or getattr(function, "type_params", None)
        if odd or ast.dump(a) != ast.dump(plain) or (function.decorator_list and not self._path):
            fail(function, "the inputs of a graph have names, and nothing else")
        *rows, last = function.body
        everything: list[ast.arg | ast.stmt] = [*a.args, *rows]
        for row in everything:
            with self.source.at(row, "this is impossible"):
                node = self._input(row) if isinstance(row, ast.arg) else self._row(row)
            comment = self.source.comment_above(row)
            if comment is not None:
                self._comment = comment
            if not with_source(node, self._comment):
                self._comment = ""
        if not isinstance(last, ast.Return) or last.value is None:
            fail(last, "'return' was expected")
        returned = self.argument(last.value)
        if not self._path and not isinstance(returned, (tuple, list)):
            fail(last, "the graph returns a tuple")
        self._graph.output(returned)
        return new_graph_module(self._root, self._graph)

    def _row(self, row: ast.stmt) -> Node:
        target: ast.expr
        kind: ast.expr | None = None
        if isinstance(row, ast.FunctionDef):
            return self._inner(row)
        if isinstance(row, ast.AnnAssign) and row.value is not None:
            target, value, kind = row.target, row.value, row.annotation
        elif isinstance(row, ast.Assign) and len(row.targets) == 1:
            target, value = row.targets[0], row.value
        else:
            self.source.fail(row, "no line of a graph is written like this")
        if not isinstance(target, ast.Name):
            self.source.fail(target, "a line of a graph defines one value")
        if isinstance(value, ast.Name):
            known = self.argument(value)
            if not isinstance(known, Node) or known.op != "get_attr":
                self.source.fail(value, f"{value.id} is no graph and no constant")
            node = self._defined(target, target.id, "get_attr", known.target)
        elif isinstance(value, ast.Call) and _name_called(value) == "constant":
            node = self._constant_row(target, target.id, value, kind)
        elif isinstance(value, ast.Call):
            function = self.function(value.func)
            args, kwargs = self.arguments(value)
            if is_operator(function):
                with self.source.at(value, "this is no call of it"):
                    bind(function, args, kwargs)
            node = self._defined(target, target.id, "call_function", function, args, kwargs)
        else:
            self.source.fail(value, "an operator, a graph or a constant was expected")
        if kind is not None:
            node.meta["val"] = self.metadata(kind)
        return node

    def _defined(
        self, at: Any, name: str, kind: str, target: Any, args: Any = (), kwargs: Any = None
    ) -> Node:
        if name in self.nodes:
            self.source.fail(at, f"{name} is defined twice")
        node = self._graph.create_node(kind, target, args, kwargs or {}, name=name)
        if node.name != name:
            self.source.fail(at, f"{name} is not a name for a value")
        self.nodes[name] = node
        return node

    def _input(self, parameter: ast.arg) -> Node:
        value: Any = None
        if parameter.annotation is not None:
            kind, marks = _marks(parameter.annotation)
            given: dict[str, Any] = {}
            own: list[ast.expr] = []
            for mark in marks:
                if isinstance(mark, ast.Name) and mark.id == "static":
                    self.static.append(len(self.inputs))
                elif isinstance(mark, ast.Name) and mark.id in ("parameter", "grad"):
                    given["parameter" if mark.id == "parameter" else "requires_grad"] = True
                elif _name_called(mark) == "shares":
                    given["shares"] = self.one(mark, self._shared)
                else:
                    own.append(mark)
            if isinstance(kind, ast.Subscript):
                value = self.fake(self.tensor(kind, own), **given)
            elif own or given:
                self.source.fail(parameter.annotation, "this is no tensor")
            else:
                value = self.metadata(kind)
        node = self._defined(parameter, parameter.arg, "placeholder", parameter.arg)
        node.meta["val"] = value
        self.inputs.append(value)
        return node

    def _shared(self, e: ast.expr) -> torch.Tensor:
        owner = self.argument(e)
        shared = owner.meta.get("val") if isinstance(owner, Node) else None
        if not isinstance(shared, torch.Tensor):
            self.source.fail(e, f"{ast.unparse(e)} is not an input before this one")
        return shared

    def _inner(self, function: ast.FunctionDef) -> Node:
        """A graph inside of this one."""
        target = function.name
        for decorator in function.decorator_list:
            if _name_called(decorator) != "named":
                self.source.fail(decorator, "a graph may have an attribute's name: named(...)")
            target = self.one(decorator, self._string)
        path = f"{self._path}.{target}" if self._path else target
        inner = _GraphReader(self.source, self.trace, self._given, self._used, path)
        _place(self._root, target, inner.read(function))
        return self._defined(function, function.name, "get_attr", target)

    def _constant_row(self, at: ast.expr, name: str, call: ast.Call, annotation: ast.expr | None) -> Node:
        fail, parts = self.source.fail, {keyword.arg: keyword.value for keyword in call.keywords}
        kind = parts.pop("type", annotation)
        target = self._string(parts.pop("name")) if "name" in parts else name
        if len(call.args) != 1 or parts or kind is None:
            fail(call, "a constant has the hash of its contents, a type, and perhaps a name")
        path = f"{self._path}.{target}" if self._path else target
        wanted, tensor, stored = self._string(call.args[0]), self.tensor(*_marks(kind)), self._given.get(path)
        if stored is None or path in self._used:
            fail(call, f"the constant {path} is given {'twice' if path in self._used else 'nowhere'}")
        if stored.dtype is not tensor.dtype or tuple(stored.shape) != tensor.size:
            fail(call, f"the constant {path} that was given is another one")
        stored = stored.contiguous()
        if f"sha256:{content_hash(stored)}" != wanted:
            fail(call.args[0], f"the constant {path} that was given has other contents")
        self._used.add(path)
        with self.source.at(call, "no constant"):
            _place(self._root, target, with_strides(stored, tensor.stride))
        return self._defined(at, name, "get_attr", target)

    def _string(self, e: ast.expr) -> str:
        value = e.value if isinstance(e, ast.Constant) else None
        return value if isinstance(value, str) else self.source.fail(e, "a string was expected")


def _name_called(e: ast.expr) -> str:
    return e.func.id if isinstance(e, ast.Call) and isinstance(e.func, ast.Name) else ""


def _place(root: torch.nn.Module, target: str, value: Any) -> None:
    """Make `value` the attribute of `root` at a path with dots."""
    *owners, last = target.split(".")
    for part in owners:
        inner = dict(root.named_children()).get(part)
        if inner is None:
            inner = torch.nn.Module()
            root.add_module(part, inner)
        root = inner
    if isinstance(value, torch.nn.Module):
        root.add_module(last, value)
    else:
        root.register_buffer(last, value)
