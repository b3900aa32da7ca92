"""A program exported and packed: the exported program, and the package of it, as functions."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram, export

from braze.artifact.aot_load import aot_load
from braze.artifact.package import open_package
from braze.errors import BrazeWarning, InputMismatchError
from braze.frontend.aot_compile import aot_compile
from braze.inspect.fuzz.execute import Function, function_of, make_inputs
from braze.inspect.fuzz.program import Program, Tensor

__all__ = ["Packed", "dims_of", "exported", "is_refused_by_torch", "packed"]


@dataclass(frozen=True)
class Packed:
    """``fallbacks``: operators that run as eager PyTorch, and the reasons; ``graphs``: how many there are;
    ``only`` and ``without``: conditions on sizes, in Python, of which it was said that they have to hold, and
    sizes that it was said not to serve."""

    function: Function
    fallbacks: tuple[tuple[str, str], ...]
    graphs: int
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def may_refuse(self, error: Exception | None, arguments: Sequence[Any]) -> bool:
        """Whether the package refuses on purpose what the exported program takes: arguments that share memory
        with one that is written to, and sizes of which `aot_compile` has said so."""
        if not isinstance(error, InputMismatchError):
            return False
        if "shares memory with" in error.what:
            return True
        names = {"__builtins__": {}, "arguments": arguments, "max": max, "min": min}
        if _OTHERS in self.without and any(n < 2 for x in arguments for n in getattr(x, "shape", ())):
            return True
        said = [one for one in self.without if one != _OTHERS]
        return any(eval(one, names) for one in said) or not all(eval(one, names) for one in self.only)


class _Module(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def dims_of(program: Program) -> tuple[dict[int, Any] | None, ...]:
    """For each input, the dimensions whose sizes are not the same in all calls, as `torch.export` wants
    them."""
    found: list[dict[int, Any] | None] = []
    for given in program.inputs:
        varying = []
        if isinstance(given, Tensor):
            ranks = range(len(given.shapes[0]))
            varying = [dim for dim in ranks if len({shape[dim] for shape in given.shapes}) > 1]
        found.append(dict.fromkeys(varying, Dim.AUTO) or None)
    return tuple(found)


def exported(program: Program) -> ExportedProgram:
    """The program as `torch.export` captures it from its first call. Raises what that raises."""
    example = tuple(make_inputs(program, 0).arguments)
    with torch.no_grad():
        return export(_Module(function_of(program)), example, dynamic_shapes={"arguments": dims_of(program)})


def packed(source: ExportedProgram, *, strict: bool) -> Packed:
    """An exported program as a loaded package for this machine. Raises what packing it raises."""
    with (
        tempfile.TemporaryDirectory(prefix="braze-fuzz-") as folder,
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always", BrazeWarning)
        path = aot_compile(source, Path(folder) / "model.pt2", "host", options={"strict": strict})
        graphs = open_package(path).graphs(trusted=False)
        loaded = aot_load(path)
    messages = [str(one.message) for one in said]
    only = _listed(_ONLY, " and ", messages)
    without = tuple([one.replace(" = ", " == ") for one in _listed(_WITHOUT, " or ", messages)])
    fallbacks = [(one.op, one.reason) for graph in graphs for one in graph.info.metrics.fallbacks]
    return Packed(loaded, tuple(fallbacks), len(graphs), only, without)


_ONLY = re.compile("the package works for sizes with (.*) only")
_WITHOUT = re.compile("the package does not work for sizes with (.*): ")
_OTHERS = "others of these"


def _listed(form: re.Pattern[str], word: str, messages: Sequence[str]) -> tuple[str, ...]:
    """What the messages of this form list, with this word between."""
    found = [match for match in map(form.match, messages) if match is not None]
    return tuple([one for match in found for one in match[1].split(word)])


def is_refused_by_torch(source: ExportedProgram) -> bool:
    """Whether PyTorch itself cannot take an exported program apart into simpler operators."""
    try:
        source.run_decompositions()
    except Exception:  # whatever its tracing raises
        return True
    return False
