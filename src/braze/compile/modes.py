"""The strategy of each mode: what the option ``fx_compile_mode`` chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from braze import config as configuration
from braze.codegen.prestart import prestart as prestart_backends
from braze.compile.background import AsyncFxCompile
from braze.compile.debug_file import DebugFileFxCompile
from braze.compile.fx_compile import FxCompile
from braze.compile.in_process import InProcessFxCompile
from braze.compile.out_of_process import OutOfProcessFxCompile, SerializedFxCompile
from braze.compile.progressive import ProgressiveFxCompile
from braze.compile.workers import prestart as prestart_workers
from braze.config import Config
from braze.errors import ConfigError

__all__ = ["MODES", "prestart", "strategy"]

MODES: Mapping[str, Callable[[], FxCompile]] = {
    "in-process": InProcessFxCompile,
    "serialized": SerializedFxCompile,
    "debug-file": DebugFileFxCompile,
    "out-of-process": OutOfProcessFxCompile,
    "async": AsyncFxCompile,
    "progressive": lambda: ProgressiveFxCompile(InProcessFxCompile()),
}
"""What makes the strategy of a mode. A new mode is one more line here, and a choice in `braze.config`."""

_IN_WORKERS = frozenset({"out-of-process"})
"""Modes that compile in compile workers; backends run in these then."""


def strategy(config: Config) -> FxCompile:
    """The strategy that the options ask for. Raises ``ConfigError`` for a mode that there is not."""
    if config.verify:  # kernels are compared with what only this process has
        return InProcessFxCompile()
    make = MODES.get(config.fx_compile_mode)
    if make is None:
        raise ConfigError(
            f"Braze has no mode {config.fx_compile_mode!r}", hint=f"the modes are: {', '.join(MODES)}"
        )
    return make()


def prestart(config: Config) -> None:
    """Start the processes that the mode needs, without waiting for them: called when a trace begins."""
    with configuration.using(config):
        if config.fx_compile_mode in _IN_WORKERS:
            prestart_workers()
        else:
            prestart_backends()
