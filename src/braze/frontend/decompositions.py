"""Which ATen operators are taken apart before lowering, and which are kept whole.

The table starts from PyTorch's for its core operator set. What is added takes more apart, down to a small
set of operators with lowerings; Braze's own decompositions (`braze.frontend.decomps`) replace PyTorch's
where a form that fuses better exists. `KEPT` lists what PyTorch would take apart and Braze keeps whole, and
why."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from braze import notices
from braze._torch import decomps as torch_decomps
from braze._torch.provenance import current_source
from braze._torch.shapes import decides_by_data, is_of_tracing, true_or_guard
from braze._torch.tracing import untraced_values
from braze.compile.failing import described
from braze.config import Config
from braze.errors import BrazeError, FallbackError
from braze.extensions.registry import Extension, registered_decompositions
from braze.frontend.decomps import (
    activations,
    elementwise,
    foreach,
    indexing,
    layouts,
    losses,
    norms,
    reductions,
    sampling,
)
from braze.frontend.decomps.common import Decomposition, Table
from braze.lowering.refusals import SIZED, refusal

__all__ = ["KEPT", "decompositions", "takes_apart"]

aten = torch.ops.aten

KEPT: Mapping[str, str] = {
    "scaled_dot_product_attention": "it chooses between attention kernels, one of which is the next one",
    "_scaled_dot_product_flash_attention_for_cpu": "never materialises the scores; its backward counts on it",
    "index_select": "it refuses negative indices, which `index` would count from the end",
    "index_add": "the same, and it raises RuntimeError where `index_put` raises IndexError",
    "index_copy": "the same",
    "nll_loss_forward": "it raises IndexError where the `gather` that it becomes raises RuntimeError",
    "nll_loss2d_forward": "the same",
    "max_unpool2d": "it raises RuntimeError where the `index_put` that it becomes raises IndexError",
    "max_unpool3d": "the same",
    "bernoulli": "the pass that draws for it checks its probabilities",
    "binary_cross_entropy": "it checks that probabilities lie between 0 and 1, which only its lowering can",
    "addcmul": "its product and its sum are rounded once, as in eager's kernel",
    "lerp": "the same",
    "baddbmm": "one call with its scale and addend, instead of a product and two passes over it",
    "select_scatter": "its result has the strides of its argument, gaps included, and its lowering is a copy",
    "std": "it is computed in float64, so that no square overflows",
    "std_mean": "the same",
    "_chunk_cat": "made for collectives, which take it whole",
}

_ALSO = (
    # normalisation: their statistics and their elementwise part fuse
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional,
    aten._native_batch_norm_legit_no_training,
    aten._batch_norm_with_update,
    aten._batch_norm_with_update_functional,
    aten._batch_norm_no_update,
    aten.native_batch_norm,
    aten.batch_norm_backward,
    # resampling becomes indexed loads and arithmetic
    aten._adaptive_avg_pool2d,
    aten.upsample_bilinear2d,
    aten.upsample_nearest2d,
    aten.upsample_trilinear3d,
    aten.upsample_bicubic2d,
    aten.grid_sampler_2d,
    # views and copies with a longer name
    aten.repeat,
    aten.narrow_copy,
    aten.permute_copy,
    aten.view_copy,
    aten.as_strided_copy,
    aten.unbind_copy,
    aten.tril_indices,
    aten.triu_indices,
    # arithmetic
    aten.addmv,
    aten._addmm_activation,
    aten.alpha_dropout,
    aten.dist,
    aten.linalg_vector_norm,
    aten.rrelu_with_noise_backward,
)

_format, _elementwise, _promoted = layouts.format_of, layouts.elementwise, layouts.promoted

_BINARY = (
    aten.add.Tensor,
    aten.atan2.default,
    aten.bitwise_and.Tensor,
    aten.bitwise_left_shift.Tensor,
    aten.bitwise_or.Tensor,
    aten.bitwise_right_shift.Tensor,
    aten.bitwise_xor.Tensor,
    aten.clamp_max.Tensor,
    aten.clamp_min.Tensor,
    aten.div.Tensor,
    aten.eq.Tensor,
    aten.fmax.default,
    aten.fmin.default,
    aten.fmod.Tensor,
    aten.ge.Tensor,
    aten.gt.Tensor,
    aten.hypot.default,
    aten.igamma.default,
    aten.igammac.default,
    aten.le.Tensor,
    aten.lt.Tensor,
    aten.maximum.default,
    aten.minimum.default,
    aten.mul.Tensor,
    aten.ne.Tensor,
    aten.nextafter.default,
    aten.pow.Tensor_Tensor,
    aten.remainder.Tensor,
    aten.sub.Tensor,
    aten.true_divide.Tensor,
)
"""Elementwise operators of two tensors that are kept whole, mostly."""
_RIGHT_WHERE_PLAIN = frozenset((*_BINARY, aten.where.self))
"""Operators whose fake versions lie otherwise than eager's only where an operand is not row-major or is
repeated: half types, and other types than the first, are converted at another time."""

_RESULTS: Mapping[Any, tuple[layouts.Rule | None, ...]] = {
    # arguments: (input, ...)
    aten._adaptive_avg_pool2d.default: (_format(0),),
    aten._batch_norm_no_update.default: (_format(0),),
    aten._batch_norm_with_update_functional.default: (
        _format(0),
        None,
        None,
        None,
        _promoted(3),
        _promoted(4),
    ),
    aten._native_batch_norm_legit.no_stats: (_format(0),),
    aten._native_batch_norm_legit_functional.default: (_format(0), None, None, _promoted(3), _promoted(4)),
    aten._native_batch_norm_legit_no_training.default: (_format(0),),
    aten._weight_norm_interface.default: (layouts.contiguous, layouts.same_as(1)),
    aten.block_diag.default: (layouts.promoted_list,),
    aten.channel_shuffle.default: (_format(0),),
    aten.flip.default: (layouts.preserved(0),),
    aten.grid_sampler_2d.default: (layouts.contiguous,),
    aten.max_unpool2d.default: (_format(0),),
    aten.masked_fill.Scalar: (layouts.contiguous,),
    aten.masked_fill.Tensor: (layouts.contiguous,),
    aten.native_batch_norm.default: (_format(0),),
    aten.native_group_norm.default: (_format(0),),
    aten.repeat.default: (layouts.contiguous,),
    aten.put.default: (layouts.preserved(0),),
    aten.roll.default: (layouts.of_roll,),
    aten.binary_cross_entropy.default: (_elementwise(0),),
    aten.index.Tensor: (layouts.of_index,),
    aten.index_fill.int_Scalar: (_elementwise(0),),
    aten.index_fill.int_Tensor: (_elementwise(0),),
    aten.slice_scatter.default: (layouts.same_as(0),),
    aten.take.default: (layouts.contiguous,),
    aten._unsafe_index.Tensor: (layouts.of_index,),
    aten.addcdiv.default: (_elementwise(0, 1, 2),),
    aten.addcmul.default: (_elementwise(0, 1, 2),),
    aten.clamp.Tensor: (_elementwise(0, 1, 2),),
    aten.copysign.Tensor: (_elementwise(0, 1),),
    aten.div.Tensor_mode: (_elementwise(0, 1),),
    aten.floor_divide.default: (_elementwise(0, 1),),
    aten.heaviside.default: (_elementwise(0, 1),),
    aten.ldexp.Tensor: (layouts.of_ldexp,),
    aten.lerp.Scalar: (_elementwise(0, 1),),
    aten.lerp.Tensor: (_elementwise(0, 1, 2),),
    aten.linalg_vector_norm.default: (layouts.contiguous,),
    aten.log_sigmoid_forward.default: (layouts.contiguous,) * 2,
    aten.logaddexp.default: (_elementwise(0, 1),),
    aten.logaddexp2.default: (_elementwise(0, 1),),
    aten.logical_and.default: (_elementwise(0, 1),),
    aten.logical_or.default: (_elementwise(0, 1),),
    aten.logical_xor.default: (_elementwise(0, 1),),
    aten.pow.Scalar: (layouts.contiguous,),
    aten.special_xlog1py.default: (_elementwise(0, 1),),
    aten.xlogy.Tensor: (_elementwise(0, 1),),
    aten.huber_loss.default: (_promoted(0),),
    aten.soft_margin_loss.default: (layouts.both(_elementwise(0), _promoted(0)),),
    # arguments: (gradient, input or result, ...)
    aten.batch_norm_backward.default: (_format(1),),
    aten.native_batch_norm_backward.default: (_format(1),),
    aten._log_softmax_backward_data.default: (layouts.contiguous,),
    aten.gelu_backward.default: (layouts.both(_elementwise(0, 1), _promoted(0, 1)),),
    aten.hardswish_backward.default: (_elementwise(0, 1),),
    aten.hardtanh_backward.default: (_elementwise(0, 1),),
    aten.logit_backward.default: (_elementwise(0, 1),),
    aten.mish_backward.default: (_promoted(1),),
    aten.huber_loss_backward.default: (layouts.contiguous,),
    aten.mse_loss_backward.default: (layouts.both(layouts.contiguous, _promoted(1)),),
    aten.native_dropout_backward.default: (_elementwise(0, 1),),
    aten.native_group_norm_backward.default: (_format(1),),
    aten.native_layer_norm_backward.default: (layouts.contiguous,) * 3,
    aten.reflection_pad2d_backward.default: (_format(1),),
    aten.reflection_pad3d_backward.default: (_format(1),),
    aten.sigmoid_backward.default: (layouts.both(_elementwise(0, 1), _promoted(0, 1)),),
    aten.silu_backward.default: (layouts.both(_elementwise(0, 1), _promoted(0, 1)),),
    aten.smooth_l1_loss_backward.default: (layouts.both(layouts.contiguous, _promoted(1)),),
    aten.soft_margin_loss_backward.default: (_promoted(1),),
    aten.tanh_backward.default: (layouts.both(_elementwise(0, 1), _promoted(0, 1)),),
    aten.threshold_backward.default: (layouts.both(_elementwise(1, 0), _promoted(0, 1)),),
    **dict.fromkeys(_BINARY, (_elementwise(0, 1),)),
    aten.where.self: (layouts.of_where,),
}
"""Rules for results, in order, where the decomposition by itself, or the fake version of an operator that is
kept whole, would give them other strides than the operator does, or another type."""


def decompositions(config: Config) -> Table:
    """Operator -> decomposition, for one compile. The caller must not change it.

    None of them raises what Python or PyTorch raises: an operator whose decomposition fails stays whole, with
    one warning; in strict mode that is a ``FallbackError``."""
    table = _guarded_table(config.strict, torch_decomps.multiply_add())
    theirs = registered_decompositions()
    return {**table, **{one.operator: _by_user(one, config.strict) for one in theirs}} if theirs else table


def _by_user(extension: Extension, strict: bool) -> Decomposition:
    """A decomposition that somebody registered, with results that lie as those of the operator's fake
    implementation do, of the types and sizes that it says. Where it fails the operator stays whole."""
    operator, function = extension.operator, extension.function
    assert function is not None

    @functools.wraps(function)
    def decompose(*args: Any, **kwargs: Any) -> Any:
        try:
            made = function(*args, **kwargs)
            if made is NotImplemented:
                return made
            with untraced_values():
                example = operator(*args, **kwargs)
            return layouts.laid_out_like(example, made)
        except Exception as error:
            if is_of_tracing(error) and not decides_by_data(error):
                raise
            _failed(str(operator), error, strict, extension.name)
            return NotImplemented

    return decompose


@functools.cache
def _guarded_table(strict: bool, multiply_add: Any | None) -> Table:
    return {op: _guarded(op, fn, strict) for op, fn in _table(multiply_add).items()}


def takes_apart(operator: Any) -> bool:
    """Whether there is a decomposition of an operator, one that does more than to say how results lie."""
    return operator in _taken_apart(torch_decomps.multiply_add())


@functools.cache
def _taken_apart(multiply_add: Any | None) -> Table:
    table = torch_decomps.core_table()
    table.update(torch_decomps.table_of(_ALSO))
    for own in (activations, elementwise, foreach, indexing, losses, norms, reductions):
        table.update(own.TABLE)
    sampler = aten.grid_sampler_2d.default
    if sampler in table:
        table[sampler] = sampling.grid_sampler_2d(table[sampler])
    if multiply_add is not None:
        table[multiply_add] = elementwise.multiply_add
    return {op: fn for op, fn in table.items() if _is_wanted(op)}


@functools.cache
def _table(multiply_add: Any | None) -> Table:
    wanted = dict(_taken_apart(multiply_add))
    for op in _RESULTS:
        if op in _RIGHT_WHERE_PLAIN:
            wanted[op] = layouts.whole_unless_plain(op, wanted.get(op))
        wanted.setdefault(op, layouts.whole(op))
    for op in SIZED:  # to learn of sizes what the rules have to know, while the trace may still guard them
        wanted.setdefault(op, _kept)
    return wanted


def _kept(*args: Any, **kwargs: Any) -> Any:
    return NotImplemented


def _guarded(operator: Any, decomposition: Decomposition, strict: bool) -> Decomposition:
    """The decomposition, with results that lie as the operator's do (`_RESULTS`). It leaves alone what eager
    PyTorch refuses, what it refuses itself, what it fails at, and what only the running graph can decide:
    eager then raises its own error, or knows better."""
    rules = _RESULTS.get(operator, ())

    @functools.wraps(decomposition)
    def decompose(*args: Any, **kwargs: Any) -> Any:
        try:
            if refusal(operator, args, kwargs, holds=true_or_guard) is not None:
                return NotImplemented
            return layouts.laid_out(rules, args, decomposition(*args, **kwargs))
        except Exception as error:
            if type(error) in _REFUSED_BY_IT or decides_by_data(error):
                return NotImplemented
            if is_of_tracing(error) or isinstance(error, BrazeError):
                raise
            _failed(str(operator), error, strict)
            return NotImplemented

    return decompose


_REFUSED_BY_IT = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)
"""Errors of an operator's own checks."""


def _failed(operator: str, error: Exception, strict: bool, name: str = "") -> None:
    """Say that an operator stays whole; nothing more is said of it if it becomes a fallback. ``name``: of the
    decomposition, where that is not ours."""
    where = current_source()
    what = f"its decomposition{' ' if name else ''}{name} failed with {described(error)}"
    if strict:
        raise FallbackError(
            f"{operator} would stay whole: {what}", node=operator, where=where or None
        ) from error
    place = f" ({where})" if where else ""
    notices.say(f"{notices.SUBJECT} stays whole: {what}{place}", subject=operator, where=where)


def _is_wanted(operator: object) -> bool:
    packet = getattr(operator, "overloadpacket", operator)
    return getattr(packet, "__name__", "") not in KEPT
