"""``braze cache``: what is kept on disk, why something was not found there, and house-keeping."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import click
import msgspec
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from braze import config
from braze.cache.keys import Key, differences
from braze.cache.paths import cache_folder, prepare_folder
from braze.cache.records import CacheMiss, CacheStatistics, EntryInfo
from braze.cache.store import CacheStore
from braze.cli.tables import facts, table
from braze.errors import CacheError
from braze.words import age, count, nbytes

__all__ = ["cache", "opened_store", "require_usable"]

_DIGITS = 10
_ORDERS = {
    "used": lambda e: -e.used,
    "created": lambda e: -e.created,
    "size": lambda e: -e.stored,
    "hits": lambda e: -e.hits,
    "name": lambda e: (e.name, e.key),
}
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group()
def cache() -> None:
    """Look at the compiled graphs that are kept on disk, and keep house."""


@cache.command("ls")
@click.option(
    "--sort", type=click.Choice(list(_ORDERS)), default="used", show_default=True, help="What comes first."
)
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows shown.")
@_as_json
def list_entries(sort: str, limit: int, as_json: bool) -> None:
    """List what is kept: the most recently used first."""
    store = opened_store()
    found = sorted(store.entries(), key=_ORDERS[sort])
    require_usable(store)
    if as_json:
        _print_json(found)
        return
    console = Console()
    if not found:
        console.print(Text.assemble("nothing is kept yet in ", (str(store.folder), "bold")))
        return
    shown = table("key", "name", "kind", "level", ">size", ">hits", ">used", "from", folded=())
    shared = any(entry.origin != "local" for entry in found)
    if not shared:
        shown.columns.pop()
    for entry in found[:limit]:
        cells = (Text(entry.key[:_DIGITS], "cyan"), Text(entry.name, "bold"), Text(entry.kind))
        *figures, _made, origin = _figures(entry)
        shown.add_row(*cells, *figures, *([origin] if shared else []))
    console.print(shown)
    stored = sum(entry.stored for entry in found)
    rest = f", {len(found) - limit} of them not shown" if len(found) > limit else ""
    console.print(f"  {count(len(found), 'entry', 'entries')}{rest}  ·  {nbytes(stored)}", style="dim")


@cache.command("show")
@click.argument("digest", metavar="DIGEST")
@click.option("--part", metavar="NAME", help="Print the whole text of one part of the key.")
@_as_json
def show(digest: str, part: str | None, as_json: bool) -> None:
    """Show one key, its parts, and the entries under it. The first digits of its digest are enough."""
    store = opened_store()
    key, entries = _find(store, digest)
    if part is not None:
        text = key.text(part)
        if text is None:
            raise CacheError(
                f"the key has no part {part!r}",
                hint="its parts are " + ", ".join(name for name, _ in key.parts),
            )
        click.echo(text)
    elif as_json:
        _print_json({"key": key.digest, "parts": dict(key.parts), "entries": entries})
    else:
        Console().print(Group(_entry_table(entries), Text(), _part_table(key)))


@cache.command("stats")
@_as_json
def stats(as_json: bool) -> None:
    """Show how large the cache is and how often it was of use."""
    store = opened_store()
    found = store.statistics()
    require_usable(store)
    if as_json:
        _print_json({"folder": str(store.folder), **msgspec.to_builtins(found, str_keys=True)})
    else:
        Console().print(_statistics_table(store, found))


@cache.command("why")
@click.argument("what", metavar="[NAME|DIGEST]", required=False, default="")
@click.option("-n", "--limit", type=click.IntRange(1), default=5, show_default=True, help="Misses shown.")
@_as_json
def why(what: str, limit: int, as_json: bool) -> None:
    """Say why graphs were not found: which part of their keys differed from the nearest entry.

    Of the last 64 misses those are shown whose name contains NAME, or whose key begins with DIGEST.
    """
    store = opened_store()
    recorded = store.misses()
    kept = {entry.key for entry in store.entries()}
    require_usable(store)
    found = [miss for miss in recorded if what in miss.name or miss.key.digest.startswith(what)]
    if as_json:
        _print_json([_plain_miss(miss, miss.key.digest in kept) for miss in found[:limit]])
        return
    console = Console()
    if not found:
        matching = f" of {what!r}" if what else ""
        console.print(f"no miss{matching} is recorded")
    for miss in found[:limit]:
        console.print(_explained(miss, miss.key.digest in kept))


@cache.command("clear")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def clear(yes: bool) -> None:
    """Delete everything that is kept."""
    store = opened_store()
    kept = len(store.entries())
    if not yes:
        click.confirm(f"Delete {count(kept, 'entry', 'entries')} in {store.folder}?", abort=True)
    done = store.clear()
    require_usable(store)
    Console().print(f"deleted {count(done.entries, 'entry', 'entries')}, {nbytes(done.nbytes)}")


@cache.command("gc")
@click.option("--limit", type=click.IntRange(0), metavar="MB", help="Megabytes to keep. [cache_size_mb]")
def collect(limit: int | None) -> None:
    """Throw out what was used least recently until the cache fits its limit, and give the space back."""
    store = opened_store()
    done = store.collect(None if limit is None else limit * 1_000_000)
    left = store.statistics()
    require_usable(store)
    Console().print(
        f"deleted {count(done.entries, 'entry', 'entries')}, {nbytes(done.nbytes)}; "
        f"{count(left.entries, 'entry', 'entries')} in {nbytes(left.file_bytes)} left"
    )


# -- finding ----------------------------------------------------------------------------------------------
def opened_store() -> CacheStore:
    """The store that the options name, whether or not they say that it is used. Raises `CacheError`."""
    options = config.current()
    folder = cache_folder(options)
    prepare_folder(folder)
    return CacheStore(folder, options.cache_size_mb * 1_000_000)


def require_usable(store: CacheStore) -> None:
    """Raises `CacheError` for a store that cannot be used."""
    if store.problem is not None:
        raise CacheError(f"the cache in {store.folder} cannot be used: {store.problem}")


def _find(store: CacheStore, prefix: str) -> tuple[Key, list[EntryInfo]]:
    """The one key (of an entry or a miss) that begins so, and the entries under it. Raises `CacheError`."""
    entries = store.entries()
    missed = {miss.key.digest: miss.key for miss in store.misses()}
    require_usable(store)
    digests = {
        digest for digest in [*(entry.key for entry in entries), *missed] if digest.startswith(prefix.lower())
    }
    if len(digests) != 1:
        some = ", ".join(digest[:_DIGITS] for digest in sorted(digests)[:8])
        raise CacheError(
            f"{len(digests) or 'no'} keys begin with {prefix!r}",
            hint=f"they are {some}" if digests else "`braze cache ls` lists those that are kept",
        )
    (digest,) = digests
    key = missed.get(digest) or store.key(digest)
    if key is None:
        raise CacheError(f"what the key {digest[:_DIGITS]} says is damaged", hint="`braze cache clear`")
    return key, [entry for entry in entries if entry.key == digest]


# -- as tables --------------------------------------------------------------------------------------------
def _figures(entry: EntryInfo) -> list[Text]:
    return [
        Text(str(entry.level)),
        Text(nbytes(entry.stored), "green"),
        Text(str(entry.hits) if entry.hits else "-", "" if entry.hits else "dim"),
        Text(age(time.time() - entry.used)),
        Text(age(time.time() - entry.created), "dim"),
        Text(entry.origin, "dim" if entry.origin == "local" else "yellow"),
    ]


def _entry_table(entries: list[EntryInfo]) -> Table | Text:
    if not entries:
        return Text("  nothing is kept under this key: it was looked for and not found", "yellow")
    headers = ("name", "kind", "level", ">size", ">hits", ">used", ">made", "from", "guards")
    shown = table(*headers, folded=["guards"])
    for entry in entries:
        guards = Text(entry.guards) if entry.guards else Text("none", "dim")
        shown.add_row(Text(entry.name, "bold"), Text(entry.kind), *_figures(entry), guards)
    return shown


def _part_table(key: Key) -> Table:
    shown = table("part", ">bytes", "digest", "says", folded=())
    for name, text in key.parts:
        first, *rest = text.splitlines() or [""]
        more = Text(f"  … {len(rest)} more lines", "dim") if rest else Text()
        shown.add_row(
            Text(name, "bold"),
            str(len(text.encode("utf-8", "surrogatepass"))),
            Text(key.part_digests[name].hex()[:_DIGITS], "cyan"),
            Text.assemble(first, more),
        )
    shown.caption = f"key {key.digest}"
    shown.caption_style = "dim"
    shown.caption_justify = "left"
    return shown


def _statistics_table(store: CacheStore, found: CacheStatistics) -> Table:
    shown = facts()
    share = min(1.0, found.file_bytes / max(found.limit_bytes, 1))
    full = round(share * 24)
    size = f"{nbytes(found.file_bytes)} of {nbytes(found.limit_bytes)}  "
    looks = found.hits + found.misses
    rate = f", {found.hits / looks:.0%} of {looks} looks found something" if looks else ""
    levels = ", ".join(f"{n} of level {level}" for level, n in found.levels.items())
    origins = ", ".join(f"{n} from {origin}" for origin, n in found.origins.items())
    stored = count(found.puts, "entry was", "entries were")
    rows: list[tuple[str, Text]] = [
        ("folder", Text(str(store.folder))),
        ("on disk", Text.assemble(size, ("━" * full, "green"), ("━" * (24 - full), "dim"), f"  {share:.1%}")),
        (
            "entries",
            Text(f"{found.entries} under {count(found.keys, 'key')}, {nbytes(found.nbytes)}"),
        ),
        ("", Text("; ".join(filter(None, (levels, origins))), "dim")),
        ("hits", Text(f"{found.hits}{rate}")),
        ("misses", Text(f"{found.misses}, after which {stored} stored")),
        ("thrown out", Text(f"{found.evicted} for room, {found.damaged} damaged")),
    ]
    for name, text in rows:
        if text:
            shown.add_row(Text(name, "bold"), text)
    return shown


def _explained(miss: CacheMiss, kept: bool) -> Group:
    """A miss: what it was, the nearest entry, and each part that differed."""
    since = Text(" · is kept since", "dim") if kept else Text()
    head = Text.assemble(
        (miss.name or "a graph", "bold"),
        "  ",
        (miss.key.digest[:_DIGITS], "cyan"),
        (f"  missed {age(time.time() - miss.time)} ago, level {miss.level}", "dim"),
        since,
    )
    lines: list[Any] = [head]
    if miss.nearest is None:
        lines.append(Text("  no entry had a graph like this one"))
        return Group(*lines, Text())
    lines.append(Text.assemble("  nearest was ", (miss.nearest.digest[:_DIGITS], "cyan")))
    found = differences(miss.nearest, miss.key)
    if not found:
        lines.append(Text("  every part was the same, but no entry's guards held"))
    for one in found:
        lines.append(Text.assemble("  part ", (one.name, "bold yellow"), " differed"))
        body = Text("\n").join(Text(line, _COLOURS.get(line[:1], "dim")) for line in one.lines)
        lines.append(Padding(body, (0, 0, 0, 4)))
    return Group(*lines, Text())


_COLOURS = {"-": "red", "+": "green"}


# -- as JSON ----------------------------------------------------------------------------------------------
def _plain_miss(miss: CacheMiss, kept: bool) -> dict[str, Any]:
    nearest = miss.nearest
    changed: Iterable[Any] = () if nearest is None else differences(nearest, miss.key)
    return {
        "name": miss.name,
        "level": miss.level,
        "time": miss.time,
        "key": miss.key.digest,
        "kept": kept,
        "nearest": None if nearest is None else nearest.digest,
        "differences": [{"part": one.name, "old": one.old, "new": one.new} for one in changed],
    }


def _print_json(value: object) -> None:
    click.echo(json.dumps(msgspec.to_builtins(value, str_keys=True), indent=2))
