"""What a miss of the cache's second level leaves behind: an entry, once all of the graph is compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.fx import GraphModule

from braze._torch import trace_state
from braze.artifact.call_spec import CallSpec, check_spec
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.compile.failing import without_cache
from braze.compile.fx_compile import GraphKind
from braze.compile.guards import GuardWatch, printed
from braze.compile.switching import SwitchingCode
from braze.errors import ArtifactError, ExpressionError, Refused, UnserializableError
from braze.frontend.call_capture import CallCapture
from braze.frontend.dynamo_key import DynamoKey
from braze.frontend.level2 import Entries, Entry, refusals_logged
from braze.frontend.views import DynamoViews
from braze.runtime.guard import BoolExpr

__all__ = ["Recording"]


class Recording:
    """Follows the compilation of one graph, and stores an entry when all its parts are there.

    To be made before AOTAutograd begins; `note` is for its compile callbacks before they change the graph,
    `compiled` for after them."""

    def __init__(self, entries: Entries, key: DynamoKey, gm: GraphModule) -> None:
        self._entries = entries
        self._key = key
        own = len(trace_state.own_tensors(gm))
        inputs = own + len(gm.graph.find_nodes(op="placeholder"))
        self._capture: CallCapture | None = CallCapture(inputs, DynamoViews(gm, own))
        self._watch = GuardWatch(key.env)
        self._parts: dict[GraphKind, OutputCode] = {}

    def note(self, kind: GraphKind, part: GraphModule, inputs: Sequence[Any]) -> None:
        """A part is about to be compiled."""
        capture = self._capture
        if capture is not None:
            self._carefully(lambda: capture.note(kind, part, inputs))

    def compiled(self, kind: GraphKind, code: OutputCode) -> None:
        """A part has been compiled. Stores the entry if it was the last one."""
        capture = self._capture
        if capture is not None:
            self._carefully(lambda: self._compiled(capture, kind, code))

    def _carefully(self, step: Callable[[], None]) -> None:
        """Take a step; where it fails there will be no entry."""

        def whole() -> bool:
            step()
            return True

        if not without_cache(whole, False):
            self._forget()

    def _compiled(self, capture: CallCapture, kind: GraphKind, code: OutputCode) -> None:
        self._parts[kind] = code
        if capture.reason is None and not capture.complete:
            return
        with refusals_logged():
            self._store(capture)
        self._forget()

    def _store(self, capture: CallCapture) -> None:
        """Store the entry, at once or when the last of the parts has its final code. Raises `Refused` where
        there is to be none."""
        spec = capture.spec()
        try:
            assumed = self._watch.added()
            check_spec(spec)
        except ExpressionError as error:
            raise Refused(f"a guard cannot be stored: {error}") from None
        except ArtifactError as error:
            raise Refused(str(error)) from None
        forward: GraphKind = "inference" if spec.backward is None else "forward"
        kinds: tuple[GraphKind, ...] = (forward,) if spec.backward is None else (forward, "backward")
        parts = {kind: self._parts[kind] for kind in kinds}
        pending = _Pending(self._entries, self._key, spec, dict(parts), assumed)
        switching = {kind: code for kind, code in parts.items() if isinstance(code, SwitchingCode)}
        if not switching:
            pending.store()
        pending.waiting = len(switching)
        for kind, code in switching.items():
            code.when_final(_Arrived(pending, kind))

    def _forget(self) -> None:
        # what was captured holds the trace's tensors
        self._capture = None
        self._parts.clear()


@dataclass
class _Pending:
    """An entry whose code may still get better. Knows nothing of the trace, which is over by then."""

    entries: Entries
    key: DynamoKey
    spec: CallSpec
    parts: dict[GraphKind, OutputCode]
    assumed: tuple[BoolExpr, ...]
    waiting: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arrived(self, kind: GraphKind, final: CompiledFxGraph) -> None:
        """The final code of a part is there."""
        with self.lock:
            self.parts[kind] = final
            self.waiting -= 1
            last = self.waiting == 0
            # the trace does not know what was assumed of sizes after it
            self.assumed += final.guards
        if last:
            with refusals_logged():
                self.store()

    def store(self) -> None:
        """Store it. Raises `Refused` where that cannot be."""
        strange = {s.name for guard in self.assumed for s in guard.free_symbols} - self.key.names.keys()
        if strange:
            raise Refused(f"a guard is over {min(strange)}, which is not a size of an input")
        forward = self.parts["inference" if self.spec.backward is None else "forward"]
        backward = None if self.spec.backward is None else self.parts["backward"]
        if not forward.lasting or (backward is not None and not backward.lasting):
            raise Refused("workers failed while it was compiled")
        try:
            entry = Entry(
                self.spec,
                printed(self.assumed, self.key.names),
                forward.prepare_for_serialization(),
                None if backward is None else backward.prepare_for_serialization(),
            )
        except UnserializableError as error:
            raise Refused(error.what) from None
        self.entries.add(self.key, entry)


@dataclass(frozen=True)
class _Arrived:
    pending: _Pending
    kind: GraphKind

    def __call__(self, final: CompiledFxGraph) -> None:
        without_cache(lambda: self.pending.arrived(self.kind, final), None)
