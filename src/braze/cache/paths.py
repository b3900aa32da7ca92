"""Where the cache and the key ring are, and their folders and files, which belong to one user alone.

Whoever else could write there could have this user run any program, since what they hold is linked into the
process (a cache) or decides what is (a key ring)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from braze.config import Config
from braze.errors import CacheError

__all__ = [
    "cache_folder",
    "is_shared_by_machines",
    "keyring_folder",
    "make_private_folder",
    "permission_problem",
    "prepare_folder",
    "replaced",
    "write_private_file",
]

_MOUNTS: Final = "/proc/self/mountinfo"
# File systems whose files several machines may have open, or whose memory maps are not shared. `fuse.*`, too.
_SHARED: Final = frozenset(
    "9p afs beegfs ceph cifs coda glusterfs gpfs lustre ncpfs nfs nfs4 orangefs panfs pvfs2 smb3 smbfs "
    "vboxsf virtiofs".split()
)


def cache_folder(config: Config) -> Path:
    """The folder of the cache: ``config.cache_dir``, or `braze` in the platform's folder for caches."""
    if config.cache_dir is not None:
        return Path(config.cache_dir).expanduser().absolute()
    import platformdirs  # noqa: PLC0415 - 3 ms that a given folder does not cost

    return Path(platformdirs.user_cache_dir("braze", appauthor=False))


def keyring_folder(config: Config) -> Path:
    """The folder of the key ring: ``config.keyring_dir``, or `braze` in the folder for settings."""
    if config.keyring_dir is not None:
        return Path(config.keyring_dir).expanduser().absolute()
    import platformdirs  # noqa: PLC0415 - 3 ms that a given folder does not cost

    return Path(platformdirs.user_config_dir("braze", appauthor=False))


def prepare_folder(folder: Path) -> None:
    """Make the folder (mode 0700) if it is not there. Raises `CacheError` if that fails, or unless the folder
    belongs to this user, who alone may write there, nobody else (root apart) can put another in its place,
    and a link that leads to it was made by this user or by root: what is in it is run."""
    try:
        make_private_folder(folder)
        wrong = permission_problem(folder) or parent_problem(folder)
        if wrong is None and hasattr(os, "getuid"):
            itself = folder.lstat()
            if itself.st_uid not in (os.getuid(), 0):
                wrong = f"{folder} is a link of another user (number {itself.st_uid})"
    except OSError as error:
        raise CacheError(f"the folder {folder} cannot be used: {error.strerror or error}") from error
    except ValueError as error:  # a path with a zero character
        raise CacheError(f"the folder {str(folder)!r} cannot be used: {error}") from error
    if wrong is not None:
        raise CacheError(f"{wrong}: what is in a cache is run")


def is_shared_by_machines(folder: Path, mounts: str = _MOUNTS) -> bool:
    """Whether the folder is on a file system that several machines can write to at once, or where processes
    do not share memory maps, as far as Linux's list of mounts says so; False on other platforms.

    The format is that of proc_pid_mountinfo(5): the third field is the device, and the type follows a dash.
    """
    try:
        device = folder.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open(mounts, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) > 6 and fields[2] == wanted and "-" in fields:
                    kind = fields[fields.index("-") + 1]
                    return kind in _SHARED or (kind.startswith("fuse") and kind != "fuse.fuse-overlayfs")
    except (OSError, AttributeError, IndexError):  # no such list, or no such numbers, on this platform
        return False
    return False


def permission_problem(path: Path, *, secret: bool = False) -> str | None:
    """Why what is at `path` cannot be relied on, or None where it can be: it must belong to this user, and
    nobody else may write there (nor read, if it is `secret`). A path where nothing is has no problem.

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


def parent_problem(path: Path) -> str | None:
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

    Raises `OSError`. Ask `permission_problem` before relying on what is in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.mkdir(exist_ok=True, mode=0o700)


def write_private_file(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file with mode 0600, whole or not at all: see `replaced`.

    Raises `FileExistsError` if it is there and `replace` is false, and `OSError` where it cannot be written.
    """
    with replaced(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        if not replace and path.exists():
            raise FileExistsError(f"{path} is there already")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Around a block that writes a file, whole or not at all: the path to write to, which is renamed to
    ``path`` at the end of the block, and deleted if that raises."""
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
