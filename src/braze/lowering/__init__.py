"""ATen operators to IR, one file for each family. Called, it is `braze.lowering`, the decorator for an
operator of one's own: a package has one name for both."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

from braze.extensions.registry import lowering as _register

F = TypeVar("F", bound=Callable[..., Any])


class _Callable(types.ModuleType):
    def __call__(self, operator: Any, /, *, context: bool = False) -> Callable[[F], F]:
        return _register(operator, context=context)

    __call__.__doc__ = _register.__doc__


sys.modules[__name__].__class__ = _Callable
