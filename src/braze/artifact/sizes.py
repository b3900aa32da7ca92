"""The values of a compiled graph's size symbols, from the inputs of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from braze.artifact.schema import GraphInfo, NumberInput, TensorInput

__all__ = ["size_reader"]


def size_reader(info: GraphInfo) -> Callable[[Sequence[Any]], Mapping[str, int]]:
    """A function from the inputs of a call to the value of every size symbol that is an input, or a size or
    stride of one."""
    numbers: list[tuple[str, int]] = []
    sizes: list[tuple[str, int, int]] = []
    strides: list[tuple[str, int, int]] = []
    seen: set[str] = set()

    def new(name: str) -> bool:
        fresh = name not in seen
        seen.add(name)
        return fresh

    for position, spec in enumerate(info.inputs):
        if isinstance(spec, NumberInput):
            symbol = spec.expression.symbol
            if symbol is not None and new(symbol.name):
                numbers.append((symbol.name, position))
    for position, spec in enumerate(info.inputs):
        if isinstance(spec, TensorInput):
            for places, values in ((sizes, spec.sizes), (strides, spec.strides)):
                for dim, e in enumerate(values):
                    if e.symbol is not None and new(e.symbol.name):
                        places.append((e.symbol.name, position, dim))

    def read(inputs: Sequence[Any]) -> Mapping[str, int]:
        found = {name: int(inputs[position]) for name, position in numbers}
        found.update({name: inputs[position].shape[dim] for name, position, dim in sizes})
        found.update({name: inputs[position].stride(dim) for name, position, dim in strides})
        return found

    return read
