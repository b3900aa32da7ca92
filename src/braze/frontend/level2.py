"""The cache's second level: from the graph that Dynamo hands over to the finished callable, without
AOTAutograd.

`describe` (of `braze.frontend.dynamo_key`) makes the key. Where there is an entry, `find` makes the callable
from it. A miss is compiled as usual; `braze.frontend.recording` notes what AOTAutograd finds out meanwhile,
and stores it with the compiled parts. Only complete entries exist: one that is differentiable holds its
backward graph, so it comes into being when `backward()` has first run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import torch
from torch.fx import GraphModule

from braze._torch import trace_state
from braze.artifact.autograd_call import build_call
from braze.artifact.call_spec import CallSpec
from braze.artifact.output_code import OutputCode
from braze.compile import guards
from braze.config import Config
from braze.errors import ArtifactError, BrazeError, FallbackError, Refused
from braze.frontend import aliasing
from braze.frontend.dynamo_key import DynamoKey, describe
from braze.runtime.guard import BoolExpr

__all__ = ["Entries", "Entry", "callable_from", "find", "guards_hold", "key_of", "refusals_logged"]

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is stored under a key. ``guards`` are in the printed form of `braze.runtime.guard`, over the
    symbols that the key numbers; they were not yet known when the key was made, and several entries of one
    key differ in them. ``forward`` and ``backward`` are compiled graphs as bytes; an inference graph has no
    ``backward``."""

    spec: CallSpec
    guards: tuple[str, ...]
    forward: bytes
    backward: bytes | None = None


class Entries(Protocol):
    """Where entries are kept. Safe to use from several threads."""

    def find(self, key: DynamoKey) -> Iterable[Entry]:
        """What is stored under a key, best first. Raises nothing for damaged entries: they are left out."""
        ...

    def add(self, key: DynamoKey, entry: Entry) -> None:
        """Store an entry besides those that the key has; one with the same guards replaces another."""
        ...

    def load(self, data: bytes) -> OutputCode:
        """A compiled graph, ready to run. Raises ``BrazeError`` where the bytes cannot be used."""
        ...


@contextmanager
def refusals_logged() -> Iterator[None]:
    """A block that ends where there is to be no entry, and the log says why."""
    try:
        yield
    except Refused as refusal:
        log.info("the graph is cached only after it was traced: %s", refusal.reason)


def key_of(gm: GraphModule, example_inputs: Sequence[Any], config: Config) -> DynamoKey | None:
    """The key of a graph, or None where it has none."""
    key = None
    with refusals_logged():
        key = describe(gm, example_inputs, config)
    return key


def find(
    entries: Entries, key: DynamoKey, gm: GraphModule, *, strict: bool = False
) -> Callable[..., Any] | None:
    """The callable for `gm`, of which `key` is the key, from the first entry that fits and can be loaded.
    ``strict``: it raises where it would run eager operators."""
    own = trace_state.own_tensors(gm)
    for entry in entries.find(key):
        try:
            if guards_hold(entry, key):
                found = callable_from(entry, key, list(own.values()), entries.load)
                examples = _examples(gm)
                found = aliasing.guarded(found, gm, examples, entry.spec.changed, strict)
                return aliasing.placed(found, gm, examples, strict)
        except FallbackError as error:  # the compiler will say the same, with the user's line
            log.info("an entry of the cache is not used in strict mode: %s", error.what)
        except BrazeError as error:
            log.warning("an entry of the cache cannot be used, the graph is compiled again: %s", error)
    return None


def _examples(gm: GraphModule) -> list[Any]:
    return [node.meta.get("example_value") for node in gm.graph.find_nodes(op="placeholder")]


def guards_hold(entry: Entry, key: DynamoKey) -> bool:
    """Whether an entry of this key was made for sizes like those of the running trace. Adds no guard. Raises
    ``ArtifactError`` for guards over symbols that the key has not."""
    return guards.hold(_parsed(entry, key), key.env)


def callable_from(
    entry: Entry, key: DynamoKey, own: Sequence[torch.Tensor], load: Callable[[bytes], OutputCode]
) -> Callable[..., Any]:
    """The callable that AOTAutograd and the compiler would have made, for an entry whose guards hold.

    `own` are the parameters and buffers that the graph itself holds, which come before its other inputs.
    `load` turns the bytes of a compiled graph into one that runs. What the entry assumes of sizes becomes a
    guard of the running trace. Raises ``ArtifactError`` for an entry that contradicts itself, and what `load`
    raises; nothing has changed then."""
    assumed = _parsed(entry, key)
    spec, backward = entry.spec, None if entry.backward is None else load(entry.backward)
    forward = load(entry.forward)
    kept = (
        0 if spec.backward is None else spec.backward.saved + spec.backward.unchecked + spec.backward.numbers
    )
    _check_count(forward, spec.returned + kept)
    if backward is not None:
        _check_count(backward, spec.inputs)
    call = build_call(spec, forward.run, None if backward is None else backward.run)
    if not guards.install(assumed, key.env):
        raise ArtifactError(f"{' and '.join(map(str, assumed))} does not hold for these sizes")
    return _with_own(call, own) if own else call


def _check_count(code: OutputCode, wanted: int) -> None:
    if len(code.output_strides) != wanted:
        raise ArtifactError(f"{code.name} returns {len(code.output_strides)} values, its call takes {wanted}")


def _with_own(call: Callable[..., Any], own: Sequence[torch.Tensor]) -> Callable[..., Any]:
    def with_own(*arguments: Any) -> Any:
        return call(*own, *arguments)

    return with_own


def _parsed(entry: Entry, key: DynamoKey) -> tuple[BoolExpr, ...]:
    try:
        return guards.parsed(entry.guards, key.names, key.env)
    except ValueError as error:
        raise ArtifactError(f"an entry's guard cannot be read: {error}") from None
