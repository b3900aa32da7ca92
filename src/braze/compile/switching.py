"""Code that gets better while it is used: another version takes over between two calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import BoxedCall, OutputCode, OutputStrides
from braze.runtime.ending import fork_lock

__all__ = ["SwitchingCode"]


_lock = fork_lock()


class SwitchingCode(OutputCode):
    """Runs ``first`` until `switch_to` is given something better.

    The switch is one assignment: a call that has begun ends in the code that it began in, and the next one
    takes the other. Both have to give their outputs in the same memory layout."""

    def __init__(self, first: OutputCode) -> None:
        self.name = first.name
        self._first = first
        self._final: CompiledFxGraph | None = None
        self._listeners: list[Callable[[CompiledFxGraph], None]] = []
        self._called = threading.Event()
        current: list[BoxedCall] = []

        def first_call(inputs: list[Any]) -> Sequence[Any]:
            try:
                return first.run(inputs)
            finally:
                with _lock:
                    if current[0] is first_call:  # nothing better has come meanwhile
                        current[0] = first.run
                self._called.set()

        def run(inputs: list[Any]) -> Sequence[Any]:
            return current[0](inputs)

        current.append(first_call)
        self._current = current
        self._run = run

    @property
    def run(self) -> BoxedCall:
        return self._run

    @property
    def output_strides(self) -> OutputStrides:
        return self._first.output_strides

    @property
    def reason(self) -> str | None:
        return self._first.reason if self._final is None else None

    @property
    def final(self) -> CompiledFxGraph | None:
        """The version that took over; None until then."""
        return self._final

    def wait_for_a_call(self, seconds: float) -> None:
        """Return when the first call has ended, at most so much later."""
        self._called.wait(seconds)

    def switch_to(self, code: CompiledFxGraph) -> None:
        """From the next call on, run ``code``, which `post_compile` has made callable. Sizes that its guards
        do not admit stay with the first version."""
        call = code.run
        if code.guards:
            sizes, first = code.info.variants[0].plan.size_reader(), self._first.run
            compiled = call

            def guarded(inputs: list[Any]) -> Sequence[Any]:
                return (compiled if code.admits(sizes(inputs)) else first)(inputs)

            call = guarded
        with _lock:
            self._current[0] = call
            self._final = code
            listeners, self._listeners = self._listeners, []
        for listen in listeners:
            listen(code)

    def fail(self, error: Exception) -> None:
        """From the next call on, raise ``error``."""

        def run(inputs: list[Any]) -> Sequence[Any]:
            raise error

        with _lock:
            self._current[0] = run

    def when_final(self, listen: Callable[[CompiledFxGraph], None]) -> None:
        """Have ``listen`` called with the version that takes over, from the thread that made it; at once if
        it has."""
        with _lock:
            final = self._final
            if final is None:
                self._listeners.append(listen)
        if final is not None:
            listen(final)

    def post_compile(self, module: object = None, *, min_parallel_work: int | None = None) -> None:
        """The first version is callable already."""

    def prepare_for_serialization(self) -> bytes:
        return (self._first if self._final is None else self._final).prepare_for_serialization()
