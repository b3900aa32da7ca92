"""``braze doctor``: whether this machine and this installation have what Braze needs, and what it will do."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import braze
from braze import config
from braze.cache.keyring import KeyRing
from braze.cache.paths import keyring_folder
from braze.cache.remote import configured
from braze.cache.store import open_store
from braze.cli.tables import add_row, facts, table
from braze.errors import BrazeError
from braze.words import count, nbytes

__all__ = ["CHECKS", "Finding", "doctor"]


@dataclass(frozen=True)
class Finding:
    """What one check found; ``good`` is None where it is only worth knowing."""

    subject: str
    good: bool | None
    text: str


def _python() -> Finding:
    return Finding(
        "Python",
        sys.version_info >= (3, 10),
        f"{platform.python_version()} ({platform.python_implementation()}), "
        f"{platform.system()} {platform.machine()}",
    )


def _torch() -> Finding:
    torch = importlib.import_module("torch")  # heavy, and it may be what is broken
    release = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    good = (2, 11) <= release < (2, 16)
    text = f"{torch.__version__}, {torch.get_num_threads()} threads"
    return Finding("PyTorch", good, text if good else f"{text}; Braze knows 2.11 to 2.15")


def _llvmlite() -> Finding:
    llvmlite = importlib.import_module("llvmlite")
    binding = importlib.import_module("llvmlite.binding")
    return Finding(
        "llvmlite", True, f"{llvmlite.__version__}, LLVM {'.'.join(map(str, binding.llvm_version_info))}"
    )


def _processor() -> Finding:
    binding = importlib.import_module("llvmlite.binding")
    features = binding.get_host_cpu_features()
    known = [
        name
        for name in ("sse4.2", "avx2", "fma", "f16c", "avx512f", "avx512bf16", "neon", "sve")
        if features.get(name)
    ]
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("processor", None, f"{binding.get_host_cpu_name()}, {affinity} cores, {' '.join(known)}")


def _machine() -> Finding:
    return Finding("speed", None, f"{braze.inspect.machine.measured()}: what kernels are held against")


def _entry_point() -> Finding:
    points = importlib.metadata.entry_points(group="torch_dynamo_backends")
    good = any(point.name == "braze" for point in points)
    text = 'torch.compile(backend="braze") is known' if good else "not registered: reinstall the package"
    return Finding("backend", good, text)


def _options() -> Finding:
    changed = [
        f"{o.name}={getattr(config.current(), o.name)!r}"
        for o in config.options()
        if getattr(config.current(), o.name) != o.default
    ]
    return Finding("options", None, ", ".join(changed) or "all at their defaults")


def _compiles() -> Finding:
    torch = importlib.import_module("torch")
    x = torch.linspace(-2, 2, 1003)
    with warnings.catch_warnings(), config.patch(strict=True, cache=False):
        warnings.simplefilter("ignore")
        result = torch.compile(lambda x: torch.tanh(x) * x + 1, backend="braze")(x)
    off = float((result - (torch.tanh(x) * x + 1)).abs().max())
    return Finding("compiles", off < 1e-6, f"a small function, largest difference to eager {off:.1e}")


def _cache() -> Finding:
    store = open_store(config.current())
    if store is None:
        return Finding("cache", None, "switched off: every process compiles anew")
    figures = store.statistics()
    if store.problem is not None:
        return Finding("cache", False, f"{store.folder}: {store.problem}")
    kept = f"{count(figures.entries, 'entry', 'entries')}, {nbytes(figures.file_bytes)}"
    return Finding("cache", True, f"{store.folder}: {kept}")


def _remote() -> Finding:
    options = config.current()
    remote = configured(options)
    text = "none" if remote is None else remote.shown_url
    keys = KeyRing(keyring_folder(options)).keys()
    own = sum(key.own for key in keys)
    return Finding("sharing", None, f"remote cache: {text}; keys: {own} own, {len(keys) - own} of others")


CHECKS: tuple[tuple[str, Callable[[], Finding]], ...] = (
    ("Python", _python),
    ("PyTorch", _torch),
    ("llvmlite", _llvmlite),
    ("processor", _processor),
    ("backend", _entry_point),
    ("options", _options),
    ("compiles", _compiles),
    ("cache", _cache),
    ("sharing", _remote),
    ("speed", _machine),
)
REPORTED = tuple(subject for subject, _ in CHECKS[:4])
"""What a report of a fault says of the machine."""


def _examine(subject: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except BrazeError as error:
        return Finding(subject, False, str(error))
    except Exception as error:  # a doctor reports whatever is broken, and goes on
        first = str(error).split("\n\n", maxsplit=1)[0]
        return Finding(subject, False, f"{type(error).__name__}: {first}")


@click.command()
@click.option(
    "--options", "list_options", is_flag=True, help="List every option, its variable and meaning, instead."
)
def doctor(list_options: bool) -> None:
    """Check the installation and compile a small function. Exit status 1 where something is wrong."""
    console = Console()
    if list_options:
        console.print(_option_table())
        return
    shown = facts()
    marks = {True: Text("✓", "green"), False: Text("✗", "bold red"), None: Text("·", "dim")}
    healthy = True
    with console.status("examining"):
        for subject, check in CHECKS:
            finding = _examine(subject, check)
            healthy = healthy and finding.good is not False
            shown.add_row(marks[finding.good], finding.subject, Text(finding.text))
    console.print(shown)
    if not healthy:
        sys.exit(1)


def _option_table() -> Table:
    shown = table("option", "variable", "type", "default", "value here", "meaning")
    for option in config.options():
        value = getattr(config.current(), option.name)
        here = Text(repr(value), "" if value == option.default else "bold yellow")
        add_row(shown, option.name, option.env, option.type, repr(option.default), here, option.doc)
    return shown
