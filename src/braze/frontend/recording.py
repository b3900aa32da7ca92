"""What a miss of the cache's second level leaves behind: an entry, once all of the graph is compiled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule

from braze.artifact.call_spec import check_spec
from braze.artifact.output_code import OutputCode
from braze.compile.fx_compile import GraphKind
from braze.errors import ArtifactError, UnserializableError
from braze.frontend.capture import Capture
from braze.frontend.dynamo_key import DynamoKey
from braze.frontend.level2 import Entries, Entry

__all__ = ["Recording"]

log = logging.getLogger(__name__)


class Recording:
    """Follows the compilation of one graph, and stores an entry when all its parts are there.

    To be made before AOTAutograd begins; `note` is for its compile callbacks before they change the graph,
    `compiled` for after them."""

    def __init__(self, entries: Entries, key: DynamoKey | str, gm: GraphModule) -> None:
        self._entries = entries
        self._key = key
        self._capture: Capture | None = Capture(key, gm)
        self._parts: dict[GraphKind, OutputCode] = {}
        if isinstance(key, str):
            self._give_up(key)

    def note(self, kind: GraphKind, part: GraphModule, inputs: Sequence[Any]) -> None:
        """A part is about to be compiled."""
        if self._capture is not None:
            self._capture.note(kind, part, inputs)

    def compiled(self, kind: GraphKind, code: OutputCode) -> None:
        """A part has been compiled. Stores the entry if it was the last one."""
        capture = self._capture
        if capture is None:
            return
        self._parts[kind] = code
        if capture.reason is not None:
            self._give_up(capture.reason)
        elif capture.complete:
            entry = self._entry(capture)
            if isinstance(entry, str):
                self._give_up(entry)
            elif isinstance(self._key, DynamoKey):
                self._entries.add(self._key, entry)
            self._forget()

    def _entry(self, capture: Capture) -> Entry | str:
        spec, guards = capture.spec(), capture.guards()
        if isinstance(spec, str):
            return spec
        if isinstance(guards, str):
            return guards
        forward = self._parts["inference" if spec.backward is None else "forward"]
        backward = self._parts.get("backward")
        try:
            check_spec(spec)
            return Entry(
                spec,
                guards,
                forward.prepare_for_serialization(),
                None if backward is None else backward.prepare_for_serialization(),
            )
        except (UnserializableError, ArtifactError) as error:
            return str(error)

    def _give_up(self, reason: str) -> None:
        log.info("the graph is cached only after it was traced: %s", reason)
        self._forget()

    def _forget(self) -> None:
        # what was captured holds the trace's tensors
        self._capture = None
        self._parts.clear()
