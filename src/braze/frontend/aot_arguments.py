"""What `braze.aot_compile` is given, checked before anything is compiled."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule

from braze import config as configuration
from braze.config import Config
from braze.errors import ConfigError, PackageError
from braze.runtime.target import check_cpu_target

__all__ = ["config_of", "flag", "output_path", "program_of", "targets_of"]


def program_of(program: Any) -> ExportedProgram:
    """The program. Raises `TypeError`, with the way to one, for what is none."""
    if isinstance(program, ExportedProgram):
        return program
    if isinstance(program, GraphModule):
        what, how = "a GraphModule", "pass what torch.export.export returned, and not its module()"
    elif isinstance(program, torch.nn.Module):
        what = f"the module {type(program).__name__}"
        how = "call torch.export.export(module, inputs) first, and pass what it returns"
    elif isinstance(program, (str, bytes, os.PathLike)):
        what, how = "a path", "pass torch.export.load(path), if it is a file of torch.export's"
    elif isinstance(program, Callable):  # type: ignore[arg-type]
        what = "a function"
        how = "make it the forward of a torch.nn.Module, and pass torch.export.export(module, inputs)"
    else:
        what, how = (
            f"a value of type {type(program).__name__}",
            "pass what torch.export.export(module, inputs) returns",
        )
    raise TypeError(f"aot_compile compiles a torch.export.ExportedProgram, and was given {what}: {how}")


def output_path(path: Any) -> Path:
    """Where the package is to be written. Raises `TypeError` for what is not a path, and `OSError` where no
    file can be made."""
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise TypeError(
            f"path has to be the name of a file, as a str or a Path, but is of type {type(path).__name__}:"
            ' for example "model.pt2"'
        )
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise ValueError(f'path has to be the name of a file, such as "model.pt2", but is {str(path)!r}')
    found = Path(path)
    if found.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "this is a directory, and a package is a file", os.fspath(found)
        )
    if not found.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "the directory for the package is not there", os.fspath(found.parent)
        )
    return found


def targets_of(targets: Any) -> tuple[str, ...]:
    """The CPUs to make code for, each once. Raises `TypeError` for what is not a name and no sequence of
    names, `PackageError` where there is none, and `ConfigError` for an unknown one."""
    each = (targets,) if isinstance(targets, str) else targets
    if isinstance(each, Mapping) or not isinstance(each, Iterable):
        raise TypeError(f"targets have to be names of CPUs, such as ('x86-64-v3',), but are {targets!r}")
    names = tuple(dict.fromkeys(each))
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a target has to be the name of a CPU, such as 'x86-64-v3', but is {name!r}")
        check_cpu_target(name, "targets")
    if not names:
        raise PackageError("a package needs at least one target", hint='for example targets=("x86-64-v3",)')
    return names


def config_of(options: Any) -> Config:
    """The options of the compile. Raises `TypeError` for what is not a mapping of names to values, and
    `ConfigError`."""
    if options is not None and not (
        isinstance(options, Mapping) and all(isinstance(name, str) for name in options)
    ):
        raise TypeError(
            f"options have to be names with values, such as {{'strict': True}}, but are {options!r}"
        )
    if options and options.get("target_cpu") is not None:
        raise ConfigError(
            "a package has code for its targets, and the option target_cpu has no meaning for it",
            hint=f"pass targets=({options['target_cpu']!r},)",
        )
    return configuration.resolve(options)


def flag(name: str, value: Any) -> bool:
    """A truth value. Raises `TypeError` for another."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} has to be True or False, but is {value!r}")
    return value
