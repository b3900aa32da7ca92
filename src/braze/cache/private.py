"""Folders and files that belong to one user alone: whoever else could write there could have this user run
any program, since what they hold is linked into the process (a cache) or decides what is (a key ring)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["complaint", "exposure", "make_private_folder", "write_private_file"]


def complaint(path: Path, *, secret: bool = False) -> str | None:
    """Why what is at `path` cannot be relied on, or None where it can be: it must belong to this user, and
    nobody else may write there (nor read, if it is `secret`). A path where nothing is gets no complaint.

    Links are followed. On platforms without user numbers (Windows) folders of a user's profile are private
    by themselves, and nothing is asked. Raises `OSError` where the path cannot be looked at.
    """
    if not hasattr(os, "getuid"):
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if found.st_uid != os.getuid():
        return f"{path} belongs to another user (number {found.st_uid})"
    open_to_others = stat.S_IMODE(found.st_mode) & (0o077 if secret else 0o022)
    if open_to_others:
        what = "read or written" if secret else "written"
        return f"{path} can be {what} by others (its mode is {stat.S_IMODE(found.st_mode):04o})"
    return None


def exposure(path: Path) -> str | None:
    """Why somebody else could put another thing in the place of `path`, or None where only this user and root
    can: each folder on the way to it belongs to one of them, and others cannot write there, unless its sticky
    bit keeps them from what is not theirs (as in `/tmp`). Groups are let be: many systems give each user one.

    Raises `OSError` where a folder cannot be looked at.
    """
    if not hasattr(os, "getuid"):
        return None
    trusted = (os.getuid(), 0)
    for folder in dict.fromkeys((*path.absolute().parents, *path.resolve().parents)):
        found = folder.stat()
        owner = next((n for n in (folder.lstat().st_uid, found.st_uid) if n not in trusted), None)
        if owner is not None:
            return f"{folder}, on the way to {path}, belongs to another user (number {owner})"
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            mode = stat.S_IMODE(found.st_mode)
            return f"{folder}, on the way to {path}, can be written by others (its mode is {mode:04o})"
    return None


def make_private_folder(path: Path) -> None:
    """Make the folder, and those above it, with mode 0700; one that is there stays as it is.

    Raises `OSError`. Ask `complaint` before relying on what is in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.mkdir(exist_ok=True, mode=0o700)


def write_private_file(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file with mode 0600, whole or not at all: it is written under another name and then renamed.

    Raises `FileExistsError` if it is there and `replace` is false, and `OSError` where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        if not replace and path.exists():
            raise FileExistsError(f"{path} is there already")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
