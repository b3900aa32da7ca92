"""AOTAutograd: from the graph that Dynamo captured to functional ATen graphs, forward and backward apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias, cast

from torch._dynamo.utils import counters, flatten_graph_inputs
from torch._functorch import config as functorch_config
from torch._functorch.aot_autograd import aot_module_simplified
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch.fx import GraphModule
from torch.nn import Module

from braze._torch.effect_tokens import TOKENS_INSIDE, drop_tokens
from braze._torch.hidden import untraced
from braze._torch.joint_floats import floats_beside_the_cut
from braze._torch.random_calls import draws_kept, draws_may_go, restore_draws, unused_draws
from braze._torch.recurrent import differentiable_lstm
from braze._torch.saved_inputs import keep_as_they_were

__all__ = ["BoxedFunction", "GraphCompiler", "boxed", "compile_functional"]

BoxedFunction: TypeAlias = Callable[[list[Any]], Sequence[Any]]
"""Takes its arguments in one list, which it empties, so that an argument can die as soon as it was read."""

GraphCompiler: TypeAlias = Callable[[GraphModule, Sequence[Any]], BoxedFunction]


_BACKWARD_NOW = "force_non_lazy_backward_lowering"
"""A setting of AOTAutograd's. Where it is unknown, the backward comes when it first runs."""


_BACKWARD_AUTOCAST = "backward_pass_autocast"
"""Another one: under which autocast the backward is traced. Its default is that which is on around the
function, and not that which is on where ``backward()`` is called: none, as PyTorch tells people to do."""


def boxed(function: BoxedFunction) -> BoxedFunction:
    """`function`, marked as following the boxed convention."""
    function._boxed_call = True  # type: ignore[attr-defined]
    return function


def compile_functional(
    gm: Module,
    example_inputs: Sequence[Any],
    *,
    forward: GraphCompiler,
    backward: GraphCompiler,
    inference: GraphCompiler,
    simplify_joint: Callable[[GraphModule], object],
    decompositions: Mapping[Any, Callable[..., Any]],
    backward_now: bool = False,
    every_draw: bool = False,
) -> Callable[..., Any]:
    """Make `gm` functional, decompose it, split it, and compile the parts.

    `inference` gets the whole graph where no gradient is asked for. Otherwise `forward` gets the forward
    half and `backward` the other one: when `backward()` first runs, or at once where symbolic sizes are kept
    for it (its guards must be known by then) or `backward_now` asks for it. Mutations of inputs are `copy_`
    nodes at the end of the graph. The halves are cut where the least memory has to be kept between them;
    `simplify_joint` sees the joint graph before the cut, and may change it in place. Floating-point numbers
    among the inputs that the backward needs are inputs of its own, the first ones (see `joint_floats`).
    `every_draw`: random calls whose results are not used stay in the graphs."""
    if any(isinstance(x, (list, tuple, dict)) for x in example_inputs):
        # compiled autograd and graphs with nested inputs: AOTAutograd wants a flat list

        def again(flat_gm: Any, flat_inputs: Sequence[Any]) -> Callable[..., Any]:
            return compile_functional(
                flat_gm,
                flat_inputs,
                forward=forward,
                backward=backward,
                inference=inference,
                simplify_joint=simplify_joint,
                decompositions=decompositions,
                backward_now=backward_now,
                every_draw=every_draw,
            )

        return flatten_graph_inputs(cast(Any, gm), example_inputs, again)

    def backward_untraced(bw_gm: GraphModule, inputs: Sequence[Any]) -> Any:
        return boxed(untraced(without_tokens(backward)(bw_gm, inputs)))

    def without_tokens(compiler: GraphCompiler) -> GraphCompiler:
        def compile_part(part: GraphModule, inputs: Sequence[Any]) -> BoxedFunction:
            drop_tokens(part)
            return compiler(part, inputs)

        return compile_part

    def partition(joint: GraphModule, inputs: Any, **kwargs: Any) -> tuple[GraphModule, GraphModule]:
        unused = unused_draws(joint) if every_draw else None
        with draws_may_go() if every_draw else nullcontext():
            halves = cut(joint, inputs, **kwargs)
        if unused is not None:
            restore_draws(unused, halves[0])
        return halves

    def cut(joint: GraphModule, inputs: Any, **kwargs: Any) -> tuple[GraphModule, GraphModule]:
        simplify_joint(joint)
        with floats_beside_the_cut(joint) as rejoin:
            # the partitioner's own search for common subexpressions would import TorchInductor
            with functorch_config.patch(cse=False):
                halves = min_cut_rematerialization_partition(joint, inputs, **kwargs)
            halves = rejoin(*halves)
        keep_as_they_were(*halves, kwargs["num_fwd_outputs"])
        return halves

    counters["aot_autograd"]["total"] += 1
    try:
        known: dict[str, Any] = {TOKENS_INSIDE: True}
        if hasattr(functorch_config, _BACKWARD_NOW):
            known[_BACKWARD_NOW] = backward_now
        if getattr(functorch_config, _BACKWARD_AUTOCAST, None) == "same_as_forward":
            known[_BACKWARD_AUTOCAST] = "off"
        draws = draws_kept() if every_draw else nullcontext()
        with functorch_config.patch(known), draws, differentiable_lstm():
            compiled = aot_module_simplified(
                cast(Any, gm),
                list(example_inputs),
                fw_compiler=cast(Any, without_tokens(forward)),
                # the backward may be compiled inside a compiled frame: Dynamo must trace neither that, from
                # the first line on, nor the result
                bw_compiler=cast(Any, untraced(backward_untraced)),
                inference_compiler=cast(Any, without_tokens(inference)),
                partition_fn=partition,
                decompositions=cast(Any, dict(decompositions)),
                keep_inference_input_mutations=True,
            )
    except BaseException:
        counters["aot_autograd"]["not_ok"] += 1
        raise
    counters["aot_autograd"]["ok"] += 1
    return compiled
