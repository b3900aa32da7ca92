"""Graphs as rows of text: a name, what it is, how it is computed, and the user's line that asked for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.provenance import source_of
from braze.compile.text.expressions import ExpressionPrinter
from braze.compile.text.values import ValuePrinter
from braze.compile.text.vocabulary import function_word
from braze.errors import UnserializableError

__all__ = ["DITTO", "Attributes", "GraphPrinter", "Row", "aligned"]

NAME_WIDTH, TYPE_WIDTH, CALL_WIDTH = 24, 40, 72
"""Columns are as wide as their widest entry, up to this; longer entries move the rest of their row."""
MAX_OUTPUTS = 6
"""More outputs than this are written one on a line."""
DITTO = '"'
"""Instead of a source line: the same as in the row above."""


@dataclass(frozen=True)
class Row:
    """One line of a graph. `type` is empty for what has no value; `source` is ``file:line: code``."""

    name: str
    type: str
    call: str
    source: str = ""


@dataclass
class Attributes:
    """What graphs refer to by name, in order of first mention: subgraphs, and constant tensors."""

    graphs: dict[str, GraphModule] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)


class GraphPrinter:
    """Prints the nodes of one graph. `path` is its name, empty for the main graph; `inputs` are the words
    that stand behind each placeholder. `renumber`: values are named by number, attributes too."""

    def __init__(
        self,
        gm: GraphModule,
        path: str,
        attributes: Attributes,
        expressions: ExpressionPrinter,
        renumber: bool = False,
    ) -> None:
        self.gm = gm
        self.values = ValuePrinter(expressions)
        self._path = path
        self._attributes = attributes
        self._renumber = renumber
        self._own_names: dict[str, str] = {}

    def rows(self, inputs: Sequence[str] = (), examples: Sequence[Any] = ()) -> Iterator[Row]:
        """The nodes in order, without the last one. `examples` are the values of placeholders whose node
        does not tell it. Raises `UnserializableError`."""
        names, renumber, position = self.values.names, self._renumber, 0
        for number, node in enumerate(self.gm.graph.nodes):
            names[node] = f"%{number}" if renumber else f"%{node.name}"
            try:
                kind = node.op
                value = node.meta.get("val")
                if kind == "call_function":
                    call = self._call(node)
                elif kind == "placeholder":
                    if value is None and position < len(examples):
                        value = examples[position]
                    call = inputs[position] if position < len(inputs) else "input"
                    position += 1
                    type_ = self.values.metadata(value) if value is not None or examples else ""
                    yield Row(names[node], type_, call, "" if renumber else source_of(node))
                    continue
                elif kind == "get_attr":
                    call = self._attribute(str(node.target))
                elif kind == "output":
                    continue
                else:
                    raise UnserializableError(f"a graph for a compiler has no {kind} nodes")
                type_ = "" if value is None else self.values.metadata(value)
            except UnserializableError as error:
                error.at(node=f"{node.name} ({_target(node)})", where=source_of(node) or None)
                raise
            yield Row(names[node], type_, call, "" if renumber else source_of(node))

    def output(self) -> str:
        """What the graph returns; to be asked for after its rows."""
        node = self.gm.graph.output_node()
        try:
            returned = node.args[0]
            if isinstance(returned, (tuple, list)) and len(returned) > MAX_OUTPUTS and not self._renumber:
                opening, closing = "()" if isinstance(returned, tuple) else "[]"
                items = "".join(f"  {self.values.argument(v)},\n" for v in returned)
                return f"return {opening}\n{items}{closing}"
            return f"return {self.values.argument(returned)}"
        except UnserializableError as error:
            error.at(node="output")
            raise

    def _call(self, node: Node) -> str:
        word = function_word(node.target)
        if word is None:
            raise UnserializableError(f"the function {_target(node)} cannot be found by its name elsewhere")
        return f"{word}({self.values.arguments(node.args, node.kwargs)})"

    def _attribute(self, target: str) -> str:
        found: Any = self.gm
        for part in target.split("."):
            found = getattr(found, part)
        if isinstance(found, GraphModule):
            return self._named(target, self._attributes.graphs, found, "g")
        if isinstance(found, torch.Tensor):
            return self._named(target, self._attributes.constants, found, "c")
        raise UnserializableError(f"the graph's attribute {target} is a {type(found).__name__}")

    def _named(self, target: str, table: dict[str, Any], value: Any, letter: str) -> str:
        name = self._own_names.get(target)
        if name is None:
            full = f"{self._path}.{target}" if self._path else target
            full = f"{letter}{len(table)}" if self._renumber else full
            table[full] = value
            # a graph names its attributes from where it stands
            name = self._own_names[target] = f"@{full if self._renumber else target}"
        return name


def aligned(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as lines, in columns; a source line is written once for all that follow with the same one."""
    names = _width([r.name for r in rows], NAME_WIDTH)
    types = _width([r.type for r in rows], TYPE_WIDTH)
    calls = _width([r.call for r in rows if r.source], CALL_WIDTH)
    before = ""
    for row in rows:
        left = f"{row.name:<{names}} : {row.type}" if row.type else row.name
        line = f"{left:<{names + 3 + types}} = {row.call}"
        if row.source:
            # one line each, whatever the user's file contains
            comment = row.source if row.source.isprintable() else ascii(row.source)[1:-1]
            line = f"{line:<{names + types + calls + 6}}  # {DITTO if row.source == before else comment}"
        before = row.source
        yield line.rstrip()


def _width(texts: Sequence[str], limit: int) -> int:
    return max((len(t) for t in texts if len(t) <= limit), default=0)


def _target(node: Node) -> str:
    target: Any = node.target
    word = function_word(target) if callable(target) else None
    return word or getattr(target, "__qualname__", None) or str(target)
