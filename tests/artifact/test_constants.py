from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from braze.artifact.constants import BoundByName, CompiledFxGraphConstants
from braze.errors import ArtifactError, InputMismatchError, UnserializableError
from tests.artifact.fuzz import damaged

DTYPES = """
bfloat16 bool complex128 complex64 float16 float32 float4_e2m1fn_x2 float64 float8_e4m3fn
float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu int16 int32 int64 int8 uint16 uint32 uint64 uint8
""".split()


def bits(tensor: torch.Tensor) -> bytes:
    """The elements, in order, as they lie in memory."""
    dense = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    return b"" if not dense.numel() else dense.reshape(-1).view(torch.uint8).numpy().tobytes()


def round_trip(tensor: torch.Tensor) -> torch.Tensor:
    data = CompiledFxGraphConstants({"k": tensor}).to_bytes()
    (back,) = CompiledFxGraphConstants.from_bytes(data).stored.values()
    assert (back.dtype, back.shape, back.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert bits(back) == bits(tensor)
    assert back.data_ptr() % 64 == 0
    return back


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(name: str) -> None:
    dtype = getattr(torch, name)
    flat = torch.randint(0, 2, (24 * dtype.itemsize,), dtype=torch.uint8).view(dtype)
    for tensor in (flat, flat.view(4, 6).t(), flat[::5], flat[3], flat[:0], flat.view(2, 3, 4)[:, 1]):
        round_trip(tensor)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_half_complex() -> None:
    flat = torch.view_as_complex(torch.randn(12, 2).half())
    round_trip(flat)
    round_trip(flat[::5])


BASE = torch.arange(100.0)


@pytest.mark.parametrize(
    "tensor",
    [
        BASE[:3].expand(4, 3),
        BASE[:20].unfold(0, 4, 2),
        BASE.as_strided((2, 2), (0, 3)),
        BASE.as_strided((0, 5), (1000, 7)),
        BASE[5:9],
        BASE.as_strided((1,), (999,), 99),
        torch.nn.Parameter(BASE[:6].view(2, 3)),
        torch.tensor([float("nan"), -0.0, float("inf")]),
    ],
    ids=[
        "expanded",
        "overlapping",
        "repeated with a gap",
        "empty",
        "offset",
        "odd stride",
        "parameter",
        "special",
    ],
)
def test_every_way_to_lie_in_memory(tensor: torch.Tensor) -> None:
    assert not round_trip(tensor).requires_grad


def test_what_lies_between_elements_is_not_stored() -> None:
    secret = torch.full((9,), 42.0)
    data = CompiledFxGraphConstants({"k": secret[::4]}).to_bytes()
    assert load(data)["k"].tolist() == [42, 0, 0, 0, 42, 0, 0, 0, 42]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=4),
    st.sampled_from([torch.float32, torch.bool, torch.complex64, torch.float8_e5m2fnuz]),
)
def test_any_strides(dims: list[tuple[int, int]], dtype: torch.dtype) -> None:
    memory = torch.randint(0, 2, (128 * dtype.itemsize,), dtype=torch.uint8).view(dtype)
    round_trip(memory.as_strided([n for n, _ in dims], [s for _, s in dims]))


def test_the_file_is_an_ordinary_safetensors_file() -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5)}
    data = CompiledFxGraphConstants(tensors).to_bytes()
    found = load(data)
    assert torch.equal(found["a"].view(3, 4), tensors["a"]) and torch.equal(found["b"], tensors["b"])
    assert CompiledFxGraphConstants(dict(reversed(tensors.items()))).to_bytes() == data


def test_constants_that_share_memory() -> None:
    made = CompiledFxGraphConstants({"a": BASE, "b": BASE[:10], "c": BASE.view(10, 10).t()})
    back = CompiledFxGraphConstants.from_bytes(made.to_bytes())
    assert all(torch.equal(back.stored[k], made.stored[k]) for k in "abc")
    assert back.nbytes == made.nbytes == 4 * 210


class Odd(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.ones(3, device="meta"), "on meta"),
        (lambda: torch.ones(3).to_sparse(), "sparse"),
        (lambda: torch.ones(3).as_subclass(Odd), "Odd"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8), "qint8"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj(), "conjugate"),
    ],
)
def test_what_has_no_stored_form(make: Callable[[], torch.Tensor], says: str) -> None:
    with pytest.raises(UnserializableError, match=says):
        CompiledFxGraphConstants({"k": make()}).to_bytes()


def test_loading_without_a_copy() -> None:
    data = CompiledFxGraphConstants({"a": torch.arange(64.0), "b": torch.arange(3.0)}).to_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    memory = mmap.mmap(-1, len(data) + 64)
    memory[64 - begin % 64 : 64 - begin % 64 + len(data)] = data
    view = memoryview(memory)[64 - begin % 64 :][: len(data)]
    shared = CompiledFxGraphConstants.from_bytes(view, share=True).stored
    copied = CompiledFxGraphConstants.from_bytes(view).stored
    assert torch.equal(shared["a"], torch.arange(64.0)) and torch.equal(shared["b"], torch.arange(3.0))
    view[begin : begin + 4] = b"\0\0\x80\x3f"
    assert (shared["a"][0], copied["a"][0]) == (1, 0)
    read_only = CompiledFxGraphConstants.from_bytes(bytes(view), share=True).stored
    assert read_only["a"][0] == 1


# -- by name ------------------------------------------------------------------------------------------------
def bound() -> tuple[torch.nn.Module, CompiledFxGraphConstants]:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    names = {
        "w": BoundByName.of("0.weight", module[0].weight),  # type: ignore[arg-type]
        "mean": BoundByName.of("1.running_mean", module[1].running_mean),  # type: ignore[arg-type]
    }
    data = CompiledFxGraphConstants({"c": BASE}, names).to_bytes()
    return module, CompiledFxGraphConstants.from_bytes(data)


def test_binding_to_a_module_or_a_mapping() -> None:
    module, constants = bound()
    assert constants.keys == ("c", "mean", "w") and len(constants) == 3 and "w" in constants
    for source in (module, module.state_dict()):
        found = constants.bind(source)
        assert torch.equal(found["c"], BASE)
        with torch.no_grad():
            module[0].weight.fill_(7.0)  # type: ignore[union-attr]
        assert found["w"].eq(7).all() and not found["w"].requires_grad
        assert torch.equal(found["mean"], torch.zeros(4))


def test_two_names_of_one_parameter() -> None:
    module = torch.nn.Module()
    module.a = module.b = torch.nn.Parameter(torch.ones(2))
    names = {k: BoundByName.of(k, module.a) for k in "ab"}
    assert CompiledFxGraphConstants(bound=names).bind(module).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (None, "no parameter, buffer or tensor is named '0.weight'"),
        (torch.ones(4, 3, dtype=torch.float64), "dtype float64, and not float32"),
        (torch.ones(4, 4), r"sizes \(4, 4\), and not \(4, 3\)"),
        (torch.ones(3, 4).t(), r"strides \(1, 4\), and not \(3, 1\)"),
        (torch.ones(4, 3, device="meta"), "device meta"),
        ("text", "it is a str"),
    ],
)
def test_binding_what_does_not_fit(tensor: Any, says: str) -> None:
    module, constants = bound()
    source: dict[str, Any] = dict(module.state_dict())
    if tensor is None:
        del source["0.weight"]
    else:
        source["0.weight"] = tensor
    with pytest.raises(InputMismatchError, match=says):
        constants.bind(source)


def test_binding_needs_no_source_where_nothing_is_named() -> None:
    assert CompiledFxGraphConstants({"c": BASE}).bind().keys() == {"c"}
    with pytest.raises(InputMismatchError, match="no parameter"):
        bound()[1].bind()


def test_a_key_has_one_meaning() -> None:
    with pytest.raises(ArtifactError, match="stored and bound"):
        CompiledFxGraphConstants({"a": BASE}, {"a": BoundByName.of("a", BASE)})


# -- what is not such a file --------------------------------------------------------------------------------
def forged(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def file(table: object, body: bytes = bytes(16), **tensors: object) -> bytes:
    return forged({"__metadata__": {"braze": json.dumps(table)}, **tensors}, body)


F4 = {"type": "stored", "dtype": "float32", "sizes": [4], "strides": [1]}
X4 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HUGE = 1 << 61


def test_the_forging_itself() -> None:
    assert CompiledFxGraphConstants.from_bytes(file({"k": F4}, k=X4)).stored["k"].tolist() == [0] * 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        bytes(8),
        b"\xff" * 16,
        forged([]),
        forged({}),
        forged({"__metadata__": {"braze": "[" * 100_000}}),
        forged({"__metadata__": {"braze": "{}", "x": 1}}),
        file({}, k=X4),
        file({"k": F4}, b""),
        file({"k": F4}, bytes(17), k=X4),
        file({"k": F4}, bytes(15), k=X4),
        file({"k": F4}, k={**X4, "data_offsets": [4, 16]}),
        file({"k": F4}, k={**X4, "data_offsets": [0, 12]}),
        file({"k": F4}, k={**X4, "data_offsets": [16, 0]}),
        file({"k": F4}, k={**X4, "data_offsets": [0, 1 << 70]}),
        file({"k": F4}, k={**X4, "data_offsets": [-1, 15]}),
        file({"k": F4}, k={**X4, "dtype": "F64"}),
        file({"k": F4}, k={**X4, "shape": [5]}),
        file({"k": F4}, k={**X4, "extra": 1}),
        file({"k": {**F4, "strides": [2]}}, k=X4),
        file({"k": {**F4, "strides": [-1]}}, k=X4),
        file({"k": {**F4, "strides": [HUGE]}}, k=X4),
        file({"k": {**F4, "sizes": [5]}}, k=X4),
        file({"k": {**F4, "sizes": [4, 1]}}, k=X4),
        file({"k": {**F4, "sizes": [HUGE, 0, HUGE], "strides": [1, 1, 1]}}, k=X4),
        file({"k": {**F4, "sizes": [HUGE, HUGE, HUGE], "strides": [0, 0, 0]}}, k=X4),
        file({"k": {**F4, "sizes": [1] * 65, "strides": [1] * 65}}, k=X4),
        file({"k": {**F4, "dtype": "Tensor"}}, k=X4),
        file({"k": {**F4, "dtype": "float64"}}, k=X4),
        file({"k": {**F4, "dtype": "complex64"}}, k=X4),
        file({"k": {**F4, "type": "pickled"}}, k=X4),
        file({"k": {**F4, "more": 1}}, k=X4),
        file({"k": F4, "j": F4}, k=X4, j=X4),
        file({"k": F4, "j": F4}, k=X4),
        file({"k": {"type": "bound", "path": "", "dtype": "float32", "sizes": [], "strides": []}}, b""),
        file({"k": {"type": "bound", "path": "w", "dtype": "int", "sizes": [], "strides": []}}, b""),
        file({"k": {"type": "bound", "path": "w", "dtype": "bool", "sizes": [1], "strides": []}}, b""),
    ],
)
def test_forged_files_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        CompiledFxGraphConstants.from_bytes(data)


def test_damaged_files_are_refused_or_read() -> None:
    data = CompiledFxGraphConstants({"a": BASE[:3], "b": BASE[::9]}, bound()[1].bound).to_bytes()
    for _, broken in damaged_constants(data):
        try:
            found = CompiledFxGraphConstants.from_bytes(broken)
        except ArtifactError:
            continue
        assert all(t.sum() is not None for t in found.stored.values())


def damaged_constants(data: bytes) -> list[tuple[str, bytes]]:
    """Damage of a file without checksums of its own."""
    return [(what, broken) for what, broken in damaged(data, 1500, seed=2) if what != "flip_in_head"]
