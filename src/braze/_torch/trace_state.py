"""What AOTAutograd's tracing depends on besides the graph: the inputs as the trace sees them, the state of
the process and of the thread, and settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch._dynamo import compiled_autograd
from torch._dynamo import config as dynamo_config
from torch._functorch import config as functorch_config
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.fx import GraphModule, Node
from torch.fx.experimental import _config as shape_config
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from braze._torch import shapes
from braze._torch.native import storage_id
from braze.errors import Refused

__all__ = [
    "GraphInput",
    "TensorFacts",
    "autocast_enabled",
    "graph_inputs",
    "obstacles",
    "own_tensors",
    "settings",
    "shape_settings",
    "state",
    "traced_env",
    "untraceable_symbols",
]


@dataclass(frozen=True)
class TensorFacts:
    """A tensor as the trace found it. Sizes, strides and offset in elements may be symbolic. ``storage`` is
    equal for tensors that share one. ``base`` is set where it is a view that autograd knows of."""

    kind: str
    dtype: torch.dtype
    device: torch.device
    sizes: tuple[Any, ...]
    strides: tuple[Any, ...]
    offset: Any
    flags: tuple[str, ...]
    storage: int
    base: TensorFacts | None


@dataclass(frozen=True)
class GraphInput:
    """One input of Dynamo's graph: a tensor, or else a (symbolic) integer. ``static`` says how far its
    address is the same at every call; ``reason`` why it cannot be described."""

    tensor: TensorFacts | None = None
    number: Any = None
    static: str | None = None
    reason: str | None = None


_KINDS = frozenset({torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor})
_AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")
_KERNELS_OF_PYTORCH = frozenset(
    {"Meta", "CUDA", "MPS", "XPU", "PythonTLSSnapshot", "FuncTorchDynamicLayerFrontMode"}
)
"""Dispatch keys for which PyTorch itself registers kernels of ATen operators from Python: other devices', and
what only stands in front of the others."""
_PYTORCH = Path(torch.__file__).parent


def own_tensors(gm: GraphModule) -> dict[str, torch.Tensor]:
    """The parameters and buffers that a graph holds itself, by name, in the order in which AOTAutograd puts
    them before the other inputs."""
    parameters = dict(gm.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(gm.named_buffers(remove_duplicate=False))}


def graph_inputs(gm: GraphModule, example_inputs: Sequence[Any]) -> Iterator[GraphInput]:
    """The inputs of a graph, its own tensors first, in order. Fewer where the arguments do not belong
    together."""
    for tensor in own_tensors(gm).values():
        yield _own_input(tensor)
    for node, example in zip(gm.graph.find_nodes(op="placeholder"), example_inputs, strict=False):
        yield _graph_input(node, example)


def _graph_input(node: Node, example: Any) -> GraphInput:
    traced = node.meta.get("example_value")
    static = (node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type")
    if isinstance(example, (int, torch.SymInt)) and not isinstance(example, bool):
        return GraphInput(number=example if traced is None else traced)
    if not isinstance(example, torch.Tensor):
        return GraphInput(reason=f"is a {type(example).__name__}")
    if not isinstance(traced, FakeTensor):
        return GraphInput(reason="was not traced")
    try:
        facts = _plain(example)
    except Refused as refusal:
        return GraphInput(reason=refusal.reason)
    if not _has_symbols(traced):
        # Dynamo's own fake tensor went through the function, which may have changed its sizes
        return GraphInput(tensor=facts, static=static)
    symbolic = (tuple(traced.shape), tuple(traced.stride()), traced.storage_offset())
    if _hints(symbolic) != _hints((facts.sizes, facts.strides, facts.offset)):
        return GraphInput(reason="has sizes that the function changes")
    sizes, strides, offset = symbolic
    return GraphInput(tensor=replace(facts, sizes=sizes, strides=strides, offset=offset), static=static)


def _own_input(tensor: torch.Tensor) -> GraphInput:
    try:
        return GraphInput(tensor=_plain(tensor), static="own")
    except Refused as refusal:
        return GraphInput(reason=refusal.reason)


def _plain(tensor: torch.Tensor) -> TensorFacts:
    if type(tensor) not in _KINDS:
        raise Refused(f"is a tensor subclass, {type(tensor).__name__}")
    if tensor.layout is not torch.strided:
        raise Refused(f"has the layout {tensor.layout}")
    return _tensor(tensor, "Parameter" if isinstance(tensor, torch.nn.Parameter) else "Tensor")


def _has_symbols(tensor: torch.Tensor) -> bool:
    return not all(type(n) is int for n in (*tensor.shape, *tensor.stride(), tensor.storage_offset()))


def _hints(layout: tuple[tuple[Any, ...], tuple[Any, ...], Any]) -> list[int | None]:
    sizes, strides, offset = layout
    return [shapes.hint(n) for n in (*sizes, *strides, offset)]


def _tensor(tensor: torch.Tensor, kind: str, depth: int = 0) -> TensorFacts:
    flags = [name for name, on in _flags(tensor) if on]
    base = None
    if tensor._is_view() and tensor._base is not None and depth == 0:
        base = _tensor(tensor._base, "base", 1)
        flags.append(str(torch._C._autograd._get_creation_meta(tensor)))
    return TensorFacts(
        kind=kind,
        dtype=tensor.dtype,
        device=tensor.device,
        sizes=tuple(tensor.shape),
        strides=tuple(tensor.stride()),
        offset=tensor.storage_offset(),
        flags=tuple(flags),
        storage=storage_id(tensor),
        base=base,
    )


def _flags(tensor: torch.Tensor) -> Iterator[tuple[str, bool]]:
    yield "requires_grad", tensor.requires_grad
    yield "leaf", tensor.is_leaf
    yield "inference", tensor.is_inference()
    yield "conj", tensor.is_conj()
    yield "neg", tensor.is_neg()


def autocast_enabled() -> bool:
    """Whether autocast is on in this thread, for any device."""
    return bool(torch._C._is_any_autocast_enabled())


def obstacles() -> Iterator[str]:
    """Why what is going on in this thread cannot be described; nothing where it can."""
    running = compiled_autograd.in_compiled_autograd_region or compiled_autograd.compiled_autograd_enabled
    if running or dynamo_config.compiled_autograd:
        yield "compiled autograd is on"
    if torch._C._len_torch_dispatch_stack():
        yield "a torch dispatch mode is active"
    if torch._C._len_torch_function_stack():
        yield "a torch function mode is active"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        yield "a functorch transform is active"
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        yield "hooks for saved tensors are set"
    override = next(filter(None, map(_override, _registered_kernels())), None)
    if override is not None:
        yield f"somebody registered kernels for ATen operators: {override}"
    if forward_ad._current_level >= 0:
        yield "forward-mode differentiation is on"
    listed = any(torch.is_autocast_enabled(device) for device in _AUTOCAST_DEVICES)
    if autocast_enabled() and not listed:
        yield "autocast is on for a device that is not known"


def _registered_kernels() -> Iterable[str]:
    """Kernels that were registered from Python, as ``namespace/operator/dispatch key``."""
    return tuple(torch.library._impls)


def _override(name: str) -> str | None:
    """Which operator a kernel is for and where it was registered; None where that cannot change a trace, or
    PyTorch itself did it (`torch.func` does when it is first used)."""
    if not name.startswith("aten/") or name.rpartition("/")[2] in _KERNELS_OF_PYTORCH:
        return None
    _, operator, key = name.split("/")
    place = _place_of_kernel(operator, key)
    return None if _is_pytorchs(place) else f"aten::{operator} in {place or 'a place that is not known'}"


def _place_of_kernel(operator: str, key: str) -> str:
    """The file and line in which the running kernel was registered, as the dispatcher prints it."""
    running = f"{key}: ", f"{key}[alias]: "
    for line in torch._C._dispatch_dump(f"aten::{operator}").splitlines():
        if line.startswith(running):
            return line.partition(" registered at ")[2].partition(" :: ")[0]
    return ""


def _is_pytorchs(place: str) -> bool:
    path = Path(place.rpartition(":")[0])
    if not path.is_relative_to(_PYTORCH):
        return False
    # what is registered for others is registered there
    return path.relative_to(_PYTORCH).parts[0] not in ("library.py", "_library", "_custom_op")


def state() -> Iterator[tuple[str, str]]:
    """What tracing reads of the process and of the thread, by name."""
    yield "grad_mode", str(torch.is_grad_enabled())
    yield "inference_mode", str(torch.is_inference_mode_enabled())
    yield "anomaly_mode", str(torch.is_anomaly_enabled())
    for device in _AUTOCAST_DEVICES:
        on = torch.is_autocast_enabled(device)
        yield f"autocast_{device}", str(torch.get_autocast_dtype(device)) if on else "off"
    yield "autocast_cache", str(torch.is_autocast_cache_enabled())
    yield "default_dtype", str(torch.get_default_dtype())
    yield "default_device", str(torch.get_default_device())
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield "deterministic", f"{deterministic} {torch.is_deterministic_algorithms_warn_only_enabled()}"
    yield "fill_uninitialized", str(torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]
    yield "matmul_precision", torch.get_float32_matmul_precision()
    yield "mkldnn", str(torch._C._get_mkldnn_enabled())
    einsum = torch.backends.opt_einsum  # the order of its products
    yield "einsum", f"{einsum.is_available() and einsum.enabled} {einsum.strategy}"
    attention = torch.backends.cuda  # these switches hold for CPUs too
    yield (
        "attention",
        f"flash={attention.flash_sdp_enabled()} efficient={attention.mem_efficient_sdp_enabled()} "  # type: ignore[no-untyped-call]
        f"math={attention.math_sdp_enabled()}",  # type: ignore[no-untyped-call]
    )


def settings() -> str | None:
    """The settings of AOTAutograd and its partitioner, one on each line; None where one is an object without
    a printed form, such as a pass of the user's own."""
    return _printed(functorch_config)


def shape_settings() -> str | None:
    """The settings of symbolic shapes, likewise."""
    return _printed(shape_config)


def _printed(module: Any) -> str | None:
    values = cast("dict[str, Any]", module.save_config_portable())
    if not all(_is_plain(value) for value in values.values()):
        return None
    return "\n".join(f"{name}={value!r}" for name, value in sorted(values.items()))


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def traced_env() -> ShapeEnv | None:
    """The ShapeEnv of the running trace."""
    context = TracingContext.try_get()
    return None if context is None or context.fake_mode is None else context.fake_mode.shape_env


def untraceable_symbols(env: ShapeEnv) -> str | None:
    """Why a key cannot say what is known of the trace's symbols: some stand for data."""
    if env.deferred_runtime_asserts:
        return "sizes depend on data"
    for symbol in env.var_to_range:
        if env.is_unbacked_symint(symbol):
            return "sizes depend on data"
    return None
