"""Metadata of artefacts, as bytes: msgpack whose every value is checked against a declared type.

What msgpack has no type for travels as an extension of a closed list (`_READERS`): integer expressions and
guards in their printed form, element types, devices, layouts, memory formats, complex numbers, and references
to names of a plan. Nothing in here is ever evaluated: expressions go through their parser, and names of types
through tables.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import torch
from msgspec.msgpack import Ext

from braze._torch.devices import HOST
from braze.dtypes import torch_name, torch_values
from braze.errors import ArtifactError, UnserializableError
from braze.runtime.engines import device_types
from braze.runtime.expr import Expr, Symbol, as_expr
from braze.runtime.expr_parser import parse_condition, parse_expr
from braze.runtime.guard import BoolExpr
from braze.runtime.plan import ARG_LEAVES, Arg, Pattern, Ref

__all__ = ["decode", "encode"]

T = TypeVar("T")

_EXPR, _GUARD, _REF, _DTYPE, _DEVICE, _LAYOUT, _MEMORY_FORMAT, _COMPLEX = range(1, 9)
_GREATEST_TEXT = 1 << 16
_DEEPEST = 32

_DEVICE_TYPES = frozenset({HOST, "cuda", "meta", "xpu", "mps"})


def encode(value: object) -> tuple[bytes, frozenset[Symbol]]:
    """The bytes of a `msgspec.Struct`, and the symbols that expressions in it are over. Raises
    ``UnserializableError`` for a value inside it that has no stored form."""
    symbols: set[Symbol] = set()

    def write(value: object) -> Ext:
        if isinstance(value, (Expr, BoolExpr)):
            symbols.update(value.free_symbols)
        return _write(value)

    try:
        return msgspec.msgpack.encode(value, enc_hook=write), frozenset(symbols)
    except (TypeError, OverflowError, ValueError) as error:
        raise UnserializableError(f"a {type(value).__name__} cannot be stored: {error}") from error


def decode(data: bytes | memoryview, kind: type[T], symbols: Mapping[str, Symbol]) -> T:
    """The value of type ``kind`` that `encode` wrote; expressions are over ``symbols``, by name. Raises
    ``ArtifactError`` for anything else, and says where in the value it is."""
    reader = _Reader(symbols)
    try:
        return msgspec.msgpack.decode(data, type=kind, dec_hook=_convert, ext_hook=reader.read)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError, MemoryError, OverflowError) as error:
        raise ArtifactError(f"metadata do not fit {kind.__name__}: {error}") from None


# -- writing ------------------------------------------------------------------------------------------------
def _write(value: object) -> Ext:
    if isinstance(value, Expr):
        return Ext(_EXPR, str(value).encode())
    if isinstance(value, torch.dtype):
        return Ext(_DTYPE, torch_name(value).encode())
    if isinstance(value, Ref):
        return Ext(_REF, value.name.encode())
    if isinstance(value, BoolExpr):
        return Ext(_GUARD, str(value).encode())
    if isinstance(value, torch.device):
        return Ext(_DEVICE, str(value).encode())
    if isinstance(value, torch.layout):
        return Ext(_LAYOUT, torch_name(value).encode())
    if isinstance(value, torch.memory_format):
        return Ext(_MEMORY_FORMAT, torch_name(value).encode())
    if isinstance(value, complex):
        return Ext(_COMPLEX, struct.pack("<dd", value.real, value.imag))
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be stored")


# -- reading ------------------------------------------------------------------------------------------------
class _Reader:
    """Reads the extensions of one value; equal texts are parsed once."""

    def __init__(self, symbols: Mapping[str, Symbol]) -> None:
        self._symbols = symbols
        self._parsed: dict[tuple[int, bytes], object] = {}

    def read(self, code: int, data: memoryview) -> object:
        key = (code, bytes(data))
        found = self._parsed.get(key)
        if found is None:
            reader = _READERS.get(code)
            if reader is None:
                raise ValueError(f"unknown extension {code}")
            if len(data) > _GREATEST_TEXT:
                raise ValueError(f"an extension of {len(data)} bytes")
            found = self._parsed[key] = reader(key[1], self._symbols)
        return found


def _expr(data: bytes, symbols: Mapping[str, Symbol]) -> Expr:
    text = data.decode("ascii")
    if text.isdigit():
        return as_expr(_integer(text))
    return parse_expr(text, symbols)


def _guard(data: bytes, symbols: Mapping[str, Symbol]) -> BoolExpr:
    text = data.decode("ascii")
    return parse_condition(text, symbols)


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _ref(data: bytes, _: Mapping[str, Symbol]) -> Ref:
    return Ref(data.decode("ascii"))


def _named(table: Mapping[str, T], what: str) -> Callable[[bytes, Mapping[str, Symbol]], T]:
    def read(data: bytes, _: Mapping[str, Symbol]) -> T:
        found = table.get(data.decode("ascii"))
        if found is None:
            raise ValueError(f"no {what} {data.decode('ascii')!r}")
        return found

    return read


def _device(data: bytes, _: Mapping[str, Symbol]) -> torch.device:
    kind, _colon, index = data.decode("ascii").partition(":")
    if kind not in {*_DEVICE_TYPES, *device_types()} or (index and not (index.isdigit() and len(index) < 4)):
        raise ValueError(f"no device {data.decode('ascii')!r}")
    return torch.device(kind, int(index)) if index else torch.device(kind)


def _complex(data: bytes, _: Mapping[str, Symbol]) -> complex:
    if len(data) != 16:
        raise ValueError("a complex number has 16 bytes")
    return complex(*struct.unpack("<dd", data))


_READERS: Mapping[int, Callable[[bytes, Mapping[str, Symbol]], object]] = {
    _EXPR: _expr,
    _GUARD: _guard,
    _REF: _ref,
    _DTYPE: _named(torch_values(torch.dtype), "dtype"),
    _DEVICE: _device,
    _LAYOUT: _named(torch_values(torch.layout), "layout"),
    _MEMORY_FORMAT: _named(torch_values(torch.memory_format), "memory format"),
    _COMPLEX: _complex,
}


def _convert(kind: type, value: Any) -> Any:
    """A decoded value as a type that msgspec does not know."""
    convert = _OPAQUE.get(kind)
    if convert is not None:
        return convert(value, 0)
    if isinstance(value, kind):
        return value
    raise ValueError(f"expected {kind.__name__}, not {type(value).__name__}")


def _argument(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        if depth > _DEEPEST:
            raise ValueError("arguments nested too deep")
        return tuple([_argument(v, depth + 1) for v in value])
    if isinstance(value, ARG_LEAVES):
        return value
    raise ValueError(f"{type(value).__name__} is not an argument of an operator")


def _pattern(value: Any, depth: int) -> Any:
    if isinstance(value, list) and depth <= _DEEPEST:
        return tuple([_pattern(v, depth + 1) for v in value])
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{type(value).__name__} is not a pattern of results")


_OPAQUE: Mapping[object, Callable[[Any, int], Any]] = {Arg: _argument, Pattern: _pattern}
