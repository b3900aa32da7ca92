"""The key ring: whose code this user runs, and the keys with which this user signs.

Keys are Ed25519 (RFC 8032, through `cryptography`). A ring is a folder of mode 0700::

    <folder>/trusted/<key id>.json   a public key, its name, and when it was trusted
    <folder>/own/<key id>.pem        a private key of this user (PKCS #8, mode 0600, no passphrase)

The two are apart: a private key signs only while its public key is trusted, so distrusting one's own key
retires it. A public key travels as one line of text, ``braze-ed25519 <32 bytes in base64> <name>``. Its id is
the first 20 hexadecimal digits of the SHA-256 of those 32 bytes; a ring never holds two keys of one id, and a
signature is always checked with the whole key.

What is signed begins with a line that says what it is (``braze signed entry 1``, ``braze signed files 1``),
so that a signature of one kind of thing never passes for one of another: see `KeyRing.sign`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from braze import config
from braze.cache.paths import (
    keyring_folder,
    make_private_folder,
    permission_problem,
    write_private_file,
)
from braze.errors import KeyringError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["KeyRing", "Signature", "TrustedKey", "key_id"]

ALGORITHM: Final = "braze-ed25519"
SIGNATURE_BYTES: Final = 64
_PUBLIC_BYTES: Final = 32
_ID: Final = re.compile(r"[0-9a-f]{20}")
_NAME: Final = re.compile(r"[\w.@+-]{1,64}")


def key_id(public: bytes) -> str:
    """The short name of a public key of 32 bytes: 20 hexadecimal digits."""
    return hashlib.sha256(public).hexdigest()[:20]


class TrustedKey(msgspec.Struct, frozen=True):
    """A public key that this user trusts; ``own`` if its private key is in the same ring."""

    name: str
    public: bytes
    added: datetime
    own: bool

    @property
    def id(self) -> str:
        """See `key_id`."""
        return key_id(self.public)

    @property
    def text(self) -> str:
        """The line that others pass to ``braze cache trust``."""
        return f"{ALGORITHM} {base64.b64encode(self.public).decode()} {self.name}"

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class Signature(msgspec.Struct, frozen=True):
    """64 bytes (RFC 8032), and the id of the key that is said to have made them."""

    signer: str
    value: bytes


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``trusted/<key id>.json`` holds."""

    key: str
    added: datetime


class KeyRing:
    """A folder of keys, read anew at each use, so that a key distrusted by one process is distrusted by all.

    Every method raises `KeyringError` where the folder, or a file in it, belongs to somebody else, can be
    written (a private key: read) by others, is damaged, or cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        """``folder``: None takes the option `keyring_dir`, or else the user's settings folder."""
        self.folder = Path(folder) if folder is not None else keyring_folder(config.current())
        self._trusted = self.folder / "trusted"
        self._own = self.folder / "own"

    def keys(self) -> tuple[TrustedKey, ...]:
        """The trusted keys, by name."""
        return tuple(sorted(self._records(), key=lambda key: (key.name, key.id)))

    def default(self) -> TrustedKey | None:
        """The key that signs if none is named: of the trusted keys of this user's own, the youngest."""
        return max((key for key in self._records() if key.own), key=lambda key: key.added, default=None)

    def find(self, name_or_id: str) -> TrustedKey:
        """The trusted key of that name or id. Raises `KeyringError` if there is none."""
        for key in self._records():
            if name_or_id in (key.name, key.id):
                return key
        raise KeyringError(f"no trusted key has the name or id {name_or_id!r}")

    def generate(self, name: str) -> TrustedKey:
        """Make a key pair of this user's own and trust it.

        Raises `KeyringError` if the name is bad, or another key's.
        """
        # cryptography takes as long to import as the rest of the cache, and few processes sign
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        self._check_name(name)
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with _reporting(self.folder):
            for folder in (self.folder, self._own):
                make_private_folder(folder)
                _require_private(folder)
            write_private_file(self._private_file(key_id(public)), pem, replace=False)
        return self._write(public, name)

    def trust(self, key: str | os.PathLike[str], name: str | None = None) -> TrustedKey:
        """Trust a public key: from now on this user runs what its owner signs.

        ``key`` is its text, or the path of a file that holds the text; ``name`` replaces the name in it. A
        key that is trusted already gets the name that is given here. Raises `KeyringError` for a text that
        is no key, or a name that is bad or another key's.
        """
        text = os.fspath(key)
        if not text.startswith(ALGORITHM) and "\0" not in text:  # else it is no path
            with _reporting(text):
                text = Path(text).read_text(encoding="utf-8")
        public, written_name = _parse(text)
        name = name or written_name
        if not name:
            raise KeyringError(
                "the key has no name", hint="give it one: `braze cache trust <key> --name <name>`"
            )
        self._check_name(name, of=key_id(public))
        return self._write(public, name)

    def distrust(self, name_or_id: str) -> TrustedKey:
        """Trust a key no more. A private key stays where it is, unused until its public key is trusted again.

        Returns what was taken out; raises `KeyringError` if there is no such key.
        """
        key = self.find(name_or_id)
        with _reporting(self.folder):
            self._record_file(key.id).unlink(missing_ok=True)
        return key

    def signer(self, key: str | None = None) -> TrustedKey:
        """The own key of that name or id, or the `default` one. Raises `KeyringError` if there is none."""
        chosen = self.find(key) if key is not None else self.default()
        if chosen is None:
            raise KeyringError("there is no key to sign with", hint="`braze cache keygen` makes one")
        if not chosen.own:
            raise KeyringError(
                f"the private key of {chosen} is not in this key ring", hint="sign with your own"
            )
        return chosen

    def sign(self, kind: str, message: bytes, key: str | None = None) -> Signature:
        """Sign ``message``, which is of that kind, with the own key of that name or id, or with the `default`
        one.

        Raises `KeyringError` if there is no such key, or its private key cannot be used.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415  # as in `generate`
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        chosen = self.signer(key)
        file = self._private_file(chosen.id)
        _require_private(self._own)
        _require_private(file, secret=True)
        with _reporting(file):
            pem = file.read_bytes()
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise KeyringError(f"{file} holds no private key that can be read: {error}") from error
        if not isinstance(private, Ed25519PrivateKey) or _public_of(private) != chosen.public:
            raise KeyringError(f"{file} holds another key than its name says")
        return Signature(chosen.id, private.sign(_signed(kind, message)))

    def verify(self, kind: str, message: bytes, signature: Signature | None) -> TrustedKey:
        """The trusted key with which ``message`` was signed as one of that kind.

        Raises `SignatureError` if there is no signature, if its key is not trusted, or if it is not that
        key's signature of these very bytes.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # as in `generate`
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        if signature is None:
            raise SignatureError(
                "it is not signed", hint="have it signed by somebody whose programs you would run"
            )
        key = self._read(signature.signer)
        if key is None:
            raise SignatureError(
                f"it is signed with the key {_shown(signature.signer)}, which is not trusted"
            )
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature.value, _signed(kind, message))
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(
                f"the signature is not one of {key} over these bytes",
                hint="the content, or the signature, was changed after it was signed: get it anew",
            ) from error
        return key

    def trusts(self, identity: str) -> bool:
        """Whether a key of that id is trusted."""
        return self._read(identity) is not None

    def _records(self) -> Iterator[TrustedKey]:
        with _reporting(self.folder):
            names = sorted(path.stem for path in self._trusted.glob("*.json"))
        for identity in names:
            key = self._read(identity)
            if key is not None:
                yield key

    def _read(self, identity: str) -> TrustedKey | None:
        if not _ID.fullmatch(identity):
            return None
        file = self._record_file(identity)
        for path in (self.folder, self._trusted, file):
            _require_private(path)
        with _reporting(file):
            try:
                data = file.read_bytes()
            except FileNotFoundError:
                return None
            own = self._private_file(identity).exists()
        try:
            record = msgspec.json.decode(data, type=_Record)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise KeyringError(f"{file} is damaged: {error}") from error
        public, name = _parse(record.key)
        if key_id(public) != identity or name is None:
            raise KeyringError(f"{file} holds another key than its name says")
        return TrustedKey(name, public, record.added, own)

    def _write(self, public: bytes, name: str) -> TrustedKey:
        identity = key_id(public)
        known = self._read(identity)
        added = known.added if known is not None else datetime.now(timezone.utc)
        text = f"{ALGORITHM} {base64.b64encode(public).decode()} {name}"
        with _reporting(self.folder):
            for folder in (self.folder, self._trusted):
                make_private_folder(folder)
                _require_private(folder)
            record = msgspec.json.format(msgspec.json.encode(_Record(text, added)))
            write_private_file(self._record_file(identity), record + b"\n", replace=True)
            own = self._private_file(identity).exists()
        return TrustedKey(name, public, added, own)

    def _check_name(self, name: str, of: str | None = None) -> None:
        """That the key with the id ``of`` may have this name."""
        if not _NAME.fullmatch(name) or _ID.fullmatch(name):
            raise KeyringError(
                f"{_shown(name)} is not a name for a key",
                hint="1 to 64 letters, digits or . _ - + @, not an id",
            )
        for key in self._records():
            if key.name == name and key.id != of:
                raise KeyringError(f"the name {name!r} belongs to the key {key.id}", hint="choose another")

    def _record_file(self, identity: str) -> Path:
        return self._trusted / f"{identity}.json"

    def _private_file(self, identity: str) -> Path:
        return self._own / f"{identity}.pem"


def _parse(text: str) -> tuple[bytes, str | None]:
    """The bytes and the name of a public key's text."""
    words = text.split()
    try:
        if len(words) not in (2, 3) or words[0] != ALGORITHM:
            raise ValueError("it has another form")
        public = base64.b64decode(words[1], validate=True)
        if len(public) != _PUBLIC_BYTES:
            raise ValueError(f"it has {len(public)} bytes")
    except (ValueError, binascii.Error) as error:
        raise KeyringError(
            f"{_shown(text)} is not a public key: {error}",
            hint=f"a key is one line: {ALGORITHM} <44 characters of base64> <name>",
        ) from error
    return public, words[2] if len(words) == 3 else None


def _signed(kind: str, message: bytes) -> bytes:
    return f"braze {kind} 1\n".encode() + message


def _public_of(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def _shown(text: str) -> str:
    """Text from anywhere, short and on one line."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _require_private(path: Path, *, secret: bool = False) -> None:
    with _reporting(path):
        found = permission_problem(path, secret=secret)
    if found is not None:
        mode = "u=rwX,go=" if secret else "go-w"
        raise KeyringError(
            f"the key ring cannot be relied on: {found}", hint=f"chmod {mode} {path}, if it is yours"
        )


@contextmanager
def _reporting(path: str | Path) -> Iterator[None]:
    """A block whose `OSError` becomes a `KeyringError` that names what could not be read or written."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise KeyringError(f"{path} cannot be used: {error}") from error
