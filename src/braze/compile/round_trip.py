"""What every strategy does that has somebody else compile: ask in bytes, and make the answer runnable here.

Nothing that goes wrong with the asking is the user's to know: where a request has no printed form, an answer
is rubbish, or one of its guards does not hold, the graph is compiled in this process, and a line in the log
says why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.compile import guards
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile, eager_or_raise
from braze.compile.messages import Answer, Request, unpack_answer
from braze.compile.report import ledger, warn_of
from braze.errors import ArtifactError, BrazeError, UnserializableError

__all__ = ["compile_here", "loaded", "printed", "take", "through"]

_log = logging.getLogger("braze")


def through(request: CompileRequest, exchange: Callable[[], bytes]) -> OutputCode:
    """``request`` compiled by way of bytes: ``exchange`` has it compiled somewhere, and gives the answer; it
    may raise anything. Raises what the in-process strategy raises in strict mode."""
    try:
        answer = exchange()
    except UnserializableError as error:
        return compile_here(request, f"it has no printed form: {_one_line(error)}", logging.INFO)
    except Exception as error:
        return compile_here(request, f"nobody compiled it: {_one_line(error)}", logging.WARNING)
    return take(request, answer)


def printed(request: CompileRequest) -> Request:
    """What is to be sent. Files that a compiler leaves behind go where the sender means them to be. Raises
    ``UnserializableError``."""
    folder = request.config.debug_dir
    if folder is not None:
        config = request.config.replace(debug_dir=str(Path(folder).expanduser().absolute()))
        request = CompileRequest(**{**vars(request), "config": config})
    return Request.of(request)


def take(request: CompileRequest, data: bytes | memoryview) -> OutputCode:
    """The code that an answer to ``request`` brought, runnable, counted, and with all that was said when it
    was compiled; or compiled here, where it brought none. Raises as `through`."""
    try:
        answer, artifact = unpack_answer(data)
    except (ArtifactError, TypeError) as error:  # an executor may return anything
        return compile_here(request, f"the answer is rubbish: {_one_line(error)}", logging.WARNING)
    if answer.refused is not None:
        return compile_here(request, answer.refused, logging.INFO)
    if answer.failure is not None or artifact is None:
        answer.replay()
        return eager_or_raise(request, _error(answer))
    try:
        code = loaded(request, artifact)
    except Exception as error:  # whoever answered decides what is in it
        return compile_here(request, f"the answer cannot be used: {_one_line(error)}", logging.WARNING)
    if code is None:
        return compile_here(request, "the answer is for sizes other than those here", logging.INFO)
    answer.replay()
    warn_of(code.info.metrics.fallbacks)
    ledger.record_made(code.info)
    return code


def loaded(request: CompileRequest, artifact: bytes | memoryview) -> CompiledFxGraph | None:
    """The artefact of ``request``, ready to run, its guards being guards of the trace; None where one of
    these does not hold there. Raises ``BrazeError``, and what PyTorch raises for a guard that it cannot
    decide."""
    code = CompiledFxGraph.after_deserialization(artifact, trusted=True)
    info = code.info
    returned: int = len(request.gm.graph.output_node().args[0])  # type: ignore[arg-type]
    if (info.name, len(info.inputs), len(info.outputs)) != (
        request.name,
        len(request.example_inputs),
        returned,
    ):
        raise ArtifactError(f"it is {info.name}, and not {request.name}")
    code.post_compile(min_parallel_work=request.config.min_parallel_work)
    return code if guards.install(info.guards, request.shape_env) else None


def compile_here(request: CompileRequest, reason: str, level: int) -> OutputCode:
    """The way that is always open, with a line in the log."""
    _log.log(level, "%s is compiled in this process: %s", request.name, reason.partition("\n")[0])
    return InProcessFxCompile().compile(request)


def _error(answer: Answer) -> BrazeError:
    if answer.failure is None:
        return BrazeError("the answer is empty")
    return answer.failure.error()


def _one_line(error: Exception) -> str:
    if isinstance(error, BrazeError):
        places = [place for place in (error.node, error.where) if place]
        return f"{error.what} ({', '.join(places)})" if places else error.what
    return f"{type(error).__name__}: {error}"
