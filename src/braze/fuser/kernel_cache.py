"""The kernel specification cache: for each graph, by its key, a store of compiled kernels by `ArgSpec` and
the options that they were compiled for.

Both tables are thread-safe, and what several threads ask for at once is compiled once. A graph's entry knows
nothing of devices; nothing in either key knows of sizes. Behind the stores lies the cache on disk, so a
second process finds its kernels compiled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from braze import config as configuration
from braze.errors import BrazeError, ConfigError
from braze.fuser.accounts import counts
from braze.fuser.arg_spec import ArgSpec
from braze.fuser.codegen import Generator, reason_of
from braze.fuser.elementwise import ElementwiseGraph
from braze.fuser.kernel import FusedKernel
from braze.fuser.once import OnceMap

__all__ = ["KernelSpec", "kernel_specs", "spec_for"]


@dataclass(eq=False)
class KernelSpec:
    """One elementwise graph and its compiled kernels. A kernel that could not be compiled is kept as the
    reason why, so that it is tried once."""

    graph: ElementwiseGraph
    kernels: OnceMap[tuple[object, ...], FusedKernel | str] = field(default_factory=OnceMap)

    @property
    def key(self) -> str:
        """What equal graphs share."""
        return self.graph.key

    def kernel(self, spec: ArgSpec) -> FusedKernel | str:
        """The kernel for arguments of this kind and the options that hold, compiled if need be, or why there
        is none. Raises ``ConfigError``."""
        key = (spec, *configuration.current().compile_key())
        found = self.kernels.get(key)
        return self.kernels.get_or_make(key, lambda: self._compile(spec)) if found is None else found

    def _compile(self, spec: ArgSpec) -> FusedKernel | str:
        config = configuration.current()
        try:
            code = Generator(spec.device).compile(self.graph, spec, config)
            kernel = FusedKernel(self.graph, spec, code, config.min_parallel_work)
        except ConfigError:
            raise
        except BrazeError as error:
            return f"its kernel was not compiled: {reason_of(error)}"
        except Exception as error:  # a defect of ours must not stand between people and their results
            return f"its kernel was not compiled: {reason_of(error)}"
        counts.add("loaded" if code.report is None else "compiled")
        return kernel

    def __str__(self) -> str:
        lines = [self.key, *("  " + line for line in self.graph.text.splitlines())]
        made = [k for k in self.kernels.values() if isinstance(k, FusedKernel)]
        return "\n".join([*lines, *(f"  kernel {k.spec}" for k in made)])


kernel_specs: OnceMap[str, KernelSpec] = OnceMap()
"""Every elementwise graph of this process, by its text."""


def spec_for(graph: ElementwiseGraph) -> KernelSpec:
    """The entry of ``graph``; equal graphs share it."""
    return kernel_specs.get_or_make(graph.text, lambda: KernelSpec(graph))
