"""Reading and writing at indices that come from tensors."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import At, Dims, Either, Int, OneOf, Scalar
from braze.inspect.fuzz.operands import BOOL, FLOAT, INTEGERS, NUMERIC, Index, Like, Matching, T
from braze.inspect.fuzz.operators import Operator

__all__ = ["ROWS"]

_DIM = Dims()
_SOME = T(rank=(1, 4))
_MATRIX = T(rank=(2, 4))
_LINE = T(rank=(1, 1))
_SCATTERED = Index(dim=1, shape="same", unique=True)
_VALUE = Scalar("i", 0, 4)

ROWS: tuple[Operator, ...] = (
    Operator("gather", "torch.gather({0}, {1}, {2})", (_SOME, _DIM, Index(dim=1, shape="along")), weight=1.5),
    Operator(
        "take_along_dim",
        "torch.take_along_dim({0}, {2}, dim={1})",
        (_SOME, _DIM, Index(dim=1, shape="along")),
    ),
    Operator("take", "torch.take({0}, {1})", (T(nonempty=True), Index(negative=True))),
    Operator(
        "index_select",
        "torch.index_select({0}, {1}, {2})",
        (_SOME, _DIM, Index(dim=1, shape="line")),
        weight=1.5,
    ),
    Operator("index", "{0}[{1}]", (_SOME, Index(axis=0, negative=True)), weight=1.5),
    Operator("index_last", "{0}[..., {1}]", (_SOME, Index(axis=-1, negative=True))),
    Operator("index_inner", "{0}[:, {1}]", (_MATRIX, Index(axis=1, negative=True))),
    Operator("index_pair", "{0}[{1}, {2}]", (_MATRIX, Index(axis=0, shape="line"), At(axis=1))),
    Operator(
        "index_column",
        "{0}[{1}[:, None], {2}]",
        (_MATRIX, Index(axis=0, shape="line"), Index(axis=1, shape="line")),
    ),
    Operator(
        "index_apart",
        "{0}[{1}, :, {2}]",
        (T(rank=(3, 4)), Index(axis=0, shape="line"), At(axis=2)),
        weight=0.6,
    ),
    Operator("embedding", "F.embedding({1}, {0})", (T(FLOAT, rank=(2, 2)), Index(axis=0)), weight=1.5),
    Operator(
        "embedding_bag",
        "F.embedding_bag({1}[None], {0}, mode={2})",
        (T(("float32", "float64"), rank=(2, 2)), Index(axis=0, shape="line"), OneOf(("sum", "mean", "max"))),
        "same",
        "loose",
        weight=0.5,
    ),
    Operator(
        "masked_fill",
        "torch.masked_fill({0}, {1}, {2})",
        (T(), Like(how="into", dtypes=BOOL), _VALUE),
        weight=1.5,
    ),
    Operator(
        "masked_fill_compared",
        "{0}.masked_fill({0} > {1}, {2})",
        (T(), Scalar("if", -2, 2), _VALUE),
        sharp=True,
    ),
    Operator(
        "index_fill",
        "torch.index_fill({0}, {1}, {2}, {3})",
        (_SOME, _DIM, Index(dim=1, shape="line"), _VALUE),
    ),
    Operator(
        "index_add",
        "torch.index_add({0}, {1}, {2}, {3}, alpha={4})",
        (_LINE, _DIM, Index(dim=1, shape="line"), Matching(((2, 0),)), OneOf((1, 1, 2))),
        "same",
        "loose",
        weight=1.5,
    ),
    Operator(
        "index_add_rows",
        "torch.index_add({0}, {1}, {2}, {3})",
        (T(rank=(2, 2)), OneOf((0, -2)), Index(dim=1, shape="line"), Matching(((2, 0), (0, 1)))),
        "same",
        "loose",
    ),
    Operator(
        "index_copy",
        "torch.index_copy({0}, {1}, {2}, {3})",
        (_LINE, _DIM, Index(dim=1, shape="same", unique=True), Matching(((2, 0),))),
    ),
    Operator(
        "index_put",
        "torch.index_put({0}, ({1},), {2})",
        (_SOME, Index(axis=0, negative=True), Matching((), dtypes=None)),
    ),
    Operator(
        "index_put_sum",
        "torch.index_put({0}, ({1},), {2}, accumulate=True)",
        (_LINE, Index(axis=0, shape="line"), Matching(((1, 0),))),
        "same",
        "loose",
    ),
    Operator(
        "scatter_number",
        "torch.scatter({0}, {1}, {2}, {3})",
        (_SOME, _DIM, Index(dim=1, shape="same"), _VALUE),
    ),
    Operator(
        "scatter",
        "torch.scatter({0}, 0, {1}, {2})",
        (_LINE, Index(axis=0, shape="same", unique=True), Like(how="same", dtypes=None)),
    ),
    Operator(
        "scatter_add",
        "torch.scatter_add({0}, {1}, {2}, {3})",
        (_SOME, _DIM, Index(dim=1, shape="same"), Like(how="same", dtypes=None)),
        "same",
        "loose",
        weight=1.5,
    ),
    Operator(
        "scatter_reduce",
        "torch.scatter_reduce({0}, {1}, {2}, {3}, reduce={4}, include_self={5})",
        (
            T(NUMERIC, rank=(1, 4)),
            _DIM,
            Index(dim=1, shape="same"),
            Like(how="same", dtypes=None),
            OneOf(("sum", "amax", "amin", "prod", "mean")),
            OneOf((True, False)),
        ),
        "same",
        "loose",
        multiplies=True,
    ),
    Operator(
        "scatter_multiply",
        "torch.scatter({0}, {1}, {2}, {3}, reduce='multiply')",
        (T(NUMERIC, rank=(1, 4)), _DIM, Index(dim=1, shape="same"), _VALUE),
        "same",
        "loose",
        multiplies=True,
        weight=0.5,
    ),
    Operator(
        "index_reduce",
        "torch.index_reduce({0}, {1}, {2}, {3}, {4}, include_self={5})",
        (
            T(NUMERIC, rank=(1, 1)),
            _DIM,
            Index(dim=1, shape="line"),
            Matching(((2, 0),)),
            OneOf(("amax", "amin", "prod", "mean")),
            OneOf((True, False)),
        ),
        "same",
        "loose",
        multiplies=True,
    ),
    Operator(
        "put",
        "torch.Tensor.put({0}, {1}, {2})",
        (T(nonempty=True), Index(shape="line", unique=True), Matching(((1, 0),))),
        weight=0.6,
    ),
    Operator(
        "put_sum",
        "torch.Tensor.put({0}, {1}, {2}, accumulate=True)",
        (T(nonempty=True), Index(shape="line", negative=True), Matching(((1, 0),))),
        "same",
        "loose",
        weight=0.6,
    ),
    Operator(
        "index_put_mask",
        "torch.index_put({0}, (torch.ones_like({0}, dtype=torch.bool),), {0}.reshape(-1).flip(0))",
        (_SOME,),
        weight=0.6,
    ),
    Operator(
        "nonzero_static",
        "torch.nonzero_static({0}, size={1}, fill_value={2})",
        (_SOME, Int(0, 6), Int(-1, 1)),
        "int64",
        sharp=True,
        weight=0.6,
    ),
    Operator(
        "histc",
        "torch.histc({0}, {1}, {2}, {3})",
        (T(FLOAT), Int(1, 9), Int(-3, 0), Int(1, 3)),
        sharp=True,
        weight=0.6,
    ),
    Operator(
        "histogram",
        "torch.histogram({0}, {1}, range=({2}, {3}))",
        (T(("float32", "float64")), Int(1, 9), Int(-3, 0), Int(1, 3)),
        "any",
        "ieee",
        results=2,
        sharp=True,
        weight=0.4,
    ),
    Operator(
        "segment_reduce",
        "torch.segment_reduce({0}, {1}, lengths=torch.ones({0}.shape[0], dtype=torch.int64))",
        (T(FLOAT, rank=(1, 3), nonempty=True), OneOf(("sum", "mean", "max", "min", "prod"))),
        "same",
        "loose",
        weight=0.4,
    ),
    Operator(
        "select_scatter",
        "torch.select_scatter({0}, {0}.select({1}, 0) * 2, {1}, {2})",
        (_SOME, _DIM, At(dim=1)),
        "any",
        "ieee",
        weight=0.6,
    ),
    Operator(
        "slice_scatter",
        "torch.slice_scatter({0}, {0}[1:] + 1, 0, 1)",
        (T(NUMERIC, rank=(1, 4)),),
        "same",
        "ieee",
        weight=0.6,
    ),
    Operator(
        "diagonal_scatter",
        "torch.diagonal_scatter({0}, torch.diagonal({0}).clone())",
        (T(rank=(2, 2)),),
        weight=0.4,
    ),
    Operator(
        "lookup_sum",
        "{0}[{1}].sum({2})",
        (T(FLOAT, rank=(2, 2)), Index(axis=0, shape="line"), OneOf((0, -1))),
        "same",
        "loose",
    ),
    Operator(
        "index_by_modulo",
        "{0}[({1} % {0}.shape[0]).long()]",
        (_SOME, T(("int64", "int32"), rank=(0, 2))),
        weight=1.5,
    ),
    Operator(
        "where_index",
        "torch.where({0} > {1}, {0}[{2}], {0})",
        (_SOME, Either((Scalar("i"), Scalar("f"))), At()),
        sharp=True,
        weight=0.6,
    ),
    Operator(
        "bool_index_sum",
        "({0} * {1}).sum(0)",
        (T(INTEGERS, rank=(1, 3)), Like(dtypes=BOOL)),
        "any",
        weight=0.5,
    ),
)
