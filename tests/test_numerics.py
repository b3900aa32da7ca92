"""The rule that every other test relies on accepts what it should and refuses the rest."""

from __future__ import annotations

import pytest
import torch

from tests.numerics import Disagreement, assert_agrees, in_float64, leaves, scaled_error

EAGER = torch.tensor([1.0, -2.0, float("nan"), float("inf"), 1e-3])


def test_equal_results_agree_with_nan_and_infinity() -> None:
    assert_agrees({"a": [EAGER.clone(), 3, float("nan"), None]}, {"a": [EAGER, 3, float("nan"), None]})


def test_rounding_is_within_the_tolerance() -> None:
    assert_agrees(EAGER * (1 + 2**-23), EAGER)


@pytest.mark.parametrize(
    "actual",
    [
        torch.tensor([1.0, -2.0, 0.0, float("inf"), 1e-3]),
        torch.tensor([1.0, -2.0, float("nan"), float("-inf"), 1e-3]),
        torch.tensor([1.001, -2.0, float("nan"), float("inf"), 1e-3]),
        EAGER.double(),
        EAGER.clone().requires_grad_(),
        EAGER[:4],
        EAGER.repeat_interleave(2)[::2],
        EAGER.to("meta"),
        5.0,
    ],
    ids=["nan", "sign", "value", "dtype", "requires_grad", "shape", "stride", "device", "type"],
)
def test_each_kind_of_difference_is_refused(actual: object) -> None:
    with pytest.raises(Disagreement, match="result"):
        assert_agrees(actual, EAGER)


def test_different_trees_are_refused() -> None:
    with pytest.raises(Disagreement, match="different trees"):
        assert_agrees([EAGER], [EAGER, EAGER])
    with pytest.raises(Disagreement, match="different trees"):
        assert_agrees({"a": EAGER}, {"b": EAGER})


def test_integers_and_booleans_are_compared_exactly() -> None:
    with pytest.raises(Disagreement):
        assert_agrees(torch.tensor([2**40 + 1]), torch.tensor([2**40]))
    with pytest.raises(Disagreement):
        assert_agrees(torch.tensor([True]), torch.tensor([False]))
    with pytest.raises(Disagreement):
        assert_agrees(True, False)


def test_strides_of_dimensions_with_one_element_say_nothing() -> None:
    assert_agrees(torch.ones(3).as_strided((1, 3), (7, 1)), torch.ones(1, 3))


def test_an_error_up_to_twice_eagers_own_is_allowed() -> None:
    reference = torch.tensor([1.0, 100.0], dtype=torch.float64)
    eager = torch.tensor([1.0, 100.5])
    assert_agrees(torch.tensor([1.009, 99.01]), eager, reference)
    with pytest.raises(Disagreement):
        assert_agrees(torch.tensor([1.0, 101.1]), eager, reference)
    # A large error in a small element is not hidden by a large element.
    with pytest.raises(Disagreement):
        assert_agrees(torch.tensor([1.4, 100.0]), eager, reference)


def test_the_reference_is_computed_only_where_it_is_needed() -> None:
    def never() -> torch.Tensor:
        raise AssertionError("not needed")

    assert_agrees(EAGER.clone(), EAGER, never)


def test_a_reference_that_cannot_be_computed_excuses_nothing() -> None:
    def unable() -> torch.Tensor:
        raise NotImplementedError("no float64")

    with pytest.raises(Disagreement, match="no float64 reference: NotImplementedError"):
        assert_agrees(EAGER + 1, EAGER, unable)


def test_values_out_of_range_of_the_dtype_are_infinite_in_the_reference() -> None:
    reference = torch.tensor([1e300], dtype=torch.float64)
    assert scaled_error(torch.tensor([float("inf")]), reference, torch.float32) == 0
    assert scaled_error(torch.tensor([1e38]), reference, torch.float32) == float("inf")


def test_float64_copies() -> None:
    layer = torch.nn.Linear(2, 2)
    assert in_float64(layer).weight.dtype is torch.float64 and layer.weight.dtype is torch.float32
    tree = in_float64({"x": (torch.ones(1), torch.ones(1, dtype=torch.int64), "s")})
    kinds = [leaf.dtype if isinstance(leaf, torch.Tensor) else leaf for _, leaf in leaves(tree)]
    assert kinds == [torch.float64, torch.int64, "s"]


def test_values_can_be_left_out() -> None:
    assert_agrees(torch.zeros(3), torch.ones(3), check_values=False)
    with pytest.raises(Disagreement):
        assert_agrees(torch.zeros(3), torch.ones(4), check_values=False)


def test_not_a_number_where_eager_has_it_is_no_error() -> None:
    # A product overflows on the way, and float64 has a number for it: eager's other elements still count.
    eager = torch.tensor([float("nan"), 100.5])
    reference = torch.tensor([3.0, 100.0], dtype=torch.float64)
    assert_agrees(torch.tensor([float("nan"), 99.6]), eager, reference)
    with pytest.raises(Disagreement):
        assert_agrees(torch.tensor([float("nan"), 101.1]), eager, reference)
    with pytest.raises(Disagreement):
        assert_agrees(torch.tensor([float("inf"), 99.6]), eager, reference)
