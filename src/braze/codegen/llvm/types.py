"""LLVM types and typed SSA values, and how constants are spelled in LLVM's text form."""

from __future__ import annotations

import math
import struct
from typing import ClassVar

from braze.errors import CodegenError

__all__ = [
    "BF16",
    "F16",
    "F32",
    "F64",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "VOID",
    "IRBuildError",
    "Type",
    "Value",
    "constant",
]

ELEM_BITS = {
    "i1": 1,
    "i8": 8,
    "i16": 16,
    "i32": 32,
    "i64": 64,
    "half": 16,
    "bfloat": 16,
    "float": 32,
    "double": 64,
    "ptr": 64,
    "void": 0,
}
"""Width in bits of every element type that the builder knows."""

FLOAT_ELEMS = frozenset({"half", "bfloat", "float", "double"})

_SUFFIX = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}


class IRBuildError(CodegenError):
    """The builder was asked for IR that LLVM would reject (operand types that differ, an open block, ...)."""


class Type:
    """An element type and a number of lanes; one object for each pair, so that ``is`` compares types.

    ``lanes == 1`` is the scalar type (there are no one-lane vectors).

    Raises:
        IRBuildError: for an unknown element type, or fewer than one lane.
    """

    __slots__ = ("align", "bits", "elem", "is_float", "lanes", "suffix", "text")
    _made: ClassVar[dict[tuple[str, int], Type]] = {}

    elem: str
    lanes: int
    text: str
    suffix: str
    bits: int
    align: int
    is_float: bool

    def __new__(cls, elem: str, lanes: int = 1) -> Type:
        made = cls._made.get((elem, lanes))
        if made is not None:
            return made
        if elem not in ELEM_BITS or lanes < 1 or (elem == "void" and lanes != 1):
            raise IRBuildError(f"no LLVM type of {lanes} lanes of {elem!r}")
        self = super().__new__(cls)
        self.elem = elem
        self.lanes = lanes
        self.text = elem if lanes == 1 else f"<{lanes} x {elem}>"
        suffix = _SUFFIX.get(elem, elem)
        self.suffix = suffix if lanes == 1 else f"v{lanes}{suffix}"
        self.bits = ELEM_BITS[elem]
        self.align = max(1, self.bits // 8)
        self.is_float = elem in FLOAT_ELEMS
        return cls._made.setdefault((elem, lanes), self)

    def __reduce__(self) -> tuple[type[Type], tuple[str, int]]:
        return Type, (self.elem, self.lanes)

    def __repr__(self) -> str:
        return f"Type({self.text})"

    def with_lanes(self, lanes: int) -> Type:
        """The same element with another number of lanes."""
        return Type(self.elem, lanes)

    def with_elem(self, elem: str) -> Type:
        """Another element with the same number of lanes."""
        return Type(elem, self.lanes)

    @property
    def scalar(self) -> Type:
        """The element type itself."""
        return Type(self.elem)


VOID = Type("void")
I1 = Type("i1")
I8 = Type("i8")
I16 = Type("i16")
I32 = Type("i32")
I64 = Type("i64")
F16 = Type("half")
BF16 = Type("bfloat")
F32 = Type("float")
F64 = Type("double")
PTR = Type("ptr")


class Value:
    """An operand: the text that names it (``%x``, ``@table``, a literal) and its type."""

    __slots__ = ("text", "type")

    def __init__(self, text: str, type: Type) -> None:
        self.text = text
        self.type = type

    def __repr__(self) -> str:
        return f"{self.type.text} {self.text}"

    @property
    def lanes(self) -> int:
        """Number of lanes of the value's type."""
        return self.type.lanes


def _bf16_bits(value: float) -> int:
    if math.isnan(value):
        return 0x7FC0
    bits = int(struct.unpack("<I", struct.pack("<f", value))[0])
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def _float_literal(value: float, elem: str) -> str:
    if elem == "half":
        if not math.isnan(value) and abs(value) >= 65520.0:
            value = math.copysign(math.inf, value)
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if elem == "bfloat":
        return f"0xR{_bf16_bits(_round_to_single(value)):04X}"
    if elem == "float":
        value = _round_to_single(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _round_to_single(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def scalar_literal(value: float, elem: str) -> str:
    """LLVM's spelling of one element; floats in hexadecimal, rounded; integers wrapped."""
    if elem in FLOAT_ELEMS:
        return _float_literal(float(value), elem)
    if elem == "i1":
        return "true" if value else "false"
    if elem == "ptr":
        if value:
            raise IRBuildError("the only pointer literal is null")
        return "null"
    bits = ELEM_BITS[elem]
    wrapped = int(value) & ((1 << bits) - 1)
    return str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)


_constants: dict[tuple[Type, str], Value] = {}


def constant(type: Type, value: float) -> Value:
    """The constant ``value`` in every lane of ``type`` (bool, int or float; infinities are fine, and all
    NaNs are the one quiet, positive NaN)."""
    if value != value:
        value = math.nan
    # -0.0 == 0.0, 1 == 1.0 == True and NaN != NaN: the text of the number tells them apart.
    key = (type, repr(value))
    found = _constants.get(key)
    if found is None:
        literal = scalar_literal(value, type.elem)
        text = literal if type.lanes == 1 else f"splat ({type.elem} {literal})"
        found = Value(text, type)
        if len(_constants) < 65536:
            _constants[key] = found
    return found
