"""Checks inside loop bodies: how one is written down, and what a failed one raises.

A check is stored as one line, ``<exception>|<operator>|<place>``. Machine code reports a failure as a number,
the offending value, and the bound that it broke; the launch plan says for each number what to raise.
"""

from __future__ import annotations

from dataclasses import dataclass

from braze.runtime.plan import ErrorEntry

__all__ = ["Check"]

_OUT_OF_RANGE = "index {value} is out of bounds for dimension with size {bound}"
_ENTRIES = {
    "IndexError": ("IndexError", _OUT_OF_RANGE),
    "RuntimeError": ("RuntimeError", _OUT_OF_RANGE),
    "ZeroDivisionError": ("RuntimeError", "ZeroDivisionError"),  # eager's type and eager's message
}


@dataclass(frozen=True)
class Check:
    """One check. ``exception``: ``IndexError`` or ``RuntimeError`` for an index out of range, by what eager
    raises for the operator; ``ZeroDivisionError`` for an integer division by zero. ``operator`` is the ATen
    operator,
    ``place`` the user's ``file:line``; both may be empty. Raises ``ValueError`` for any other exception.
    """

    exception: str
    operator: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        if self.exception not in _ENTRIES:
            raise ValueError(f"a check raises one of {', '.join(_ENTRIES)}, not {self.exception!r}")
        if "|" in self.operator:
            raise ValueError(f"not an operator: {self.operator!r}")

    def encode(self) -> str:
        """The check as one line, which ``decode`` reads."""
        return f"{self.exception}|{self.operator}|{self.place}"

    @classmethod
    def decode(cls, text: str) -> Check:
        """The check that ``encode`` wrote. Raises ``ValueError`` on anything else."""
        parts = text.split("|", 2)
        if len(parts) != 3:
            raise ValueError(f"not a check: {text!r}")
        return cls(*parts)

    def entry(self, number: int) -> ErrorEntry:
        """The launch plan's entry for machine code that reports this check as ``number``."""
        return ErrorEntry(number, *_ENTRIES[self.exception], self.operator, self.place)

    def error(self, value: int, bound: int) -> Exception:
        """The exception to raise: ``value`` is the index that failed, ``bound`` the extent of its
        dimension.
        """
        return self.entry(0).make(value, bound)
