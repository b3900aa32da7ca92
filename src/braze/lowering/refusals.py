"""Calls that eager PyTorch refuses on CPU, though the operator's fake version accepts them.

A fake version knows the shapes and types of results; that a kernel lacks a type, or wants a parameter to be
positive, often only the kernel knows. Who computes such a call in another way would give numbers where eager
gives an error. So a call that is found here is neither decomposed nor lowered: eager PyTorch runs it, and
raises what it raises. A rule that is too wide costs time, never a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from braze._torch.devices import in_host_memory
from braze._torch.schema import bind, is_operator
from braze._torch.shapes import true_if_known
from braze.lowering import refusal_rules as rules
from braze.lowering.kernel_dtypes import FIRST, PROMOTED

__all__ = ["SIZED", "refusal"]

aten = torch.ops.aten


def refusal(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], holds: rules.Question = true_if_known
) -> str | None:
    """Why eager PyTorch may refuse this call of an operator; None where it does not, as far as is known.
    ``holds`` answers what depends on symbolic sizes; while tracing it may guard them."""
    if not is_operator(target):
        return None
    packet = target.overloadpacket
    found = RULES.get(packet, ())
    if not found and packet not in FIRST and packet not in PROMOTED:
        return None
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    if not all(map(in_host_memory, tensors)):
        return None
    reason = _lacking(packet, tensors)
    if reason is None and found:
        arguments = rules.Arguments(bind(target, args, dict(kwargs)), holds)
        reason = next((f"eager PyTorch refuses {why}" for rule in found if (why := rule(arguments))), None)
    return reason


def _lacking(packet: Any, tensors: Sequence[Tensor]) -> str | None:
    """That the kernel has no version for the type in which it would compute."""
    if not tensors:
        return None
    dtype, accepted = tensors[0].dtype, FIRST.get(packet)
    if accepted is None:
        accepted = PROMOTED.get(packet)
        for t in tensors[1:]:
            dtype = torch.promote_types(dtype, t.dtype)
    if accepted is None or dtype in accepted:
        return None
    return f"eager PyTorch has no kernel of it for {dtype}"


RULES: Mapping[Any, tuple[rules.Rule, ...]] = {
    # numbers that are stored
    aten.full: (rules.held("fill_value", by=rules.of_result),),
    aten.full_like: (rules.held("fill_value", by=rules.of_result),),
    aten.new_full: (rules.held("fill_value", by=rules.of_result),),
    aten.fill: (rules.held("value", by=rules.of_input),),
    aten.scalar_tensor: (rules.held("s", by=rules.of_result),),
    aten.masked_fill: (rules.held("value", by=rules.of_input),),
    aten.index_fill: (rules.held("value", by=rules.of_input), rules.typed("index", torch.int64)),
    aten.scatter: (rules.held("value", by=rules.of_input), rules.typed("index", torch.int64, torch.int32)),
    aten.scatter_add: (rules.typed("index", torch.int64, torch.int32), rules.differing("self", "src")),
    aten.scatter_reduce: (
        rules.typed("index", torch.int64, torch.int32),
        rules.differing("self", "src"),
        rules.boolean_mean,
    ),
    aten.constant_pad_nd: (rules.held("value", by=rules.of_input),),
    aten.where: (rules.held("other", "self", by=rules.beside),),
    # numbers that are computed with
    aten.clamp: (rules.held("min", "max", by=rules.promoted),),
    aten.clamp_min: (rules.held("min", by=rules.promoted),),
    aten.clamp_max: (rules.held("max", by=rules.promoted),),
    aten.hardtanh: (rules.held("min_val", "max_val", by=rules.of_input),),
    aten.threshold: (rules.held("value", by=rules.of_input), rules.held("threshold", by=rules.computed)),
    aten.hardshrink: (rules.held("lambd", by=rules.of_input),),
    aten.softshrink: (rules.held("lambd", by=rules.of_input), rules.outside("lambd", 0)),
    aten.add: (rules.held("alpha", by=rules.promoted),),
    aten.sub: (rules.held("alpha", by=rules.promoted), rules.booleans),
    aten.rsub: (rules.held("alpha", by=rules.promoted), rules.booleans),
    aten.pow: (rules.held("exponent", by=rules.promoted), rules.negative_power, rules.boolean_power),
    aten.addcmul: (rules.held("value", by=rules.computed),),
    aten.addcdiv: (rules.held("value", by=rules.computed),),
    aten.lerp: (rules.held("weight", by=rules.computed), rules.differing("self", "end", "weight")),
    aten.elu: (rules.held("alpha", "scale", "input_scale", by=rules.computed),),
    aten.celu: (rules.held("alpha", by=rules.computed), rules.when("alpha", lambda v: v == 0)),
    aten.softplus: (rules.held("beta", "threshold", by=rules.computed),),
    aten.logit: (rules.held("eps", by=rules.of_input),),
    aten.addmv: (
        rules.held("alpha", "beta", by=rules.of_input),
        rules.differing("self", "mat", "vec"),
        rules.addmv_sizes,
    ),
    aten.addr: (rules.held("alpha", "beta", by=rules.of_input),),
    # ranges
    aten.smooth_l1_loss: (rules.outside("beta", 0),),
    aten.huber_loss: (rules.not_above("delta", 0),),
    aten.bernoulli: (rules.outside("p", 0, 1), rules.bernoulli_of_integers),
    aten.native_dropout: (rules.outside("p", 0, 1),),
    aten.normal: (rules.outside("std", 0),),
    aten.normal_functional: (rules.outside("std", 0),),
    aten.exponential: (rules.not_above("lambd", 0),),
    aten.geometric: (rules.when("p", lambda v: not 0 < v < 1),),
    aten.log_normal: (rules.not_above("std", 0),),
    aten.cauchy: (rules.not_above("sigma", 0),),
    aten.uniform: (rules.empty_range,),
    aten.rand: (rules.of_no_floats,),
    aten.randn: (rules.of_no_floats,),
    aten.randint: (rules.integers_beyond,),
    aten.randint_like: (rules.integers_beyond,),
    aten.arange: (rules.counting_in_bool,),
    aten.linspace: (rules.counting_in_bool,),
    aten.logspace: (rules.counting_in_bool,),
    # types that go together
    aten.mv: (rules.differing("self", "vec"),),
    aten.dot: (rules.differing("self", "tensor"),),
    aten.vdot: (rules.differing("self", "other"),),
    aten.linalg_cross: (rules.differing("self", "other"),),
    aten.heaviside: (rules.differing("self", "values"),),
    aten.ldexp: (lambda a: "exponents that are booleans" if a["other"].dtype is torch.bool else None,),
    aten.binary_cross_entropy: (rules.differing("self", "target", "weight"),),
    aten.native_layer_norm: (rules.mixed_norm,),
    aten.native_group_norm: (rules.mixed_norm, rules.group_sizes),
    **dict.fromkeys(rules.BATCH_NORMS, (rules.mixed_norm,)),
    # indices and targets
    aten.nll_loss_forward: (
        rules.typed("target", torch.int64, torch.uint8),
        rules.targets,
        rules.differing("self", "weight"),
    ),
    aten.nll_loss2d_forward: (
        rules.typed("target", torch.int64, torch.uint8),
        rules.targets,
        rules.differing("self", "weight"),
    ),
    aten.index_select: (rules.typed("index", torch.int64, torch.int32), rules.one_index),
    aten.index_add: (
        rules.held("alpha", by=rules.of_input),
        rules.typed("index", torch.int64, torch.int32),
        rules.differing("self", "source"),
        rules.added_rows,
    ),
    aten.index_copy: (rules.typed("index", torch.int64), rules.differing("self", "source")),
    aten.index_reduce: (
        rules.typed("index", torch.int64, torch.int32),
        rules.differing("self", "source"),
        rules.added_rows,
        rules.reduced_kind,
    ),
    aten.put: (
        rules.typed("index", torch.int64),
        rules.differing("self", "source"),
        rules.put_elements,
    ),
    aten.gather: (rules.typed("index", torch.int64, torch.int32),),
    aten.take: (rules.typed("index", torch.int64),),
    aten.embedding: (rules.typed("indices", torch.int64, torch.int32),),
    aten.nonzero_static: (lambda a: "a negative size" if a.holds(a["size"] < 0) else None,),
    aten.segment_reduce: (rules.segments,),
    # bins
    aten.histc: (rules.when("bins", lambda v: v <= 0), rules.span_of_bins),
    **dict.fromkeys(
        (
            aten.histogram,
            aten._histogramdd_bin_edges,
            aten._histogramdd_from_bin_cts,
            aten._histogramdd_from_bin_tensors,
        ),
        (rules.grid_of_bins,),
    ),
    # parts
    aten.diagonal_scatter: (rules.slice_sizes(rules.diagonal),),
    aten.select_scatter: (rules.selected_index, rules.slice_sizes(rules.selected)),
    aten.slice_scatter: (rules.slice_sizes(rules.sliced),),
    aten.index_put: (rules.stored_values,),
    aten._unsafe_index_put: (rules.stored_values,),
    **dict.fromkeys(rules.PADDING_GRADIENTS, (rules.differing("grad_output", "self"),)),
    aten.embedding_dense_backward: (rules.looked_up,),
    aten.affine_grid_generator: (rules.affine_sizes,),
    aten.grid_sampler_2d: (rules.differing("input", "grid"), rules.grid),
    aten.grid_sampler_3d: (rules.differing("input", "grid"), rules.grid),
    aten.searchsorted: (rules.side,),
    aten.mvlgamma: (rules.when("p", lambda v: v < 1),),
    aten._embedding_bag: (rules.differing("weight", "per_sample_weights"),),
    aten._embedding_bag_forward_only: (rules.differing("weight", "per_sample_weights"),),
    aten.new_empty_strided: (rules.negative_strides,),
    aten.empty_strided: (rules.negative_strides,),
}

SIZED: tuple[Any, ...] = (
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.scatter.value,
    aten.index_add.default,
    aten.index_reduce.default,
    aten.index_put.default,
    aten.diagonal_scatter.default,
    aten.select_scatter.default,
    aten.slice_scatter.default,
    aten.nll_loss_forward.default,
    aten.nll_loss2d_forward.default,
)
"""Operators whose rules ask of sizes, and which are not decomposed."""
