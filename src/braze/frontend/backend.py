"""The `torch.compile` backend.

::

    torch.compile(model, backend="braze")
    torch.compile(model, backend="braze", options={"strict": True})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import GraphModule

from braze import config as configuration
from braze._torch import dynamo
from braze.compile.failing import without_cache
from braze.compile.fx_compile import FxCompile
from braze.config import Config
from braze.errors import ConfigError
from braze.frontend import level2
from braze.frontend.as_captured import or_as_captured
from braze.frontend.dynamo_key import DynamoKey
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
    return or_as_captured(lambda: _compiled(gm, example_inputs, config), gm, strict=config.strict)


def _compiled(gm: GraphModule, example_inputs: Sequence[Any], config: Config) -> Callable[..., Any]:
    entries = without_cache(lambda: open_entries(config), None)
    key: DynamoKey | str = "the cache is not used"
    if entries is not None:
        undescribed: DynamoKey | str = "it could not be described"
        key = without_cache(lambda: level2.describe(gm, example_inputs, config), undescribed)
        found = without_cache(lambda: level2.find(entries, key, gm, strict=config.strict), None)
        if found is not None:
            return dynamo.untraced(found)
    # tracing and compiling are loaded for the first graph that needs them: a hit never does
    from braze.frontend.miss import compile_missing  # noqa: PLC0415

    return compile_missing(gm, example_inputs, config, entries, key)


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
        from braze.frontend.miss import compile_with  # noqa: PLC0415  as above

        config = _resolved(mode, options)
        return or_as_captured(
            lambda: compile_with(gm, example_inputs, config, compiler), gm, strict=config.strict
        )

    return backend


def register() -> None:
    """Make the name "braze" known to `torch.compile` where the package's entry point is not seen."""
    dynamo.register_backend("braze", braze)


def _resolved(mode: str | None, options: Mapping[str, object] | None) -> Config:
    if mode is not None and mode not in MODES:
        known = ", ".join(MODES)
        raise ConfigError(f"Braze has no mode {mode!r}", hint=f"the modes are: {known}")
    return configuration.resolve(options)
