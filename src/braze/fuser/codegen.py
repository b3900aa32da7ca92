"""Code generation for fused kernels: an elementwise graph and a kind of arguments become compiled code. All
of lowering, scheduling and emission is that of `torch.compile`'s pipeline, and the backend is that of the
device (`docs/fuser.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile.cached import CachedFxCompile
from braze.compile.fx_compile import CompileRequest, FxCompile
from braze.compile.modes import strategy
from braze.config import Config
from braze.errors import BrazeError, CodegenError
from braze.fuser.arg_spec import ArgSpec
from braze.fuser.elementwise import ElementwiseGraph
from braze.fuser.specialize import request_for
from braze.runtime.ending import busy
from braze.runtime.engines import check_options, engine, kind_for

__all__ = ["Generator", "compiled", "reason_of"]


@dataclass(frozen=True)
class Generator:
    """Makes kernels for one type of device, by the backend that there is for it. Called from several threads
    at once."""

    device: str

    def index_bits(self, extent: int) -> int:
        """32 or 64: in how many bits a kernel computes positions for tensors that reach over ``extent``
        elements."""
        kind = kind_for(self.device)
        return 64 if kind is None else engine(kind).index_bits(extent)

    def strategy(self, config: Config) -> FxCompile:
        """How graphs are compiled for this device, through the cache: the strategy of the options; modes that
        answer with eager operators first are compiled here and now, since a fused call is there to be
        launched. Raises ``ConfigError``."""
        check_options(config)
        if config.fx_compile_mode in ("async", "progressive"):
            config = config.replace(fx_compile_mode="in-process")
        return CachedFxCompile(strategy(config))

    def compile(self, graph: ElementwiseGraph, spec: ArgSpec, config: Config) -> CompiledFxGraph:
        """The kernel of ``graph`` for arguments of this kind. A kernel that has to call an eager operator is
        an error here: the whole function is better run as it is. Raises ``BrazeError``."""
        request = request_for(graph, spec, config.replace(strict=True))
        return compiled(request, self.strategy(request.config))


@busy()
def compiled(request: CompileRequest, strategy: FxCompile) -> CompiledFxGraph:
    """The code for ``request``. Raises ``CodegenError`` where there is none."""
    code = strategy.compile(request)
    if not isinstance(code, CompiledFxGraph):
        raise CodegenError(f"{request.name} was not compiled: {code.reason or 'it has no code'}")
    return code


def reason_of(error: BaseException) -> str:
    """An exception as a reason that people are shown, in one line."""
    text = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
    return text.strip().split("\n", 1)[0]
