"""Reads one graph back, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from braze._torch.fakes import new_graph_module
from braze._torch.provenance import with_source
from braze._torch.schema import bind, is_operator
from braze.compile.text.graphs import DITTO
from braze.compile.text.lexer import Cursor, Token
from braze.compile.text.value_parser import TensorType, Trace, ValueParser
from braze.errors import BrazeError

__all__ = ["GraphParser"]


class GraphParser:
    """One graph being read; after `parse`, `gm` is its module, `inputs` are the values of its placeholders,
    and `static` the positions of those that are parameters or buffers. `attributes` has what it may refer
    to, by full name."""

    def __init__(self, cursor: Cursor, trace: Trace, path: str, attributes: Mapping[str, Any]) -> None:
        self.cursor = cursor
        self.trace = trace
        self.values = ValueParser(cursor, trace)
        self.inputs: list[Any] = []
        self.static: list[int] = []
        self.graph = Graph()
        self.gm: GraphModule
        self._path = path
        self._attributes = attributes
        self._root = torch.nn.Module()
        self._source = ""

    def parse(self) -> GraphParser:
        """Read the whole graph. Raises `ParseError`."""
        cursor = self.cursor
        while cursor.skip_blank() and cursor.token.text != "return":
            start = cursor.token
            try:
                self._row()
            except BrazeError:
                raise
            except Exception as error:  # PyTorch refused what the row says
                cursor.fail(f"this is impossible: {type(error).__name__}: {error}", start)
        cursor.require("return")
        returned = self.values.argument()
        if not self._path and not isinstance(returned, (tuple, list)):
            cursor.fail("the graph returns a tuple")
        self.graph.output(returned)
        cursor.end_line()
        if cursor.skip_blank():
            cursor.expected("the end of the graph")
        self.gm = new_graph_module(self._root, self.graph)
        return self

    def _row(self) -> None:
        cursor = self.cursor
        name = cursor.take("node", "a value")
        if name.text[1:] in self.values.nodes:
            cursor.fail(f"{name.text} is defined twice", name)
        kind = self.values.metadata() if cursor.accept(":") else None
        cursor.require("=")
        if cursor.accept("input"):
            node = self._input(name, kind)
        else:
            node = self._attribute(name) if cursor.token.kind == "at" else self._call(name)
            if kind is not None:
                node.meta["val"] = self.values.realised(kind)
        if node.name != name.text[1:]:
            cursor.fail(f"{name.text} is not a name for a value", name)
        self.values.nodes[node.name] = node
        self._source = self._comment(node, cursor.end_line())

    def _comment(self, node: Node, comment: str) -> str:
        """Where the row comes from."""
        source = self._source if comment == DITTO else comment
        return source if with_source(node, source) else ""

    def _input(self, name: Token, kind: Any) -> Node:
        cursor = self.cursor
        if cursor.accept("static"):
            self.static.append(len(self.inputs))
        parameter, grad = cursor.accept("parameter"), cursor.accept("grad")
        shares: Any = None
        if cursor.accept("shares"):
            token = cursor.take("node", "an input")
            owner = self.values.nodes.get(token.text[1:])
            shares = None if owner is None else owner.meta.get("val")
            if owner is None or owner.op != "placeholder" or not isinstance(shares, torch.Tensor):
                cursor.fail(f"{token.text} is not an input before this one", token)
        if isinstance(kind, TensorType):
            value = kind.make(self.trace, shares, grad, parameter)
        else:
            value = self.values.realised(kind)
        node = self.graph.placeholder(name.text[1:])
        node.meta["val"] = value
        self.inputs.append(value)
        return node

    def _attribute(self, name: Token) -> Node:
        token = self.cursor.next()
        target = token.text[1:]
        full = f"{self._path}.{target}" if self._path else target
        found = self._attributes.get(full)
        if found is None:
            self.cursor.fail(f"there is no graph and no constant {full}", token)
        _place(self._root, target, found)
        return self.graph.create_node("get_attr", target, name=name.text[1:])

    def _call(self, name: Token) -> Node:
        token = self.cursor.take("operator", "an operator, an input or an attribute")
        target: Any = self.values.operator(token)
        self.cursor.require("(")
        args, kwargs = self.values.arguments()
        if is_operator(target):
            try:
                bind(target, args, kwargs)
            except TypeError as error:
                self.cursor.fail(str(error), token)
        return self.graph.create_node("call_function", target, args, kwargs, name=name.text[1:])


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
    elif not hasattr(root, last):
        root.register_buffer(last, value)
