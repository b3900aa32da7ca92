"""Braze's options: each one typed, documented and declared in one place, the class `Config` below.

An option's value is looked for in this order: a ``with patch(...)`` block of the running context (a thread
or an asyncio task sees its own only), an assignment to this module's attribute (seen by the whole process),
the environment variable ``BRAZE_<NAME>``, the default. ``torch.compile(options={...})`` is a patch around all
compilations of that one function::

    braze.config.strict                        # the value that holds here
    braze.config.strict = True                 # for the whole process, outside of blocks
    del braze.config.strict                    # back to what the environment says
    with braze.config.patch(strict=True): ...  # in this block and this context only
    @braze.config.patch(strict=True)           # in each call of a function
    resolve({"strict": True})                  # a whole Config, for code that keeps one

Compiled code holds for the options that it was compiled under: where another value of one that `Option`
marks with ``recompiles`` holds when it is called, it is compiled for that value as well. Reading an attribute
of this module reads the option of that name from `current()`; Braze's own code writes
``config.current().strict``, which is the same and which mypy knows the type of.
"""

from __future__ import annotations

import contextvars
import dataclasses
import difflib
import functools
import inspect
import os
import re
import sys
import threading
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from braze.cpus import check_cpu_target
from braze.errors import BrazeWarning, ConfigError

__all__ = [
    "Config",
    "Option",
    "Watch",
    "code_key",
    "current",
    "from_environment",
    "key_reader",
    "options",
    "patch",
    "resolve",
    "seal",
    "sealed",
    "using",
    "watch",
]

F = typing.TypeVar("F", bound=Callable[..., typing.Any])


def _option(
    default: typing.Any,
    doc: str,
    *,
    code: bool = False,
    compiling: bool = False,
    env: str | None = None,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[object, ...] | None = None,
    check: Callable[[str, str], None] | None = None,
) -> typing.Any:
    """Declare an option. ``code``: it can change generated code, and so is part of the cache key.
    ``compiling``: it changes something else that is settled when a graph is compiled. ``check``: raises
    `ConfigError` for a string that is no value, given what it was given for."""
    metadata = {
        "doc": doc,
        "code": code,
        "recompiles": code or compiling,
        "env": env,
        "low": low,
        "high": high,
        "choices": choices,
        "check": check,
    }
    return field(default=default, metadata=metadata)


_BACKENDS = re.compile(r"\s*[a-z]+\s*=\s*[a-z][a-z0-9_]*\s*(,\s*[a-z]+\s*=\s*[a-z][a-z0-9_]*\s*)*")


def _check_device_backends(text: str, source: str) -> None:
    if not _BACKENDS.fullmatch(text):
        raise ConfigError(
            f"{source} must be pairs of a device and a backend, not {text!r}",
            hint="such as: cpu=mine,cuda=other",
        )


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
        False,
        "Raise where a node, kernel or graph would fall back to eager PyTorch, instead of warning.",
        compiling=True,
    )
    debug_dir: str | None = _option(
        None,
        "Folder that receives each graph's IR, loop plans, LLVM IR and assembly; created when needed.",
        compiling=True,
        env="BRAZE_DEBUG",
    )
    verify: bool = _option(
        False,
        "Run every kernel through the reference interpreter as well, compare, and raise at the first "
        "difference. Slow; nothing is cached meanwhile.",
        compiling=True,
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
        _default_workers(), "Processes that run LLVM; default: one for each core, at most 4.", low=1, high=256
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
        check=check_cpu_target,
    )
    device_backends: str | None = _option(
        None,
        "Backends for types of devices, where it is not to be the usual one: `cuda=mine,cpu=other`.",
        code=True,
        check=_check_device_backends,
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
        compiling=True,
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
        compiling=True,
        low=0,
        high=1 << 62,
    )

    def __post_init__(self) -> None:
        for f in _FIELDS:
            value = getattr(self, f.name)
            if value is not f.default:
                _check(f.name, value, f"option {f.name!r}")

    def replace(self, **changes: object) -> Config:
        """A copy with some options changed. Raises `ConfigError` for an unknown name or a bad value."""
        for name, value in changes.items():
            _check(name, value, f"option {name!r}")
        return dataclasses.replace(self, **typing.cast("dict[str, typing.Any]", changes))

    def compile_key(self) -> tuple[object, ...]:
        """The values that compiled code holds for: those of the options that compile again."""
        return tuple([getattr(self, name) for name in _RECOMPILING])

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
    recompiles: bool
    low: int | None
    high: int | None
    choices: tuple[object, ...] | None
    check: Callable[[str, str], None] | None

    @property
    def expected(self) -> str:
        """Its values, in words."""
        if self.choices is not None:
            return "one of " + ", ".join(map(str, self.choices))
        text = {"bool": "True or False", "int": "an integer", "str": "a string"}[self.type.split(" ")[0]]
        if self.low is not None and self.high is not None and self.high < 1 << 32:
            text += f" from {self.low} to {self.high}"
        elif self.low is not None:
            text += f" of at least {self.low}"
        return text + (" or None" if self.type.endswith("| None") else "")


def _refuse_change(self: Config, name: str, value: object) -> typing.NoReturn:
    raise ConfigError(
        f"a Config does not change: its option {name!r} cannot be set",
        hint=f"`replace({name}={value!r})` makes another; braze.config.{name} = {value!r} is for the process",
    )


# what `frozen` would raise is no ConfigError, and says nothing of how it is done
Config.__setattr__ = _refuse_change  # type: ignore[assignment,method-assign]
_FIELDS: typing.Final = dataclasses.fields(Config)


def _describe() -> dict[str, Option]:
    described = {}
    for f in _FIELDS:
        m = f.metadata
        described[f.name] = Option(
            name=f.name,
            type=str(f.type),
            default=typing.cast("bool | int | str | None", f.default),
            env=m["env"] or f"BRAZE_{f.name.upper()}",
            doc=m["doc"],
            affects_code=m["code"],
            recompiles=m["recompiles"],
            low=m["low"],
            high=m["high"],
            choices=m["choices"],
            check=m["check"],
        )
    return dict(sorted(described.items()))


_OPTIONS: typing.Final[Mapping[str, Option]] = _describe()
_RECOMPILING: typing.Final = tuple([o.name for o in _OPTIONS.values() if o.recompiles])
_KINDS: typing.Final[Mapping[str, type]] = {"bool": bool, "int": int, "str": str}


def options() -> tuple[Option, ...]:
    """Every option, sorted by name."""
    return tuple(_OPTIONS.values())


def _near(name: str) -> str:
    close = difflib.get_close_matches(str(name), _OPTIONS, n=3)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{guess}the options are: {', '.join(_OPTIONS)}"


def _check(name: str, value: object, source: str) -> None:
    option = _OPTIONS.get(name)
    if option is None:
        raise ConfigError(f"Braze has no option {name!r}", hint=_near(name))
    kind = _KINDS[option.type.split(" ")[0]]
    good = type(value) is kind or (value is None and option.type.endswith("| None"))
    if good and option.choices is not None:
        good = value in option.choices
    if value == "":
        good = False
    if good and isinstance(value, int):
        good = (option.low is None or value >= option.low) and (option.high is None or value <= option.high)
    if not good:
        raise ConfigError(
            f"{source} must be {option.expected}, not {value!r}", hint=f"{option.name}: {option.doc}"
        )
    if option.check is not None and isinstance(value, str):
        option.check(value, source)


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
            warnings.warn(
                f"the environment variable {key} is not an option of Braze: {hint}", BrazeWarning, 2
            )
            continue
        changes[option.name] = _parse(option, environ[key])
        _check(option.name, changes[option.name], f"the environment variable {key}")
    return Config().replace(**changes)


_lock = threading.Lock()
_environment: Config | None = None
_assigned: dict[str, object] = {}
_base: Config | None = None
"""What holds outside of patches: the environment's options, and over them those that were assigned. None
until somebody asks."""
_sealed = False
_epoch = object()
"""Another object after each `renew`."""
_patched: contextvars.ContextVar[Config | None] = contextvars.ContextVar("braze_config", default=None)
_outer: contextvars.ContextVar[tuple[Config | None, ...]] = contextvars.ContextVar("braze_outer", default=())
"""What held in front of each patch that the running context is in."""


def current() -> Config:
    """The options that hold in the running context. The environment is read at the first call, and once.

    Raises `ConfigError` in a process that is sealed (`seal`), outside `using`, and for a variable of the
    environment with a bad value."""
    patched = _patched.get()
    if patched is not None:
        return patched
    if _sealed:
        raise ConfigError(
            "an option was read in a worker process outside the job that it was sent with",
            hint="a job runs in `config.using(...)` of the options that came with it, its threads included",
        )
    return _base or _from_outside()


def _from_outside() -> Config:
    global _base, _environment
    with _lock:
        if _base is None:
            _base = _environment = from_environment(os.environ)
        return _base


class patch:
    """Change options inside a ``with`` block, or in each call of the function that it decorates, for the
    running context only. Other options stay as they were when the block began. Raises `ConfigError` at once
    for an option that there is not, or a value that is none."""

    def __init__(self, **changes: object) -> None:
        for name, value in changes.items():
            _check(name, value, f"option {name!r}")
        self._changes = changes

    def __enter__(self) -> Config:
        changed = current().replace(**self._changes)
        # of the context and not of this object, which several threads may enter
        _outer.set((*_outer.get(), _patched.get()))
        _patched.set(changed)
        return changed

    def __exit__(self, *exception: object) -> None:
        *rest, before = _outer.get()
        _outer.set(tuple(rest))
        _patched.set(before)

    def __call__(self, function: F) -> F:
        """`function`, which is called with these options."""
        changes = self._changes
        if isinstance(function, type) or not callable(function) or _hands_over(function):
            raise ConfigError(
                f"`patch` decorates functions and coroutines, not {function!r}",
                hint="write a `with braze.config.patch(...)` block where the options are to hold",
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def patched_coroutine(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
                with patch(**changes):
                    return await function(*args, **kwargs)

            return typing.cast(F, patched_coroutine)

        @functools.wraps(function)
        def patched(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
            with patch(**changes):
                return function(*args, **kwargs)

        return typing.cast(F, patched)


def _hands_over(function: object) -> bool:
    """Whether a function is a generator's: its caller runs, with the options, at each of its yields."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


@contextmanager
def using(config: Config) -> Iterator[Config]:
    """Inside the ``with`` block exactly these options hold, for the running context only; neither the
    environment nor a surrounding `patch` is looked at."""
    token = _patched.set(config)
    try:
        yield config
    finally:
        _patched.reset(token)


@dataclass(frozen=True)
class Watch:
    """The options that something was compiled for. ``given``: those that were given to it and hold in every
    call; ``key``: the `Config.compile_key` of all, and what `renew` changes."""

    given: Mapping[str, object]
    key: tuple[object, ...]

    def checker(self) -> Callable[[object], bool]:
        """A function, of an argument that does not count, that says whether this is still what holds. It
        stands in front of every call: one lookup and one comparison, unless something has changed."""
        given, key, patched, epoch = dict(self.given), self.key, _patched.get, _epoch
        known: Config | None = None

        def same(now: Config) -> bool:
            nonlocal known
            known = now if (*now.replace(**given).compile_key(), epoch) == key else known
            return known is now

        def check(_: object = None) -> bool:
            return _epoch is epoch and ((patched() or _base) is known or same(current()))

        same(current())  # so that the first call finds it known
        return check


def key_reader(given: Mapping[str, object]) -> Callable[[], tuple[object, ...]]:
    """A function that returns the `Config.compile_key` of what holds where it is called, with the options
    ``given``, and what `renew` changes."""
    last: tuple[Config, tuple[object, ...]] | None = None

    def read() -> tuple[object, ...]:
        nonlocal last
        now, known = current(), last
        if known is None or known[0] is not now:
            last = known = now, now.replace(**given).compile_key()
        return (*known[1], _epoch)

    return read


def watch(given: Mapping[str, object] | None = None) -> Watch:
    """What compilations here and now are for, with the options ``given``. Raises `ConfigError`."""
    given = dict(given or {})
    return Watch(given, (*resolve(given).compile_key(), _epoch))


def renew() -> None:
    """What was compiled until now is compiled again when it is next called, as after an option has changed:
    something besides the options has, for good."""
    global _epoch
    _epoch = object()


def seal() -> None:
    """From now on nothing in this process takes an option's value from the environment or a default: it comes
    with a job, through `using`, or `current` raises `ConfigError`. For worker processes."""
    global _sealed
    _sealed = True


def sealed() -> bool:
    """Whether `seal` was called in this process."""
    return _sealed


def resolve(given: Mapping[str, object] | None) -> Config:
    """The options for one compilation: what holds here, changed by ``torch.compile(options=given)``. Raises
    `ConfigError`."""
    if given is None:
        return current()
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"options must be a mapping of their names to values, not {given!r}")
    return current().replace(**dict(given)) if given else current()


def code_key() -> str:
    """`Config.code_key` of what holds here."""
    return current().code_key()


def __getattr__(name: str) -> typing.Any:
    if name not in _OPTIONS:
        raise AttributeError(f"module 'braze.config' has no attribute {name!r}: {_near(name)}")
    return getattr(current(), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OPTIONS])


def _assign(changes: Mapping[str, object], forget: str = "") -> None:
    """Make ``changes`` hold in this process, and no longer what was assigned to the option ``forget``."""
    global _base, _assigned
    if _sealed:
        raise ConfigError("options cannot be assigned in a worker process: they come with each job")
    if _patched.get() is not None:
        raise ConfigError(
            "options cannot be assigned inside a `braze.config.patch` block, where they would not hold",
            hint="nest another `with braze.config.patch(...)`, or assign outside of the block",
        )
    environment = _environment or _from_outside()
    with _lock:
        assigned = {**{n: v for n, v in _assigned.items() if n != forget}, **changes}
        _base = environment.replace(**assigned)
        _assigned = assigned


class _Module(types.ModuleType):
    """This module, whose options can be assigned and deleted as attributes."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _OPTIONS:
            _check(name, value, f"option {name!r}")
            _assign({name: value})
        elif name.startswith("_") or name in self.__dict__:
            super().__setattr__(name, value)
        else:
            raise ConfigError(f"Braze has no option {name!r}", hint=_near(name))

    def __delattr__(self, name: str) -> None:
        if name not in _OPTIONS:
            super().__delattr__(name)
            return
        _assign({}, forget=name)


sys.modules[__name__].__class__ = _Module
