"""Where the cache and the key ring are, and whether a folder may be used for such things."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from braze.cache.private import complaint, exposure, make_private_folder
from braze.config import Config
from braze.errors import CacheError

__all__ = ["cache_folder", "is_shared_by_machines", "keyring_folder", "prepare_folder"]

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
        wrong = complaint(folder) or exposure(folder)
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
