"""What happens to a graph that the cache's second level does not know: it is traced, and compiled by the
strategy of the options.

A file of its own: it is loaded when that first comes up, and all of tracing and compiling with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import GraphModule

from braze.compile.cached import CachedFxCompile
from braze.compile.failing import without_cache
from braze.compile.fx_compile import FxCompile
from braze.compile.modes import prestart, strategy
from braze.config import Config
from braze.frontend.aot import compile_parts
from braze.frontend.dynamo_key import DynamoKey
from braze.frontend.level2 import Entries
from braze.frontend.recording import Recording

__all__ = ["compile_missing", "compile_with"]


def compile_missing(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    config: Config,
    entries: Entries | None,
    key: DynamoKey | None,
) -> Callable[..., Any]:
    """The callable for `gm`, whose key is `key`, if it has one; `entries` gets it then.
    Raises what `braze.frontend.backend.braze` does."""
    recording = None
    if entries is not None and key is not None:
        recording = without_cache(lambda: Recording(entries, key, gm), None)
    prestart(config)  # the processes that will be needed start while the graph is traced
    return compile_parts(gm, example_inputs, config, CachedFxCompile(strategy(config)), recording)


def compile_with(
    gm: GraphModule, example_inputs: Sequence[Any], config: Config, compiler: FxCompile
) -> Callable[..., Any]:
    """The callable for `gm`, compiled by `compiler`, whatever any cache holds."""
    return compile_parts(gm, example_inputs, config, compiler)
