"""``braze cache``, the part about people: keys, signatures, and entries that travel in files."""

from __future__ import annotations

import getpass
import json
import platform
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

import braze
from braze.cache.bundle import TransferResult, export_entries, import_entries
from braze.cache.keyring import KeyRing, TrustedKey
from braze.cache.records import EntryInfo
from braze.cache.signatures import sign_archive, sign_file, verify_archive, verify_file
from braze.cache.store import CacheStore
from braze.cli.cache import cache, opened_store, require_usable
from braze.cli.tables import table
from braze.errors import ArtifactError, CacheError
from braze.words import count, nbytes

__all__ = ["distrust", "export", "import_", "keygen", "keys", "sign", "trust"]

_DIGITS = 12
_key_option = click.option("--key", metavar="NAME", help="Which of your keys signs. [the youngest]")
_file = click.Path(path_type=Path, dir_okay=False)


@cache.command("keygen")
@click.argument("name", required=False)
def keygen(name: str | None) -> None:
    """Make a key of your own, with which what you share is signed. NAME: by default user@host."""
    ring = KeyRing()
    key = ring.generate(name or _own_name())
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble("made the key ", (key.name, "bold"), "  ", (key.id, "cyan")))
    console.print(Text(f"its private half stays in {ring.folder / 'own'}: keep it to yourself", "dim"))
    console.print("\nthose who would run your programs trust it with\n")
    click.echo(f"  braze cache trust {key.text}")


@cache.command("trust")
@click.argument("key", nargs=-1, required=True, metavar="KEY|FILE")
@click.option("--name", help="What you call it. [the name in the key]")
def trust(key: tuple[str, ...], name: str | None) -> None:
    """Trust somebody's key: whatever it signs, this machine will run as you.

    KEY is the line that `braze cache keygen` printed, FILE a file that holds it, - the standard input.
    """
    text = " ".join(key)
    trusted = KeyRing().trust(sys.stdin.read().strip() if text == "-" else text, name)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble("trusted: ", (trusted.name, "bold"), "  ", (trusted.id, "cyan")))
    console.print(
        Text(
            "what it signs will run on this machine with all your rights; compare the id with its owner",
            "yellow",
        )
    )


@cache.command("distrust")
@click.argument("name", metavar="NAME|ID")
def distrust(name: str) -> None:
    """Trust a key no more, and delete from the cache what came with its signature."""
    ring = KeyRing()
    key = ring.distrust(name)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble("no longer trusted: ", (key.name, "bold"), "  ", (key.id, "cyan")))
    store = opened_store()
    theirs = [entry for entry in store.entries() if entry.origin == key.id]
    removed = store.remove(theirs)
    require_usable(store)
    if removed:
        console.print(f"deleted {count(removed, 'entry', 'entries')} that it had signed")
    if key.own:
        console.print(Text(f"its private half is still in {ring.folder / 'own'}, and signs no more", "dim"))


@cache.command("keys")
@click.option("--text", is_flag=True, help="Print the keys as others need them for `trust`, a line each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def keys(text: bool, as_json: bool) -> None:
    """List the keys that are trusted."""
    ring = KeyRing()
    found, default = ring.keys(), ring.default()
    if as_json:
        click.echo(json.dumps([_plain(key, default) for key in found], indent=2))
        return
    if text:
        for key in found:
            click.echo(key.text)
        return
    console = Console(highlight=False)
    if not found:
        console.print(Text.assemble("no key is trusted yet in ", (str(ring.folder), "bold")), soft_wrap=True)
        console.print(
            Text("`braze cache keygen` makes one, `braze cache trust` takes those of others", "dim")
        )
        return
    shown = table("name", "id", "whose", "since")
    for key in found:
        whose = Text("yours, signs" if key == default else "yours", "green")
        shown.add_row(
            Text(key.name, "bold"),
            Text(key.id, "cyan"),
            whose if key.own else Text("somebody's", "yellow"),
            Text(f"{key.added.astimezone():%Y-%m-%d %H:%M}", "dim"),
        )
    console.print(shown)


@cache.command("sign")
@click.argument("files", nargs=-1, required=True, type=_file, metavar="FILE...")
@_key_option
@click.option("--check", is_flag=True, help="Say who signed the files instead.")
def sign(files: Sequence[Path], key: str | None, check: bool) -> None:
    """Sign packages (inside the archive) and other files (in a file beside them)."""
    ring = KeyRing()
    console = Console(highlight=False, soft_wrap=True)
    bad = False
    for file in files:
        try:
            signer, where = _checked(file, ring) if check else _signed(file, ring, key)
        except OSError as error:
            raise CacheError(
                f"{file} cannot be used: {error.strerror or error}", hint="is the path right?"
            ) from error
        except ArtifactError as error:
            if not check:
                raise
            bad = True
            console.print(Text.assemble(("✗ ", "red"), (str(file), "bold"), f": {error.what}"))
        else:
            said = "signed by" if check else f"signed {where} by"
            console.print(
                Text.assemble(
                    ("✓ ", "green"), (str(file), "bold"), f": {said} {signer.name}  ", (signer.id, "cyan")
                )
            )
    if bad:
        sys.exit(1)


@cache.command("export")
@click.argument("file", type=_file)
@click.argument("digests", nargs=-1, metavar="[DIGEST]...")
@click.option("--all", "everything", is_flag=True, help="All entries that were made here.")
@click.option(
    "--foreign", is_flag=True, help="Also what others signed: with your signature you vouch for it."
)
@_key_option
def export(file: Path, digests: Sequence[str], everything: bool, foreign: bool, key: str | None) -> None:
    """Write entries of the cache, signed with your key, into one FILE that others can import.

    The first digits of a key's DIGEST, as `braze cache ls` shows them, are enough.
    """
    if everything == bool(digests):
        raise click.UsageError("say which entries: --all, or the first digits of their keys")
    store = opened_store()
    chosen = _chosen(store, digests)
    made_here = [entry for entry in chosen if foreign or entry.origin == "local"]
    if not made_here:
        others = (
            f"{count(len(chosen), 'entry is', 'entries are')} signed by others: --foreign" if chosen else None
        )
        raise CacheError("there is nothing to export", hint=others or "`braze cache ls` lists what is kept")
    done = export_entries(file, store, made_here, KeyRing(), key)
    require_usable(store)
    written = sum(one.done for one in done)
    _show_transfers(done, "signed")
    left = len(chosen) - len(made_here)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"  {count(written, 'entry', 'entries')} in {file}, {nbytes(file.stat().st_size)}", style="dim"
    )
    if left:
        console.print(
            f"  {count(left, 'entry', 'entries')} of others left out: --foreign takes them along",
            style="dim",
        )


@cache.command("import")
@click.argument("file", type=_file)
def import_(file: Path) -> None:
    """Take the entries of FILE into the cache: those that a trusted key signed."""
    store = opened_store()
    done = import_entries(file, store, KeyRing())
    require_usable(store)
    _show_transfers(done, "taken")
    refused = [one for one in done if one.reason.startswith("refused")]
    console = Console(highlight=False, soft_wrap=True)
    taken = sum(one.done for one in done)
    console.print(f"  {count(taken, 'entry', 'entries')} taken, {len(refused)} refused", style="dim")
    if refused:
        console.print(
            Text("  `braze cache trust <key>` trusts a signer whose programs you would run", "yellow")
        )
        sys.exit(1)


def _own_name() -> str:
    """user@host, as far as they are known, in the letters that a key's name may have."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "me"
    host = platform.node().split(".")[0]
    name = re.sub(r"[^\w.+-]", "-", user) + (f"@{re.sub(r'[^a-zA-Z0-9.-]', '-', host)}" if host else "")
    return name[:64]


def _signed(file: Path, ring: KeyRing, key: str | None) -> tuple[TrustedKey, str]:
    if _is_archive(file):
        if braze.is_package(file):
            signer: TrustedKey = braze.sign_package(file, ring, key)
            return signer, "inside"
        return sign_archive(file, ring, key), "inside"
    sign_file(file, ring, key)
    return ring.signer(key), "in a file beside it"


def _checked(file: Path, ring: KeyRing) -> tuple[TrustedKey, str]:
    return (verify_archive(file, ring) if _is_archive(file) else verify_file(file, ring)), ""


def _is_archive(file: Path) -> bool:
    return file.suffix == ".pt2" or zipfile.is_zipfile(file)


def _chosen(store: CacheStore, prefixes: Sequence[str]) -> list[EntryInfo]:
    """The entries whose keys begin so; all for no prefix. Raises `CacheError` if one fits none."""
    entries = store.entries()
    require_usable(store)
    for prefix in prefixes:
        if not any(entry.key.startswith(prefix.lower()) for entry in entries):
            raise CacheError(
                f"no key begins with {prefix!r}", hint="`braze cache ls` lists those that are kept"
            )
    wanted = tuple(prefix.lower() for prefix in prefixes) or ("",)
    return [entry for entry in entries if entry.key.startswith(wanted)]


def _show_transfers(done: Sequence[TransferResult], verb: str) -> None:
    """A row for each entry, and each reason that some were left out, once."""
    shown = table("key", "name", ">size", "signed by", "")
    for one in done:
        outcome = Text(f"✓ {verb}", "green") if one.done else Text("✗ left out", "yellow")
        shown.add_row(
            Text(one.key[:_DIGITS], "cyan"),
            Text(one.name, "bold"),
            Text(nbytes(one.nbytes)),
            Text(one.signer.split(" ")[0]),
            outcome,
        )
    console = Console(highlight=False)
    console.print(shown)
    reasons = Counter(one.reason for one in done if not one.done)
    for reason, number in reasons.most_common():
        console.print(Text(f"  {count(number, 'entry', 'entries')} left out: {reason}"), soft_wrap=True)


def _plain(key: TrustedKey, default: TrustedKey | None) -> dict[str, object]:
    return {
        "name": key.name,
        "id": key.id,
        "own": key.own,
        "default": key == default,
        "added": key.added.isoformat(),
        "key": key.text,
    }
