"""The interface between a frontend, which has a graph, and a strategy for compiling it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch.fx import GraphModule

from braze.artifact.output_code import OutputCode
from braze.artifact.schema import GraphKind
from braze.config import Config

__all__ = ["CompileRequest", "FxCompile", "GraphKind"]


@dataclass(frozen=True)
class CompileRequest:
    """One graph to compile, and all that is known of it.

    Attributes:
        gm: functional ATen graph. Each node has its fake tensor (or symbolic integer) in ``meta["val"]``;
            the only mutations are `copy_` to placeholders. `braze.ir.prims` lists the functions in it that
            are not ATen's. The strategy owns the graph and may change it.
        shape_env: the trace's knowledge of its sizes; None where there are no symbolic ones.
        static_inputs: positions of inputs that are parameters or buffers.
        visible_outputs: the first so many outputs leave the compiled region, and lie in memory as traced;
            the others are kept for the backward, and the compiler may choose their strides.
        config: the options of this compile.
        kind: what the graph is for.
        graph_id: number of the Dynamo graph in this process; a forward and its backward share it.
        part: where in that graph this one stands, which is a branch or a loop's body; empty for the whole."""

    gm: GraphModule
    shape_env: Any
    static_inputs: frozenset[int]
    visible_outputs: int
    config: Config
    kind: GraphKind
    graph_id: int
    part: str = ""

    @property
    def example_inputs(self) -> tuple[Any, ...]:
        """What the placeholders stand for: fake tensors, (symbolic) integers and symbolic floating-point
        numbers. Compiled code takes one of the last as a float64 tensor without dimensions."""
        return tuple([node.meta["val"] for node in self.gm.graph.find_nodes(op="placeholder")])

    @property
    def name(self) -> str:
        """Unique in this process, fit for file names."""
        return f"graph{self.graph_id}_{self.kind}{'_' if self.part else ''}{self.part}"


class FxCompile(Protocol):
    """A way to compile. Called from several threads at once; keeps no state between calls that matters."""

    def compile(self, request: CompileRequest) -> OutputCode: ...
