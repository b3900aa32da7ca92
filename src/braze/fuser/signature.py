"""The parameters of a fused function: a wrapper that takes arguments as the function itself does, and calling
the function with the values of its parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["FAST", "OUT", "Signature"]

OUT = "out"
FAST = "_braze_fast"
"""What the wrapper calls: a name that no parameter has."""


class Signature:
    """The parameters of ``function``, by name, in order. Where it has no parameter ``out`` and takes no other
    keywords, calls take one: ``takes_out``; it is the last one then.

    Raises ``TypeError`` for what has no signature."""

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError as error:
            raise TypeError(f"{function!r} has no signature that can be seen: {error}") from None
        self.function = function
        self._parameters = list(parameters)
        self.names = [p.name for p in self._parameters]
        self._kinds = {p.kind for p in self._parameters}
        self.takes_out = OUT not in self.names and inspect.Parameter.VAR_KEYWORD not in self._kinds
        if self.takes_out:
            self.names.append(OUT)

    def wrapper(self, space: dict[str, Any]) -> Callable[..., Any]:
        """A function with these parameters that passes their values, one by one, to ``space[FAST]``."""
        head: list[str] = []
        starred = False
        before: inspect.Parameter | None = None
        for parameter in self._parameters:
            if before is not None and before.kind < parameter.kind and before.kind == before.POSITIONAL_ONLY:
                head.append("/")
            if parameter.kind == parameter.KEYWORD_ONLY and not starred:
                head.append("*")
                starred = True
            starred = starred or parameter.kind == parameter.VAR_POSITIONAL
            head.append(self._declared(parameter, space))
            before = parameter
        if before is not None and before.kind == before.POSITIONAL_ONLY:
            head.append("/")
        if self.takes_out:
            head += [f"{OUT}=None"] if starred else ["*", f"{OUT}=None"]
        source = f"def _wrapper({', '.join(head)}):\n    return {FAST}({', '.join(self.names)})\n"
        exec(compile(source, f"<braze.fuse {getattr(self.function, '__name__', '')}>", "exec"), space)
        wrapper: Callable[..., Any] = space.pop("_wrapper")
        return functools.wraps(self.function)(wrapper)

    @staticmethod
    def _declared(parameter: inspect.Parameter, space: dict[str, Any]) -> str:
        if parameter.kind == parameter.VAR_POSITIONAL:
            return f"*{parameter.name}"
        if parameter.kind == parameter.VAR_KEYWORD:
            return f"**{parameter.name}"
        if parameter.default is parameter.empty:
            return parameter.name
        space[f"_braze_default_{parameter.name}"] = parameter.default
        return f"{parameter.name}=_braze_default_{parameter.name}"

    def bound(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """The values of the parameters (without ``out``) for these positional arguments. Raises
        ``TypeError``."""
        bound = inspect.Signature(self._parameters).bind(*args)
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def call(self, values: Sequence[Any]) -> Any:
        """The function's result for these values of its parameters (without ``out``)."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, value in zip(self._parameters, values):
            if parameter.kind == parameter.VAR_POSITIONAL:
                args += value
            elif parameter.kind == parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind == parameter.KEYWORD_ONLY:
                kwargs[parameter.name] = value
            else:
                args.append(value)
        return self.function(*args, **kwargs)
