"""What goes to whoever compiles for us, and what comes back, as bytes without pickle.

A request is a container of three sections: ``request``, the printed graph (`braze.compile.text`);
``constants``, the tensors that it holds, as safetensors, where there are any; ``context``, what else the
compiler reads. An answer has ``answer``, what was said and what went wrong, and ``artifact``, the compiled
graph with its guards, metrics and counters, where nothing did. Everything is checked against its schema when
it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec
import torch

from braze import errors
from braze.artifact import codec, container, environment
from braze.artifact.constants import CompiledFxGraphConstants
from braze.artifact.schema import Versions
from braze.compile import capture
from braze.compile import torch_state as state
from braze.compile.capture import Levels, LogLine, Warned
from braze.compile.fx_compile import CompileRequest
from braze.compile.text.parser import parse_request
from braze.compile.text.printer import print_request
from braze.compile.torch_state import TorchState
from braze.errors import ArtifactError, BrazeError, Refused, UnserializableError
from braze.extensions.registry import texts_of_graph
from braze.runtime.engine import MadeFor
from braze.runtime.engines import engine, engines

__all__ = ["Answer", "Context", "Failure", "Request", "pack_answer", "unpack_answer"]

SCHEMA: Final = 3
"""Raised with every change of a type in this module or `braze.compile.capture`."""

_ERRORS: Mapping[str, type[BrazeError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, BrazeError)
}


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one backend makes code for, where the options name nothing else: see
    `braze.runtime.engine.MadeFor`."""

    kind: str
    name: str
    traits: dict[str, str]

    @property
    def made_for(self) -> MadeFor:
        return MadeFor(self.kind, self.name, self.traits)


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a compilation reads besides its request: who asks, PyTorch's switches, the levels of Braze's
    loggers, the machine to make code for, as each backend sees it, and what people registered for operators
    of the graph. The options are in the request's text."""

    schema: int
    versions: Versions
    torch: TorchState
    levels: Levels
    hosts: tuple[Host, ...]
    extensions: tuple[str, ...] = ()

    @classmethod
    def here(cls, extensions: tuple[str, ...] = ()) -> Context:
        """That of this moment. Raises ``UnserializableError``."""
        here = [engine.here() for engine in engines()]
        return cls(
            SCHEMA,
            environment.versions(),
            state.capture(),
            capture.levels(),
            tuple([Host(h.kind, h.name, dict(h.traits)) for h in here]),
            extensions,
        )

    @contextmanager
    def making(self) -> Iterator[None]:
        """Inside this block code is made for those machines. Raises ``ArtifactError`` for a backend that is
        not here, and for what describes no machine."""
        with ExitStack() as stack:
            for host in self.hosts:
                stack.enter_context(engine(host.kind).making_for(host.made_for))
            yield


@dataclass(frozen=True)
class Request:
    """A request that was printed and not yet parsed."""

    text: str
    constants: dict[str, torch.Tensor]
    context: Context

    @classmethod
    def of(cls, request: CompileRequest) -> Request:
        """Raises ``UnserializableError``, which says what in the request has no printed form."""
        printed = print_request(request)
        try:
            extensions = texts_of_graph(request.gm)
        except Refused as error:
            raise UnserializableError(error.reason) from None
        return cls(printed.text, printed.constants, Context.here(extensions))

    def parse(self) -> CompileRequest:
        """The request, with a trace of its own. Raises ``ParseError``."""
        return parse_request(self.text, self.constants)

    def to_bytes(self) -> bytes:
        """Raises ``UnserializableError`` for constants that cannot be stored."""
        context, _ = codec.encode(self.context)
        sections = {"request": self.text.encode(), "context": context}
        if self.constants:
            sections["constants"] = CompiledFxGraphConstants(self.constants).to_bytes()
        return container.pack(sections)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Request:
        """What `to_bytes` wrote; the text is not looked at yet. Raises ``ArtifactError``."""
        sections = container.unpack(data)
        if not {"request", "context"} <= sections.keys() <= {"request", "context", "constants"}:
            raise ArtifactError(f"no request has the sections {', '.join(sections)}")
        context = codec.decode(sections["context"], Context, {})
        _check_schema(context.schema)
        try:
            text = str(sections["request"], "utf-8")
        except UnicodeDecodeError as error:
            raise ArtifactError(f"the text of a request is not UTF-8: {error}") from None
        constants: dict[str, torch.Tensor] = {}
        if "constants" in sections:
            constants = CompiledFxGraphConstants.from_bytes(sections["constants"]).stored
        return cls(text, constants, context)


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error; ``kind`` is the nearest class of `braze.errors`."""

    kind: str
    what: str
    node: str | None = None
    where: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: BrazeError) -> Failure:
        kind = next(c.__name__ for c in type(error).__mro__ if _ERRORS.get(c.__name__) is c)
        return cls(kind, error.what, error.node, error.where, error.hint)

    def error(self) -> BrazeError:
        """The error itself."""
        return _ERRORS[self.kind](self.what, node=self.node, where=self.where, hint=self.hint)


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What came of a request, less the artefact, which is there unless one of the two is. ``failure``: the
    graph cannot be compiled, here or elsewhere; ``refused``: why it was not tried, or cannot be sent."""

    schema: int = SCHEMA
    logs: tuple[LogLine, ...] = ()
    warnings: tuple[Warned, ...] = ()
    failure: Failure | None = None
    refused: str | None = None

    def replay(self) -> None:
        """Say here what was said there."""
        capture.replay_logs(self.logs)
        capture.replay_warnings(self.warnings)


def pack_answer(answer: Answer, artifact: bytes | None = None) -> bytes:
    """The bytes of an answer."""
    said, _ = codec.encode(answer)
    sections = {"answer": said}
    if artifact is not None:
        sections["artifact"] = artifact
    return container.pack(sections)


def unpack_answer(data: bytes | memoryview) -> tuple[Answer, memoryview | None]:
    """The answer, and the artefact, which is not looked at. Raises ``ArtifactError``."""
    sections = container.unpack(data)
    if not {"answer"} <= sections.keys() <= {"answer", "artifact"}:
        raise ArtifactError(f"no answer has the sections {', '.join(sections)}")
    answer = codec.decode(sections["answer"], Answer, {})
    _check_schema(answer.schema)
    failed = (answer.failure is not None) + (answer.refused is not None)
    if failed + ("artifact" in sections) != 1:
        raise ArtifactError("an answer is an artefact, a failure or a refusal")
    if answer.failure is not None and answer.failure.kind not in _ERRORS:
        raise ArtifactError(f"there are no errors {answer.failure.kind!r}")
    return answer, sections.get("artifact")


def _check_schema(version: int) -> None:
    if version != SCHEMA:
        raise ArtifactError(f"the message is of version {version}, not {SCHEMA}")
