"""What a file is that is no package.

A file of its own: what it knows is other programs' files, not packages.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["what_it_is"]

_Test = Callable[[Sequence[str]], bool]
_AGAIN: Final = "make the package anew with braze.aot_compile, or copy it anew from where it was made"
_EXPORT: Final = (
    "this is a torch.export archive: a program that is not compiled yet",
    "pass it to Braze first: braze.aot_compile(torch.export.load(path), 'model.pt2')",
)


def what_it_is(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """What a file is, as far as its outside tells, and what to do about it; None where it does not look like
    anything that people take for a package. Reads names, and no contents. Raises `OSError`."""
    with open(path, "rb") as file:
        head = file.read(8)
        if not head:
            return "the file is empty", _AGAIN
        if head.startswith(b"\x7fELF"):
            return "this is a program or a shared library, and not a package", _AGAIN
        if head.startswith(b"\x80") and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return "this is a pickle, as torch.save writes, and not a package", _weights("torch.load(path)")
        if not head.startswith(b"PK\x03\x04"):
            return "this is not a zip archive, and so not a package", _AGAIN
        try:
            names = zipfile.ZipFile(file).namelist()
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
            return "the end of the file is missing, or was changed", _AGAIN
    return _archive([name.replace("\\", "/") for name in names])


def _archive(names: Sequence[str]) -> tuple[str, str] | None:
    inner = [name.partition("/")[2] for name in names]
    if any(name.startswith("data/braze/") for name in inner):
        return None  # a package, and what is wrong with it is another matter
    if any(name.startswith("data/aotinductor/") for name in inner):
        return (
            "this is a package of TorchInductor's",
            "export the model again, and compile that with braze.aot_compile",
        )
    if any(name.startswith("models/") for name in inner) or "serialized_exported_program.json" in names:
        return _EXPORT
    if "constants.pkl" in inner:
        return "this is a TorchScript archive, and not a package", "load it by torch.jit.load"
    if "data.pkl" in inner:
        return "this is a file of torch.save's, and not a package", _weights("torch.load(path)")
    return "this is a zip archive, and not a package of Braze's", _AGAIN


def _weights(loaded: str) -> str:
    return f"if it holds weights: model = braze.aot_load('model.pt2'); model.bind({loaded})"
