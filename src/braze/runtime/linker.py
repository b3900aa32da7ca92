"""Object code into the process, through LLVM's ORC: one library for each artefact, freed with it."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from braze._torch.native import native_address
from braze.errors import LinkError
from braze.runtime.elf import read_symbols
from braze.runtime.ending import fork_lock

__all__ = ["LinkedCode", "entry_point", "link"]


class LinkedCode:
    """Machine code that was linked into the process; it is freed when this object dies, so whoever keeps an
    address keeps this too."""

    __slots__ = ("__weakref__", "_addresses", "_tracker", "nbytes")

    def __init__(self, tracker: Any, addresses: Mapping[str, int], nbytes: int) -> None:
        self._tracker = tracker
        self._addresses = dict(addresses)
        self.nbytes = nbytes

    def address(self, name: str) -> int:
        """The address of an exported symbol. Raises `LinkError` for a name that was not exported."""
        try:
            return self._addresses[name]
        except KeyError:
            raise LinkError(f"the linked code exports no {name!r}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._addresses

    @property
    def exports(self) -> tuple[str, ...]:
        """The exported names, sorted."""
        return tuple(sorted(self._addresses))


_FROM_ADDRESS = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64)
_FROM_ADDRESS_LOCKED = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64)


def entry_point(code: LinkedCode, entry: str, *, keep_lock: bool) -> Callable[[bytes, int], int]:
    """A segment's machine code as a function of its packed arguments and the number of threads (see
    `plan.RunSegment`); ``code`` has to outlive it. ``keep_lock``: other Python threads wait meanwhile."""
    make = _FROM_ADDRESS_LOCKED if keep_lock else _FROM_ADDRESS
    return make(code.address(entry))


_numbers = itertools.count()
_lock = fork_lock()
"""LLVM's binding has a lock of its own, which is held where this one is."""
_jit: Any = None


def _llvm() -> Any:
    import llvmlite.binding as llvm  # noqa: PLC0415  30 ms, spent when first needed

    return llvm


def _engine() -> Any:
    """The process's LLJIT. Nothing ever disposes of it: code may run until the very end."""
    global _jit
    if _jit is None:
        llvm = _llvm()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _jit = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
    return _jit


def _wanted(objects: Iterable[bytes], exports: Iterable[str], imports: Iterable[str]) -> set[str]:
    """The names that the objects do not define among themselves. Raises `LinkError` for a name that two
    define, and for an export that none does (as far as their format can be read)."""
    readable = True
    defined: set[str] = set()
    undefined = set(imports)
    for data in objects:
        try:
            symbols = read_symbols(data)
        except ValueError as error:
            raise LinkError(f"damaged object code: {error}") from error
        if symbols is None:
            readable = False
            continue
        if both := defined & symbols.defined:
            raise LinkError(f"two objects define {', '.join(sorted(both))}")
        defined |= symbols.defined
        undefined |= symbols.undefined
    absent = sorted(set(exports) - defined)
    if readable and absent:
        raise LinkError(f"the object code defines no {', '.join(map(repr, absent))}")
    return undefined - defined


def link(
    objects: Sequence[bytes],
    *,
    exports: Sequence[str],
    imports: Sequence[str] = (),
    resolve: Callable[[str], int | None] = native_address,
) -> LinkedCode:
    """Link object files with each other and with what they call.

    Args:
        objects: relocatable object files for this machine; the same bytes twice count once.
        exports: names whose addresses are wanted.
        imports: names that the objects take from outside. ELF files say so themselves; others need them here.
        resolve: the address of an outside name: OpenMP as torch loaded it, libm, SLEEF where torch exports
            it.

    Names of two calls never clash. Safe to call from several threads. Raises `LinkError`: a name that nobody
    defines or that two objects define, a damaged object, code for another architecture. Names of ELF files
    are compared before LLVM sees any of them.
    """
    unique = list(dict.fromkeys(objects))
    addresses: dict[str, int] = {}
    missing = []
    for name in sorted(_wanted(unique, exports, imports)):
        address = resolve(name)
        if address is None:
            missing.append(name)
        else:
            addresses[name] = address
    if missing:
        raise LinkError(f"object code calls what is defined nowhere: {', '.join(missing)}")
    llvm = _llvm()
    with _lock:
        builder = llvm.JITLibraryBuilder()
        for data in unique:
            builder.add_object_img(data)
        for name, address in addresses.items():
            builder.import_symbol(name, address)
        for name in exports:
            builder.export_symbol(name)
        try:
            tracker = builder.link(_engine(), f"braze.{next(_numbers)}")
        except RuntimeError as error:
            raise LinkError(f"object code could not be linked: {error}") from error
        found = {name: tracker[name] for name in exports}
    return LinkedCode(tracker, found, sum(map(len, unique)))
