"""Which code this machine can run.

A file of its own: what machines can do is one subject, what is done with code for them another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from braze.config import Config
from braze.errors import ConfigError
from braze.runtime.target import Target, named_target

__all__ = ["can_run", "check_target", "demands", "name"]

# x86-64 psABI 1.0, section 3.1.1, "Processor Architecture": what each level adds, by LLVM's names
_V2 = frozenset({"cx16", "sahf", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64": frozenset(),
    "generic": frozenset(),
    "x86-64-v2": _V2,
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
}


@lru_cache(maxsize=1)
def _host() -> tuple[str, frozenset[str]]:
    """The name of this CPU, and the features that it and the operating system offer."""
    import llvmlite.binding as llvm  # noqa: PLC0415  30 ms, which only code that is to be linked costs

    features = llvm.get_host_cpu_features()
    return llvm.get_host_cpu_name(), frozenset(name for name, on in features.items() if on)


def can_run(target: Target) -> bool:
    """Whether this machine has everything that code for ``target`` may use."""
    own, have = _host()
    wanted = {f[1:] for f in target.features.split(",") if f.startswith("+")}
    level = _LEVELS.get(target.cpu)
    if level is None and target.cpu != own and not wanted:
        return False  # a CPU's name alone says nothing of what it has
    return wanted | (level or frozenset()) <= have


def demands(target: Target) -> tuple[int, ...]:
    """How much of a machine code for ``target`` uses: the width of its vectors, and then how many features it
    names."""
    return target.lanes, len(_LEVELS.get(target.cpu, ())) + target.features.count("+")


def name() -> str:
    """Of this machine's CPU, as LLVM spells it."""
    return _host()[0]


def check_target(options: Config) -> None:
    """Raises ``ConfigError`` where the option ``target_cpu`` names a CPU whose code may not run here."""
    cpu = options.target_cpu
    if cpu is None or cpu in ("host", "generic") or can_run(named_target(cpu)):
        return
    own, have = _host()
    here = [level for level, features in _LEVELS.items() if level != "generic" and features <= have]
    raise ConfigError(
        f"option 'target_cpu' is {cpu!r}, and nothing says that this machine can run code for that",
        hint=f"code that runs here is for: host, generic, {', '.join([*here, own])}; `braze.aot_compile` "
        "makes packages for other CPUs",
    )
