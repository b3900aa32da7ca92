"""The `torch.compile` backend.

::

    torch.compile(model, backend="braze")
    torch.compile(model, backend="braze", options={"strict": True})
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch.fx import GraphModule

from braze import config as configuration
from braze._torch import dynamo
from braze.compile.failing import without_cache
from braze.compile.fx_compile import FxCompile
from braze.config import Config
from braze.errors import ConfigError
from braze.frontend import level2
from braze.frontend.as_captured import or_as_captured
from braze.frontend.entries import open_entries
from braze.runtime.ending import busy
from braze.runtime.engines import check_options

__all__ = ["MODES", "braze", "make_backend", "register"]

MODES: Mapping[str, Mapping[str, object]] = {
    "default": {},
    "reduce-overhead": {},
    "max-autotune": {"llvm_opt_level": 3},
    "max-autotune-no-cudagraphs": {"llvm_opt_level": 3},
}
"""The modes of `torch.compile` and the options that each stands for. ``reduce-overhead`` has nothing to
change on a CPU, where a call costs one native call for each segment anyway."""

_Compiled: TypeAlias = Callable[..., Any]


@busy()
def braze(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, object] | None = None,
) -> _Compiled:
    """Compile a graph that Dynamo captured. `torch.compile(backend="braze")` calls this once for each graph.

    Args:
        gm: the captured graph.
        example_inputs: fake tensors, integers and symbolic integers, one for each placeholder.
        mode: a key of `MODES`, or None for "default".
        options: names and values of `braze.config.Config`, for this function only.

    Returns:
        A callable with the graph's signature.

    Raises:
        ConfigError: unknown mode or option, or a value that is none; raised by each call of what is returned
            where Dynamo compiles a frame.
        BrazeError: with ``strict``, where something could not be compiled.
    """
    return _configured(
        lambda config: or_as_captured(
            lambda: _compiled(gm, example_inputs, config), gm, strict=config.strict
        ),
        mode,
        options,
    )


def _compiled(gm: GraphModule, example_inputs: Sequence[Any], config: Config) -> _Compiled:
    entries = without_cache(lambda: open_entries(config), None)
    key = None
    if entries is not None:
        key = without_cache(lambda: level2.key_of(gm, example_inputs, config), None)
    if entries is not None and key is not None:
        found = without_cache(lambda: level2.find(entries, key, gm, strict=config.strict), None)
        if found is not None:
            return dynamo.untraced(found)
    # tracing and compiling are loaded for the first graph that needs them: a hit never does
    from braze.frontend.miss import compile_missing  # noqa: PLC0415

    return compile_missing(gm, example_inputs, config, entries, key)


def make_backend(compiler: FxCompile) -> Callable[..., _Compiled]:
    """A backend, to be given to `torch.compile(backend=...)` itself, that compiles its graphs with
    `compiler`."""

    def backend(
        gm: GraphModule,
        example_inputs: Sequence[Any],
        *,
        mode: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> _Compiled:
        def compiled(config: Config) -> _Compiled:
            from braze.frontend.miss import compile_with  # noqa: PLC0415  as above

            return or_as_captured(
                lambda: compile_with(gm, example_inputs, config, compiler), gm, strict=config.strict
            )

        return _configured(compiled, mode, options)

    return backend


def register() -> None:
    """Make the name "braze" known to `torch.compile` where the package's entry point is not seen."""
    dynamo.register_backend("braze", braze)


def _configured(
    compiled: Callable[[Config], _Compiled], mode: str | None, options: Mapping[str, object] | None
) -> _Compiled:
    """What ``compiled`` returns for the options that hold here, and in the backward later on. Dynamo comes
    back here where others hold in a call. An option that is wrong is a `ConfigError` in every call, and not
    one of Dynamo's errors, which may be set to be suppressed."""
    try:
        given = _given(mode, options)
        config = configuration.resolve(given)
    except ConfigError as error:
        return _refused(error)
    dynamo.compile_again_unless(configuration.watch(given))
    try:
        check_options(config)
        with configuration.using(config):
            return compiled(config)
    except ConfigError as error:
        return _refused(error)


def _given(mode: str | None, options: Mapping[str, object] | None) -> dict[str, object]:
    """The options that a mode stands for, and those that were named."""
    if mode is not None and mode not in MODES:
        close = difflib.get_close_matches(str(mode), MODES, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"Braze has no mode {mode!r}", hint=f"{guess}the modes are: {', '.join(MODES)}")
    configuration.resolve(options)
    return {**MODES[mode or "default"], **(options or {})}


def _refused(error: ConfigError) -> _Compiled:
    if not dynamo.compiles_a_frame():
        raise error

    def refuse(*arguments: Any) -> Any:
        raise ConfigError(error.what, hint=error.hint)

    return dynamo.untraced(refuse)
