"""The job of compiling, wherever it is done: bytes in, bytes out. A module-level function, so that any
executor can run it: our own pool, which knows it by name, threads, processes, a cluster.

`JOBS` is all that compile workers know: a message names a job by its key there, and nothing else can be
reached by it. `warm` is called once in each worker, before it says hello.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from braze import config
from braze._torch import tracing
from braze.artifact import environment
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.schema import Versions
from braze.compile import torch_state as state
from braze.compile.capture import captured
from braze.compile.fx_compile import CompileRequest
from braze.compile.messages import Answer, Failure, Request, pack_answer
from braze.errors import BrazeError, ConfigError, FallbackError, Refused, UnserializableError
from braze.extensions.registry import texts_of_graph

__all__ = ["JOBS", "answer_to", "compile_request", "echo", "load_compiler", "other_versions", "warm"]


def compile_request(payload: bytes) -> bytes:
    """Compile what `braze.compile.messages.Request.to_bytes` wrote; an answer, always. The state that the
    sender had holds meanwhile. Raises ``MemoryError`` alone: whoever runs this may want to end of it."""
    try:
        request = Request.from_bytes(payload)
    except BrazeError as error:
        return pack_answer(Answer(refused=f"the request cannot be read: {error.what}"))
    return answer_to(request)


def load_compiler() -> Callable[..., CompiledFxGraph]:
    """The compiler's own `compile_graph`, which takes a while to load when it is first asked for."""
    from braze.compile.pipeline import compile_graph  # noqa: PLC0415

    return compile_graph


def answer_to(request: Request, debug_dir: str | None = None) -> bytes:
    """As `compile_request`, for a request that was read; ``debug_dir``: instead of the one in its options."""
    context = request.context
    if (differing := other_versions(context.versions)) is not None:
        return pack_answer(Answer(refused=f"it was sent to another compiler: {differing}"))
    making = context.making()
    compile_graph = load_compiler()  # now, and not while somebody listens: its modules make loggers
    refused: str | None = None
    failure: Failure | None = None
    artifact: bytes | None = None
    with (
        captured(context.levels) as said,
        state.apply(context.torch),
        tracing.apart(),
        making,
    ):
        try:
            parsed = request.parse()
            options = parsed.config if debug_dir is None else parsed.config.replace(debug_dir=debug_dir)
            if (unlike := _other_extensions(parsed, context.extensions)) is not None:
                return pack_answer(Answer(refused=unlike))
        except Exception as error:  # a text may say anything
            what = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
            return pack_answer(Answer(refused=f"the request cannot be read: {what}"))
        parsed = _with_options(parsed, options)
        with config.using(options):
            try:
                compiled = compile_graph(parsed, link=False)
                artifact = compiled.prepare_for_serialization()
            except MemoryError:
                raise
            except (ConfigError, UnserializableError) as error:  # something was not sent, or cannot be
                refused = error.what
            except BrazeError as error:
                failure = Failure.of(error)
            except Exception as error:
                failure = Failure.of(_foreign(parsed, error))
    answer = Answer(logs=tuple(said.logs), warnings=tuple(said.warnings), failure=failure, refused=refused)
    return pack_answer(answer, artifact)


def other_versions(theirs: Versions) -> str | None:
    """Where a sender's versions are not those here, in words; None where they are."""
    asked, here = theirs.named(), environment.versions().named()
    pairs = [(name, asked.get(name), here.get(name)) for name in {**asked, **here}]
    return ", ".join(f"{name} {b}, and not {a}" for name, a, b in pairs if a != b) or None


def _other_extensions(request: CompileRequest, theirs: tuple[str, ...]) -> str | None:
    """Where what was registered for the operators of a graph is not what the sender has, in words."""
    try:
        ours = texts_of_graph(request.gm)
    except Refused as error:
        return error.reason
    other = sorted(set(theirs) ^ set(ours))
    return f"it knows something else of {other[0].split(' context=')[0]}" if other else None


def _with_options(request: CompileRequest, options: config.Config) -> CompileRequest:
    return request if options is request.config else replace(request, config=options)


def _foreign(request: CompileRequest, error: Exception) -> BrazeError:
    """An exception of Python's or PyTorch's, as the in-process strategy would report it."""
    words = f"{type(error).__name__}: {error}"
    if request.config.strict:
        return FallbackError(f"{request.name} could not be compiled: {words}")
    return BrazeError(words)


def echo(payload: bytes) -> bytes:
    """Give back what came: for measuring, and for seeing that workers work."""
    return payload


def warm() -> None:
    """Load torch, the compiler, and what backends need in this process."""
    # the lazy seam: a worker is there to have the compiler loaded
    from braze.compile.pipeline import backends  # noqa: PLC0415

    torch.set_num_threads(1)
    for backend in backends():
        backend.warm()


JOBS: Mapping[str, Callable[[bytes], bytes]] = {"compile": compile_request, "echo": echo}
