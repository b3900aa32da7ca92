"""The symbols of a relocatable ELF file (System V ABI, gABI chapter 4: 64 bits, little endian).

A file of its own: a format that others have specified.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["Symbols", "read_symbols"]

_SYMBOL_TABLE = 2
_LOCAL = 0
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Symbols:
    """Names that an object file defines for others, and names that it wants of others."""

    defined: frozenset[str]
    undefined: frozenset[str]


def read_symbols(data: bytes) -> Symbols | None:
    """The symbols of an object file; None where it is not 64-bit little-endian ELF.

    Raises ``ValueError`` where it says that it is and then is not whole.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        (section_offset,) = struct.unpack_from("<Q", data, 40)
        section_size, count = struct.unpack_from("<HH", data, 58)
        sections = [_SECTION.unpack_from(data, section_offset + i * section_size) for i in range(count)]
        defined: set[str] = set()
        undefined: set[str] = set()
        for _, kind, _, _, offset, size, link, *_ in sections:
            if kind != _SYMBOL_TABLE:
                continue
            names = sections[link][4]
            for position in range(offset, offset + size, _SYMBOL.size):
                name, info, _, section, _, _ = _SYMBOL.unpack_from(data, position)
                if name and info >> 4 != _LOCAL:
                    start = names + name
                    text = data[start : data.index(b"\0", start)].decode()
                    (defined if section else undefined).add(text)
    except (struct.error, IndexError) as error:
        raise ValueError(f"not a whole ELF file: {error}") from error
    return Symbols(frozenset(defined), frozenset(undefined))
