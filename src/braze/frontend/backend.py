"""The `torch.compile` backend.

::

    torch.compile(model, backend="braze")
    torch.compile(model, backend="braze", options={"strict": True})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch.fx import GraphModule

from braze import config as configuration
from braze._torch import dynamo
from braze.compile.cached import CachedFxCompile
from braze.compile.fx_compile import FxCompile
from braze.compile.modes import prestart, strategy
from braze.config import Config
from braze.errors import ConfigError
from braze.frontend.aot import compile_dynamo_graph
from braze.frontend.entries import open_entries

__all__ = ["MODES", "braze", "make_backend", "register"]

MODES: Mapping[str, str] = {
    "default": "implementations are chosen by a model of the machine",
    "reduce-overhead": "the same as default on a CPU, where a call already costs one native call per segment",
    "max-autotune": "the same as default where there is one implementation to choose from",
    "max-autotune-no-cudagraphs": "the same as max-autotune",
}


def braze(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, object] | None = None,
) -> Callable[..., Any]:
    """Compile a graph that Dynamo captured. `torch.compile(backend="braze")` calls this once for each graph.

    Args:
        gm: the captured graph.
        example_inputs: fake tensors, integers and symbolic integers, one for each placeholder.
        mode: a key of `MODES`, or None for "default".
        options: names and values of `braze.config.Config`, for this function only.

    Returns:
        A callable with the graph's signature.

    Raises:
        ConfigError: unknown mode or option, or a value of the wrong type.
        BrazeError: with ``strict``, where something could not be compiled.
    """
    config = _resolved(mode, options)
    compiler = CachedFxCompile(strategy(config))
    # on a miss, the processes that will be needed start while the graph is traced
    return compile_dynamo_graph(
        gm, example_inputs, config, compiler, open_entries(config), partial(prestart, config)
    )


def make_backend(compiler: FxCompile) -> Callable[..., Callable[..., Any]]:
    """A backend, to be given to `torch.compile(backend=...)` itself, that compiles its graphs with
    `compiler`."""

    def backend(
        gm: GraphModule,
        example_inputs: Sequence[Any],
        *,
        mode: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Callable[..., Any]:
        return compile_dynamo_graph(gm, example_inputs, _resolved(mode, options), compiler)

    return backend


def register() -> None:
    """Make the name "braze" known to `torch.compile` where the package's entry point is not seen."""
    dynamo.register_backend("braze", braze)


def _resolved(mode: str | None, options: Mapping[str, object] | None) -> Config:
    if mode is not None and mode not in MODES:
        known = ", ".join(MODES)
        raise ConfigError(f"Braze has no mode {mode!r}", hint=f"the modes are: {known}")
    return configuration.resolve(options)
