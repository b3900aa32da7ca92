"""What AOTAutograd found out about a function while it traced it, as plain data.

AOTAutograd keeps it on the running trace while the parts are compiled. Its own form is full of fake tensors
and changes between versions of PyTorch; what is read here is enough to build the call around compiled graphs
(`braze.artifact.call_spec`). What is there and is not understood is a reason, given as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._functorch._aot_autograd.schemas import MutationType, OutputType
from torch._guards import TracingContext

from braze.dtypes import torch_name
from braze.errors import Refused

__all__ = [
    "CallFacts",
    "InputFacts",
    "OutputFacts",
    "TangentFacts",
    "call_facts",
    "guards_of_aot",
    "is_split_by_ddp",
    "written_inputs",
]


@dataclass(frozen=True)
class InputFacts:
    """One input. ``written``: the graph writes to it, where autograd sees it if ``seen``. ``copied_back``: it
    gets a new value after the graph ran."""

    leaf: bool
    requires_grad: bool
    written: bool
    seen: bool
    copied_back: bool


@dataclass(frozen=True)
class OutputFacts:
    """One output. ``kind`` is ``fresh``, ``hidden_view``, ``input``, ``alias``, ``result_alias`` (its base is
    one of the extra results) or ``output_alias`` (its base is another output)."""

    kind: str
    base: int | None
    requires_grad: bool
    is_tensor: bool
    tangent: bool
    dynamic: tuple[int, ...]


@dataclass(frozen=True)
class TangentFacts:
    """The layout that a gradient must have: sizes and strides in elements, or a memory format by name."""

    sizes: tuple[int, ...] | None
    strides: tuple[int, ...] | None
    memory_format: str | None


@dataclass(frozen=True)
class CallFacts:
    """A whole function. ``bases``: extra results that views are made of. ``unchecked`` and ``numbers`` count
    what the forward keeps for the backward after the tensors whose version is checked. ``tangents`` are in
    the backward's order: inputs that are copied back, outputs, bases, each where it is differentiable."""

    inputs: tuple[InputFacts, ...]
    outputs: tuple[OutputFacts, ...]
    bases: int
    tangents: tuple[TangentFacts, ...]
    unchecked: int
    numbers: int
    grad_mode: bool | None
    deterministic: bool


_KINDS = {
    "non_alias": "fresh",
    "custom_function_view": "fresh",
    "unsafe_view_alias": "hidden_view",
    "is_input": "input",
    "alias_of_input": "alias",
    "alias_of_intermediate": "result_alias",
    "alias_of_intermediate_save_as_output": "result_alias",
    "alias_of_intermediate_base_is_user_output": "output_alias",
}


def call_facts() -> CallFacts:
    """The facts of the function that is being compiled. To be called while a forward or inference graph is
    being compiled. Raises `Refused` where they cannot be told."""
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None:
        raise Refused("AOTAutograd told nothing of the function")
    try:
        return _call_facts(metadata)
    except AttributeError as error:
        raise Refused(f"AOTAutograd's notes are not as they are expected to be: {error}") from None


def _call_facts(metadata: Any) -> CallFacts:
    for reason in _strange(metadata):
        raise Refused(reason)
    return CallFacts(
        inputs=tuple([_input(info) for info in metadata.input_info]),
        outputs=tuple([_output(info) for info in metadata.output_info]),
        bases=metadata.num_intermediate_bases,
        tangents=tuple([_tangent(meta) for meta in metadata.subclass_tangent_meta]),
        unchecked=getattr(metadata, "num_tensors_saved_with_no_vc_check", None) or 0,
        numbers=metadata.num_symints_saved_for_bw or 0,
        grad_mode=metadata.grad_enabled_mutation,
        deterministic=bool(metadata.deterministic),
    )


def _strange(metadata: Any) -> Iterator[str]:
    """What the call around the graphs would have to know and does not."""
    if metadata.tokens or getattr(metadata, "num_backward_tokens", 0):
        yield "it has effects whose order is kept by tokens"
    if metadata.is_rng_op_functionalized or getattr(metadata, "num_graphsafe_rng_states", 0):
        yield "the state of a random generator is passed through it"
    if getattr(metadata, "num_opaque_objects_saved_for_bw", 0):
        yield "it keeps objects for the backward that are not tensors"
    if getattr(metadata, "act_input_indices", None):
        yield "an input is the result of an asynchronous collective"
    if any(s is not None for s in getattr(metadata, "mutated_inp_stream_indices", None) or ()):
        yield "it writes to inputs on streams of their own"
    if metadata.indices_of_inputs_that_requires_grad_with_mutations_in_bw:
        yield "its backward writes to inputs that require gradients"
    if any(not _is_plain(m) for m in (*metadata.subclass_inp_meta, *metadata.subclass_fw_graph_out_meta)):
        yield "its inputs or outputs are tensor subclasses"
    for i, info in enumerate(metadata.input_info):
        if info.mutates_metadata or info.mutates_storage_metadata:
            yield f"it changes the sizes, strides or storage of input {i}"
        if getattr(info, "mutation_inductor_storage_resize", False):
            yield f"it resizes the storage of input {i}"
    for i, info in enumerate(metadata.output_info):
        if info.output_type.name not in _KINDS:
            yield f"output {i} is of a kind that is not known ({info.output_type.name})"


def _is_plain(meta: Any) -> bool:
    return isinstance(meta, int) or type(meta).__name__ == "PlainTensorMeta"


def _input(info: Any) -> InputFacts:
    written = info.mutation_type == MutationType.MUTATED_IN_GRAPH
    return InputFacts(
        leaf=info.is_leaf,
        requires_grad=info.requires_grad,
        written=written,
        seen=written and not info.mutations_hidden_from_autograd,
        copied_back=info.mutation_type == MutationType.MUTATED_OUT_GRAPH,
    )


def _output(info: Any) -> OutputFacts:
    is_tensor = issubclass(info.raw_type, torch.Tensor)
    own = info.output_type in (
        OutputType.non_alias,
        OutputType.unsafe_view_alias,
        OutputType.custom_function_view,
    )
    differentiable = getattr(info, "requires_grad_for_backward", info.requires_grad)
    return OutputFacts(
        kind=_KINDS[info.output_type.name],
        base=info.base_idx,
        requires_grad=info.requires_grad,
        is_tensor=is_tensor,
        tangent=own and is_tensor and differentiable,
        dynamic=tuple(sorted(info.dynamic_dims or ())),
    )


def _tangent(meta: Any) -> TangentFacts:
    layout = getattr(meta, "memory_format", None)
    if not _is_plain(meta) or layout is None:
        raise Refused("a gradient that comes in is not a plain tensor")
    if isinstance(layout, torch.memory_format):
        return TangentFacts(None, None, torch_name(layout))
    if layout.memory_format is not None:
        return TangentFacts(None, None, torch_name(layout.memory_format))
    if not _plain_numbers(layout.size) or not _plain_numbers(layout.stride):
        raise Refused("a gradient that comes in has symbolic strides")
    return TangentFacts(tuple(layout.size), tuple(layout.stride), None)


def _plain_numbers(values: Sequence[Any] | None) -> bool:
    return values is not None and all(type(v) is int for v in values)


def written_inputs() -> tuple[bool, ...] | None:
    """For each input of the function that is being compiled, as AOTAutograd passes them to its parts, whether
    it is written to; None where that is not known. To be called while a forward or inference graph is being
    compiled."""
    context = TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None:
        return None
    return tuple([info.mutation_type != MutationType.NOT_MUTATED for info in metadata.input_info])


def guards_of_aot() -> int:
    """How many guards of its own AOTAutograd has added to the running trace: on inputs being the same
    tensor, or overlapping."""
    context = TracingContext.try_get()
    return 0 if context is None else len(context.guards_context.aotautograd_guards)


def is_split_by_ddp() -> bool:
    """Whether the graph that is being compiled is one of several that Dynamo's DDP optimizer made of one: it
    calls what it got with fake tensors first, and looks at what AOTAutograd left behind."""
    context = TracingContext.try_get()
    return context is not None and bool(
        getattr(context, "fakify_first_call", False) or getattr(context, "ddp_optimizer_ctx", None)
    )
