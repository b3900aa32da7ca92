"""Whether a call is like one that was seen before: Python expressions that say so, and what a function reads
besides its arguments, which they look at.
"""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch

from braze import config
from braze._torch import native, surroundings
from braze._torch.autograd import grad_enabled
from braze._torch.devices import HOST
from braze.extensions.source import instructions

__all__ = ["FreeVariables", "call_guards", "free_variables"]

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

Reader = Callable[[], Any]
"""What a global or a cell of a closure holds now; None where there is nothing."""


# -- globals and closures -----------------------------------------------------------------------------------
class FreeVariables(NamedTuple):
    """What a function may read besides its arguments: plain values and functions in globals and closures, of
    it and of the functions it calls. They are part of the code that is made. What lies deeper, in objects,
    lists and dicts, is read when the function is traced.

    Attributes:
        readers: of the variables that hold plain values or functions, or nothing yet.
        seen: the functions, and what was not there yet: where these are others now, so may be all the rest.
        inspects: whether the function may look at what its numbers are: by ``isinstance``, or as text.
        asks: a mode of the thread for which it may ask, or a class of tensors, by its name.
    """

    readers: tuple[Reader, ...]
    seen: tuple[tuple[Reader, Any], ...]
    inspects: bool
    asks: str | None

    @property
    def hold(self) -> bool:
        """Whether these are still all: what a function calls is often defined after it, or replaced."""
        return all(read() is value for read, value in self.seen)

    def values(self) -> list[object]:
        """What they hold now, so that it is equal only where it is the same to a computation."""
        return [_exact(read()) for read in self.readers]


def free_variables(function: Callable[..., Any]) -> FreeVariables:
    """Those of ``function``, as it is now."""
    readers: dict[tuple[int, str], Reader] = {}
    seen: list[tuple[Reader, Any]] = []
    inspects, asks = False, None
    stack: list[Any] = [function]
    visited: set[int] = set()
    while stack and len(visited) < _MOST_FUNCTIONS:
        one = stack.pop()
        one = getattr(one, "__func__", one)
        if not isinstance(one, types.FunctionType) or id(one) in visited:
            continue
        visited.add(id(one))
        code = list(instructions(one.__code__))
        names = {i.argval for i in code if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        attributes = {i.argval for i in code if i.opname in ("LOAD_ATTR", "LOAD_METHOD")}
        formats = any(i.opname.startswith(("FORMAT_", "CONVERT_VALUE")) for i in code)
        inspects = inspects or formats or not _INSPECTING.isdisjoint(names)
        asks = min(_MODES & (names | attributes), default=asks)
        for key, read in _variables(one, names):
            value = read()
            if isinstance(value, _FUNCTIONS) or value is None:
                seen.append((read, value))
                inner = getattr(value, "__wrapped__", value)
                if isinstance(inner, types.FunctionType) and not _is_foreign(inner):
                    stack.append(inner)
            elif not _is_plain(value):
                continue
            readers[key] = read
    return FreeVariables(tuple(readers.values()), tuple(seen), inspects, asks)


def _variables(function: types.FunctionType, names: set[str]) -> Iterator[tuple[tuple[int, str], Reader]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield (id(cell), name), functools.partial(_cell_contents, cell)
    space = function.__globals__
    for name in sorted(names):
        if name in space or not hasattr(builtins, name):
            yield (id(space), name), functools.partial(space.get, name)


def _cell_contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, tuple) else isinstance(value, _PLAIN)


def _exact(value: Any) -> object:
    """``value`` so that it equals no other: 1 is not 1.0, and 0.0 not -0.0."""
    if isinstance(value, tuple):
        return tuple([_exact(v) for v in value])
    return type(value), value.hex() if isinstance(value, float) else value


def _is_foreign(function: types.FunctionType) -> bool:
    return (function.__module__ or "").split(".")[0] in _FOREIGN


# -- guards -------------------------------------------------------------------------------------------------
def call_guards(
    leaves: Sequence[Any],
    paths: Sequence[str],
    constants: Sequence[int],
    options: Mapping[str, Any],
    variables: FreeVariables,
    names: dict[str, Any],
) -> list[str]:
    """Expressions that hold for a call like this one, beyond those for the structure of its arguments: the
    tensors' guard, numbers that are part of the code (``constants``, by position), modes, options, and free
    variables. ``paths``: expressions for the ``leaves``. The globals that they use are added to ``names``."""
    tensors = [k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    first = {id(leaves[k]): k for k in reversed(tensors)}
    apart = [k for k in tensors if first[id(leaves[k])] == k]
    # PyTorch's guard takes no tensor twice
    tests = [f"{paths[k]} is {paths[first[id(leaves[k])]]}" for k in tensors if k not in apart]
    # nor a nested one: asked for its sizes, it would end the process
    tests += [f"not {paths[k]}.is_nested" for k in apart]
    tests += [f"_like({', '.join([paths[k] for k in apart])})", "not _modes()"]
    names.update(
        _like=native.same_tensors([leaves[k] for k in apart]),
        _modes=surroundings.function_modes,
        _forward_mode=surroundings.FORWARD_MODE,
        _options=config.watch(options).checker(),
        _default_dtype=torch.get_default_dtype,
        _known_dtype=torch.get_default_dtype(),
    )
    if torch.is_autocast_enabled(HOST):
        names["_autocast_dtype"] = torch.get_autocast_dtype
        names["_known_autocast"] = torch.get_autocast_dtype(HOST)
        tests.append(f"_autocast_dtype({HOST!r}) is _known_autocast")
    tests += ["_forward_mode._current_level < 0", "_options()", "_default_dtype() is _known_dtype"]
    if any(leaves[k].requires_grad for k in tensors):
        names["_grad"] = grad_enabled
        tests.append("_grad()" if grad_enabled() else "not _grad()")
    for position in constants:
        leaf = leaves[position]
        exact = isinstance(leaf, float)
        tests.append(
            f"{paths[position]}.hex() == {leaf.hex()!r}" if exact else f"{paths[position]} == {leaf}"
        )
    for k, read in enumerate(variables.readers):
        names[f"_read{k}"] = read
        names[f"_was{k}"] = read()
        tests.append(f"_read{k}() is _was{k}")
    return tests
