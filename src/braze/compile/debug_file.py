"""Compile by way of files that people can read, keep, and send to somebody: ``fx_compile_mode=debug-file``.

Each graph gets a folder, under ``debug_dir`` or else a temporary one::

    graph0_inference.request/
      request.txt              the graph, its inputs and the options (`braze.compile.text`)
      constants.safetensors    the tensors that it holds, if any
      context.json             versions, PyTorch's switches, log levels, the machine
      answer.txt               specs, guards, counts, seconds; what was said; or the error
      variant0/plan.txt        the launch plan
      variant0/module0.ll      the source of each module: LLVM IR, for a CPU
      artifact.braze           the artefact

What is compiled is what the files say, and what runs is the artefact in the file. ``braze replay
request.txt`` does it again, here or elsewhere.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.constants import CompiledFxGraphConstants
from braze.artifact.output_code import OutputCode
from braze.compile.debug import new_folder, temporary
from braze.compile.fx_compile import CompileRequest
from braze.compile.messages import Answer, Context, Request, pack_answer, unpack_answer
from braze.compile.remote_job import answer_to
from braze.compile.round_trip import through
from braze.errors import ArtifactError
from braze.runtime.engines import engine

__all__ = ["DebugFileFxCompile", "read_request", "write_answer", "write_request"]

_log = logging.getLogger("braze")

REQUEST: Final = "request.txt"
CONSTANTS: Final = "constants.safetensors"
CONTEXT: Final = "context.json"
ANSWER: Final = "answer.txt"
ARTIFACT: Final = "artifact.braze"


@dataclass(frozen=True)
class DebugFileFxCompile:
    """Writes the request of each graph, compiles what it wrote, writes the answer, and runs that. The log
    says where, as a warning, since it was asked for."""

    def compile(self, request: CompileRequest) -> OutputCode:
        wanted = request.config.debug_dir

        def exchange() -> bytes:
            # the folder is this machine's, and nothing for whoever gets the files
            portable = replace(request, config=request.config.replace(debug_dir=None))
            directory = Path(wanted or temporary()).expanduser()
            folder = new_folder(directory, f"{request.name}.request")
            write_request(folder, Request.of(portable))
            _log.warning("%s: request and answer are in %s", request.name, folder)
            answer = answer_to(read_request(folder / REQUEST), debug_dir=wanted)
            write_answer(folder, answer)
            return _read_answer(folder, answer)

        return through(request, exchange)


def write_request(folder: Path, request: Request) -> None:
    """Raises ``UnserializableError`` for constants that cannot be stored, and ``OSError``."""
    (folder / REQUEST).write_text(request.text, encoding="utf-8")
    if request.constants:
        (folder / CONSTANTS).write_bytes(CompiledFxGraphConstants(request.constants).to_bytes())
    context = msgspec.json.format(msgspec.json.encode(request.context), indent=2)
    (folder / CONTEXT).write_bytes(context + b"\n")


def read_request(path: Path) -> Request:
    """The request in a file, with constants and context if they lie beside it; without, the context is that
    of this moment. Raises ``ArtifactError`` and ``OSError``."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not text: {error}") from None
    constants = path.with_name(CONSTANTS)
    stored = {}
    if constants.exists():
        stored = CompiledFxGraphConstants.from_bytes(constants.read_bytes()).stored
    return Request(text, stored, _context(path.with_name(CONTEXT)))


def _context(path: Path) -> Context:
    if not path.exists():
        return Context.here()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Context)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{path} is not a context of a request: {error}") from None


def write_answer(folder: Path, data: bytes) -> None:
    """The answer, readable; and its artefact. Raises ``ArtifactError`` and ``OSError``."""
    answer, artifact = unpack_answer(data)
    lines = list(_said(answer))
    if artifact is not None:
        (folder / ARTIFACT).write_bytes(artifact)
        code = CompiledFxGraph.after_deserialization(artifact)
        lines = [*_described(code), *lines]
        for v, variant in enumerate(code.variants):
            place = folder / f"variant{v}"
            place.mkdir(exist_ok=True)
            (place / "plan.txt").write_text(f"{variant.info.plan}\n", encoding="utf-8")
            number = itertools.count()
            for part, modules in variant.parts:
                suffix = engine(part.kind).source_suffix
                for module in modules:
                    (place / f"module{next(number)}.{suffix}").write_bytes(bytes(module.ir))
    (folder / ANSWER).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _described(code: CompiledFxGraph) -> list[str]:
    metrics = code.info.metrics
    counts = [f"{number} {name}" for name, number in metrics.counters.items()]
    seconds = [f"{phase} {1e3 * s:.1f} ms" for phase, s in metrics.seconds.items()]
    return [
        str(code.info),
        *(f"  extern  {call.op}" + (f" ({call.source})" if call.source else "") for call in metrics.externs),
        f"  counts  {', '.join(counts)}",
        f"  time    {', '.join(seconds)}",
    ]


def _said(answer: Answer) -> list[str]:
    lines = [
        f"  log     {logging.getLevelName(one.level)} {one.logger}: {one.message}" for one in answer.logs
    ]
    lines += [f"  warning {one.category}: {one.text}" for one in answer.warnings]
    if answer.failure is not None:
        lines.append(f"{answer.failure.kind}: {answer.failure.error()}")
    if answer.refused is not None:
        lines.append(f"refused: {answer.refused}")
    return lines


def _read_answer(folder: Path, data: bytes) -> bytes:
    """The answer, its artefact being the one in the file."""
    answer, artifact = unpack_answer(data)
    return data if artifact is None else pack_answer(answer, (folder / ARTIFACT).read_bytes())
