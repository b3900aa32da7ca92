"""The call around compiled graphs, from specs and graphs written by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
import torch
from hypothesis import given

from braze.artifact import codec
from braze.artifact.autograd_call import build_call
from braze.artifact.call_spec import (
    AliasOfInput,
    AliasOfResult,
    Backward,
    CallSpec,
    CopyBack,
    Fresh,
    Place,
    SameAsInput,
    Tangent,
    check_spec,
)
from braze.errors import ArtifactError


def _taken(inputs: list[Any]) -> list[Any]:
    """The inputs, out of the list that a boxed graph has to empty."""
    taken = list(inputs)
    inputs.clear()
    return taken


# -- inference ----------------------------------------------------------------------------------------------
def test_a_graph_runs_without_gradients_and_without_autocast() -> None:
    seen = []

    def graph(inputs: list[Any]) -> list[Any]:
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        (x,) = _taken(inputs)
        return [x + 1]

    call = build_call(CallSpec(1, (Fresh(),), autocast=True), graph)
    with torch.autocast("cpu"):
        (result,) = call(torch.ones(2, requires_grad=True))
        assert torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()
    assert not result.requires_grad
    assert seen == [(False, False)]


def test_grad_mode_comes_back_after_an_error() -> None:
    def graph(inputs: list[Any]) -> list[Any]:
        raise IndexError("out of range")

    with pytest.raises(IndexError):
        build_call(CallSpec(1, (Fresh(),)), graph)(torch.ones(2))
    assert torch.is_grad_enabled()


_INPUTS_DIE = """
import weakref, torch
from braze.artifact.autograd_call import build_call
from braze.artifact.call_spec import CallSpec, Fresh

def graph(inputs):
    x = inputs.pop()
    watched = weakref.ref(x)
    result = x + 1
    del x
    print(watched() is None)
    return [result]

build_call(CallSpec(1, (Fresh(),)), graph)(torch.ones(2) * 3)
"""


def test_inputs_can_die_while_the_graph_runs() -> None:
    # in a process of its own: after an error in a trace, whatever the backend, Dynamo goes on evaluating all
    # frames of its process, and then whoever calls a Python function holds the arguments
    command = [sys.executable, "-c", _INPUTS_DIE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # before Python 3.11 whoever calls holds the arguments, too
    assert done.stdout.split() == [str(sys.version_info >= (3, 11))], done.stderr


def test_a_new_value_is_copied_back() -> None:
    def graph(inputs: list[Any]) -> list[Any]:
        x, y = _taken(inputs)
        return [x + y, y * 2]

    spec = CallSpec(2, (Fresh(),), copied_back=(CopyBack(0, leaf=True, requires_grad=False),))
    x = torch.ones(3)
    (result,) = build_call(spec, graph)(x, torch.full((3,), 2.0))
    torch.testing.assert_close(x, torch.full((3,), 3.0))
    torch.testing.assert_close(result, torch.full((3,), 4.0))


def test_a_leaf_gets_its_new_value_behind_autograds_back() -> None:
    spec = CallSpec(1, (), copied_back=(CopyBack(0, leaf=True, requires_grad=True),))
    x = torch.ones(3, requires_grad=True)
    build_call(spec, lambda inputs: [_taken(inputs)[0].detach() * 5])(x)
    torch.testing.assert_close(x.detach(), torch.full((3,), 5.0))
    assert x.is_leaf


def test_autograd_hears_of_writes_inside_the_graph() -> None:
    def graph(inputs: list[Any]) -> list[Any]:
        (x,) = _taken(inputs)
        x.numpy()[:] = 4  # as compiled code does: no version counter notices
        return [x + 0]

    x = torch.ones(3)
    before = x._version
    build_call(CallSpec(1, (Fresh(),), written=(0,)), graph)(x)
    assert x._version > before


def test_aliases() -> None:
    def graph(inputs: list[Any]) -> list[Any]:
        x, y = _taken(inputs)
        return [x, y.detach().t(), 7, x + y]

    spec = CallSpec(2, (SameAsInput(0), AliasOfInput(1, requires_grad=True, place=Place()), Fresh(), Fresh()))
    x, y = torch.ones(2, 3), torch.ones(2, 3, requires_grad=True)
    same, view, number, _ = build_call(spec, graph)(x, y[:, :])
    assert same is x
    assert view.shape == (3, 2) and view.data_ptr() == y.data_ptr()
    view.sum().backward()
    torch.testing.assert_close(y.grad, torch.ones(2, 3))
    assert number == 7


def test_a_detached_alias_is_detached() -> None:
    spec = CallSpec(1, (AliasOfInput(0, requires_grad=False, place=Place()),))
    (view,) = build_call(spec, lambda inputs: [_taken(inputs)[0].detach()])(torch.ones(3, requires_grad=True))
    assert not view.requires_grad


def test_a_view_lies_where_its_place_says() -> None:
    x = torch.arange(12.0)
    cases: list[tuple[torch.Tensor, Place, torch.Tensor]] = [
        (x[2:8], Place(1, (3,), (1,)), x[3:6]),
        (x[::2], Place(4, (2,), (2,)), x[4:8:2]),  # the copy has no gaps, the input has
        (x[4:], Place(-3, (2,), (1,)), x[1:3]),
        (x[2:8], Place(2), x[4:8]),  # the sizes of the call
    ]
    for base, place, expected in cases:
        spec = CallSpec(1, (AliasOfInput(0, requires_grad=False, place=place),))

        def copying(inputs: list[Any], expected: torch.Tensor = expected) -> list[Any]:
            inputs.clear()
            return [expected.clone()]

        (view,) = build_call(spec, copying)(base)
        assert view.data_ptr() == expected.data_ptr()
        assert torch.equal(view, expected)


def test_symbolic_dimensions_are_marked() -> None:
    spec = CallSpec(1, (Fresh(), Fresh()), dynamic=((1, (0, 2)),))
    call = build_call(spec, lambda inputs: [torch.ones(2), _taken(inputs)[0] + 1])
    plain, marked = call(torch.ones(2, 3, 4))
    dims = [value for name, value in vars(marked).items() if name.startswith("_dynamo_")]
    assert dims == [{0, 2}]
    assert not vars(plain)


def test_the_grad_mode_that_a_function_leaves_behind() -> None:
    call = build_call(CallSpec(1, (Fresh(),), grad_mode=False), lambda inputs: [_taken(inputs)[0] + 1])
    try:
        call(torch.ones(2))
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


# -- training -----------------------------------------------------------------------------------------------
def _product(**changes: Any) -> CallSpec:
    """x * y, both differentiable, both saved."""
    fields: dict[str, Any] = {
        "saved": 2,
        "unchecked": 0,
        "numbers": 0,
        "bases": 0,
        "tangents": (Tangent(0, (2, 3), (3, 1)),),
        "detached": (),
        "inputs_need_grad": True,
        "nondeterministic": True,
    }
    outputs = changes.pop("outputs", (Fresh(requires_grad=True),))
    return CallSpec(2, outputs, backward=Backward(**{**fields, **changes}))


def _product_forward(inputs: list[Any]) -> Sequence[Any]:
    x, y = _taken(inputs)
    return [x * y, x, y]


def _product_backward(inputs: list[Any]) -> Sequence[Any]:
    x, y, gradient = _taken(inputs)
    assert gradient.stride() == (3, 1)
    return [gradient * y, gradient * x]


def _pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)


def test_gradients() -> None:
    x, y = _pair()
    (result,) = build_call(_product(), _product_forward, _product_backward)(x, y)
    assert type(result.grad_fn).__name__ == "CompiledFunctionBackward"
    weight = torch.randn(3, 2).t()
    result.backward(weight)
    torch.testing.assert_close(x.grad, weight * y.detach())
    torch.testing.assert_close(y.grad, weight * x.detach())


def test_without_gradients_enabled_it_still_records() -> None:
    call = build_call(_product(), _product_forward, _product_backward)
    with torch.no_grad():
        (result,) = call(*_pair())
        assert not torch.is_grad_enabled()
    assert result.requires_grad


def test_an_input_that_needs_no_gradient() -> None:
    x, y = _pair()
    (result,) = build_call(_product(), _product_forward, lambda i: [_product_backward(i)[0], None])(
        x, y.detach()
    )
    result.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    assert y.grad is None


def test_numbers_and_unchecked_tensors_are_kept() -> None:
    seen = []

    def backward(inputs: list[Any]) -> Sequence[Any]:
        number, x, y, gradient = _taken(inputs)
        seen.append(number)
        return [gradient * y, gradient * x]

    x, y = _pair()
    spec = _product(saved=1, unchecked=1, numbers=1)
    (result,) = build_call(spec, lambda i: [*_product_forward(i), 42], backward)(x, y)
    with torch.no_grad():
        y.add_(0)  # kept without a version check
    result.sum().backward()
    assert seen == [42]
    torch.testing.assert_close(x.grad, y.detach())


def test_a_detached_input_is_not_walked_into() -> None:
    x, source = _pair()
    y = source * 1
    y.sum().backward()
    call = build_call(_product(detached=(1,)), _product_forward, lambda i: [_product_backward(i)[0], None])
    call(x, y)[0].sum().backward()
    assert x.grad is not None


def test_views_of_a_result() -> None:
    x, y = _pair()

    def forward(inputs: list[Any]) -> Sequence[Any]:
        product, a, b = _product_forward(inputs)
        return [product.t(), product[0], product, a, b]

    def backward(inputs: list[Any]) -> Sequence[Any]:
        return _product_backward(inputs)

    spec = _product(
        outputs=(AliasOfResult(2, True, Place()), AliasOfResult(2, True, Place())),
        bases=1,
        tangents=(Tangent(2, memory_format="contiguous_format"),),
    )
    turned, row = build_call(spec, forward, backward)(x, y)
    assert turned._base is row._base is not None
    (turned.sum() + row.sum()).backward()
    expected = torch.tensor([[2.0], [1.0]]) * y.detach()
    torch.testing.assert_close(x.grad, expected)


def test_no_backward_graph() -> None:
    with pytest.raises(ArtifactError, match="backward"):
        build_call(_product(), _product_forward)


def test_a_graph_that_returns_something_else() -> None:
    call = build_call(_product(), lambda inputs: [_taken(inputs)[0]], _product_backward)
    with pytest.raises(ArtifactError, match="1 values instead of 3"):
        call(*_pair())


# -- specs from elsewhere -----------------------------------------------------------------------------------
_small = st.integers(0, 4)
_dims = st.none() | st.lists(_small, max_size=2).map(tuple)
_places = st.builds(Place, st.integers(-3, 3), _dims, _dims)
_outputs = st.one_of(
    st.builds(Fresh, st.booleans(), st.booleans()),
    st.builds(SameAsInput, _small),
    st.builds(AliasOfInput, _small, st.booleans(), _places),
    st.builds(AliasOfResult, _small, st.booleans(), _places),
)
_tangents = st.builds(
    Tangent,
    _small,
    st.none() | st.tuples(_small, _small),
    st.none() | st.tuples(_small) | st.tuples(_small, _small),
    st.sampled_from([None, "channels_last", "float32"]),
)
_positions = st.lists(_small, max_size=2).map(tuple)
_backwards = st.builds(
    Backward,
    saved=_small,
    unchecked=_small,
    numbers=_small,
    bases=_small,
    tangents=st.lists(_tangents, max_size=2).map(tuple),
    detached=_positions,
    inputs_need_grad=st.booleans(),
    nondeterministic=st.booleans(),
)
_specs = st.builds(
    CallSpec,
    inputs=_small,
    outputs=st.lists(_outputs, max_size=3).map(tuple),
    copied_back=st.lists(st.builds(CopyBack, _small, st.booleans(), st.booleans()), max_size=2).map(tuple),
    written=_positions,
    dynamic=st.lists(st.tuples(_small, _positions), max_size=2).map(tuple),
    autocast=st.booleans(),
    grad_mode=st.none() | st.booleans(),
    backward=st.none() | _backwards,
)


@given(_specs)
def test_specs_survive_storage_and_are_refused_or_built(spec: CallSpec) -> None:
    data, _ = codec.encode(spec)
    assert codec.decode(data, CallSpec, {}) == spec
    try:
        check_spec(spec)
    except ArtifactError:
        with pytest.raises(ArtifactError):
            build_call(spec, lambda inputs: [], lambda inputs: [])
        return
    assert callable(build_call(spec, lambda inputs: [], lambda inputs: []))


@pytest.mark.parametrize(
    "spec",
    [
        CallSpec(1, (SameAsInput(1),)),
        CallSpec(1, (AliasOfResult(1, False, Place()),)),
        CallSpec(1, (AliasOfInput(0, False, Place(0, (2,))),)),
        CallSpec(1, (AliasOfInput(0, False, Place(0, (2,), (1, 1))),)),
        CallSpec(1, (), written=(1,)),
        CallSpec(1, (), copied_back=(CopyBack(3, False, False),)),
        CallSpec(1, (Fresh(),), dynamic=((1, (0,)),)),
        _product(detached=(2,)),
        _product(tangents=(Tangent(5, (1,), (1,)),)),
        _product(tangents=(Tangent(0, (1, 2), (1,)),)),
        _product(tangents=(Tangent(0, memory_format="float32"),)),
    ],
    ids=repr,
)
def test_specs_that_contradict_themselves_are_refused(spec: CallSpec) -> None:
    with pytest.raises(ArtifactError):
        check_spec(spec)


@pytest.mark.parametrize("field", ["inputs", "outputs", "extra"])
def test_specs_that_do_not_fit_the_schema_are_refused(field: str) -> None:
    fields: dict[str, Any] = {"inputs": 1, "outputs": [{"type": "fresh"}]}
    fields[field] = {"inputs": -1, "outputs": [{"type": "unheard of"}], "extra": 1}[field]
    with pytest.raises(ArtifactError):
        codec.decode(msgspec.msgpack.encode(fields), CallSpec, {})
