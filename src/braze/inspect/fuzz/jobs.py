"""What fuzzing asks of a worker process: a program from a seed, and what comes of it.

The module is a table of jobs for `braze.compile.workers.CompilePool`. A job ends with an answer, or its
worker is lost with it: it died, or was ended because it took too long.

A file of its own: worker processes load it by its name.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Union

import msgspec
import torch

from braze import config
from braze.compile import torch_state as state
from braze.compile.remote_job import warm as warm_compiler
from braze.inspect.fuzz.generate import generate
from braze.inspect.fuzz.judge import Settings, Verdict, judge, runs_eagerly
from braze.inspect.fuzz.program import Program

__all__ = ["JOBS", "Explored", "Query", "check", "explore", "make", "run_eagerly", "warm"]


class Query(msgspec.Struct, frozen=True):
    """What every job is given: options of the compiler, how to judge, and either the program or what it is
    made from."""

    options: dict[str, Union[bool, int, str, None]]  # noqa: UP007
    settings: Settings = Settings()
    program: Program | None = None
    seed: int = 0
    index: int = 0


class Explored(msgspec.Struct, frozen=True):
    """A program and what came of it; nothing where there is no program of that index."""

    program: Program | None = None
    verdict: Verdict | None = None


def options_here() -> dict[str, bool | int | str | None]:
    """The options that hold in this process, less what a worker does another way: it compiles everything
    itself, and keeps nothing."""
    own = {"cache": False, "remote_cache": None, "llvm_in_process": True, "strict": False}
    return {**dataclasses.asdict(config.current()), **own}


def explore(payload: bytes) -> bytes:
    """Make the program of a seed and index and judge it: an `Explored`."""
    query = _query(payload)
    program = generate(query.seed, query.index)
    verdict = None if program is None else _judged(query, program)
    return msgspec.msgpack.encode(Explored(program, verdict))


def check(payload: bytes) -> bytes:
    """Judge the program that is given: an `Explored`."""
    query = _query(payload)
    verdict = None if query.program is None else _judged(query, query.program)
    return msgspec.msgpack.encode(Explored(query.program, verdict))


def make(payload: bytes) -> bytes:
    """Make a program and do no more: an `Explored` without verdict."""
    query = _query(payload)
    return msgspec.msgpack.encode(Explored(generate(query.seed, query.index)))


def run_eagerly(payload: bytes) -> bytes:
    """Run a program by eager PyTorch alone: an empty answer, if the process lives."""
    query = _query(payload)
    if query.program is not None:
        runs_eagerly(query.program)
    return b""


def _query(payload: bytes) -> Query:
    return msgspec.msgpack.decode(payload, type=Query)


def _judged(query: Query, program: Program) -> Verdict:
    switches = state.TorchState("float32", "default")
    with config.using(config.Config().replace(**query.options)), state.apply(switches):
        return judge(program, query.settings)


def warm() -> None:
    """Load what the first program needs."""
    warm_compiler()
    logging.disable(logging.CRITICAL)  # what Dynamo says of programs that fail is not for anybody
    torch.set_num_threads(1)


JOBS: Mapping[str, Callable[[bytes], bytes]] = {
    "explore": explore,
    "check": check,
    "make": make,
    "run_eagerly": run_eagerly,
}
