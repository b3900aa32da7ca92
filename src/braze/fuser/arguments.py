"""The parameters of a fused function, and their values: which are tensors, which are numbers that a call
brings, and what else is part of the code.

A *structure* is a tree as nested tuples, equal for arguments that differ in their tensors and numbers only::

    ("tensor",)   ("float",)   ("int",)            the leaves
    ("is", type, value)                            anything else: a string, None, a dtype, ...
    ("list", child, ...)   ("tuple", type, child, ...)   ("dict", keys, child, ...)
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch

from braze.errors import BrazeError

__all__ = [
    "FAST",
    "Parameters",
    "Structure",
    "Unfusable",
    "conditions",
    "describe",
    "literal",
    "number_positions",
    "rebuild",
    "same_containers",
]

Structure: TypeAlias = tuple[Any, ...]

OUT = "out"
FAST = "_braze_fast"
"""What the wrapper calls: a name that no parameter has."""

_FIXED = (
    bool, str, bytes, complex, type(None), type(Ellipsis), type,
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip


class Unfusable(BrazeError):
    """Arguments, or a function, that the fuser does not compile; the message is the reason."""


class _Verbatim(str):
    """Text that signatures print as it is."""

    __repr__ = str.__str__


class Parameters:
    """The parameters of ``function``, by name, in order. Where it has no parameter ``out`` and takes no other
    keywords, calls take one: ``takes_out``; it is the last one then.

    Raises ``TypeError`` for what has no signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            self._signature = inspect.signature(function)
        except ValueError as error:
            raise TypeError(f"{function!r} has no signature that can be seen: {error}") from None
        self.function = function
        self._parameters = list(self._signature.parameters.values())
        self.names = list(self._signature.parameters)
        self.takes_out = OUT not in self.names and all(p.kind != p.VAR_KEYWORD for p in self._parameters)
        if self.takes_out:
            self.names.append(OUT)

    @property
    def identifiers(self) -> list[str]:
        """Their names in generated code: people's own names may mean something else there."""
        return [f"p{k}_{name}" for k, name in enumerate(self.names)]

    def wrapper(self, space: dict[str, Any]) -> Callable[..., Any]:
        """A function with these parameters that passes their values, one by one, to ``space[FAST]``."""
        shown = [p.replace(annotation=p.empty) for p in self._parameters]
        for k, p in enumerate(shown):
            if p.default is not p.empty:
                space[f"_braze_default_{p.name}"] = p.default
                shown[k] = p.replace(default=_Verbatim(f"_braze_default_{p.name}"))
        if self.takes_out:
            shown.append(inspect.Parameter(OUT, inspect.Parameter.KEYWORD_ONLY, default=None))
        source = f"def _wrapper{inspect.Signature(shown)}:\n    return {FAST}({', '.join(self.names)})\n"
        exec(compile(source, f"<braze.fuse {getattr(self.function, '__name__', '')}>", "exec"), space)
        wrapper: Callable[..., Any] = space.pop("_wrapper")
        return functools.wraps(self.function)(wrapper)

    def bound(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """The values of the parameters (without ``out``) for these positional arguments. Raises
        ``TypeError``."""
        bound = self._signature.bind(*args)
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def call(self, values: Sequence[Any]) -> Any:
        """The function's result for these values of its parameters (without ``out``)."""
        bound = inspect.BoundArguments(self._signature, dict(zip(self._signature.parameters, values)))
        return self.function(*bound.args, **bound.kwargs)


def describe(value: Any, path: str, leaves: list[Any], *, numbers: bool = True) -> Structure:
    """The structure of ``value``; its tensors, and its numbers unless ``numbers`` says that they are
    constants, are appended to ``leaves``. ``path`` is how one would write it. Raises `Unfusable`."""
    if isinstance(value, torch.Tensor):
        leaves.append(value)
        return ("tensor",)
    kind = type(value)
    if kind in (float, int) and not numbers:
        return ("is", kind, value)
    if kind is float:
        leaves.append(value)
        return ("float",)
    if kind is int:
        leaves.append(value)
        return ("int",) if -(1 << 63) <= value < 1 << 63 else _too_large(path)
    if kind in _FIXED or isinstance(value, enum.Enum):
        return ("is", kind, value)
    if kind is slice:
        return (
            "slice",
            *[describe(getattr(value, a), f"{path}.{a}", leaves, numbers=numbers) for a in _SLICE],
        )
    if kind is list:
        return ("list", *[describe(v, f"{path}[{k}]", leaves, numbers=numbers) for k, v in enumerate(value)])
    if isinstance(value, tuple) and (kind in (tuple, torch.Size) or _is_named(kind)):
        return (
            "tuple",
            kind,
            *[describe(v, f"{path}[{k}]", leaves, numbers=numbers) for k, v in enumerate(value)],
        )
    if kind is dict:
        keys = tuple(value)
        if not all(isinstance(k, (str, int)) for k in keys):
            raise Unfusable(f"{path} is a dict with keys that are neither strings nor integers")
        return (
            "dict",
            keys,
            *[describe(v, f"{path}[{k!r}]", leaves, numbers=numbers) for k, v in value.items()],
        )
    raise Unfusable(
        f"{path} is a {kind.__name__}; tensors, numbers, constants such as strings and dtypes, and lists, "
        "tuples and dicts of these can be passed and returned"
    )


def same_containers(one: Any, other: Any) -> bool:
    """Whether two values are the same objects throughout, containers apart, which are made alike."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and list(one) == list(other)
            and all(same_containers(v, other[k]) for k, v in one.items())
        )
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same_containers, one, other))
    return one is other


def _is_named(kind: type) -> bool:
    """Whether a class of tuples is a namedtuple, or one of torch's own kind (`torch.return_types`)."""
    return hasattr(kind, "_fields") or hasattr(kind, "n_sequence_fields")


_KINDS = frozenset({"tensor", "float", "int", "is", "list", "tuple", "slice", "dict"})
_SLICE = ("start", "stop", "step")


def _too_large(path: str) -> Structure:
    raise Unfusable(f"{path} does not fit into 64 bits")


def number_positions(structure: Structure) -> frozenset[int]:
    """The positions, among the leaves of a structure (or a tuple of structures), of numbers."""
    return frozenset(k for k, kind in enumerate(_kinds(structure)) if kind != "tensor")


def _kinds(structure: Structure) -> Iterator[str]:
    kind = structure[0] if structure else ""
    if kind in ("tensor", "float", "int"):
        yield kind
    elif kind != "is":
        for child in structure:
            if isinstance(child, tuple) and child and child[0] in _KINDS:
                yield from _kinds(child)


def rebuild(structure: Structure, leaves: Iterator[Any]) -> Any:
    """The value of this structure whose tensors and numbers are ``leaves``, in order."""
    kind = structure[0]
    if kind in ("tensor", "float", "int"):
        return next(leaves)
    if kind == "is":
        return structure[2]
    if kind == "list":
        return [rebuild(c, leaves) for c in structure[1:]]
    if kind == "slice":
        return slice(*[rebuild(c, leaves) for c in structure[1:]])
    children = [rebuild(c, leaves) for c in structure[2:]]
    if kind == "dict":
        return dict(zip(structure[1], children, strict=True))
    cls = structure[1]
    return cls(*children) if hasattr(cls, "_fields") else cls(children)


def conditions(
    structure: Structure, path: str, constant: Callable[[Any], str], leaves: list[str]
) -> Iterator[str]:
    """Python expressions that hold exactly for values of this structure, tensors apart: those are checked by
    their guards. ``constant`` gives a name to an object; expressions for the tensors and numbers are appended
    to ``leaves``."""
    kind = structure[0]
    if kind == "tensor":
        leaves.append(path)
    elif kind == "float":
        leaves.append(path)
        yield f"type({path}) is float"
    elif kind == "int":
        leaves.append(path)
        yield f"type({path}) is int"
        yield f"-0x8000000000000000 <= {path} < 0x8000000000000000"
    elif kind == "is":
        value = structure[2]
        if value is None or value is True or value is False:
            yield f"{path} is {value}"
        else:
            yield f"type({path}) is {constant(structure[1])}"
            yield f"{path} == {constant(value)}"
    elif kind == "slice":
        yield f"type({path}) is slice"
        for name, child in zip(_SLICE, structure[1:], strict=True):
            yield from conditions(child, f"{path}.{name}", constant, leaves)
    elif kind == "list":
        yield f"type({path}) is list and len({path}) == {len(structure) - 1}"
        for k, child in enumerate(structure[1:]):
            yield from conditions(child, f"{path}[{k}]", constant, leaves)
    elif kind == "tuple":
        yield f"type({path}) is {constant(structure[1])} and len({path}) == {len(structure) - 2}"
        for k, child in enumerate(structure[2:]):
            yield from conditions(child, f"{path}[{k}]", constant, leaves)
    else:
        yield f"type({path}) is dict and tuple({path}) == {constant(structure[1])}"
        for key, child in zip(structure[1], structure[2:], strict=True):
            yield from conditions(child, f"{path}[{key!r}]", constant, leaves)


def literal(structure: Structure, leaves: Iterator[str], constant: Callable[[Any], str]) -> str:
    """The Python expression that makes a value of this structure out of expressions for its leaves."""
    kind = structure[0]
    if kind in ("tensor", "float", "int"):
        return next(leaves)
    if kind == "is":
        value = structure[2]
        return repr(value) if value is None or isinstance(value, (bool, str)) else constant(value)
    if kind == "list":
        return f"[{_joined(structure[1:], leaves, constant)}]"
    if kind == "slice":
        return f"slice({_joined(structure[1:], leaves, constant)})"
    inner = [literal(c, leaves, constant) for c in structure[2:]]
    if kind == "dict":
        return f"{{{', '.join(f'{k!r}: {v}' for k, v in zip(structure[1], inner, strict=True))}}}"
    cls = structure[1]
    if cls is tuple:
        return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
    opened, closed = ("(", ")") if hasattr(cls, "_fields") else ("([", "])")
    return f"{constant(cls)}{opened}{', '.join(inner)}{closed}"


def _joined(children: Sequence[Structure], leaves: Iterator[str], constant: Callable[[Any], str]) -> str:
    return ", ".join([literal(c, leaves, constant) for c in children])
