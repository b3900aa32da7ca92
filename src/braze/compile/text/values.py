"""Values as text: what nodes take (arguments) and what they give (metadata).

An argument is written as in Python, with ``%name`` for a node, ``@cpu`` for a device, ``int{s0 + 1}`` for a
symbolic number and the bare words of `vocabulary` for types, layouts and operators. A tensor's metadata is
``f32[2, 3] strides (1, 2) offset 5 @cuda:0``, where contiguous strides, no offset and the CPU go without
saying.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from braze._torch.devices import HOST_DEVICE
from braze._torch.fakes import is_plain
from braze._torch.shape_envs import raw_expression
from braze.compile.text.expressions import ExpressionPrinter
from braze.compile.text.vocabulary import ATTRIBUTE_WORDS, DTYPE_WORDS, function_word
from braze.errors import UnserializableError

__all__ = ["ValuePrinter", "contiguous_strides", "quoted"]

_KINDS = ((torch.SymInt, "int"), (torch.SymFloat, "float"), (torch.SymBool, "bool"))


def contiguous_strides(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """The strides of a contiguous tensor, in elements, where `sizes` are integers and sympy expressions;
    a dimension of no elements counts as one of one."""
    strides: list[Any] = []
    step: Any = 1
    for size in reversed(sizes):
        strides.append(step)
        step = (max(size, 1) if isinstance(size, int) else size) * step
    return tuple(reversed(strides))


def quoted(text: str) -> str:
    """A string as text, in one line of ASCII."""
    return json.dumps(text)


class ValuePrinter:
    """Prints the values of one graph. `names` are those of its nodes, with the ``%``."""

    def __init__(self, expressions: ExpressionPrinter) -> None:
        self.expressions = expressions
        self.names: dict[Node, str] = {}
        self._tensors: dict[Any, str] = {}

    # -- arguments --------------------------------------------------------------------------------------
    def argument(self, value: Any) -> str:
        """One argument. Raises `UnserializableError` for what has no printed form."""
        printer = _ARGUMENTS.get(type(value))
        return self._other(value) if printer is None else printer(self, value)

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """All that a call takes, without the parentheses."""
        argument = self.argument
        texts = [argument(a) for a in args]
        if kwargs:
            texts += [f"{name}={argument(a)}" for name, a in kwargs.items()]
        return ", ".join(texts)

    def _node(self, value: Node) -> str:
        return self.names[value]

    def _tuple(self, value: tuple[Any, ...]) -> str:
        inner = ", ".join([self.argument(v) for v in value])
        return f"({inner},)" if len(value) == 1 else f"({inner})"

    def _list(self, value: Sequence[Any]) -> str:
        return f"[{', '.join([self.argument(v) for v in value])}]"

    def _dict(self, value: Mapping[Any, Any]) -> str:
        for key in value:
            if type(key) not in (str, int):
                raise UnserializableError(f"an argument has the key {key!r}")
        return "{" + ", ".join(f"{self.argument(k)}: {self.argument(v)}" for k, v in value.items()) + "}"

    def _slice(self, value: slice) -> str:
        return f"slice({', '.join(self.argument(v) for v in (value.start, value.stop, value.step))})"

    def _device(self, value: torch.device) -> str:
        return f"@{value}"

    def _other(self, value: Any) -> str:
        for kind, word in _KINDS:
            if isinstance(value, kind):
                return self._symbolic(value, word)
        # FX gives lists and dictionaries classes of its own
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, list):
            return self._list(value)
        if isinstance(value, dict):
            return self._dict(value)
        found: str | None = None
        if isinstance(value, (torch.layout, torch.memory_format)):
            found = ATTRIBUTE_WORDS.get(value)
        elif callable(value):
            found = function_word(value)
        if found is None:
            raise UnserializableError(f"an argument is a {type(value).__name__}")
        return found

    # -- metadata ---------------------------------------------------------------------------------------
    def metadata(self, value: Any) -> str:
        """What a node's value is: tensors, symbolic and other numbers, and tuples and lists of those."""
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, (tuple, list)):
            inner = ", ".join([self.metadata(v) for v in value])
            if isinstance(value, list):
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if value is None or type(value) in _NUMBERS:
            return _ARGUMENTS[type(value)](self, value)
        for kind, word in _KINDS:
            if isinstance(value, kind):
                return self._symbolic(value, word)
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
            facts = (dtype, self.plain(size), self.plain(stride), *self.plain((offset,)), device)
            found = self._tensors.get(facts)
        if found is None:
            found = self._tensors[facts] = self._tensor(*facts)
        return found

    def _tensor(self, dtype: torch.dtype, size: Any, stride: Any, offset: Any, device: torch.device) -> str:
        text = f"{DTYPE_WORDS[dtype]}[{self.sizes(size)}]"
        if tuple(stride) != contiguous_strides(size):
            text += f" strides ({self.sizes(stride)})"
        if offset != 0:
            text += f" offset {self.sizes((offset,))}"
        return text if device == HOST_DEVICE else f"{text} @{device}"

    def sizes(self, values: Sequence[Any]) -> str:
        """Integers and expressions, with commas."""
        text = self.expressions.text
        return ", ".join([str(v) if type(v) is int else text(v) for v in values])

    def plain(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Integers as they are, symbolic ones as expressions: these compare without guarding on anything."""
        return tuple([v if type(v) is int else _expression(v) for v in values])

    def _symbolic(self, value: Any, word: str) -> str:
        expression = _expression(value)
        text = self.expressions.text(expression)
        # what was found to be a constant is one
        return text if type(expression) is int or not expression.free_symbols else f"{word}{{{text}}}"


def _expression(value: Any) -> Any:
    try:
        expression = raw_expression(value)
    except ValueError as error:
        raise UnserializableError(str(error)) from error
    return int(expression) if getattr(expression, "is_Integer", False) else expression


def _float(printer: ValuePrinter, value: float) -> str:
    return repr(value) if math.isfinite(value) else str(value)


def _complex(printer: ValuePrinter, value: complex) -> str:
    return f"complex({_float(printer, value.real)}, {_float(printer, value.imag)})"


def _repr(printer: ValuePrinter, value: Any) -> str:
    return repr(value)


_NUMBERS = (int, float, bool, complex, str)
_ARGUMENTS: dict[type, Callable[[ValuePrinter, Any], str]] = {
    Node: ValuePrinter._node,
    int: _repr,
    bool: _repr,
    type(None): _repr,
    float: _float,
    complex: _complex,
    str: lambda printer, value: quoted(value),
    tuple: ValuePrinter._tuple,
    list: ValuePrinter._list,
    dict: ValuePrinter._dict,
    slice: ValuePrinter._slice,
    type(...): lambda printer, value: "...",
    torch.dtype: lambda printer, value: DTYPE_WORDS[value],
    torch.device: ValuePrinter._device,
}
