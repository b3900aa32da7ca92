"""Code generation for fused kernels, one generator for each type of device.

A generator turns an elementwise graph and a kind of arguments into compiled code; all of lowering, scheduling
and emission is that of `torch.compile`'s pipeline. ``GENERATORS`` is where another device is added: a
generator for ``cuda`` would compile the same request through Triton, and say for which extents 32-bit
positions do (`docs/fuser.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile.cached import CachedFxCompile
from braze.compile.fx_compile import CompileRequest, FxCompile
from braze.compile.modes import prestart, strategy
from braze.config import Config
from braze.errors import BrazeError, CodegenError
from braze.fuser.arg_spec import ArgSpec
from braze.fuser.elementwise import ElementwiseGraph
from braze.fuser.specialize import request_for
from braze.runtime.ending import busy
from braze.runtime.host import check_target

__all__ = ["GENERATORS", "Generator", "LLVMGenerator", "compiled", "reason_of"]


class Generator(Protocol):
    """Makes kernels for one type of device. Called from several threads at once."""

    def index_bits(self, extent: int) -> int:
        """32 or 64: in how many bits a kernel computes positions for tensors that reach over ``extent``
        elements."""
        ...

    def prestart(self, config: Config) -> None:
        """Start, without waiting, the processes that a compilation will need."""
        ...

    def strategy(self, config: Config) -> FxCompile:
        """How graphs are compiled for this device, through the cache."""
        ...

    def compile(self, graph: ElementwiseGraph, spec: ArgSpec, config: Config) -> CompiledFxGraph:
        """The kernel of ``graph`` for arguments of this kind. Raises ``BrazeError``."""
        ...


class LLVMGenerator:
    """Kernels for the CPU: LLVM IR, compiled by worker processes."""

    def index_bits(self, extent: int) -> int:
        """64: addresses are that wide anyway."""
        return 64

    def prestart(self, config: Config) -> None:
        """The LLVM workers, or whatever the mode needs."""
        prestart(config)

    def strategy(self, config: Config) -> FxCompile:
        """The strategy of the options; modes that answer with eager operators first are compiled here and
        now, since a fused call is there to be launched. Raises ``ConfigError``."""
        check_target(config)
        if config.fx_compile_mode in ("async", "progressive"):
            config = config.replace(fx_compile_mode="in-process")
        return CachedFxCompile(strategy(config))

    def compile(self, graph: ElementwiseGraph, spec: ArgSpec, config: Config) -> CompiledFxGraph:
        """See `Generator`. A kernel that has to call an eager operator is an error here: the whole function
        is better run as it is."""
        request = request_for(graph, spec, config.replace(strict=True))
        return compiled(request, self.strategy(request.config))


@busy()
def compiled(request: CompileRequest, strategy: FxCompile) -> CompiledFxGraph:
    """The code for ``request``. Raises ``CodegenError`` where there is none."""
    code = strategy.compile(request)
    if not isinstance(code, CompiledFxGraph):
        raise CodegenError(f"{request.name} was not compiled: {code.reason or 'it has no code'}")
    return code


GENERATORS: Mapping[str, Generator] = {"cpu": LLVMGenerator()}
"""By type of device; `braze.fuser.devices` names the same ones without loading any."""


def reason_of(error: BaseException) -> str:
    """An exception as a reason that people are shown, in one line."""
    text = error.what if isinstance(error, BrazeError) else f"{type(error).__name__}: {error}"
    return text.strip().split("\n", 1)[0]
