"""`replay`: compile a request that lies in a file, and hold its results against those of eager operators."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from braze import config
from braze._torch import shapes, tracing
from braze._torch.devices import in_host_memory
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.artifact.schema import GraphInfo
from braze.compile import torch_state as state
from braze.compile.capture import captured
from braze.compile.debug_file import read_request
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.compile.remote_job import other_versions
from braze.dtypes import torch_name
from braze.errors import Refused
from braze.ops.numerics import difference
from braze.runtime.spec import span

__all__ = ["Compared", "Replay", "random_inputs", "replay"]


@dataclass(frozen=True)
class Compared:
    """One result of the compiled graph beside the eager one. ``difference``: the largest between two
    elements, None for what is not a tensor of numbers; ``agrees``: within `torch.testing.assert_close`'s
    defaults."""

    name: str
    what: str
    difference: float | None
    agrees: bool


@dataclass(frozen=True)
class Replay:
    """What came of a request.

    Attributes:
        path: the file.
        name: the graph's.
        kind: what the graph is for: "inference", "forward" or "backward".
        info: what is known of the compiled graph; None where eager operators run it.
        reason: why they do; None for compiled code.
        seconds: what compiling took.
        versions: in what this installation differs from the one that wrote the request; None: in nothing.
        said: lines of the log, and warnings, less those of operators in ``info.metrics.fallbacks``.
        compared: results on random inputs of the sizes that were traced.
        not_compared: why there are none.
    """

    path: Path
    name: str
    kind: str
    info: GraphInfo | None
    reason: str | None
    seconds: float
    versions: str | None
    said: tuple[str, ...]
    compared: tuple[Compared, ...]
    not_compared: str | None

    @property
    def agrees(self) -> bool:
        """Whether no result differs."""
        return all(one.agrees for one in self.compared)


def replay(path: str | Path, *, strict: bool = False, out: str | Path | None = None, seed: int = 0) -> Replay:
    """Compile the request in a file that the mode ``debug-file`` wrote, in this process and for this machine,
    and run it on random inputs.

    Args:
        path: the request; constants and context are looked for beside it.
        strict: raise where something would run as eager PyTorch.
        out: a folder that receives every stage of the compilation, as ``debug_dir`` does.
        seed: of the inputs, and of the graph's own random numbers.

    Raises:
        ParseError: the file is no request, or of operators that this process does not have.
        ArtifactError: what lies beside it is damaged.
        OSError: it cannot be read.
        BrazeError: with ``strict``.
    """
    path = Path(path)
    sent = read_request(path)
    with captured() as said, state.apply(sent.context.torch), tracing.apart():
        options = sent.parse().config.replace(strict=strict, debug_dir=None if out is None else str(out))
        with config.using(options):
            request = _with_options(sent.parse(), options)
            start = time.perf_counter()
            code = InProcessFxCompile().compile(request)
            seconds = time.perf_counter() - start
            compared: tuple[Compared, ...] = ()
            uncompared: str | None = None
            try:
                compared = tuple(_compare(code, sent.parse(), random_inputs(request, seed), seed))
            except Refused as refusal:
                uncompared = refusal.reason
            except Exception as error:  # random indices may be out of range, random matrices singular
                uncompared = f"the graph does not take random inputs: {type(error).__name__}: {error}"
    info = code.info if isinstance(code, CompiledFxGraph) else None
    known = {f"runs as eager PyTorch: {fallback}" for fallback in info.metrics.fallbacks} if info else set()
    return Replay(
        path,
        request.name,
        request.kind,
        info,
        code.reason,
        seconds,
        other_versions(sent.context.versions),
        (*(line.message for line in said.logs), *(w.text for w in said.warnings if w.text not in known)),
        compared,
        uncompared,
    )


def _with_options(request: CompileRequest, options: config.Config) -> CompileRequest:
    return CompileRequest(**{**vars(request), "config": options})


def random_inputs(request: CompileRequest, seed: int) -> list[Any]:
    """Something of the right kind for each input. Raises `Refused` where there is nothing."""
    generator = torch.Generator().manual_seed(seed)
    return [_like(value, generator) for value in request.example_inputs]


def _like(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, torch.Tensor):
        return _tensor_like(value, generator)
    if isinstance(value, torch.SymInt):
        return _number(value)
    if shapes.is_symbolic(value):
        raise Refused(f"an input is a {type(value).__name__}")
    return value


def _tensor_like(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normally distributed numbers; integers are 0 or 1, which are indices of most things."""
    if not in_host_memory(value) or value.layout is not torch.strided:
        raise Refused(f"an input is a {value.layout} tensor on {value.device}")
    sizes, strides = [_number(n) for n in value.shape], [_number(n) for n in value.stride()]
    offset, dtype = _number(value.storage_offset()), value.dtype
    reach = offset + span(sizes, strides)
    if dtype.is_complex:
        memory = torch.view_as_complex(torch.randn(reach, 2, generator=generator)).to(dtype)
    elif dtype.is_floating_point:
        memory = torch.randn(reach, generator=generator).to(dtype)
    else:
        memory = torch.randint(0, 2, (reach,), generator=generator).to(dtype)
    return memory.as_strided(sizes, strides, offset)


def _number(value: int | torch.SymInt) -> int:
    known = shapes.hint(value)
    if known is None:
        raise Refused(f"the size {value} depends on data")
    return known


def _compare(
    code: OutputCode, request: CompileRequest, inputs: Sequence[Any], seed: int
) -> Sequence[Compared]:
    """Results of both, and inputs that were written to."""
    ours, theirs = _clones(inputs), _clones(inputs)
    torch.manual_seed(seed)
    found = code.run(list(ours))
    torch.manual_seed(seed)
    expected = run_eagerly(request, None).run(list(theirs))
    compared = [_compared(f"output {i}", a, b) for i, (a, b) in enumerate(zip(found, expected, strict=True))]
    names = [node.name for node in request.gm.graph.find_nodes(op="placeholder")]
    for name, before, a, b in zip(names, inputs, ours, theirs, strict=True):
        if isinstance(before, torch.Tensor) and not _same(before, b):
            compared.append(_compared(f"{name}, written to", a, b))
    return compared


def _clones(inputs: Sequence[Any]) -> list[Any]:
    return [_clone(v) if isinstance(v, torch.Tensor) else v for v in inputs]


def _clone(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that lies in memory as the original does."""
    reach = tensor.untyped_storage().nbytes() // tensor.itemsize
    return (
        tensor.as_strided((reach,), (1,), 0)
        .clone()
        .as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num()) if a.is_floating_point() else torch.equal(a, b)


def _compared(name: str, ours: Any, theirs: Any) -> Compared:
    if not isinstance(ours, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return Compared(name, str(theirs), None, type(ours) is type(theirs) and ours == theirs)
    what = f"{torch_name(theirs.dtype)}{list(theirs.shape)}"
    return Compared(name, what, _difference(ours, theirs), difference(ours, theirs) is None)


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float | None:
    if ours.shape != theirs.shape or not ours.numel():
        return None
    wide = torch.complex128 if ours.is_complex() or theirs.is_complex() else torch.float64
    distance = (ours.to(wide) - theirs.to(wide)).abs()
    distance[ours == theirs] = 0  # infinities
    return float(distance.nan_to_num(0).max())
