"""Run-time checks: what a failed one raises.

A check is stored as one line, ``<exception>|<operator>|<place>``, the exception with ``: <text>`` behind it
where the message is known beforehand. Native code reports a failure as a number,
the offending value, and the bound that it broke; the caller makes the exception of these.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["EXCEPTIONS", "Check"]

EXCEPTIONS: dict[str, type[Exception]] = {
    "IndexError": IndexError,
    "RuntimeError": RuntimeError,
    "ZeroDivisionError": RuntimeError,  # what eager raises, with this word as its message
}


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """One check. ``exception`` is a key of ``EXCEPTIONS``: ``IndexError`` and ``RuntimeError`` for an index
    out of range, by what eager raises for the operator; ``ZeroDivisionError`` for an integer division by
    zero. ``operator`` is the ATen operator, ``place`` the user's ``file:line`` (both may be empty). ``text``
    is the message, where it says nothing of the value that failed.
    """

    exception: str
    operator: str = ""
    place: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        if self.exception not in EXCEPTIONS:
            raise ValueError(f"a check raises one of {', '.join(EXCEPTIONS)}, not {self.exception!r}")
        if "|" in self.operator + self.text or "\n" in self.operator + self.text + self.place:
            raise ValueError(f"not on one line: {self.text!r} of {self.operator!r} at {self.place!r}")

    def encode(self) -> str:
        """The check as one line, which ``decode`` reads."""
        exception = f"{self.exception}: {self.text}" if self.text else self.exception
        return f"{exception}|{self.operator}|{self.place}"

    @classmethod
    def decode(cls, text: str) -> Check:
        """The check that ``encode`` wrote. Raises ``ValueError`` on anything else."""
        parts = text.split("|", 2)
        if len(parts) != 3:
            raise ValueError(f"not a check: {text!r}")
        exception, _, known = parts[0].partition(": ")
        return cls(exception, parts[1], parts[2], known)

    def message(self, value: int, size: int) -> str:
        """In eager's words, then the operator and the place: ``value`` is the index, or the divisor, that
        failed, ``size`` the extent of the dimension (of no meaning for a division)."""
        if self.text:
            text = self.text
        elif self.exception == "ZeroDivisionError":
            text = "ZeroDivisionError"
        else:
            text = f"index {value} is out of bounds for dimension with size {size}"
        where = " at ".join(part for part in (self.operator, self.place) if part)
        return f"{text} ({where})" if where else text

    def error(self, value: int, size: int) -> Exception:
        """The exception to raise."""
        return EXCEPTIONS[self.exception](self.message(value, size))
