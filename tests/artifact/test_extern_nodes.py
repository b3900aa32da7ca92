"""Extern calls in `torch.export`'s schema: what is written, and that PyTorch reads it as the same calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from braze.artifact.extern_nodes import extern_nodes, srepr
from braze.errors import UnserializableError
from braze.runtime.expr import Expr, Symbol, floordiv, maximum, minimum, mod
from braze.runtime.plan import Allocate, Arg, CallExtern, CheckTensor, Pattern, Plan, Ref
from braze.runtime.spec import TensorSpec, exprs
from tests.artifact.extern_replay import Call, Mismatch, Recorder, check, rebuild
from tests.opinfo.cases import Database, Pair
from tests.opinfo.externs import try_pair

S = Symbol("s0", 2, None)


def plan_of(*calls: CallExtern, layouts: tuple[...] = ()) -> Plan:
    checks = tuple(
        CheckTensor(name, TensorSpec(torch.float32, exprs((2, 3)), exprs((3, 1)))) for name in ("x", "y", "w")
    )
    out = Allocate("out", TensorSpec(torch.float32, exprs((2, 3)), exprs((3, 1))))
    return Plan("graph", ("x", "y", "w", "s0"), (*checks, out, *calls), numbers=("s0",), layouts=layouts)


def layout(name: str, *sizes: Any, dtype: torch.dtype = torch.float32) -> tuple[str, TensorSpec]:
    strides = [1]
    for n in reversed(sizes[1:]):
        strides.insert(0, strides[0] * n)
    return (name, TensorSpec(dtype, exprs(sizes), exprs(strides[: len(sizes)])))


def arguments(target: str, args: tuple[Arg, ...], outs: Pattern = "r", **kwargs: Arg) -> dict[str, Any]:
    """The stored arguments of one call, by name."""
    call = CallExtern(target, args, tuple(kwargs.items()), outs)
    text = extern_nodes(plan_of(call, layouts=(layout("r", 2, 3), layout("r2", 2, 3))))
    (node,) = json.loads(text)["nodes"]
    rebuild(text)
    return {given["name"]: given["arg"] for given in node["node"]["inputs"]}


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


X = Ref("x")


def test_defaults_are_filled_in_and_typed_by_the_schema() -> None:
    assert arguments("aten::add.Tensor", (X, Ref("y"))) == {
        "self": tensor("x"),
        "other": tensor("y"),
        "alpha": {"as_int": 1},
    }
    assert arguments("aten::gelu", (X,))["approximate"] == {"as_string": "none"}
    found = arguments("aten::randint.low", (0, 5, (2, 3)))
    assert found["dtype"] == {"as_scalar_type": 5}  # int64, which c10 calls 4
    assert found["device"] == found["pin_memory"] == {"as_none": True}
    assert arguments("aten::contiguous", (X,))["memory_format"] == {"as_memory_format": 1}


@pytest.mark.parametrize(
    ("target", "args", "kwargs", "name", "expected"),
    [
        ("aten::dropout", (X, 1, True), {}, "p", {"as_float": 1.0}),
        ("aten::clamp", (X, float("inf")), {}, "min", {"as_float": "Infinity"}),
        ("aten::nan_to_num", (X, float("nan")), {}, "nan", {"as_float": "NaN"}),
        ("aten::add.Tensor", (X, 1.5), {}, "other", {"as_float": 1.5}),
        ("aten::mul.Scalar", (X, 1 + 2j), {}, "other", {"as_complex": {"real": 1.0, "imag": 2.0}}),
        ("aten::sum.dim_IntList", (X, (0, 1)), {}, "dim", {"as_ints": [0, 1]}),
        ("aten::sum.dim_IntList", (X, None), {}, "dim", {"as_none": True}),
        ("aten::avg_pool2d", (X, (2,)), {}, "kernel_size", {"as_ints": [2]}),
        ("aten::avg_pool2d", (X, 2), {}, "kernel_size", {"as_ints": [2, 2]}),
        ("aten::_to_copy", (X,), {"dtype": torch.bfloat16}, "dtype", {"as_scalar_type": 13}),
        ("aten::_to_copy", (X,), {"layout": torch.strided}, "layout", {"as_layout": 7}),
        (
            "aten::_to_copy",
            (X,),
            {"memory_format": torch.channels_last},
            "memory_format",
            {"as_memory_format": 2},
        ),
        (
            "aten::_to_copy",
            (X,),
            {"device": torch.device("cpu")},
            "device",
            {"as_device": {"type": "cpu", "index": None}},
        ),
        ("aten::cat", ((X, Ref("y")), 1), {}, "tensors", {"as_tensors": [{"name": "x"}, {"name": "y"}]}),
        (
            "aten::index.Tensor",
            (X, (None, Ref("y"))),
            {},
            "indices",
            {"as_optional_tensors": [{"as_none": True}, {"as_tensor": {"name": "y"}}]},
        ),
        ("aten::einsum", ("ij->ji", (X,)), {}, "equation", {"as_string": "ij->ji"}),
        ("aten::view", (X, (S.expr, 6)), {}, "size", {"as_sym_ints": [{"as_name": "s0"}, {"as_int": 6}]}),
        ("aten::select.int", (X, 0, S.expr), {}, "index", {"as_sym_int": {"as_name": "s0"}}),
        ("aten::select.int", (X, 0, Expr(()) + 1), {}, "index", {"as_int": 1}),
        (
            "aten::native_batch_norm",
            (X, None, None, None, None, True, 0.1, 1e-5),
            {},
            "weight",
            {"as_none": True},
        ),
    ],
)
def test_an_argument_of_every_kind(
    target: str, args: tuple[Arg, ...], kwargs: dict[str, Arg], name: str, expected: object
) -> None:
    outs: Pattern = ("r", "r2", None) if target.endswith("batch_norm") else "r"
    assert arguments(target, args, outs, **kwargs)[name] == expected


def test_results_are_named_by_the_schema() -> None:
    calls = (
        CallExtern("aten::sort", (X,), (), ("v", "i")),
        CallExtern("aten::split.Tensor", (X, 1), (), ("a", "b")),
        CallExtern("aten::mm.out", (Ref("y"), Ref("w")), (("out", Ref("out")),)),
        CallExtern("aten::native_layer_norm", (X, (3,), None, None, 1e-5), (), ("n", None, "rstd")),
        CallExtern("aten::_assert_async.msg", (Ref("i"), "no")),
    )
    layouts = tuple(
        layout(name, 2, 3, dtype=torch.int64 if name == "i" else torch.float32)
        for name in ("v", "i", "a", "b", "n", "rstd")
    )
    document = json.loads(extern_nodes(plan_of(*calls, layouts=layouts)))
    outputs = [node["node"]["outputs"] for node in document["nodes"]]
    assert outputs == [
        [tensor("v"), tensor("i")],
        [{"as_tensors": [{"name": "a"}, {"name": "b"}]}],
        [tensor("out_filled")],
        [tensor("n"), {"as_none": True}, tensor("rstd")],
        [],
    ]
    assert [node["node"]["target"] for node in document["nodes"]][2] == "torch.ops.aten.mm.out"
    assert document["tensor_values"]["out_filled"] == document["tensor_values"]["out"]


def test_what_stands_beside_the_nodes() -> None:
    e = S.expr * 2 + 1
    call = CallExtern("aten::narrow", (X, 0, 0, e), (), "r")
    result = ("r", TensorSpec(torch.float64, (e, Expr(()) + 3), exprs((3, 1))))
    document = json.loads(extern_nodes(plan_of(call, layouts=(result,)), {"s0": 4}))
    assert list(document["sym_int_values"]) == ["s0", "size0"]
    stored = document["sym_int_values"]["size0"]["as_expr"]
    assert stored == {"expr_str": srepr(e), "hint": {"as_int": 9}}
    meta = document["tensor_values"]["r"]
    assert (
        meta["dtype"] == 8 and meta["sizes"][0] == {"as_expr": stored} and meta["sizes"][1] == {"as_int": 3}
    )
    assert document["range_constraints"] == {"s0": {"min_val": 2, "max_val": None}}
    assert document["tensor_values"]["x"]["strides"] == [{"as_int": 3}, {"as_int": 1}]


def test_srepr_is_sympys() -> None:
    import sympy

    from braze.symbolic.from_sympy import expr_to_sympy

    t = Symbol("u3", 0, None)
    for e in (
        S.expr,
        S.expr * 3 - 2,
        S.expr * t.expr,
        floordiv(S.expr + 1, 2),
        mod(S.expr, 4),
        minimum(S.expr, t.expr),
        maximum(S.expr - 7, 1),
        Expr(()),
    ):
        names = {name: getattr(torch.utils._sympy.functions, name) for name in ("FloorDiv", "PythonMod")}
        names |= {name: getattr(torch.utils._sympy.functions, name) for name in ("Min", "Max")}
        assert sympy.sympify(srepr(e), locals=names) == expr_to_sympy(e)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (CallExtern("python::f", (X,), (), "r"), "f is not an operator"),
        (CallExtern("aten::no_such_thing", (X,), (), "r"), "no operator aten::no_such_thing"),
        (CallExtern("aten::sum", (Ref("nobody"),), (), "r"), "does not say what tensor nobody is"),
        (CallExtern("aten::add.Tensor", (X,), (), "r"), "lacks its argument 'other'"),
        (CallExtern("aten::view", (X, ("two",)), (), "r"), "argument 'size' of aten::view"),
        (CallExtern("aten::cat", ((3, X),), (), "r"), "3 is not a tensor"),
        (CallExtern("aten::sort", (X,), (), "r"), "returns 2 values"),
        (CallExtern("aten::sin", (X,), (), ("r", "r2")), "returns one Tensor"),
    ],
)
def test_what_has_no_place_in_the_schema_is_refused(call: CallExtern, complaint: str) -> None:
    with pytest.raises(UnserializableError, match=complaint):
        extern_nodes(plan_of(call, layouts=(layout("r", 2, 3), layout("r2", 2, 3))))


def test_the_replay_sees_a_wrong_call() -> None:
    x, y = torch.rand(2, 3), torch.rand(2, 3)
    plan = plan_of(CallExtern("aten::sub.Tensor", (X, Ref("y")), (), "r"), layouts=(layout("r", 2, 3),))
    rng = torch.get_rng_state()
    good = Recorder(torch.sub, [Call((x, y), {}, rng, x - y, ((x, y), {}))])
    assert check(plan, [good]) == 1
    with pytest.raises(Mismatch):
        check(plan, [Recorder(torch.sub, [Call((x, y), {}, rng, x + y, ((x, y), {}))])])


@pytest.fixture(scope="module")
def database() -> Database:
    return Database()


SAMPLED = """
    addbmm cdist cholesky_solve fft.hfft geqrf grid_sampler_3d linalg.cholesky linalg.eigh linalg.qr
    linalg.svd lu_unpack masked.median median mode nn.functional.conv_transpose2d nn.functional.max_pool2d
    linalg.solve sort topk triangular_solve
"""


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_externs_of_the_operator_database(database: Database, dynamic: bool) -> None:
    wanted = set(SAMPLED.split())
    compared: dict[str, int] = {}
    for pair in [p for p in database.pairs() if p.op in wanted and p.dtype == "float32"]:
        found = try_pair(database, Pair(pair.op, pair.dtype), 1, dynamic)
        assert not found.wrong and not found.refused, (pair, found)
        compared.update(found.compared)
    assert len(compared) >= 15
