"""A table whose values are made once, whoever asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["OnceMap"]

K = TypeVar("K")
V = TypeVar("V")


class OnceMap(Generic[K, V]):
    """Values by key. Of several threads that ask for a value that is not there, one makes it and the others
    wait; no lock is held meanwhile. A value whose making failed is not kept: all that waited get the
    exception, and who asks later tries again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[K, V] = {}
        self._making: dict[K, Future[V]] = {}

    def get(self, key: K) -> V | None:
        """The value, if it is there."""
        return self._made.get(key)

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The value, made by ``make`` if it is not there. Raises what ``make`` raises."""
        with self._lock:
            if key in self._made:
                return self._made[key]
            future = self._making.get(key)
            mine = future is None
            if future is None:
                future = self._making[key] = Future()
        if not mine:
            return future.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            future.set_exception(error)
            raise
        with self._lock:
            self._made[key] = value
            del self._making[key]
        future.set_result(value)
        return value

    def values(self) -> list[V]:
        """What is there now, in the order in which it was made."""
        with self._lock:
            return list(self._made.values())

    def clear(self) -> None:
        """Forget everything; what is being made is kept once it is there."""
        with self._lock:
            self._made.clear()

    def __len__(self) -> int:
        return len(self._made)
