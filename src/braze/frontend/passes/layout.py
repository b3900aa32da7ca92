"""Memory format: convolutions read and write channels-last tensors, where that is the faster format.

oneDNN's kernels take channels-last images as they are; a contiguous one is reordered on the way in and on
the way out of every convolution. Weights are reordered for channels-last images, which costs more than it
gains where they are much larger than the image (measured: 1.1 to 1.9 times as fast for images of a quarter
of the weights' size and more, up to 4 times as slow for the last layers of a network on a single small
picture).

So the image of each convolution that gains is copied to channels-last, once, where it is not in that format
already; elementwise operators keep the format of what they read, so that in a chain of convolutions the
first copy alone remains. The strides of all later nodes follow; what leaves the graph is given the strides
that the trace promised.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch import schema, tracing
from braze._torch.devices import in_host_memory
from braze.frontend.passes.builder import NodeBuilder

__all__ = ["run"]

aten = torch.ops.aten

Undo = tuple[Node, Any, tuple[Any, ...], Any]
"""A node with its target, arguments and value as they were."""

MIN_CONVOLUTIONS = 3
"""Fewer do not pay for the copies at the ends."""

MIN_IMAGE_SHARE = 0.25
"""Elements of the image for each one of the weights."""

_IMAGES: dict[Any, tuple[int, ...]] = {
    aten.convolution.default: (0,),
    aten.convolution_backward.default: (0, 1),
}
"""Which arguments are images; the weights come after the last of them."""

_FIXED = frozenset({aten.as_strided.default, aten.as_strided_scatter.default, aten.as_strided_copy.default})
"""What depends on the strides of its argument."""


def run(gm: GraphModule) -> bool:
    """Insert the copies and compute later nodes' metadata again. Does nothing to graphs of few convolutions,
    or with symbolic sizes, or that look at strides."""
    nodes = list(gm.graph.nodes)
    convolutions = {n for n in nodes if n.target in _IMAGES and _suits(n)}
    if sum(map(_gains, convolutions)) < MIN_CONVOLUTIONS or any(
        n.target in _FIXED or schema.is_higher_order(n.target) for n in nodes
    ):
        return False
    mode = tracing.fake_mode_of([n.meta.get("val") for n in convolutions])
    if mode is None:
        return False
    tracing.keep_promised_strides(gm)
    undo: list[Undo] = []
    copies: dict[tuple[Node, torch.memory_format], Node] = {}
    changed: set[Node] = set()
    try:
        with mode:
            for node in nodes:
                if node.op != "call_function" or node.target is aten.copy_.default:
                    continue
                before = (node, node.target, node.args, node.meta.get("val"))
                if node in convolutions:
                    _choose_format(gm, node, convolutions, copies, changed, undo)
                if node.args != before[2] or not changed.isdisjoint(node.all_input_nodes):
                    undo.append(before)
                    if node.target is aten.view.default:
                        node.target = aten.reshape.default
                    if _recompute(node):
                        changed.add(node)
    except Exception:
        # An operator that refuses the other strides: the graph stays as it was.
        for node, target, args, value in reversed(undo):
            node.target, node.args, node.meta["val"] = target, args, value
        for copy in reversed(copies.values()):
            gm.graph.erase_node(copy)
        return False
    return bool(copies)


def _suits(node: Any) -> bool:
    """A two-dimensional convolution, not transposed, of known sizes."""
    images = [node.args[k] for k in (*_IMAGES[node.target], _IMAGES[node.target][-1] + 1)]
    transposed = node.args[6] if node.target is aten.convolution.default else node.args[7]
    for image in images:
        value = image.meta.get("val") if isinstance(image, Node) else None
        if not isinstance(value, torch.Tensor) or value.ndim != 4 or not in_host_memory(value):
            return False
        if any(not isinstance(n, int) for n in value.shape):
            return False
    return not transposed


def _gains(node: Any) -> bool:
    """Whether channels-last is the faster format for a convolution."""
    image, weight = (
        node.args[k].meta["val"] for k in (_IMAGES[node.target][-1], _IMAGES[node.target][-1] + 1)
    )
    if all(n == 1 for n in weight.shape[2:]):
        return True
    return bool(image.numel() >= MIN_IMAGE_SHARE * weight.numel())


def _choose_format(
    gm: GraphModule,
    node: Any,
    convolutions: set[Node],
    copies: dict[tuple[Node, torch.memory_format], Node],
    changed: set[Node],
    undo: list[Undo],
) -> None:
    """Have a convolution read its images in the format that is faster for it."""
    gains = _gains(node)
    wanted = torch.channels_last if gains else torch.contiguous_format
    for position in _IMAGES[node.target]:
        image = node.args[position]
        assert isinstance(image, Node)
        if not gains and image not in changed:
            continue  # the format is the program's own
        if image.meta["val"].is_contiguous(memory_format=wanted):
            continue
        if gains and image.target is aten.cat.default and set(image.users) <= convolutions:
            # Nobody else sees it, so it is put together in this format.
            undo.append((image, image.target, image.args, image.meta["val"]))
            image.meta["val"] = torch.empty_like(image.meta["val"], memory_format=wanted)
            changed.add(image)
            continue
        if (image, wanted) not in copies:
            builder = NodeBuilder(gm, node)
            copies[image, wanted] = builder.call(aten.clone.default, image, memory_format=wanted)
        node.update_arg(position, copies[image, wanted])


def _recompute(node: Node) -> bool:
    """Compute the node's metadata again; whether a stride is another."""
    args: Any = torch.fx.map_arg(node.args, lambda n: n.meta["val"])
    kwargs: Any = torch.fx.map_arg(node.kwargs, lambda n: n.meta["val"])
    old = node.meta.get("val")
    target: Any = node.target
    new = args[0][args[1]] if target is operator.getitem else target(*args, **kwargs)
    node.meta["val"] = new
    return _strides(old) != _strides(new)


def _strides(value: Any) -> list[tuple[int, ...]]:
    if isinstance(value, torch.Tensor):
        return [tuple(value.stride())]
    if isinstance(value, (tuple, list)):
        return [s for v in value for s in _strides(v)]
    return []
