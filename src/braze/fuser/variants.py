"""What a function was traced to, by the kind of its arguments: the upfront half of compiling, done once for
each kind, whoever asks first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from braze.config import Config
from braze.errors import ConfigError
from braze.fuser.arguments import Structure, Unfusable, number_positions
from braze.fuser.codegen import reason_of
from braze.fuser.layout_class import Symbols, layout_class, symbols_of
from braze.fuser.once import OnceMap
from braze.fuser.tracing import Depends, Flat, Traced, trace

__all__ = ["ArgumentKind", "Variants"]

_MOST_GUARDED = 16
"""For one layout class the function is traced at most so often, for sizes that fulfil other conditions."""


_MOST_TRACES = 256
"""A function is traced at most so often; further kinds of arguments fall back."""


@dataclass(frozen=True)
class ArgumentKind:
    """The arguments of one call, as tracing sees them: their structure, the tensors and numbers in it, and
    the state of the thread. ``gradients``: autograd will want to differentiate."""

    structure: Structure
    leaves: Sequence[Any]
    state: tuple[object, ...]
    gradients: bool

    def loose(self, static: frozenset[int]) -> tuple[object, ...]:
        """What a trace for any shape depends on. ``static``: the positions of numbers whose values count."""
        tensors = [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        facts = [(type(t), t.dtype, t.dim() == 0, self.gradients and t.requires_grad) for t in tensors]
        return self.structure, tuple(facts), self.any_shape, self.state, self._values(static)

    @property
    def any_shape(self) -> bool:
        """Whether a trace for these arguments may serve others of any shape. The gradient of what was
        broadcast is a sum: with gradients only arguments of one shape, whatever it is, are alike."""
        shapes = {leaf.shape for leaf in self.leaves if isinstance(leaf, torch.Tensor)}
        return not self.gradients or len(shapes) < 2

    def full(self, static: frozenset[int]) -> tuple[object, ...]:
        """What a trace for one layout class depends on."""
        classes = [layout_class(leaf) for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        return *self.loose(static), tuple(classes)

    def _values(self, static: frozenset[int]) -> tuple[object, ...]:
        values = [self.leaves[p] for p in sorted(static)]
        return tuple([v.hex() if isinstance(v, float) else v for v in values])

    @property
    def empty(self) -> bool:
        """Whether a tensor has no elements. Nothing can be said of guards then: the trace was made for other
        sizes in place of 0."""
        return any(isinstance(leaf, torch.Tensor) and 0 in leaf.shape for leaf in self.leaves)

    def sizes(self) -> Symbols:
        """The values of all size symbols."""
        found: Symbols = {}
        for position, leaf in enumerate(self.leaves):
            if isinstance(leaf, torch.Tensor):
                found.update(symbols_of(position, leaf))
        return found


class Variants:
    """The traces of one function. May be used from several threads at once."""

    def __init__(self, inspects: Callable[[], bool]) -> None:
        """``inspects``: whether the function may look at what its numbers are; they are constants then."""
        self._inspects = inspects
        self._any_shape: dict[tuple[object, ...], Traced] = {}
        self._by_class: OnceMap[tuple[object, ...], Traced | str | Depends] = OnceMap()
        self._static: dict[Structure, frozenset[int]] = {}
        self._hopeless: set[Structure] = set()

    def static(self, structure: Structure) -> frozenset[int]:
        """The positions of numbers whose values are known to be part of the code."""
        if self._inspects():
            return number_positions(structure)
        return self._static.get(structure, frozenset())

    def find(self, function: Flat, kind: ArgumentKind, config: Config) -> Traced | str:
        """The trace of ``function`` for these arguments, made if need be, or why there can be none."""
        while True:
            static = self.static(kind.structure)
            loose = kind.loose(static)
            known = self._any_shape.get(loose)
            if known is not None and kind.any_shape:
                return known
            found = self._of_class(function, kind, static, config)
            if isinstance(found, Depends):
                self._static[kind.structure] = static | found.positions
            elif isinstance(found, str) and self.fix_numbers(function, kind, config):
                continue
            else:
                if isinstance(found, Traced) and found.any_shape and kind.any_shape:
                    self._any_shape[loose] = found
                return found

    def fix_numbers(self, function: Flat, kind: ArgumentKind, config: Config) -> bool:
        """Where the function can be traced with its numbers as constants, and could not be compiled with
        numbers that a call brings: take them as constants from now on. False where that would not help."""
        known = self.static(kind.structure)
        numbers = frozenset(p for p, leaf in enumerate(kind.leaves) if not isinstance(leaf, torch.Tensor))
        if numbers <= known or kind.structure in self._hopeless:
            return False
        if isinstance(self._of_class(function, kind, numbers, config), str):
            self._hopeless.add(kind.structure)
            return False
        self._static[kind.structure] = numbers
        return True

    def _of_class(
        self, function: Flat, kind: ArgumentKind, static: frozenset[int], config: Config
    ) -> Traced | str | Depends:
        full, sizes = kind.full(static), kind.sizes()

        def make() -> Traced | str | Depends:
            try:
                return trace(function, kind.leaves, kind.gradients, static, config)
            except Depends as depends:
                return depends
            except ConfigError:
                raise
            except Unfusable as error:
                return error.what
            except Exception as error:
                if "convert all Tensors to FakeTensors" in str(error):
                    return "it reads a tensor that is not an argument"
                return f"it could not be traced: {reason_of(error)}"

        if len(self._by_class) >= _MOST_TRACES and self._by_class.get((*full, 0)) is None:
            return (
                f"it was traced {_MOST_TRACES} times: does a number that changes decide a shape or a branch?"
            )
        for attempt in range(_MOST_GUARDED):
            found = self._by_class.get_or_make((*full, attempt), make)
            if not isinstance(found, Traced) or kind.empty or found.admits(sizes):
                return found
            if found.any_shape and kind.any_shape:
                return found
        return f"its sizes fulfil other conditions than {_MOST_GUARDED} compiled variants"

    def all(self) -> list[Traced]:
        """Every trace that there is."""
        return [t for t in self._by_class.values() if isinstance(t, Traced)]

    def clear(self) -> None:
        """Forget all of them."""
        self._any_shape.clear()
        self._by_class.clear()
