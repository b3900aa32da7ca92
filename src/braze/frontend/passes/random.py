"""Random operators become functions of (seed, position), which fuse like any other elementwise operator.

A graph draws its seeds from torch's generator in one call, so that `torch.manual_seed` reproduces; the
numbers are not eager's. What has no such form (`multinomial`, `randperm`, a generator given by the user)
stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch import schema
from braze._torch.devices import in_host_memory
from braze.frontend.passes.builder import NodeBuilder
from braze.ir import prims
from braze.lowering.refusals import refusal

__all__ = ["drop_certain", "run"]

aten = torch.ops.aten

# bits of a random fraction that the type holds exactly: rounding a longer one could give 1.0
_FRACTION_BITS = {torch.float16: 11, torch.bfloat16: 8}


def run(gm: GraphModule) -> bool:
    """Replace the random operators that have a form on seeds. Linear in the number of nodes."""
    found = [node for node in gm.graph.nodes if node.op == "call_function" and node.target in _REWRITES]
    draws = _Draws(gm)
    for node in found:
        arguments = schema.bind(node.target, node.args, node.kwargs)
        if arguments.get("generator") is not None or not _is_float_or_int_here(node):
            continue
        if refusal(node.target, *torch.fx.node.map_arg((node.args, node.kwargs), _value)) is not None:
            continue
        rewriter = _Rewriter(gm, node, draws)
        _REWRITES[node.target](rewriter, **arguments)
    draws.finish()
    return draws.count > 0


def drop_certain(gm: GraphModule) -> bool:
    """Replace the dropouts that drop everything: `dropout` of eager PyTorch draws no numbers for these, and
    the operator that it is traced as does."""
    found = gm.graph.find_nodes(op="call_function", target=aten.native_dropout.default)
    certain = [node for node in found if node.args[1] == 1 and node.args[2] is not False]
    for node in certain:
        rewriter = _Rewriter(gm, node, _Draws(gm))
        source: Any = node.args[0]
        keep = rewriter.call(aten.full.default, rewriter.sizes(source), False, dtype=torch.bool)
        rewriter.replace_results(rewriter.call(aten.mul.Tensor, source, 0.0), keep)
    return bool(certain)


def _value(node: Node) -> Any:
    return node.meta.get("val")


def _is_float_or_int_here(node: Node) -> bool:
    values = node.meta["val"]
    tensors = values if isinstance(values, (tuple, list)) else (values,)
    return all(in_host_memory(t) and not t.is_complex() for t in tensors)


class _Draws:
    """The seeds node of one graph, made when it is first needed."""

    def __init__(self, gm: GraphModule) -> None:
        self._gm = gm
        self._node: Node | None = None
        self.count = 0

    def take(self, for_node: Node) -> tuple[Node, int]:
        """The seeds and the number of the next one."""
        if self._node is None:
            first = next(n for n in self._gm.graph.nodes if n.op != "placeholder")
            builder = NodeBuilder(self._gm, for_node)
            self._node = builder.call(prims.seeds, 1)
            first.prepend(self._node)
        self.count += 1
        return self._node, self.count - 1

    def finish(self) -> None:
        if self._node is not None:
            self._node.args = (self.count,)
            meta = self._node.meta["val"]
            self._node.meta["val"] = meta.new_empty([self.count])


class _Rewriter:
    """The replacement of one random node, being built."""

    def __init__(self, gm: GraphModule, node: Node, draws: _Draws) -> None:
        self.node = node
        builder = NodeBuilder(gm, node)
        self.call, self.call_as, self.sizes = builder.call, builder.call_as, builder.sizes
        self._draws = draws
        self._graph = gm.graph

    def uniform(self, size: list[int | Node]) -> Node:
        return self.call(prims.rand, *self._draws.take(self.node), size)

    def normal(self, size: list[int | Node]) -> Node:
        return self.call(prims.randn, *self._draws.take(self.node), size)

    def integers(self, low: int, high: int, size: list[int | Node]) -> Node:
        seeds, index = self._draws.take(self.node)
        return self.call(prims.randint, seeds, index, low, high, size)

    def fraction(self, size: list[int | Node], dtype: torch.dtype) -> Node:
        """Uniform in [0, 1) in `dtype`, 1 excluded there too; 48 bits of it for float64."""
        r = self.uniform(size)
        if dtype is torch.float64:
            fine = self.call(aten.mul.Tensor, self.cast(self.uniform(size), dtype), 2.0**-24)
            return self.call(aten.add.Tensor, self.cast(r, dtype), fine)
        if dtype in _FRACTION_BITS:
            scale = 2.0 ** _FRACTION_BITS[dtype]
            r = self.call(aten.floor.default, self.call(aten.mul.Tensor, r, scale))
            r = self.call(aten.mul.Tensor, r, 1 / scale)
        return self.cast(r, dtype)

    def cast(self, node: Node, dtype: torch.dtype) -> Node:
        return (
            node if node.meta["val"].dtype is dtype else self.call(aten._to_copy.default, node, dtype=dtype)
        )

    def affine(self, node: Node, scale: Any, shift: Any) -> Node:
        return self.call(aten.add.Tensor, self.call(aten.mul.Tensor, node, scale), shift)

    def replace(self, node: Node) -> None:
        self.node.replace_all_uses_with(node)
        self._graph.erase_node(self.node)

    def replace_results(self, *results: Node) -> None:
        """For a node with several results, which its users pick by `getitem`."""
        for user in list(self.node.users):
            index: Any = user.args[1]
            user.replace_all_uses_with(results[index])
            self._graph.erase_node(user)
        self._graph.erase_node(self.node)


def _dtype(rewriter: _Rewriter) -> torch.dtype:
    dtype: torch.dtype = rewriter.node.meta["val"].dtype
    return dtype


def _rand(r: _Rewriter, size: list[int | Node], **_: Any) -> None:
    r.replace(r.fraction(size, _dtype(r)))


def _rand_like(r: _Rewriter, self: Node, **_: Any) -> None:
    r.replace(r.fraction(r.sizes(self), _dtype(r)))


def _randn(r: _Rewriter, size: list[int | Node], **_: Any) -> None:
    r.replace(r.cast(r.normal(size), _dtype(r)))


def _randn_like(r: _Rewriter, self: Node, **_: Any) -> None:
    r.replace(r.cast(r.normal(r.sizes(self)), _dtype(r)))


def _randint(r: _Rewriter, high: Any, size: list[int | Node], low: Any = 0, **_: Any) -> None:
    if isinstance(low, int) and isinstance(high, int):
        r.replace(r.cast(r.integers(low, high, size), _dtype(r)))


def _randint_like(r: _Rewriter, self: Node, high: Any, low: Any = 0, **_: Any) -> None:
    if isinstance(low, int) and isinstance(high, int):
        r.replace(r.cast(r.integers(low, high, r.sizes(self)), _dtype(r)))


def _bernoulli_p(r: _Rewriter, self: Node, p: Any, **_: Any) -> None:
    r.replace(r.cast(r.call(aten.lt.Scalar, r.uniform(r.sizes(self)), p), _dtype(r)))


def _bernoulli(r: _Rewriter, self: Node, **_: Any) -> None:
    p = r.call(prims.between, self, 0.0, 1.0, "Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    r.replace(r.cast(r.call(aten.lt.Tensor, r.uniform(r.sizes(self)), p), _dtype(r)))


def _native_dropout(r: _Rewriter, input: Node, p: Any, train: bool | None) -> None:
    size = r.sizes(input)
    if train is False or p == 0:
        keep = r.call(aten.full.default, size, True, dtype=torch.bool)
        r.replace_results(r.call(aten.clone.default, input), keep)
        return
    result, mask = r.node.meta["val"]
    keep = r.call_as(mask, aten.ge.Scalar, r.uniform(size), p)
    # a product with the mask, as in eager: NaN stays NaN where it is dropped
    kept = r.call_as(result, aten.mul.Tensor, input, keep)
    scale = 0.0 if p == 1 else 1.0 / (1.0 - p)
    r.replace_results(r.call_as(result, aten.mul.Tensor, kept, scale), keep)


def _normal(r: _Rewriter, mean: Any, std: Any, **arguments: Any) -> None:
    # with two numbers the shape is given, else it is that of the result: mean and deviation broadcast
    size = arguments.get("size")
    if size is None:
        size = list(r.node.meta["val"].shape)
        if not all(isinstance(s, int) for s in size):
            return
    if isinstance(std, Node) and isinstance(std.meta["val"], torch.Tensor):
        std = r.call(prims.between, std, 0.0, math.inf, "normal expects all elements of std >= 0.0")
    r.replace(r.cast(r.affine(r.normal(size), std, mean), _dtype(r)))


def _normal_functional(r: _Rewriter, self: Node, mean: float, std: float, **_: Any) -> None:
    r.replace(r.cast(r.affine(r.normal(r.sizes(self)), std, mean), _dtype(r)))


def _uniform(r: _Rewriter, self: Node, **arguments: Any) -> None:
    low, high = arguments["from"], arguments["to"]
    r.replace(r.affine(r.fraction(r.sizes(self), _dtype(r)), high - low, low))


def _exponential(r: _Rewriter, self: Node, lambd: float, **_: Any) -> None:
    # -log(1 - u) / lambda; u is never 1
    negative = r.call(aten.neg.default, r.uniform(r.sizes(self)))
    r.replace(r.cast(r.call(aten.mul.Tensor, r.call(aten.log1p.default, negative), -1 / lambd), _dtype(r)))


def _geometric(r: _Rewriter, self: Node, p: float, **_: Any) -> None:
    # the number of trials until success, at least 1
    negative = r.call(aten.neg.default, r.uniform(r.sizes(self)))
    trials = r.call(
        aten.mul.Tensor, r.call(aten.log1p.default, negative), 1 / math.log1p(-p) if p < 1 else 0.0
    )
    whole = r.call(aten.clamp.default, r.call(aten.ceil.default, trials), 1.0)
    r.replace(r.cast(whole, _dtype(r)))


def _log_normal(r: _Rewriter, self: Node, mean: float, std: float, **_: Any) -> None:
    r.replace(r.cast(r.call(aten.exp.default, r.affine(r.normal(r.sizes(self)), std, mean)), _dtype(r)))


def _cauchy(r: _Rewriter, self: Node, median: float, sigma: float, **_: Any) -> None:
    angle = r.affine(r.uniform(r.sizes(self)), math.pi, -math.pi / 2)
    r.replace(r.cast(r.affine(r.call(aten.tan.default, angle), sigma, median), _dtype(r)))


_REWRITES: dict[Any, Callable[..., None]] = {
    aten.rand.default: _rand,
    aten.rand_like.default: _rand_like,
    aten.randn.default: _randn,
    aten.randn_like.default: _randn_like,
    aten.randint.default: _randint,
    aten.randint.low: _randint,
    aten.randint_like.default: _randint_like,
    aten.randint_like.low_dtype: _randint_like,
    aten.bernoulli.default: _bernoulli,
    aten.bernoulli.p: _bernoulli_p,
    aten.native_dropout.default: _native_dropout,
    aten.normal.float_float: _normal,
    aten.normal.Tensor_float: _normal,
    aten.normal.float_Tensor: _normal,
    aten.normal.Tensor_Tensor: _normal,
    aten.normal_functional.default: _normal_functional,
    aten.uniform.default: _uniform,
    aten.exponential.default: _exponential,
    aten.geometric.default: _geometric,
    aten.log_normal.default: _log_normal,
    aten.cauchy.default: _cauchy,
}
