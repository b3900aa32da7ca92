"""The engines that there are, by kind of code, and which kind is made for which type of device.

Filled when the modules of backends are imported, and then only read. The option ``device_backends`` may name
another kind of code for a type of device than the one that its backend declares.
"""

from __future__ import annotations

from collections.abc import Iterator

from braze.config import Config, current
from braze.errors import ArtifactError, ConfigError, InternalError
from braze.runtime.cpu_engine import CPU_ENGINE
from braze.runtime.engine import Engine

__all__ = [
    "add",
    "check_options",
    "device_types",
    "engine",
    "engines",
    "is_known",
    "kind_for",
    "modules",
    "remove",
]

_engines: dict[str, Engine] = {CPU_ENGINE.kind: CPU_ENGINE}
_modules: dict[str, str] = {}


def add(engine: Engine, module: str) -> None:
    """Make an engine known, and the module that does so when it is imported. Raises ``InternalError`` where
    its kind, or one of its devices, has one."""
    taken = [e.kind for e in _engines.values() if e.kind == engine.kind or {*e.devices} & {*engine.devices}]
    if taken:
        raise InternalError(f"there is the backend {taken[0]!r} for what the backend {engine.kind!r} does")
    _engines[engine.kind] = engine
    _modules[engine.kind] = module


def remove(kind: str) -> None:
    """Forget an engine: for tests, which add some of their own."""
    del _engines[kind], _modules[kind]


def modules() -> tuple[str, ...]:
    """What another process has to import to know the same engines, and their backends."""
    return tuple(_modules.values())


def engines() -> Iterator[Engine]:
    """All of them, in the order in which they were made known."""
    return iter(tuple(_engines.values()))


def engine(kind: str) -> Engine:
    """The engine of a kind of code. Raises ``ArtifactError`` where there is none."""
    found = _engines.get(kind)
    if found is None:
        raise ArtifactError(
            f"there is code of the backend {kind!r}, which this process does not have",
            hint="import the package that it belongs to",
        )
    return found


def is_known(kind: str) -> bool:
    """Whether there is an engine for a kind of code."""
    return kind in _engines


def kind_for(device: str, options: Config | None = None) -> str | None:
    """The kind of code that is made for a type of device under these options, or those that hold here; None
    where there is none. Raises ``ConfigError`` where the options name a backend that there is not."""
    asked = (options or current()).device_backends
    for pair in asked.split(",") if asked else ():
        type, _, kind = pair.partition("=")
        if type.strip() == device:
            if kind.strip() not in _engines:
                raise ConfigError(
                    f"option 'device_backends' names the backend {kind.strip()!r}, which does not exist",
                    hint=f"there is: {', '.join(_engines)}; others are there once their module is imported",
                )
            return kind.strip()
    return next((e.kind for e in _engines.values() if device in e.devices), None)


def device_types() -> tuple[str, ...]:
    """The types of devices that code can be made for."""
    return tuple([device for e in _engines.values() for device in e.devices])


def check_options(options: Config) -> None:
    """Raises ``ConfigError`` where the options ask for code that cannot run here."""
    for one in engines():
        one.check(options)
