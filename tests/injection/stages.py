"""Where a compilation can fail: one row for each stage.

A stage is a function of Braze's that stands for it, and a way to compile that goes through it. Passes,
strategies and decompositions are not listed here: the tables that compiling itself uses say what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from braze.compile.modes import MODES

__all__ = ["ERRORS", "STAGES", "WAYS", "Stage", "Way"]

ERRORS: tuple[type[Exception], ...] = (RuntimeError, KeyError, ZeroDivisionError, MemoryError, RecursionError)
"""What is raised: what PyTorch raises, what slips of Python's are, and what a machine runs out of."""


@dataclass(frozen=True)
class Way:
    """How a function is compiled. ``cache``: nothing is in it, a like graph is (level 1), or this very one;
    ``backward``: the function is trained, and fails while its backward is compiled."""

    cache: Literal["off", "cold", "graph", "call"] = "off"
    training: bool = False
    backward: bool = False
    mode: str = "in-process"


WAYS = {
    "plain": Way(),
    "training": Way(training=True),
    "backward": Way(training=True, backward=True),
    "cold": Way(cache="cold"),
    "level 1": Way(cache="graph"),
    "level 2": Way(cache="call", training=True),
    **{mode: Way(mode=mode) for mode in MODES},
}


@dataclass(frozen=True)
class Stage:
    """``function``: ``module:name``, called while something is compiled in the way called ``way``. ``left``:
    what a program is left with where it always fails: eager operators, or compiled code all the same, of
    which a warning tells, or only the log."""

    name: str
    function: str
    way: str = "plain"
    left: Literal["eager", "native", "native, logged"] = "eager"

    def __str__(self) -> str:
        return f"{self.name} ({self.way})"


STAGES: tuple[Stage, ...] = (
    # making keys
    Stage("opening the cache", "braze.frontend.entries:open_entries", "cold", "native"),
    Stage("describing Dynamo's graph", "braze.frontend.dynamo_key:describe", "cold", "native"),
    Stage("printing the graph", "braze.compile.text.printer:canonical_graph", "cold", "native"),
    Stage("describing the machine", "braze.artifact.environment:key_parts", "cold", "native"),
    # the cache's second level
    Stage("looking for the call", "braze.frontend.level2:find", "level 2", "native"),
    Stage("reading the call", "braze.frontend.entries:_read", "level 2", "native"),
    Stage("loading the halves", "braze.frontend.entries:StoredEntries.load", "level 2", "native"),
    Stage("making the call", "braze.artifact.autograd_call:build_call", "level 2", "native"),
    Stage("noting the call", "braze.frontend.call_capture:CallCapture.note", "cold", "native"),
    Stage("describing the call", "braze.frontend.call_capture:CallCapture.spec", "cold", "native"),
    Stage("storing the call", "braze.frontend.entries:StoredEntries.add", "cold", "native"),
    # the first level, and what both stand on
    Stage("opening the cache", "braze.cache.level:open_level", "cold", "native"),
    Stage("looking", "braze.cache.level:CacheLevel.lookup", "cold", "native"),
    Stage("noting a miss", "braze.cache.level:CacheLevel.record_miss", "cold", "native"),
    Stage("storing", "braze.cache.level:CacheLevel.put", "cold", "native"),
    Stage("writing an artefact", "braze.artifact.container:pack", "cold", "native"),
    Stage("looking for the graph", "braze.compile.cached:_Lookup.run", "level 1", "native"),
    Stage("loading the graph", "braze.compile.cached:_Lookup._loaded", "level 1", "native"),
    Stage("noting a hit", "braze.cache.level:CacheLevel.record_hit", "level 1", "native"),
    Stage("reading an artefact", "braze.artifact.container:unpack", "level 1", "native"),
    # tracing
    Stage("choosing a strategy", "braze.compile.modes:strategy"),
    Stage("starting workers", "braze.compile.modes:prestart"),
    Stage("looking at Dynamo's graph", "braze.frontend.views:DynamoViews.__init__"),
    Stage("the table of decompositions", "braze.frontend.decompositions:decompositions"),
    Stage("AOTAutograd", "braze._torch.aot:compile_functional"),
    Stage("a pass", "braze.frontend.passes.views:run", "plain", "native"),
    Stage("a pass", "braze.frontend.passes.constants:run", "backward", "native"),
    Stage("the joint graph", "braze.frontend.passes.cse:run", "training", "native"),
    Stage("the cut", "braze._torch.joint_floats:floats_beside_the_cut", "training"),
    Stage("adopting inputs", "braze.frontend.aot:_adopt_inputs"),
    Stage("adopting inputs", "braze.frontend.aot:_adopt_inputs", "backward"),
    Stage("passes", "braze.frontend.passes.pipeline:run_passes"),
    Stage("passes", "braze.frontend.passes.pipeline:run_passes", "backward"),
    # the compiler proper
    Stage("lowering", "braze.lowering.graph:GraphLowering.run"),
    Stage("lowering", "braze.lowering.graph:GraphLowering.run", "training"),
    Stage("lowering", "braze.lowering.graph:GraphLowering.run", "backward"),
    Stage("scheduling", "braze.schedule.schedule:schedule"),
    Stage("planning memory", "braze.schedule.memory:plan_memory"),
    Stage("generating", "braze.codegen.backends:generate"),
    Stage("planning", "braze.codegen.plan.build:build_plan"),
    Stage("LLVM", "braze.codegen.llvm.pool:compile_ir"),
    Stage("LLVM", "braze.codegen.llvm.pool:compile_ir", "backward"),
    Stage("assembling", "braze.compile.assemble:assemble"),
    Stage("linking", "braze.runtime.linker:link"),
    Stage("linking", "braze.runtime.linker:link", "backward"),
    Stage("making a function", "braze.runtime.callgen:build"),
    Stage("telling strides", "braze._torch.tracing:report_output_strides"),
    Stage("the callable", "braze._torch.aot:boxed"),
    # other ways to compile: whoever cannot do it leaves it to this process
    Stage("writing a request", "braze.compile.round_trip:printed", "serialized", "native, logged"),
    Stage("the job", "braze.compile.remote_job:compile_request", "serialized", "native, logged"),
    Stage("reading the answer", "braze.compile.round_trip:take", "serialized"),
    Stage("using the answer", "braze.compile.round_trip:loaded", "serialized", "native, logged"),
    Stage("writing files", "braze.compile.debug_file:DebugFileFxCompile.compile", "debug-file"),
    Stage("the pool", "braze.compile.workers:shared", "out-of-process"),
    Stage("a worker", "braze.compile.workers:CompilePool.limit", "out-of-process", "native, logged"),
    Stage("writing a request", "braze.compile.round_trip:printed", "async"),
    Stage("the job", "braze.compile.remote_job:compile_request", "async"),
    Stage("reading the answer", "braze.compile.messages:unpack_answer", "async"),
    Stage("the swap", "braze.compile.switching:SwitchingCode.switch_to", "async"),
    Stage("the better code", "braze.compile.progressive:improved", "progressive", "native, logged"),
    Stage("the swap", "braze.compile.switching:SwitchingCode.switch_to", "progressive", "native, logged"),
)
