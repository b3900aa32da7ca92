"""What code is made for: a CPU as LLVM names it, its features, and the vector width that goes with them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache

from braze import config
from braze.cpus import check_cpu_target

__all__ = [
    "Target",
    "check_cpu_target",
    "current_target",
    "host_target",
    "lanes_of",
    "making_for",
    "named_target",
]

_X86 = platform.machine().lower() in ("x86_64", "amd64")


@dataclass(frozen=True)
class Target:
    """A CPU to make code for.

    ``cpu`` and ``features`` are as LLVM spells them; ``lanes`` is the vector width in elements of 32 bits (16
    for AVX-512, 8 for AVX2, else 4; tests use 1 too).
    """

    cpu: str
    features: str
    lanes: int

    def __str__(self) -> str:
        return f"{self.cpu} ({self.lanes} lanes of 32 bits)"

    def has(self, feature: str) -> bool:
        """Whether the features state it (``avx512bf16``, ``f16c``, ``fma``); what a CPU name implies is
        unknown here except for the named x86-64 levels."""
        if f"+{feature}" in self.features.split(","):
            return True
        return feature in _IMPLIED.get(self.cpu, frozenset())


_V3 = frozenset({"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"})
_IMPLIED = {
    "x86-64-v3": _V3,
    "x86-64-v4": _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


def lanes_of(features: str, cpu: str = "") -> int:
    """The widest vectors, in 32-bit lanes, that a set of features handles well."""
    target = Target(cpu, features, 4)
    if all(target.has(f) for f in ("avx512f", "avx512bw", "avx512dq", "avx512vl")):
        return 16
    return 8 if target.has("avx2") and target.has("fma") else 4


def _widest(target: Target) -> Target:
    """Some CPUs are tuned to split 512-bit vectors into halves; the code is written for whole ones."""
    if target.lanes == 16:
        joined = f"{target.features},-prefer-256-bit" if target.features else "-prefer-256-bit"
        return replace(target, features=joined)
    return target


@lru_cache(maxsize=1)
def host_target() -> Target:
    """This machine's CPU."""
    import llvmlite.binding as llvm  # noqa: PLC0415  30 ms, which whoever has code cached for a target saves

    features = llvm.get_host_cpu_features().flatten()
    cpu = llvm.get_host_cpu_name()
    return _widest(Target(cpu, features, lanes_of(features, cpu)))


@lru_cache(maxsize=16)
def named_target(name: str) -> Target:
    """The target of a name: ``host``, ``generic``, ``x86-64-v3``, ``x86-64-v4``, or any CPU name of LLVM's
    (whose vectors are then taken to be 128 bits wide, since the name alone does not say). Raises
    `ConfigError` for a name that is none."""
    check_cpu_target(name)
    if name == "host":
        return host_target()
    if name == "generic":
        return Target("x86-64" if _X86 else "generic", "", 4)
    return _widest(Target(name, "", lanes_of("", name)))


_made_for: ContextVar[Target | None] = ContextVar("braze_made_for", default=None)


@contextmanager
def making_for(host: Target) -> Iterator[None]:
    """Inside this block, and for this context, code for the host is code for another machine, whose
    `host_target` is ``host``."""
    token = _made_for.set(host)
    try:
        yield
    finally:
        _made_for.reset(token)


def current_target() -> Target:
    """The target that ``config.target_cpu`` and ``config.vector_width`` ask for; by default the host."""
    options = config.current()
    name = options.target_cpu or "host"
    target = (_made_for.get() if name == "host" else None) or named_target(name)
    if options.vector_width is not None:
        target = replace(target, lanes=options.vector_width)
    return target
