"""The result of compiling one graph: what every strategy returns, and what every caller uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from braze.errors import UnserializableError

__all__ = ["BoxedCall", "OpaqueCode", "OutputCode", "OutputStrides"]

BoxedCall: TypeAlias = Callable[[list[Any]], Sequence[Any]]
"""Takes its arguments in one list, which it empties, so that an input can die when it has been read."""

OutputStrides: TypeAlias = tuple["tuple[int, ...] | None", ...]
"""For each output of a graph its strides in elements; None where they are those of the trace, or no tensor's.
"""


class OutputCode(ABC):
    """A compiled graph, from the compiler's hands, a worker's answer, the cache or a package.

    Its life: made, or read by `after_deserialization`; `post_compile` makes it callable in this process; then
    ``run`` is called. `prepare_for_serialization` may come at any time."""

    name: str

    @property
    @abstractmethod
    def run(self) -> BoxedCall:
        """The function itself, without a call in between. It returns the graph's outputs, None for those that
        have no value."""

    @property
    @abstractmethod
    def output_strides(self) -> OutputStrides:
        """How the outputs lie in memory, for the sizes that the graph was traced with."""

    @property
    def reason(self) -> str | None:
        """Where the graph runs by eager operators, why; None for compiled code."""
        return None

    @property
    def lasting(self) -> bool:
        """Whether compiling again would give the same: False where a worker's death cost kernels."""
        return True

    def __call__(self, inputs: list[Any]) -> Sequence[Any]:
        return self.run(inputs)

    @abstractmethod
    def post_compile(self, module: object = None, *, min_parallel_work: int | None = None) -> None:
        """Link, bind constants (those bound by name to ``module``, see `CompiledFxGraphConstants.bind`) and
        build the function. Does nothing the second time."""

    @abstractmethod
    def prepare_for_serialization(self) -> bytes:
        """The artefact. Raises ``UnserializableError``, which says what in it cannot leave the process."""


class OpaqueCode(OutputCode):
    """A callable that exists in this process only: a graph that runs by eager operators, or a wrapper."""

    def __init__(
        self, name: str, run: BoxedCall, output_strides: OutputStrides, reason: str | None = None
    ) -> None:
        self.name = name
        self._run = run
        self._output_strides = output_strides
        self._reason = reason

    @property
    def run(self) -> BoxedCall:
        return self._run

    @property
    def output_strides(self) -> OutputStrides:
        return self._output_strides

    @property
    def reason(self) -> str | None:
        return self._reason

    def post_compile(self, module: object = None, *, min_parallel_work: int | None = None) -> None:
        """Nothing is left to do."""

    def prepare_for_serialization(self) -> bytes:
        raise UnserializableError(f"{self.name} is not compiled code: {self._reason or 'it is a wrapper'}")
