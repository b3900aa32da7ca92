"""Braze's options: each one typed, documented and declared in one place, the class `Config` below.

An option's value is looked for in this order: a ``with patch(...)`` block of the running context (a thread
or an asyncio task sees its own only), the environment variable ``BRAZE_<NAME>``, the default.
``torch.compile(options={...})`` is a patch around the compilation of that one function::

    braze.config.strict                        # the value that holds here
    with braze.config.patch(strict=True): ...  # another one, in this block and this context only
    resolve({"strict": True})                  # a whole Config, for code that keeps one

Reading an attribute of this module reads the option of that name from `current()`; Braze's own code writes
``config.current().strict``, which is the same and which mypy knows the type of.
"""

from __future__ import annotations

import contextvars
import dataclasses
import difflib
import os
import typing
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from braze.errors import BrazeWarning, ConfigError

__all__ = [
    "Config",
    "Option",
    "code_key",
    "current",
    "from_environment",
    "options",
    "patch",
    "resolve",
    "seal",
    "sealed",
    "using",
]


def _option(
    default: typing.Any,
    doc: str,
    *,
    code: bool = False,
    env: str | None = None,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[object, ...] | None = None,
) -> typing.Any:
    """Declare an option. ``code``: it can change generated code, and so is part of the cache key."""
    metadata = {"doc": doc, "code": code, "env": env, "low": low, "high": high, "choices": choices}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _default_workers() -> int:
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity to ask for
        cores = os.cpu_count() or 1
    return min(cores, 4)


@dataclass(frozen=True)
class Config:
    """One consistent set of options. Immutable; `replace` and `patch` make others."""

    strict: bool = _option(
        False, "Raise where a node, kernel or graph would fall back to eager PyTorch, instead of warning."
    )
    debug_dir: str | None = _option(
        None,
        "Folder that receives each graph's IR, loop plans, LLVM IR and assembly; created when needed.",
        env="BRAZE_DEBUG",
    )
    verify: bool = _option(
        False,
        "Run every kernel through the reference interpreter as well and compare the results. Very slow.",
        code=True,
    )
    emulate_precision_casts: bool = _option(
        False,
        "Round values of half types after every operator, as eager does, instead of keeping float32 inside "
        "fused kernels.",
        code=True,
    )
    fallback_random: bool = _option(
        False, "Random operators run as externs and give eager's exact stream of numbers.", code=True
    )
    llvm_workers: int = _option(
        _default_workers, "Processes that run LLVM; default: one for each core, at most 4.", low=1, high=256
    )
    llvm_in_process: bool = _option(False, "Run LLVM inside this process and start no worker.")
    llvm_opt_level: int = _option(
        1,
        "LLVM's optimisation level, for the passes and the code generator.",
        code=True,
        low=0,
        high=3,
    )
    target_cpu: str | None = _option(
        None,
        "CPU name that code is made for, as LLVM spells it (x86-64-v3, generic, ...). None: this host.",
        code=True,
    )
    vector_width: int | None = _option(
        None,
        "Lanes of 32 bits in a vector. None: as wide as the target's registers.",
        code=True,
        choices=(None, 1, 4, 8, 16),
    )
    fx_compile_mode: str = _option(
        "in-process",
        "How graphs are compiled: here and now, through bytes or readable files, in worker processes, in "
        "the background while eager operators run, or quickly first and better later.",
        choices=("in-process", "serialized", "debug-file", "out-of-process", "async", "progressive"),
    )
    cache: bool = _option(True, "Keep compiled graphs on disk, and look there before compiling.")
    cache_dir: str | None = _option(
        None, "Folder of the cache. None: `braze` in the platform's folder for caches of this user."
    )
    cache_size_mb: int = _option(
        2048,
        "Megabytes that the cache may take; what was used least recently goes first.",
        low=1,
        high=1 << 30,
    )
    remote_cache: str | None = _option(
        None,
        "An fsspec URL of a cache that machines share (file, memory, s3, gs, ...), behind the local one.",
    )
    remote_cache_timeout_ms: int = _option(
        2000, "Milliseconds that one look into the remote cache may take.", low=1, high=600_000
    )
    keyring_dir: str | None = _option(
        None, "Folder of the signing keys. None: `braze` in the platform's folder for this user's settings."
    )
    compile_workers: int | None = _option(
        None,
        "Processes that compile graphs in the modes that use some. None: by cores and free memory.",
        low=1,
        high=256,
    )
    compile_timeout: int = _option(
        600, "Seconds that a compile worker may take for one graph.", low=1, high=86_400
    )
    compile_memory_mb: int = _option(
        8192,
        "Megabytes of address space beyond its start that a compile worker may take.",
        low=64,
        high=1 << 24,
    )
    compile_idle_seconds: int = _option(
        300, "Seconds without work after which a compile worker ends.", low=1, high=86_400
    )
    min_parallel_work: int = _option(
        32768,
        "Elements (weighted by cost) that a segment needs before a second thread joins the caller.",
        low=0,
        high=1 << 62,
    )

    def replace(self, **changes: object) -> Config:
        """A copy with some options changed. Raises `ConfigError` for an unknown name or a bad value."""
        for name, value in changes.items():
            _check(name, value, f"option {name!r}")
        return dataclasses.replace(self, **typing.cast("dict[str, typing.Any]", changes))

    def code_key(self) -> str:
        """The options that can change generated code, as sorted ``name=value`` lines, for cache keys."""
        return "\n".join(f"{o.name}={getattr(self, o.name)!r}" for o in options() if o.affects_code)


@dataclass(frozen=True)
class Option:
    """What is known of one option: its name, type (as written), default, environment variable and meaning."""

    name: str
    type: str
    default: bool | int | str | None
    env: str
    doc: str
    affects_code: bool
    low: int | None
    high: int | None
    choices: tuple[object, ...] | None


def _describe() -> dict[str, Option]:
    described = {}
    defaults = Config()
    for f in dataclasses.fields(Config):
        m = f.metadata
        described[f.name] = Option(
            name=f.name,
            type=str(f.type),
            default=getattr(defaults, f.name),
            env=m["env"] or f"BRAZE_{f.name.upper()}",
            doc=m["doc"],
            affects_code=m["code"],
            low=m["low"],
            high=m["high"],
            choices=m["choices"],
        )
    return dict(sorted(described.items()))


_OPTIONS: typing.Final[Mapping[str, Option]] = _describe()
_KINDS: typing.Final[Mapping[str, type]] = {"bool": bool, "int": int, "str": str}


def options() -> tuple[Option, ...]:
    """Every option, sorted by name."""
    return tuple(_OPTIONS.values())


def _expected(option: Option) -> str:
    if option.choices is not None:
        return "one of " + ", ".join(map(str, option.choices))
    text = {"bool": "True or False", "int": "an integer", "str": "a string"}[option.type.split(" ")[0]]
    if option.low is not None and option.high is not None and option.high < 1 << 32:
        text += f" from {option.low} to {option.high}"
    elif option.low is not None:
        text += f" of at least {option.low}"
    return text + (" or None" if option.type.endswith("| None") else "")


def _check(name: str, value: object, source: str) -> None:
    option = _OPTIONS.get(name)
    if option is None:
        close = difflib.get_close_matches(name, _OPTIONS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "the options are: " + ", ".join(_OPTIONS)
        raise ConfigError(f"Braze has no option {name!r}", hint=hint)
    kind = _KINDS[option.type.split(" ")[0]]
    good = type(value) is kind or (value is None and option.type.endswith("| None"))
    if good and option.choices is not None:
        good = value in option.choices
    if good and isinstance(value, int):
        good = (option.low is None or value >= option.low) and (option.high is None or value <= option.high)
    if not good:
        raise ConfigError(
            f"{source} must be {_expected(option)}, not {value!r}", hint=f"{option.name}: {option.doc}"
        )


_WORDS: typing.Final[Mapping[str, bool]] = {
    "1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def _parse(option: Option, text: str) -> bool | int | str | None:
    """An environment variable's text as the option's type; text that is not of that type is left as it is."""
    if option.type.endswith("| None") and text.strip().lower() in ("", "none"):
        return None
    if option.type.startswith("bool"):
        return _WORDS.get(text.strip().lower(), text)
    if option.type.startswith("int"):
        try:
            return int(text.strip())
        except ValueError:
            return text
    return text


def from_environment(environ: Mapping[str, str]) -> Config:
    """The options that ``BRAZE_*`` variables and the defaults give.

    Raises `ConfigError` for a variable whose value does not fit its option. A ``BRAZE_*`` variable that is no
    option's gets a `BrazeWarning`: it may be a slip, and it may belong to somebody else.
    """
    changes: dict[str, object] = {}
    by_env = {o.env: o for o in options()}
    for key in sorted(k for k in environ if k.startswith("BRAZE_")):
        option = by_env.get(key)
        if option is None:
            close = difflib.get_close_matches(
                key.removeprefix("BRAZE_"), [e.removeprefix("BRAZE_") for e in by_env], n=1
            )
            hint = f"did you mean BRAZE_{close[0]}?" if close else "`braze doctor` lists them all"
            warnings.warn(f"the environment variable {key} is no option of Braze: {hint}", BrazeWarning, 2)
            continue
        changes[option.name] = _parse(option, environ[key])
        _check(option.name, changes[option.name], f"the environment variable {key}")
    return Config().replace(**changes)


_base: Config | None = None
_sealed = False
_patched: contextvars.ContextVar[Config | None] = contextvars.ContextVar("braze_config", default=None)


def current() -> Config:
    """The options that hold in the running context. The environment is read at the first call, and once.

    Raises `ConfigError` in a process that is sealed (`seal`), outside `using`.
    """
    patched = _patched.get()
    if patched is not None:
        return patched
    if _sealed:
        raise ConfigError(
            "an option was read in a worker process outside the job that it was sent with",
            hint="a job runs in `config.using(...)` of the options that came with it, its threads included",
        )
    global _base
    if _base is None:  # two threads may both get here: they compute the same value
        _base = from_environment(os.environ)
    return _base


@contextmanager
def patch(**changes: object) -> Iterator[Config]:
    """Change options inside a ``with`` block, for the running context only. Raises `ConfigError`."""
    token = _patched.set(current().replace(**changes))
    try:
        yield current()
    finally:
        _patched.reset(token)


@contextmanager
def using(config: Config) -> Iterator[Config]:
    """Inside the ``with`` block exactly these options hold, for the running context only; neither the
    environment nor a surrounding `patch` is looked at."""
    token = _patched.set(config)
    try:
        yield config
    finally:
        _patched.reset(token)


def seal() -> None:
    """From now on nothing in this process takes an option's value from the environment or a default: it comes
    with a job, through `using`, or `current` raises `ConfigError`. For worker processes."""
    global _sealed
    _sealed = True


def sealed() -> bool:
    """Whether `seal` was called in this process."""
    return _sealed


def resolve(given: Mapping[str, object] | None) -> Config:
    """The options for one compilation: what holds here, changed by ``torch.compile(options=given)``."""
    return current().replace(**dict(given)) if given else current()


def code_key() -> str:
    """`Config.code_key` of what holds here."""
    return current().code_key()


def __getattr__(name: str) -> typing.Any:
    if name not in _OPTIONS:
        raise AttributeError(f"module 'braze.config' has no attribute {name!r}")
    return getattr(current(), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OPTIONS])
