"""Views, and what moves elements: slices, permutations, joins, padding, creation."""

from __future__ import annotations

from braze.inspect.fuzz.numbers import At, Dims, Int, OneOf, Order, Scalar, Shape, Splits
from braze.inspect.fuzz.operands import (
    ANY,
    FLOAT,
    INTEGERS,
    NUMERIC,
    Cast,
    Like,
    Matching,
    Several,
    T,
    no_nan,
)
from braze.inspect.fuzz.operators import Operator

__all__ = ["ROWS"]

_DIM = Dims()
_SOME = T(rank=(1, 4))
_MATRIX = T(rank=(2, 4))
_STEP = OneOf((1, 1, 2, 3))

ROWS: tuple[Operator, ...] = (
    # views
    Operator("view", "{0}.view({1})", (T(), Shape()), weight=1.5),
    Operator("reshape", "{0}.reshape({1})", (T(), Shape()), weight=1.5),
    Operator("flatten", "torch.flatten({0})", (T(),)),
    Operator("flatten_from", "{0}.flatten(-2)", (_MATRIX,)),
    Operator("unflatten", "{0}.unflatten({1}, (-1, 1))", (_SOME, _DIM), weight=0.5),
    Operator("permute", "{0}.permute({1})", (T(), Order()), weight=1.5),
    Operator("transpose", "{0}.transpose({1}, {2})", (_SOME, _DIM, _DIM), weight=1.5),
    Operator("t", "{0}.t()", (T(rank=(0, 2)),)),
    Operator("mT", "{0}.mT", (_MATRIX,)),
    Operator("movedim", "{0}.movedim({1}, {2})", (_SOME, _DIM, _DIM)),
    Operator("swapaxes", "{0}.swapaxes({1}, {2})", (_SOME, _DIM, _DIM), weight=0.5),
    Operator("expand", "{0}.expand({1})", (T(), Shape(into=True)), weight=1.5),
    Operator("broadcast_to", "torch.broadcast_to({0}, {1})", (T(), Shape(into=True)), weight=0.5),
    Operator("expand_as", "{1}.expand_as({0})", (T(), Like(how="into")), "any"),
    Operator("squeeze", "{0}.squeeze()", (T(),)),
    Operator("squeeze_dim", "{0}.squeeze({1})", (T(), _DIM)),
    Operator("unsqueeze", "{0}.unsqueeze({1})", (T(rank=(0, 3)), Dims(extra=1)), weight=1.5),
    Operator("slice", "{0}[{1}:{2}]", (_SOME, At(bound=True), At(bound=True)), weight=2),
    Operator("slice_step", "{0}[{1}:{2}:{3}]", (_SOME, At(bound=True), At(bound=True), _STEP)),
    Operator(
        "slice_last",
        "{0}[..., {1}:{2}:{3}]",
        (_SOME, At(axis=-1, bound=True), At(axis=-1, bound=True), _STEP),
        weight=2,
    ),
    Operator("slice_inner", "{0}[:, {1}:]", (_MATRIX, At(axis=1, bound=True))),
    Operator("select", "{0}.select({1}, {2})", (_SOME, _DIM, At(dim=1))),
    Operator("item_of", "{0}[{1}]", (_SOME, At())),
    Operator("item_last", "{0}[..., {1}]", (_SOME, At(axis=-1))),
    Operator("new_axis", "{0}[:, None]", (_SOME,)),
    Operator("narrow", "{0}.narrow({1}, {2}, 1)", (_SOME, _DIM, At(dim=1))),
    Operator("unfold", "{0}.unfold({1}, {2}, {3})", (_SOME, _DIM, Int(1, 3), Int(1, 3))),
    Operator(
        "as_strided",
        "{0}.clone(memory_format=torch.contiguous_format).as_strided(({1}, {2}), ({3}, 1), {4})",
        (T(nonempty=True), Int(1, 2), Int(1, 2), Int(0, 2), Int(0, 1)),
    ),
    Operator(
        "as_strided_place",
        "{0}.as_strided(({1},), (1,), {2})",
        (T(nonempty=True), Int(1, 2), Int(0, 4)),
        weight=0.5,
    ),
    Operator("diagonal", "torch.diagonal({0}, {1})", (_MATRIX, Int(-1, 2))),
    Operator(
        "diagonal_dims", "torch.diagonal({0}, {1}, {2}, {3})", (_MATRIX, Int(-1, 1), _DIM, _DIM), weight=0.5
    ),
    Operator("unbind", "torch.unbind({0}, {1})[{2}]", (_SOME, _DIM, At(dim=1))),
    Operator("chunk", "torch.chunk({0}, {2}, {1})[-1]", (_SOME, _DIM, Splits())),
    Operator("chunk_two", "torch.chunk({0}, 2, {1})", (_SOME, _DIM), results=2),
    Operator("split", "torch.split({0}, {2}, {1})[0]", (_SOME, _DIM, Splits())),
    Operator("tensor_split", "torch.tensor_split({0}, {2}, {1})[0]", (_SOME, _DIM, Splits())),
    Operator(
        "float_bits", "{0}.view(torch.int32)", (T(("float32",), check=no_nan),), "any", sharp=True, bits=True
    ),
    Operator(
        "half_bits",
        "{0}.view(torch.int16)",
        (T(("float16", "bfloat16"), check=no_nan),),
        "any",
        sharp=True,
        bits=True,
    ),
    Operator(
        "wide_bits",
        "{0}.view(torch.uint8)",
        (T(("float32", "int32"), rank=(1, 3), check=no_nan),),
        "any",
        sharp=True,
        bits=True,
        weight=0.5,
    ),
    Operator(
        "bits_float",
        "({0} & 0x3fffffff).view(torch.float32)",
        (T(("int32",)),),
        "any",
        sharp=True,
        bits=True,
        weight=0.5,
    ),
    Operator("detach", "{0}.detach()", (T(),), weight=0.5),
    # copies
    Operator("clone", "{0}.clone()", (T(),)),
    Operator("contiguous", "{0}.contiguous()", (T(),)),
    Operator("repeat", "{0}.repeat({1}, {2})", (T(rank=(0, 2)), Int(1, 3), Int(1, 3))),
    Operator("tile", "torch.tile({0}, ({1},))", (_SOME, Int(1, 3)), weight=0.6),
    Operator("repeat_interleave", "torch.repeat_interleave({0}, {2}, dim={1})", (_SOME, _DIM, Int(1, 3))),
    Operator("flip", "torch.flip({0}, {1})", (T(rank=(1, 4)), Dims(most=3))),
    Operator("fliplr", "torch.fliplr({0})", (_MATRIX,), weight=0.4),
    Operator("roll", "torch.roll({0}, {2}, {1})", (_SOME, _DIM, Int(-3, 4))),
    Operator("roll_all", "torch.roll({0}, {1})", (_SOME, Int(-3, 4)), weight=0.5),
    Operator("rot90", "torch.rot90({0}, {1})", (_MATRIX, Int(-1, 3)), weight=0.5),
    Operator("tril", "torch.tril({0}, {1})", (_MATRIX, Int(-2, 2))),
    Operator("triu", "torch.triu({0}, {1})", (_MATRIX, Int(-2, 2))),
    Operator("diag_embed", "torch.diag_embed({0}, {1})", (T(rank=(1, 2)), Int(-1, 1))),
    Operator("diag", "torch.diag({0}, {1})", (T(rank=(1, 2)), Int(-1, 1)), weight=0.5),
    Operator("cat", "torch.cat({2}, dim={1})", (_SOME, _DIM, Several(vary=1)), "any", weight=2),
    Operator(
        "stack", "torch.stack({2}, dim={1})", (T(rank=(0, 3)), Dims(extra=1), Several()), "any", weight=1.5
    ),
    Operator("hstack", "torch.hstack({1})", (_SOME, Several()), "any", weight=0.5),
    Operator(
        "cat_halves",
        "torch.cat((-{0}[..., {0}.shape[-1] // 2 :], {0}[..., : {0}.shape[-1] // 2]), dim=-1)",
        (T(NUMERIC, rank=(1, 4)),),
    ),
    Operator(
        "pad", "F.pad({0}, ({1}, {2}), value={3})", (_SOME, Int(-1, 3), Int(0, 3), Scalar("f")), weight=1.5
    ),
    Operator("pad_two", "F.pad({0}, ({1}, {2}, {2}, 0))", (_MATRIX, Int(0, 2), Int(-1, 2))),
    Operator(
        "pad_reflect", 'F.pad({0}, ({1}, {2}), mode="reflect")', (T(FLOAT, rank=(2, 3)), Int(0, 2), Int(0, 2))
    ),
    Operator(
        "pad_replicate",
        'F.pad({0}, ({1}, {2}), mode="replicate")',
        (T(FLOAT, rank=(2, 3)), Int(0, 3), Int(0, 3)),
    ),
    Operator(
        "pad_circular",
        'F.pad({0}, ({1}, {2}), mode="circular")',
        (T(FLOAT, rank=(2, 3)), Int(0, 2), Int(0, 2)),
        weight=0.5,
    ),
    Operator(
        "meshgrid",
        'torch.meshgrid({0}, {1}, indexing="ij")',
        (T(rank=(1, 1)), Matching((None,))),
        results=2,
        weight=0.5,
    ),
    Operator(
        "pixel_shuffle",
        "F.pixel_shuffle({0}.unsqueeze(1).expand(-1, 4, -1, -1), 2)",
        (T(rank=(3, 3)),),
        weight=0.3,
    ),
    Operator("block_diag", "torch.block_diag({0}, {1})", (T(rank=(1, 2)), T(rank=(1, 2))), "any", weight=0.3),
    # creation
    Operator("zeros_like", "torch.zeros_like({0})", (T(),), weight=0.5),
    Operator("ones_like", "torch.ones_like({0}, dtype={1})", (T(), Cast()), "argument", weight=0.5),
    Operator("full_like", "torch.full_like({0}, {1})", (T(), Scalar("i")), weight=0.5),
    Operator("full", "torch.full(({0}.shape[{1}], 2), {2})", (_SOME, _DIM, Scalar("f")), "any", weight=0.5),
    Operator("new_full", "{0}.new_full(({1},), {2})", (T(NUMERIC), Int(0, 5), Int(0, 4)), weight=0.5),
    Operator("arange", "torch.arange({0}.shape[{1}])", (_SOME, _DIM), "int64"),
    Operator(
        "arange_step",
        "torch.arange({0}, {1}, {2})",
        (Int(-3, 2), Int(3, 9), OneOf((1, 2, 0.5, 3))),
        "any",
        weight=0.5,
    ),
    Operator(
        "linspace",
        "torch.linspace({0}, {1}, {2})",
        (Int(-2, 1), Int(0, 4), Int(1, 9)),
        "any",
        "loose",
        weight=0.5,
    ),
    Operator("eye_of", "torch.eye({0}.shape[{1}])", (_SOME, _DIM), "any", weight=0.4),
    Operator("literal", "torch.tensor(({0}, {1}, 3))", (Int(-3, 3), Scalar("f")), "any", weight=0.5),
    Operator("positions", "({0} + torch.arange({0}.shape[-1]))", (T(rank=(1, 4)),), "any", "ieee"),
    Operator("one_hot", "F.one_hot({0} & 3, 4)", (T(("int64",)),), "int64", weight=0.5),
    Operator(
        "mask_causal",
        "({0} + torch.full(({0}.shape[-1], {0}.shape[-1]), -2.0).triu(1))",
        (T(FLOAT, rank=(1, 1)),),
        "any",
        "ieee",
        weight=0.5,
    ),
    Operator("popcount_like", "(({0} >> 1) ^ {0})", (T(INTEGERS[:-1]),), weight=0.3),
    Operator("atleast_2d", "torch.atleast_2d({0})", (T(ANY, rank=(0, 3)),), weight=0.3),
)
