"""A script run as eager PyTorch runs it: each graph that Braze would be given is noted, with what it is
called with, before it is called.

A file of its own: it is the program of a process, which the script has for itself. ::

    python -m braze.inspect.minify.watch FOLDER SCRIPT ARGUMENT...

`FOLDER` gets a file for each graph, and, where the script raises, one with what it says.
"""

from __future__ import annotations

import dataclasses
import itertools
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Union

import msgspec
import torch
from torch.fx import GraphModule

from braze import config
from braze._torch import dynamo, shapes, tracing
from braze._torch.schema import Effect, effects_of, is_operator
from braze.errors import ConfigError, Refused
from braze.frontend.backend import MODES
from braze.inspect.fuzz.program import Mode, Program
from braze.inspect.minify.cut import given_instead
from braze.inspect.minify.translate import program_of

__all__ = ["RAISED", "Noted", "Watch", "noted_in", "program_of_graph"]

RAISED: Final = "raised.txt"
_SUFFIX: Final = ".graph"
_CALLS = 4
"""Of one graph so many calls are noted, of different sizes."""


class Noted(msgspec.Struct, frozen=True):
    """A call of a graph. ``graph``: its number; ``options``: those of the compiler; ``program``: None where
    there is none, and ``why`` not."""

    graph: int
    options: dict[str, Union[bool, int, str, None]]  # noqa: UP007  msgspec reads it on Python 3.10
    program: Program | None = None
    why: str = ""


def noted_in(folder: Path) -> list[Noted]:
    """Every call that was noted, in order."""
    files = sorted(folder.glob(f"*{_SUFFIX}"))
    return [msgspec.msgpack.decode(file.read_bytes(), type=Noted) for file in files]


def program_of_graph(gm: GraphModule, arguments: Sequence[Any], mode: Mode, origin: str) -> Program:
    """A graph of any functions of PyTorch's as a program of operators; what is drawn at random is given.
    Raises `Refused`."""
    names = [str(node.target) for node in gm.graph.find_nodes(op="placeholder")]
    failure: Exception | None = None
    for sizes in (True, False):
        try:
            with torch.set_grad_enabled(mode == "gradients"):
                traced = tracing.as_operators(gm, arguments, sizes=sizes)
            return _settled(program_of(traced, arguments, names, mode, origin), traced)
        except Exception as error:
            failure = failure or error
    if isinstance(failure, Refused):
        raise failure
    raise Refused(
        f"it cannot be traced: {type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
    )


def _settled(program: Program, traced: GraphModule) -> Program:
    """The program, given what it would draw, or find in memory that nobody has written to."""
    unsettled = Effect.DRAW | Effect.UNSET
    targets = {
        str(n.target)
        for n in traced.graph.nodes
        if is_operator(n.target) and effects_of(n.target) & unsettled
    }
    places = [place for place, s in enumerate(program.statements) if s.operator in targets]
    if places:
        read = [name for place in places for name in program.statements[place].reads()]
        settled = given_instead(program, places)
        made = {name for s in settled.statements for name in s.results}
        # what was only read there is still computed
        outputs = dict.fromkeys([*settled.outputs, *(name for name in read if name in made)])
        program = msgspec.structs.replace(settled, outputs=tuple(outputs))
    if not program.outputs or not program.inputs:
        raise Refused("it has no tensors, or no results")
    return program


class Watch:
    """A backend that takes Braze's place: its graphs run eagerly, and are noted in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._graphs = itertools.count()
        self._notes = itertools.count()

    def __call__(
        self,
        gm: GraphModule,
        example_inputs: Sequence[Any],
        *,
        mode: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Callable[..., Any]:
        if mode is not None and mode not in MODES:
            raise ConfigError(f"Braze has no mode {mode!r}")
        settled = dataclasses.asdict(config.resolve({**MODES[mode or "default"], **(options or {})}))
        symbolic = any(shapes.is_symbolic(value) for value in example_inputs)
        number, seen = next(self._graphs), set[Any]()

        def call(*arguments: Any) -> Any:
            key = tuple([tuple(a.shape) if isinstance(a, torch.Tensor) else repr(a) for a in arguments])
            if key not in seen and len(seen) < _CALLS:
                seen.add(key)
                self._note(gm, arguments, number, settled, symbolic)
            return gm(*arguments)

        return dynamo.untraced(call)

    def _note(
        self, gm: GraphModule, arguments: Sequence[Any], number: int, options: dict[str, Any], symbolic: bool
    ) -> None:
        wants = any(isinstance(a, torch.Tensor) and a.requires_grad for a in arguments)
        gradients = torch.is_grad_enabled() and wants
        mode: Mode = "gradients" if gradients else "dynamic" if symbolic else "static"
        program, why = None, ""
        try:
            with torch.random.fork_rng(devices=[]):
                program = program_of_graph(gm, arguments, mode, f"graph{number}")
        except Refused as refusal:
            why = refusal.reason
        noted = Noted(number, options, program, why)
        (self._folder / f"{next(self._notes):05}{_SUFFIX}").write_bytes(msgspec.msgpack.encode(noted))


def _main(folder: Path, script: str, arguments: Sequence[str]) -> int:
    dynamo.replace_backend("braze", Watch(folder))
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit:
        return 0
    except BaseException as error:
        (folder / RAISED).write_text(_words(error, script), encoding="utf-8")
        return 1
    return 0


def _words(error: BaseException, script: str) -> str:
    """What was raised, and the script's line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == script]
    place = f", in line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
    said = " ".join(line.strip() for line in str(error).splitlines()[:2] if line.strip())
    return f"{type(error).__name__}{': ' if said else ''}{said}{place}"


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
