"""The result of compiling one graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

__all__ = ["CompiledFxGraph", "OutputCode", "OutputStrides"]

OutputStrides: TypeAlias = tuple["tuple[int, ...] | None", ...]
"""For each output of a graph its strides in elements; None where they are those of the trace, or no tensor's.
"""


class OutputCode(Protocol):
    """A compiled graph.

    `run` takes the graph's inputs in one list, empties that list (so that an input can die when it has been
    read) and returns the graph's outputs, None for those that have no value. `output_strides` says how the
    outputs lie in memory, for the sizes that the graph was traced with."""

    @property
    def run(self) -> Callable[[list[Any]], Sequence[Any]]: ...

    @property
    def output_strides(self) -> OutputStrides: ...


@dataclass(frozen=True)
class CompiledFxGraph:
    """An `OutputCode` that lives in this process.

    `name` tells graphs apart in reports. `reason` is None for compiled code; where the graph runs by eager
    operators it says why. `report` is what `braze.inspect` knows of it.
    """

    name: str
    run: Callable[[list[Any]], Sequence[Any]]
    output_strides: OutputStrides
    reason: str | None = None
    report: object = None

    def __call__(self, inputs: list[Any]) -> Sequence[Any]:
        return self.run(inputs)
