"""What packages promise of sizes, memory and kinds of arguments is checked at every call."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.export import Dim, export

import braze
from braze.artifact.loaded import Loaded
from braze.errors import InputMismatchError, PackageError
from tests.artifact.related_sizes import STEPS, Two
from tests.guard_pages import passes_in_child

AUTO = {0: Dim.AUTO}


def program(body: Callable[..., Any], sizes: Sequence[int], shapes: Any = (AUTO, AUTO)) -> Any:
    return export(Two(body), tuple(torch.randn(n) for n in sizes), dynamic_shapes=shapes)


def packed(source: Any, folder: Path) -> Loaded:
    return braze.aot_load(braze.aot_compile(source, folder / "model.pt2", targets=("host",)))


def test_random_programs_refuse_what_the_exported_program_refuses() -> None:
    said = passes_in_child("tests.artifact.related_sizes", "--programs", "14")
    assert "both refuse" in said and "both agree" in said


@pytest.mark.parametrize(
    ("step", "sizes", "condition"),
    [
        ("head", (3, 6), "x.shape[0] >= y.shape[0], but x.shape[0] is 3 and y.shape[0] is 6"),
        ("one", (3, 6), "x.shape[0] >= y.shape[0]"),
        ("rows", (9, 2), "(x.shape[0]%y.shape[0]) == 0"),
        ("branch", (5, 6), "x.shape[0] >= y.shape[0] + 1"),
        ("equal", (5, 6), "x.shape[0] == y.shape[0]"),
        ("one more", (6, 6), "x.shape[0] == y.shape[0] + 1"),
        ("narrow inside", (7, 6), "x.shape[0] >= y.shape[0] + 2"),
    ],
)
def test_a_condition_is_named_in_terms_of_the_arguments(
    tmp_path: Path, step: str, sizes: tuple[int, int], condition: str
) -> None:
    body, n, m = STEPS[step]
    loaded = packed(program(body, (n, m)), tmp_path)
    x, y = torch.randn(n), torch.randn(m)
    torch.testing.assert_close(loaded(x, y), body(x, y))
    with pytest.raises(InputMismatchError) as caught:
        loaded(*(torch.randn(k) for k in sizes))
    assert condition in caught.value.what.replace(
        "y.shape[0] + 1 == x.shape[0]", "x.shape[0] == y.shape[0] + 1"
    )


def test_conditions_of_a_program_that_was_saved(tmp_path: Path) -> None:
    body, n, m = STEPS["branch"]
    file = io.BytesIO()
    torch.export.save(program(body, (n, m)), file)
    file.seek(0)
    loaded = packed(torch.export.load(file), tmp_path)
    with pytest.raises(InputMismatchError, match=r"x.shape\[0\] >= y.shape\[0\] \+ 1"):
        loaded(torch.randn(3), torch.randn(5))


@pytest.mark.parametrize(("factor", "rest"), [(1, 0), (2, 0), (1, 3), (2, 1), (3, -1)])
def test_a_number_that_is_nobodys_size(tmp_path: Path, factor: int, rest: int) -> None:
    """It follows from the size that was declared to be a multiple of it, or a sum."""
    length = Dim("length", min=2, max=50)
    derived = {0: factor * length + rest if rest else factor * length}
    source = program(lambda x, y: x.cumsum(0) + y[0], (factor * 4 + rest, 3), (derived, None))
    loaded, module = packed(source, tmp_path), source.module()
    for number in (4, 9):
        x, y = torch.randn(factor * number + rest), torch.randn(3)
        torch.testing.assert_close(loaded(x, y), module(x, y))
    with pytest.raises(InputMismatchError, match=r"x|size 0"):
        loaded(torch.randn(factor * 51 + rest), torch.randn(3))
    if factor > 1:
        with pytest.raises(InputMismatchError, match=rf"//{factor}\)\*{factor}"):
            loaded(torch.randn(factor * 5 + rest + 1), torch.randn(3))


def test_a_condition_that_no_package_can_check(tmp_path: Path) -> None:
    source = program(lambda x, y: x * 2 if x.shape[0] / 2 > y.shape[0] else y, (9, 3))
    with pytest.raises(PackageError, match=r"only for sizes with .*x.shape\[0\].*y.shape\[0\]"):
        braze.aot_compile(source, tmp_path / "model.pt2", targets=("host",))


# -- numbers that come out of the data --------------------------------------------------------------------
def _first(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    n = y.sum().item()
    torch._check(n >= 0)
    torch._check(n <= x.shape[0])
    return x[:n] * 2


def _promised(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    n = y[0].item()
    torch._check(n == x.shape[0])
    return x.new_ones(n) * x


def _found(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return y.nonzero()[:, 0] + x


def _picked(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x[y[0].item()] + y


@pytest.mark.parametrize(
    ("body", "good", "bad"),
    [
        (_first, [2, 3], [[4, 3], [2, -3]]),
        (_promised, [6, 1], [[5, 1], [7, 1], [-6, 1]]),
        (_found, [1, 0, 1, 1, 1, 1, 1], [[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]),
        (_picked, [5, 0], [[6, 0], [-7, 0], [1 << 40, 0]]),
        (_picked, [-6, 0], [[1 << 20, 0]]),
    ],
)
def test_sizes_and_positions_out_of_the_data(
    tmp_path: Path, body: Any, good: list[int], bad: list[list[int]]
) -> None:
    source = export(Two(body), (torch.randn(6), torch.tensor(good)), dynamic_shapes=(AUTO, AUTO))
    loaded, module = packed(source, tmp_path), source.module()
    x = torch.randn(6)
    torch.testing.assert_close(loaded(x, torch.tensor(good)), module(x, torch.tensor(good)))
    for numbers in bad:
        with pytest.raises((RuntimeError, IndexError)):
            module(x, torch.tensor(numbers))
        with pytest.raises((RuntimeError, IndexError)):
            loaded(x, torch.tensor(numbers))


# -- memory -----------------------------------------------------------------------------------------------
def _writes(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.mul_(2)
    return x.cumsum(0) + y


def test_what_the_program_writes_to_is_nobody_elses(tmp_path: Path) -> None:
    """Exported programs see each write at once, packages when they come to it."""
    loaded = packed(program(_writes, (8, 8), None), tmp_path)
    base = torch.randn(40)
    for y in (base[:8], base[4:12], base[7:15], base[::2][:8], base[:8].flip(0).as_strided((8,), (1,))):
        shared = y.untyped_storage().data_ptr() == base.untyped_storage().data_ptr()
        before = base.clone()
        if shared:
            with pytest.raises(InputMismatchError, match="writes to x, which shares memory with y"):
                loaded(base[:8], y)
            assert torch.equal(base, before)
        else:
            loaded(base[:8], y)
    both = torch.randn(8, 2)
    x, y = both.unbind(1)  # among each other, and apart
    wanted = (x * 2).cumsum(0) + y
    torch.testing.assert_close(loaded(x, y), wanted)


class Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return self.total * x


def test_a_buffer_that_the_program_writes_to_is_no_argument(tmp_path: Path) -> None:
    loaded = packed(export(Counts(), (torch.randn(4),)), tmp_path)
    with pytest.raises(InputMismatchError, match="writes to the weight 'total', which shares memory with x"):
        loaded(loaded.state["total"])
    x = torch.randn(4)
    torch.testing.assert_close(loaded(x), x * x)


def _without_memory() -> torch.Tensor:
    tensor = torch.randn(4)
    tensor.untyped_storage().resize_(0)
    return tensor


ODD: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "number": lambda: 3,
    "list": lambda: [1.0, 2.0, 3.0, 4.0],
    "meta": lambda: torch.empty(4, device="meta"),
    "fake": lambda: FakeTensorMode().from_tensor(torch.randn(4)),
    "without memory": _without_memory,
    "sparse": lambda: torch.ones(4).to_sparse(),
    "nested": lambda: torch.nested.nested_tensor([torch.randn(4)]),
    "mkldnn": lambda: torch.randn(4).to_mkldnn(),
    "empty": lambda: torch.randn(0),
    "shorter": lambda: torch.randn(3),
    "other type": lambda: torch.randn(4).to(torch.float64),
    "other rank": lambda: torch.randn(4, 1),
}


@pytest.mark.filterwarnings("ignore:Accessing the data pointer", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("shapes", [None, (AUTO, AUTO)], ids=["fixed", "symbolic"])
@pytest.mark.parametrize("kind", ODD)
def test_odd_arguments_are_refused(tmp_path: Path, kind: str, shapes: Any) -> None:
    loaded = packed(program(lambda x, y: x.exp() + y, (4, 4), shapes), tmp_path)
    good = torch.randn(4)
    for _ in range(2):  # the second call knows what good tensors are like
        torch.testing.assert_close(loaded(good, good), good.exp() + good)
        with pytest.raises((InputMismatchError, RuntimeError)):
            loaded(ODD[kind](), good)
