"""What a function reads besides its arguments: plain values and functions in globals and closures, of it and
of the functions it calls. They are part of the code that is made, so a call looks whether they are the same.
"""

from __future__ import annotations

import builtins
import dis
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["Place", "Surroundings"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_MOST_FUNCTIONS: Final = 64
_FOREIGN = ("torch", "builtins", "math", "numpy", "functools", "itertools", "operator", "typing", "braze")
_INSPECTING = frozenset(
    "isinstance issubclass type str repr format hash id callable hasattr getattr int float bool round".split()
)
"""Functions that tell a number from what stands for it in a trace."""
_MODES = frozenset(
    """
    is_grad_enabled is_inference_mode_enabled is_inference_mode is_autocast_enabled get_autocast_dtype
    are_deterministic_algorithms_enabled is_compiling is_tracing is_scripting Parameter Buffer
    """.split()
)
"""Functions that ask for a mode of the thread, and classes of tensors: some are others in a trace."""


@dataclass(frozen=True)
class Place:
    """A name in a namespace, or a cell of a closure."""

    name: str
    home: dict[str, Any] | types.CellType

    def read(self) -> Any:
        """What is there now; None where there is nothing."""
        if isinstance(self.home, dict):
            return self.home.get(self.name)
        try:
            return self.home.cell_contents
        except ValueError:
            return None


@dataclass(frozen=True)
class _Survey:
    """``places``: those that hold plain values or functions, or nothing yet. ``values``: of the functions and
    of what is not there yet, when they were looked at: others may read other places. ``inspects``,
    ``asks``: see `Surroundings`."""

    places: tuple[Place, ...]
    values: tuple[tuple[Place, Any], ...]
    inspects: bool
    asks: str | None

    @property
    def holds(self) -> bool:
        return all(place.read() is value for place, value in self.values)


class Surroundings:
    """What ``function`` may read besides its arguments, as it is now. What lies deeper, in objects, lists and
    dicts, is read when the function is traced."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._found: _Survey | None = None

    def _survey(self) -> _Survey:
        # what a function calls is often defined after it, and may be replaced
        if self._found is None or not self._found.holds:
            self._found = _survey(self._function)
        return self._found

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it may read plain values and functions."""
        return self._survey().places

    @property
    def inspects(self) -> bool:
        """Whether it may look at what its numbers are: by ``isinstance``, or as text."""
        return self._survey().inspects

    @property
    def asks(self) -> str | None:
        """A mode of the thread for which it may ask, or a class of tensors, by its name."""
        return self._survey().asks

    def read(self) -> list[object]:
        """The present values, so that they are equal only where they are the same to a computation."""
        return [_exact(place.read()) for place in self.places]


def _survey(function: Callable[..., Any]) -> _Survey:
    places: dict[tuple[int, str], Place] = {}
    values: list[tuple[Place, Any]] = []
    inspects, asks = False, None
    stack: list[Any] = [function]
    seen: set[int] = set()
    while stack and len(seen) < _MOST_FUNCTIONS:
        one = stack.pop()
        one = getattr(one, "__func__", one)
        if not isinstance(one, types.FunctionType) or id(one) in seen:
            continue
        seen.add(id(one))
        names, attributes, formats = _names_read(one.__code__)
        inspects = inspects or formats or not _INSPECTING.isdisjoint(names)
        asks = min(_MODES & (names | attributes), default=asks)
        for place in _places(one, names):
            value = place.read()
            if isinstance(value, _FUNCTIONS) or value is None:
                places[id(place.home), place.name] = place
                values.append((place, value))
                inner = getattr(value, "__wrapped__", value)
                if isinstance(inner, types.FunctionType) and not _is_foreign(inner):
                    stack.append(inner)
            elif _is_plain(value):
                places[id(place.home), place.name] = place
    return _Survey(tuple(places.values()), tuple(values), inspects, asks)


def _places(function: types.FunctionType, names: set[str]) -> Iterator[Place]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield Place(name, cell)
    for name in sorted(names):
        if name in function.__globals__ or not hasattr(builtins, name):
            yield Place(name, function.__globals__)


def _names_read(code: types.CodeType) -> tuple[set[str], set[str], bool]:
    """The global names and the attributes that code reads, functions inside it included; and whether it makes
    text of values."""
    names: set[str] = set()
    attributes: set[str] = set()
    formats = False
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(instruction.argval)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(instruction.argval)
        formats = formats or instruction.opname.startswith(("FORMAT_", "CONVERT_VALUE"))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner, also, texts = _names_read(constant)
            names |= inner
            attributes |= also
            formats = formats or texts
    return names, attributes, formats


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _exact(value: Any) -> object:
    """``value`` so that it equals no other: 1 is not 1.0, and 0.0 not -0.0."""
    if isinstance(value, tuple):
        return tuple([_exact(v) for v in value])
    return type(value), value.hex() if isinstance(value, float) else value


def _is_foreign(function: types.FunctionType) -> bool:
    return (function.__module__ or "").split(".")[0] in _FOREIGN
