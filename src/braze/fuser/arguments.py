"""The parameters of a fused function, and their values: which are tensors, which are numbers that a call
brings, and what else is part of the code.

A *structure* is a tree as nested tuples, equal for arguments that differ in their tensors and numbers only::

    ("tensor",)   ("float",)   ("int",)    the leaves
    ("is", type, value)                    anything else: a string, None, a dtype, ...
    (type, keys, child, ...)               a list, tuple, named tuple, dict or slice
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch

from braze.errors import Refused

__all__ = [
    "FAST",
    "Parameters",
    "Structure",
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


_SLICE = ("start", "stop", "step")
_LEAVES = ("tensor", "float", "int")


def _opened(value: Any, path: str) -> tuple[tuple[Any, ...], list[Any]]:
    """The keys and the values of a container. Raises `Refused` for what is none that is taken."""
    kind = type(value)
    if kind is slice:
        return _SLICE, [getattr(value, name) for name in _SLICE]
    # a namedtuple, or one of torch's own kind (`torch.return_types`)
    named = isinstance(value, tuple) and (hasattr(kind, "_fields") or hasattr(kind, "n_sequence_fields"))
    if kind in (list, tuple, torch.Size) or named:
        return tuple(range(len(value))), list(value)
    if kind is dict:
        if not all(isinstance(k, (str, int)) for k in value):
            raise Refused(f"{path} is a dict with keys that are neither strings nor integers")
        return tuple(value), list(value.values())
    raise Refused(
        f"{path} is a {kind.__name__}; tensors, numbers, constants such as strings and dtypes, and lists, "
        "tuples and dicts of these can be passed and returned"
    )


def _paths(path: str, kind: type, keys: Sequence[Any]) -> list[str]:
    """Expressions for the values of a container."""
    return [f"{path}.{key}" if kind is slice else f"{path}[{key!r}]" for key in keys]


def describe(value: Any, path: str, leaves: list[Any], *, numbers: bool = True) -> Structure:
    """The structure of ``value``; its tensors, and its numbers unless ``numbers`` says that they are
    constants, are appended to ``leaves``. ``path`` is how one would write it. Raises `Refused`."""
    kind = type(value)
    if isinstance(value, torch.Tensor):
        leaves.append(value)
        return ("tensor",)
    if kind in (float, int) and numbers:
        if kind is int and not -(1 << 63) <= value < 1 << 63:
            raise Refused(f"{path} does not fit into 64 bits")
        leaves.append(value)
        return (kind.__name__,)
    if kind in (float, int) or kind in _FIXED or isinstance(value, enum.Enum):
        return ("is", kind, value)
    keys, values = _opened(value, path)
    pairs = zip(values, _paths(path, kind, keys), strict=True)
    return (kind, keys, *[describe(v, p, leaves, numbers=numbers) for v, p in pairs])


def same_containers(one: Any, other: Any) -> bool:
    """Whether two values are the same objects throughout, containers apart, which are made alike."""
    if isinstance(one, dict):
        alike = isinstance(other, dict) and list(one) == list(other)
        return alike and all(same_containers(v, other[k]) for k, v in one.items())
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same_containers, one, other))
    return one is other


def number_positions(structures: Structure) -> frozenset[int]:
    """The positions, among the leaves of some structures, of numbers."""
    kinds = [kind for structure in structures for kind in _kinds(structure)]
    return frozenset(k for k, kind in enumerate(kinds) if kind != "tensor")


def _kinds(structure: Structure) -> list[str]:
    kind, *rest = structure
    if kind in _LEAVES:
        return [kind]
    return [] if kind == "is" else [one for child in rest[1:] for one in _kinds(child)]


def rebuild(structure: Structure, leaves: Iterator[Any]) -> Any:
    """The value of this structure whose tensors and numbers are ``leaves``, in order."""
    kind, *rest = structure
    if kind in _LEAVES:
        return next(leaves)
    if kind == "is":
        return rest[1]
    values = [rebuild(child, leaves) for child in rest[1:]]
    if kind is dict:
        return dict(zip(rest[0], values, strict=True))
    return kind(*values) if kind is slice or hasattr(kind, "_fields") else kind(values)


def conditions(
    structure: Structure, path: str, constant: Callable[[Any], str], leaves: list[str]
) -> Iterator[str]:
    """Python expressions that hold exactly for values of this structure, tensors apart: those are checked by
    their guards. ``constant`` gives a name to an object; expressions for the tensors and numbers are appended
    to ``leaves``."""
    kind, *rest = structure
    if kind in _LEAVES:
        leaves.append(path)
        if kind != "tensor":
            yield f"type({path}) is {kind}"
        if kind == "int":
            yield f"-0x8000000000000000 <= {path} < 0x8000000000000000"
    elif kind == "is":
        if any(rest[1] is one for one in (None, True, False)):
            yield f"{path} is {rest[1]}"
        else:
            yield f"type({path}) is {constant(rest[0])}"
            yield f"{path} == {constant(rest[1])}"
    else:
        keys, *children = rest
        yield f"type({path}) is {constant(kind)}"
        if kind is dict:
            yield f"tuple({path}) == {constant(keys)}"
        elif kind is not slice:
            yield f"len({path}) == {len(keys)}"
        for child, inner in zip(children, _paths(path, kind, keys), strict=True):
            yield from conditions(child, inner, constant, leaves)


def literal(structure: Structure, leaves: Iterator[str], constant: Callable[[Any], str]) -> str:
    """The Python expression that makes a value of this structure out of expressions for its leaves."""
    kind, *rest = structure
    if kind in _LEAVES:
        return next(leaves)
    if kind == "is":
        value = rest[1]
        return repr(value) if value is None or isinstance(value, (bool, str)) else constant(value)
    inner = [literal(child, leaves, constant) for child in rest[1:]]
    if kind is dict:
        return f"{{{', '.join([f'{k!r}: {v}' for k, v in zip(rest[0], inner, strict=True)])}}}"
    if kind in (list, tuple):
        opened, closed = "[]" if kind is list else "()"
        return f"{opened}{', '.join(inner)}{',' if inner else ''}{closed}"
    if kind is slice or hasattr(kind, "_fields"):
        return f"{constant(kind)}({', '.join(inner)})"
    return f"{constant(kind)}([{', '.join(inner)}])"
