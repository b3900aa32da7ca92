"""Products of matrices and vectors, convolutions, pooling, resampling."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import Either, Fixed, Int, OneOf, Scalar
from braze.inspect.fuzz.operands import FLOAT, NUMERIC, Matching, T
from braze.inspect.fuzz.operators import Operator

__all__ = ["ROWS"]

_MATRIX = T(NUMERIC, rank=(2, 2))
_FLOATS = T(FLOAT, rank=(2, 2))
_BATCH = T(NUMERIC, rank=(3, 3))
_LINE = T(NUMERIC, rank=(1, 1))
_IMAGE = T(("float32", "float32", "bfloat16", "float64"), rank=(4, 4), nonempty=True)
_SIGNAL = T(("float32", "float32", "bfloat16", "float64"), rank=(3, 3), nonempty=True)

ROWS: tuple[Operator, ...] = (
    Operator("mm", "torch.mm({0}, {1})", (_MATRIX, Matching(((0, 1), None))), "same", "loose", weight=1.5),
    Operator("matmul_t", "({0} @ {1}.t())", (_MATRIX, Matching((None, (0, 1)))), "same", "loose"),
    Operator("bmm", "torch.bmm({0}, {1})", (_BATCH, Matching(((0, 0), (0, 2), None))), "same", "loose"),
    Operator(
        "matmul",
        "torch.matmul({0}, {1})",
        (T(NUMERIC, rank=(1, 4)), Matching(((0, -1), None))),
        "same",
        "loose",
        weight=1.5,
    ),
    Operator("mv", "torch.mv({0}, {1})", (_MATRIX, Matching(((0, 1),))), "same", "loose"),
    Operator("dot", "torch.dot({0}, {1})", (_LINE, Matching(((0, 0),))), "same", "loose"),
    Operator("outer", "torch.outer({0}, {1})", (_LINE, Matching((None,))), "same", "ieee"),
    Operator(
        "addmm",
        "torch.addmm({2}, {0}, {1}, beta={3}, alpha={4})",
        (_MATRIX, Matching(((0, 1), None)), Matching(((1, 1),)), Int(0, 2), Int(1, 2)),
        "same",
        "loose",
    ),
    Operator(
        "baddbmm",
        "torch.baddbmm({2}, {0}, {1})",
        (_BATCH, Matching(((0, 0), (0, 2), None)), Matching(((0, 0), (0, 1), (1, 2)))),
        "same",
        "loose",
    ),
    Operator(
        "addmv",
        "torch.addmv({2}, {0}, {1})",
        (_MATRIX, Matching(((0, 1),)), Matching(((0, 0),))),
        "same",
        "loose",
        weight=0.5,
    ),
    Operator(
        "linear",
        "F.linear({0}, {1}, {2})",
        (T(FLOAT, rank=(1, 3)), Matching((None, (0, -1))), Either((Matching(((1, 0),)), Fixed(None)))),
        "same",
        "loose",
        weight=1.5,
    ),
    Operator(
        "linear_relu",
        "F.relu(F.linear({0}, {1}))",
        (T(FLOAT, rank=(1, 3)), Matching((None, (0, -1)))),
        "same",
        "loose",
    ),
    Operator(
        "einsum", 'torch.einsum("ij,kj->ki", {0}, {1})', (_FLOATS, Matching((None, (0, 1)))), "same", "loose"
    ),
    Operator(
        "einsum_diagonal",
        'torch.einsum("ij,ij->i", {0}, {1})',
        (_FLOATS, Matching(((0, 0), (0, 1)))),
        "same",
        "loose",
    ),
    Operator(
        "tensordot",
        "torch.tensordot({0}, {1}, dims=1)",
        (T(FLOAT, rank=(1, 3)), Matching(((0, -1), None))),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator(
        "kron",
        "torch.kron({0}, {1})",
        (T(NUMERIC, rank=(1, 2)), T(NUMERIC, rank=(1, 2))),
        "promoted",
        "ieee",
        weight=0.4,
    ),
    Operator("trace", "torch.trace({0})", (T(NUMERIC, rank=(2, 2)),), "sum", "loose", weight=0.5),
    Operator(
        "attention",
        "F.scaled_dot_product_attention({0}, {1}, {1}, is_causal={2})",
        (
            T(("float32", "float64"), rank=(3, 4), nonempty=True, domain="moderate"),
            Matching(((0, 0), None, (0, 2)), domain="moderate"),
            OneOf((False, True)),
        ),
        "same",
        "loose",
        weight=0.5,
    ),
    Operator(
        "conv1d",
        "F.conv1d({0}, {1}, padding={2}, stride={3})",
        (_SIGNAL, Matching((None, (0, 1), 3)), Int(1, 2), Int(1, 2)),
        "same",
        "loose",
    ),
    Operator(
        "conv2d",
        "F.conv2d({0}, {1}, {2}, padding={3})",
        (_IMAGE, Matching((None, (0, 1), 3, 3)), Either((Matching(((1, 0),)), Fixed(None))), Int(1, 2)),
        "same",
        "loose",
    ),
    Operator(
        "conv2d_relu",
        "F.relu(F.conv2d({0}, {1}, padding=1)) * {2}",
        (_IMAGE, Matching((None, (0, 1), 2, 2)), Scalar("f")),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator("max_pool1d", "F.max_pool1d({0}, 2, stride={1}, padding=1)", (_SIGNAL, Int(1, 2))),
    Operator("max_pool2d", "F.max_pool2d({0}, 2, stride={1}, padding=1)", (_IMAGE, Int(1, 2))),
    Operator(
        "avg_pool1d", "F.avg_pool1d({0}, 2, stride={1}, padding=1)", (_SIGNAL, Int(1, 2)), "same", "loose"
    ),
    Operator(
        "avg_pool2d", "F.avg_pool2d({0}, 2, stride={1}, padding=1)", (_IMAGE, Int(1, 2)), "same", "loose"
    ),
    Operator(
        "adaptive_pool",
        "F.adaptive_avg_pool2d({0}, ({1}, {2}))",
        (_IMAGE, Int(1, 3), Int(1, 3)),
        "same",
        "loose",
    ),
    Operator("upsample_nearest", 'F.interpolate({0}, scale_factor=2, mode="nearest")', (_IMAGE,), weight=0.6),
    Operator(
        "upsample_bilinear",
        'F.interpolate({0}, scale_factor=2, mode="bilinear", align_corners={1})',
        (_IMAGE, OneOf((False, True))),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator(
        "upsample_linear",
        'F.interpolate({0}, scale_factor=1.5, mode="linear")',
        (_SIGNAL,),
        "same",
        "loose",
        weight=0.4,
    ),
)
