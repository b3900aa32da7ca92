"""Graphs as Python functions: a parameter for each input, a line for each node, and inside of it, where it is
needed, a function for each graph that an operator takes.

An argument is a node's name, a number, string, tuple, list, dictionary or ``slice(...)``, ``int(s0 + 1)`` for
a symbolic number, ``device('cpu')``, an operator's name, or a bare word of `vocabulary`. A tensor's metadata
is ``f32[2, 3] & strides(1, 2) & offset(5) & device('cuda:0')``, where contiguous strides, no offset and the
CPU go without saying.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from keyword import iskeyword
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.devices import HOST_DEVICE
from braze._torch.fakes import is_plain
from braze._torch.provenance import source_of
from braze._torch.shape_envs import ShapeEnv, facts_of, raw_expression
from braze.compile.text.constants import as_stored, content_hash
from braze.compile.text.expressions import ExpressionPrinter
from braze.compile.text.vocabulary import ATTRIBUTE_WORDS, DTYPE_WORDS, WORDS, function_word
from braze.errors import UnserializableError
from braze.runtime.spec import contiguous_strides

__all__ = ["GraphPrinter", "attribute_of", "plain"]

WIDTH = 100
"""Parameters and results that take more than this are written one on a line."""


def attribute_of(gm: GraphModule, node: Node) -> Any:
    """What a node of the kind ``get_attr`` stands for; None where there is nothing."""
    found: Any = gm
    for part in str(node.target).split("."):
        found = getattr(found, part, None)
    return found


class GraphPrinter:
    """Prints a graph, and those inside of it. `numbered`: values and symbols have numbers for names, and
    nothing is said of where they come from, so that equal graphs have equal texts. `constants`: those that
    were met, contiguous and on the CPU, by their paths of attributes. `words`: what functions are called."""

    def __init__(self, numbered: bool = False) -> None:
        self.numbered = numbered
        self.expressions = ExpressionPrinter(numbered)
        self.constants: dict[str, torch.Tensor] = {}
        self.names: dict[Node, str] = {}
        self.words: dict[Any, str | None] = {}
        self._tensors: dict[Any, str] = {}

    # -- graphs -----------------------------------------------------------------------------------------
    def function(
        self,
        gm: GraphModule,
        name: str,
        *,
        path: str = "",
        indent: str = "",
        inputs: Iterator[str] | None = None,
    ) -> tuple[list[str], list[str]]:
        """The parameters of a graph, and its function as lines. `inputs`: what the parameters are, if not
        what their nodes tell; a numbered graph's function does not repeat it. `path`: the attributes that
        lead to the graph. Raises `UnserializableError`, which names the node."""
        inner = indent + "    "
        parameters, body, taken, attributes = list[str](), list[str](), set[str](), dict[str, str]()
        source, before = "", None
        first = gm.graph.find_nodes(op="placeholder")
        # inputs stand first in the text, wherever they are in the graph
        for node in (*first, *(node for node in gm.graph.nodes if node.op != "placeholder")):
            try:
                if node.op == "output":
                    body.append(self.output(node, inner))
                    continue
                own = self.names[node] = self._name(node, taken)
                lines: list[str] = []
                comment = ""
                if not self.numbered and (trace := node.meta.get("stack_trace")) is not before:
                    before, said, source = trace, source, source_of(node)
                    # one line, whatever the user's file contains
                    line = source if source.isprintable() else ascii(source)[1:-1]
                    comment = "" if source == said else f"{inner}# {line}".rstrip()
                if node.op == "placeholder":
                    type_ = self.annotation(node) if inputs is None else next(inputs)
                    lead = f"{comment.lstrip()}\n{inner}" if comment else ""
                    parameters.append(f"{lead}{own}: {type_}" if type_ else f"{lead}{own}")
                    continue
                type_ = self.annotation(node)
                if node.op != "get_attr":
                    text = self.call(node)
                elif node.target in attributes:
                    text = attributes[node.target]
                else:
                    attributes[node.target] = own
                    text, lines = self.attribute(gm, node, path, inner)
            except UnserializableError as error:
                if error.node is None:
                    error.at(node=f"{node.name} ({self._shown(node)})", where=source_of(node) or None)
                raise
            body += [comment] if comment else []
            body += lines or [f"{inner}{own}: {type_} = {text}" if type_ else f"{inner}{own} = {text}"]
        names = [self.names[node] for node in first]
        shown = names if self.numbered and inputs is not None else parameters
        head = f"{indent}def {name}({', '.join(shown)}):"
        if len(head) > WIDTH or "\n" in head:
            head = f"{indent}def {name}(\n" + "".join(f"{inner}{p},\n" for p in shown) + f"{indent}):"
        return parameters, [head, *body]

    def _name(self, node: Node, taken: set[str]) -> str:
        if self.numbered:
            return f"v{len(self.names)}"
        name = node.name
        while name in WORDS or name in taken or iskeyword(name):
            name += "_"
        if not (name.isidentifier() and name.isascii()):
            raise UnserializableError(f"{name!r} is no name for a value")
        taken.add(name)
        return name

    def output(self, node: Node, indent: str) -> str:
        """What a graph returns, as a line or several."""
        returned = node.args[0]
        text = f"{indent}return {self.argument(returned)}"
        if len(text) > WIDTH and isinstance(returned, (tuple, list)) and not self.numbered:
            opening, closing = "()" if isinstance(returned, tuple) else "[]"
            items = "".join(f"{indent}    {self.argument(v)},\n" for v in returned)
            text = f"{indent}return {opening}\n{items}{indent}{closing}"
        return text

    def call(self, node: Node) -> str:
        """How a node computes its value."""
        if node.op != "call_function":
            raise UnserializableError(f"a graph for a compiler has no {node.op} nodes")
        word = self._word(node.target)
        if word is None:
            raise UnserializableError(
                f"the function {self._shown(node)} cannot be found by its name elsewhere"
            )
        return f"{word}({self.arguments(node)})"

    def arguments(self, node: Node, start: int = 0) -> str:
        """All that a call takes, from an argument on, without the parentheses."""
        argument = self.argument
        texts = [argument(a) for a in node.args[start:]]
        for name, a in node.kwargs.items():
            plain = name.isidentifier() and not iskeyword(name)  # PyTorch has arguments called `from`
            texts.append(f"{name}={argument(a)}" if plain else f"**{{{name!a}: {argument(a)}}}")
        return ", ".join(texts)

    def attribute(self, gm: GraphModule, node: Node, path: str, indent: str) -> tuple[str, list[str]]:
        """A constant as the text of its value, or a graph as the lines of a function."""
        found, own, target = attribute_of(gm, node), self.names[node], str(node.target)
        full = f"{path}.{target}" if path else target
        named = not self.numbered and own != target
        if isinstance(found, GraphModule):
            head = [f"{indent}@named({target!a})"] if named else []
            return "", [*head, *self.function(found, own, path=full, indent=indent)[1]]
        if not isinstance(found, torch.Tensor):
            raise UnserializableError(f"the graph's attribute {target} is a {type(found).__name__}")
        stored = as_stored(found)
        self.constants[full] = stored if self.numbered else stored.clone()
        parts = [ascii(f"sha256:{content_hash(stored)}"), *([f"name={target!a}"] if named else [])]
        kind = self.tensor(found.detach())
        if kind != self.annotation(node):
            parts.append(f"type={kind}")
        return f"constant({', '.join(parts)})", []

    def _shown(self, node: Node) -> str:
        target: Any = node.target
        word = self._word(target) if callable(target) else None
        return word or getattr(target, "__qualname__", None) or str(target)

    def _word(self, target: Any) -> str | None:
        if target not in self.words:
            self.words[target] = function_word(target)
        return self.words[target]

    def declarations(self, env: ShapeEnv) -> Iterator[str]:
        """What a trace knows of the symbols so far, as far as it does not go without saying."""
        for symbol, name in self.expressions.symbols.items():
            facts = facts_of(env, symbol)
            known = {
                "least": facts.lower,
                "most": facts.upper,
                "size": facts.size_like or None,
                "positive": facts.positive if facts.positive != facts.is_positive_by_name else None,
                "hint": None if self.numbered else facts.hint,
            }
            parts = ", ".join(f"{word}={value!r}" for word, value in known.items() if value is not None)
            yield f"{name} = {'real' if facts.is_float else 'integer'}({parts})"

    # -- arguments --------------------------------------------------------------------------------------
    def argument(self, value: Any) -> str:
        """One argument. Raises `UnserializableError` for what has no printed form."""
        printer = _ARGUMENTS.get(type(value))
        return self._other(value) if printer is None else printer(self, value)

    def _items(self, value: Sequence[Any]) -> str:
        return ", ".join([self.argument(v) for v in value])

    def _tuple(self, value: tuple[Any, ...]) -> str:
        return f"({self._items(value)},)" if len(value) == 1 else f"({self._items(value)})"

    def _dict(self, value: Mapping[Any, Any]) -> str:
        for key in value:
            if type(key) not in (str, int):
                raise UnserializableError(f"an argument has the key {key!r}")
        return "{" + ", ".join(f"{self.argument(k)}: {self.argument(v)}" for k, v in value.items()) + "}"

    def _other(self, value: Any) -> str:
        if isinstance(value, _SYMBOLIC):
            return self.symbolic(value)
        # FX gives lists and dictionaries classes of its own
        for kind in (tuple, list, dict):
            if isinstance(value, kind):
                return _ARGUMENTS[kind](self, value)
        found: str | None = None
        if isinstance(value, (torch.layout, torch.memory_format)):
            found = ATTRIBUTE_WORDS.get(value)
        elif callable(value):
            found = self._word(value)
        if found is None:
            raise UnserializableError(f"an argument is a {type(value).__name__}")
        return found

    # -- metadata ---------------------------------------------------------------------------------------
    def annotation(self, node: Node) -> str:
        """What is known of a node's value; empty where nothing is."""
        value = node.meta.get("val")
        return "" if value is None else self.metadata(value)

    def metadata(self, value: Any) -> str:
        """What a value is: a tensor, a symbolic or another number, a tuple or list of those."""
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, (tuple, list)):
            inner = ", ".join([self.metadata(v) for v in value])
            if isinstance(value, list):
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if value is None or type(value) in (int, float, bool, complex, str):
            return _ARGUMENTS[type(value)](self, value)
        if isinstance(value, _SYMBOLIC):
            return self.symbolic(value)
        raise UnserializableError(f"its value is a {type(value).__name__}")

    def tensor(self, value: torch.Tensor) -> str:
        """A tensor's element type, sizes, strides, offset and device."""
        if not is_plain(value):
            raise UnserializableError(f"its value is a tensor of the class {type(value).__name__}")
        if value.layout is not torch.strided or value.is_quantized:
            raise UnserializableError(f"its value is a {value.layout} tensor")
        facts = (value.dtype, value.shape, value.stride(), value.storage_offset(), value.device)
        try:
            found = self._tensors.get(facts)
        except TypeError:  # symbolic sizes have no hash, their expressions have
            dtype, size, stride, offset, device = facts
            facts = (dtype, plain(size), plain(stride), *plain((offset,)), device)
            found = self._tensors.get(facts)
        if found is None:
            found = self._tensors[facts] = self.layout(*facts)
        return found

    def layout(self, dtype: torch.dtype, size: Any, stride: Any, offset: Any, device: torch.device) -> str:
        """What a tensor is, of plain numbers and expressions."""
        text = f"{DTYPE_WORDS[dtype]}[{self.sizes(size) or '()'}]"
        if tuple(stride) != contiguous_strides(size):
            text += f" & strides({self.sizes(stride)})"
        if offset != 0:
            text += f" & offset({self.sizes((offset,))})"
        return text if device == HOST_DEVICE else f"{text} & {_device(self, device)}"

    def sizes(self, values: Sequence[Any]) -> str:
        """Integers and expressions, with commas."""
        text = self.expressions.text
        return ", ".join([str(v) if type(v) is int else text(v) for v in values])

    def symbolic(self, value: Any) -> str:
        """A symbolic number, with its kind."""
        expression = _expression(value)
        text = self.expressions.text(expression)
        # what was found to be a constant is one
        constant = type(expression) is int or not expression.free_symbols
        return text if constant else f"{_KINDS[type(value)]}({text})"


def plain(values: Sequence[Any]) -> tuple[Any, ...]:
    """Integers as they are, symbolic ones as expressions: these compare without guarding on anything."""
    return tuple([v if type(v) is int else _expression(v) for v in values])


def _expression(value: Any) -> Any:
    try:
        expression = raw_expression(value)
    except ValueError as error:
        raise UnserializableError(str(error)) from error
    return int(expression) if getattr(expression, "is_Integer", False) else expression


def _float(printer: GraphPrinter, value: float) -> str:
    return repr(value) if math.isfinite(value) else str(value)


def _complex(printer: GraphPrinter, value: complex) -> str:
    return f"complex({_float(printer, value.real)}, {_float(printer, value.imag)})"


def _device(printer: GraphPrinter, value: torch.device) -> str:
    return f"device({str(value)!a})"


def _repr(printer: GraphPrinter, value: Any) -> str:
    return ascii(value)


_KINDS = {torch.SymInt: "int", torch.SymFloat: "float", torch.SymBool: "bool"}
_SYMBOLIC = tuple(_KINDS)
_ARGUMENTS: dict[type, Callable[[Any, Any], str]] = {
    Node: lambda printer, value: printer.names[value],
    int: _repr,
    bool: _repr,
    type(None): _repr,
    str: _repr,
    float: _float,
    complex: _complex,
    tuple: GraphPrinter._tuple,
    list: lambda printer, value: f"[{printer._items(value)}]",
    dict: lambda printer, value: printer._dict(value),
    slice: lambda printer, value: f"slice({printer._items((value.start, value.stop, value.step))})",
    type(...): lambda printer, value: "...",
    torch.dtype: lambda printer, value: DTYPE_WORDS[value],
    torch.device: _device,
}
