"""Arguments for operators that nothing in PyTorch's operator database calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

SIBLINGS: dict[str, tuple[str, ...]] = {
    "aten._batch_norm_no_update": ("native_batch_norm",),
    "aten._batch_norm_with_update_functional": ("native_batch_norm",),
    "aten._embedding_bag_forward_only": ("_embedding_bag",),
    "aten._native_batch_norm_legit": ("native_batch_norm",),
    "aten._native_batch_norm_legit_functional": ("native_batch_norm",),
    "aten._native_batch_norm_legit_no_training": ("native_batch_norm",),
    "aten._reshape_alias": ("as_strided",),
    "aten._unsafe_index": ("index",),
    "aten._unsafe_index_put": ("index_put",),
    "aten.__lshift__": ("bitwise_left_shift",),
    "aten.__rshift__": ("bitwise_right_shift",),
    "aten.contiguous": ("clone",),
    "aten.copy": ("copy_",),
    "aten.lift": ("detach",),
    "aten.lift_fresh_copy": ("detach",),
    "aten.reshape": ("view",),
    "aten.square": ("abs",),
    "aten.true_divide": ("div",),
    "aten.unsafe_split_with_sizes": ("split_with_sizes",),
    "aten.zero": ("zero_",),
}
"""Operators, or all overloads of one, that take what others take."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _image(*shape: int) -> Callable[[torch.dtype], torch.Tensor]:
    return lambda dtype: (torch.randn(shape) * 3).to(dtype)


def handwritten(op: Any, dtype: torch.dtype) -> list[Arguments]:
    """Argument sets of an operator for tensors of `dtype`."""
    torch.manual_seed(1234)
    return [(tuple(args), kwargs) for args, kwargs in _TABLE.get(str(op), lambda dtype: [])(dtype)]


def _padded(name: str, shape: tuple[int, ...], pad: list[int], backward: bool) -> Callable[..., Any]:
    def make(dtype: torch.dtype) -> list[Any]:
        x = _image(*shape)(dtype)
        if not backward:
            return [((x, pad), {})]
        grown = list(shape)
        for k in range(len(pad) // 2):
            grown[-1 - k] += pad[2 * k] + pad[2 * k + 1]
        return [((torch.randn(grown).to(dtype), x, pad), {})]

    return make


_TABLE: dict[str, Callable[[torch.dtype], list[Any]]] = {
    "aten._addmm_activation.default": lambda d: [
        ((_image(4)(d), _image(3, 5)(d), _image(5, 4)(d)), {"use_gelu": gelu}) for gelu in (False, True)
    ],
    "aten._euclidean_dist.default": lambda d: [((_image(3, 4)(d), _image(5, 4)(d)), {})],
    "aten._fused_rms_norm.default": lambda d: [((_image(3, 4)(d), [4], _image(4)(d), 1e-5), {})],
    "aten._native_batch_norm_legit.no_stats": lambda d: [
        ((_image(*shape)(d), _image(3)(d), _image(3)(d), True, 0.1, 1e-5), {})
        for shape in ((2, 3, 4, 5), (2, 3, 4))
    ],
    "aten._weight_norm_interface.default": lambda d: [((_image(3, 4)(d), _image(3, 1)(d), 0), {})],
    "aten.affine_grid_generator.default": lambda d: [((_image(2, 2, 3)(d), [2, 3, 4, 5], False), {})],
    "aten.empty_strided.default": lambda d: [
        (([3, 4], [8, 2]), {"dtype": d}),
        (([2, 3, 4], [1, 8, 2]), {"dtype": d}),
        (([3, 4], [1, 3]), {"dtype": d}),
    ],
    "aten.hann_window.default": lambda d: [((7,), {})],
    "aten.hann_window.periodic": lambda d: [((7, True), {}), ((7, False), {})],
    "aten.native_group_norm.default": lambda d: [
        ((_image(2, 6, 3, 4)(d), _image(6)(d), _image(6)(d), 2, 6, 12, 3, 1e-5), {})
    ],
    "aten.native_group_norm_backward.default": lambda d: [
        (
            (
                *(_image(2, 6, 3, 4)(d) for _ in range(2)),
                *(_image(2, 3)(d).abs() for _ in range(2)),
                _image(6)(d),
                *(2, 6, 12, 3, [True, True, True]),
            ),
            {},
        )
    ],
    "aten.norm.Scalar": lambda d: [((_image(3, 4)(d), 2), {})],
    "aten.norm.ScalarOpt_dtype": lambda d: [((_image(3, 4)(d), 2), {"dtype": torch.float64})],
    "aten.norm.ScalarOpt_dim_dtype": lambda d: [
        ((_image(3, 4)(d), 2, [1], keep), {"dtype": torch.float64}) for keep in (False, True)
    ],
    "aten.reflection_pad2d.default": _padded("r", (2, 3, 4, 5), [1, 2, 1, 0], False),
    "aten.reflection_pad2d_backward.default": _padded("r", (2, 3, 4, 5), [1, 2, 1, 0], True),
    "aten.reflection_pad3d.default": _padded("r", (2, 2, 3, 4, 3), [1, 2, 1, 0, 1, 1], False),
    "aten.reflection_pad3d_backward.default": _padded("r", (2, 2, 3, 4, 3), [1, 2, 1, 0, 1, 1], True),
    "aten.replication_pad2d.default": _padded("r", (2, 3, 4, 5), [1, 2, 1, 0], False),
    "aten.replication_pad3d.default": _padded("r", (2, 2, 3, 4, 3), [1, 2, 1, 0, 1, 1], False),
    "aten.roll.default": lambda d: [((_image(2, 3, 4, 5)(d), [1, 2], [2, 3]), {})],
    "aten.tril_indices.default": lambda d: [((3, 4), {}), ((4, 3, 1), {})],
    "aten.triu_indices.default": lambda d: [((3, 4), {}), ((4, 3, 1), {})],
    "aten.upsample_nearest2d.default": lambda d: [((_image(2, 3, 4, 5)(d), [8, 7]), {})],
    "aten.upsample_nearest2d.vec": lambda d: [((_image(2, 3, 4, 5)(d), None, [2.0, 1.5]), {})],
    "aten.upsample_nearest3d.default": lambda d: [((_image(2, 2, 3, 4, 5)(d), [6, 8, 7]), {})],
    "aten._upsample_nearest_exact2d.default": lambda d: [((_image(2, 3, 4, 5)(d), [8, 7]), {})],
    "aten._upsample_nearest_exact3d.default": lambda d: [((_image(2, 2, 3, 4, 5)(d), [6, 8, 7]), {})],
    "aten.upsample_bilinear2d.vec": lambda d: [((_image(2, 3, 4, 5)(d), [8, 7], False, None), {})],
    "aten.upsample_bicubic2d.vec": lambda d: [((_image(2, 3, 4, 5)(d), [8, 7], False, None), {})],
    "aten.upsample_trilinear3d.vec": lambda d: [((_image(2, 2, 3, 4, 5)(d), [6, 8, 7], False, None), {})],
    "aten.view.dtype": lambda d: [((_image(3, 4)(torch.float32), torch.int32), {})],
    "aten.view_copy.dtype": lambda d: [((_image(3, 4)(torch.float32), torch.int32), {})],
    "aten.resize_as.default": lambda d: [((_image(3, 4)(d), _image(4, 3)(d)), {})],
    "prims.convert_element_type.default": lambda d: [((_image(3, 4)(d), torch.float64), {})],
    "prims.iota.default": lambda d: [
        ((7,), {"start": 2, "step": 3, "dtype": torch.int64, "device": "cpu", "requires_grad": False})
    ],
}
