"""Exported programs of many kinds as packages: what they give, write and refuse is what the program does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._higher_order_ops.hints_wrap import hints_wrapper
from torch.export import Dim, export
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

import braze
from braze.errors import BrazeError, PackageError


class Program(torch.nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.register_buffer("total", torch.zeros(3))
        self.table = torch.nn.Embedding(5, 3)
        self.tied = torch.nn.Linear(3, 5, bias=False)
        self.tied.weight = self.table.weight
        self.bag = torch.nn.EmbeddingBag(5, 3, mode="mean")
        self.lstm = torch.nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True)

    def forward(self, *args: Any) -> Any:
        return self.body(self, *args)


def piece(self: Any, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    length = count.item()
    torch._check(length >= 0)
    torch._check(length <= x.shape[0])
    return x[:length].sum()


def even(self: Any, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    length = count.item()
    torch._check(length > 1)
    torch._check(length % 2 == 0)
    return x.new_ones(length, 2) * x


def pieces(self: Any, lengths: torch.Tensor) -> Any:
    a, b = lengths.tolist()
    torch._check(a >= 0)
    torch._check(b >= 0)
    torch._check(a + b == 6)
    return torch.arange(6.0).split([a, b])


def checked(self: Any, x: torch.Tensor) -> torch.Tensor:
    torch._assert_async((x > -9).all())
    return x * 2


def counted(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.total.add_(x)
    return self.total * 2


def in_place(self: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x[0].mul_(y)
    return x.sum() + y


def autocast(self: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x


N = Dim("n", min=1, max=50)
AUTO = Dim.AUTO
x3, x4, i3 = torch.tensor([1.0, -2, 3]), torch.tensor([1.0, 0, 2, 0]), torch.tensor(3)
grid = torch.arange(12.0).view(3, 4)

# body, example, other calls, dynamic shapes
KINDS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], list[tuple[Any, ...]], Any]] = {
    "nonzero": (lambda self, x: x.nonzero(), (x4,), [(x4 * 0,), (x4 + 3,)], None),
    "nonzero of any": (
        lambda self, x: x[x.nonzero()[:, 0]] * 2,
        (x4,),
        [(torch.zeros(0),), (torch.ones(1),), (torch.ones(7),)],
        {0: AUTO},
    ),
    "selected": (lambda self, x: torch.masked_select(x, x > 0) + 1, (x4,), [(-x4,)], None),
    "unique": (lambda self, x: torch.unique(x, return_inverse=True), (x4,), [(x4 * 0,)], None),
    "repeated": (lambda self, x, n: x.repeat_interleave(n), (x3, torch.tensor([1, 2, 0])), [], None),
    "number": (lambda self, x, n: x + n.item(), (x3, i3), [(x3, i3 * 0)], None),
    "numbers": (lambda self, n: torch.arange(n.item()) * 2, (i3,), [(i3 * 0,), (i3 - 4,)], None),
    "piece": (piece, (grid, i3), [(grid, i3 * 0), (grid, i3 + 1), (grid, -i3)], None),
    "even": (even, (x3[:2], i3 + 1), [(x3[:2], i3), (x3[:2], i3 * 2), (x3[:2], i3 * 0)], None),
    "pieces": (pieces, (torch.tensor([2, 4]),), [(torch.tensor([0, 6]),), (torch.tensor([3, 4]),)], None),
    "checked": (checked, (x3,), [(-10 * x3,)], None),
    "inverse": (lambda self, x: torch.linalg.inv(x), (torch.eye(3) * 2,), [(torch.zeros(3, 3),)], None),
    "halves": (
        lambda self, x: x.view(-1, 2).sum(1),
        (torch.randn(8),),
        [(torch.randn(2),), (torch.randn(100),), (torch.randn(3),), (torch.randn(102),)],
        {0: 2 * N},
    ),
    "rows": (
        lambda self, x, y: x.view(y.shape[0], -1) + y[:, None],
        (torch.randn(12), torch.randn(4)),
        [(torch.randn(n), torch.randn(m)) for n, m in ((12, 3), (6, 6), (5, 2), (6, 1), (4, 0))],
        ({0: AUTO}, {0: AUTO}),
    ),
    "containers": (
        lambda self, d: {"o": [d["a"], d["b"][0] + 1], "n": None},
        ({"a": x3, "b": (x4,)},),
        [],
        None,
    ),
    "results of operators": (lambda self, x: (x.topk(2), x.sort(), x.max(0)), (x3,), [], None),
    "constants": (
        lambda self, x, k, flag, mode: x * k if flag and mode == "a" else x,
        (x3, 2, True, "a"),
        [],
        None,
    ),
    "floats": (lambda self, x, k: x * k, (x3, 2.5), [], None),
    "nothing given": (lambda self, x, mask: x if mask is None else x + mask, (x3, None), [], None),
    "what is not a tensor": (lambda self, x: (x + 1, 3, None, "s", 2.5, True), (x3,), [], None),
    "sizes": (
        lambda self, x: (x.shape[0], x.shape[0] * 2 + 1, x / x.shape[0] ** 0.5),
        (x3,),
        [(torch.ones(1),), (torch.ones(9),)],
        {0: AUTO},
    ),
    "items": (lambda self, x, n: (x.sum().item(), n.item(), x.any().item()), (x3, i3), [], None),
    "inputs back": (lambda self, x, y: (x, y + 1, x, x.view(-1)), (grid, x3), [], None),
    "buffer": (counted, (x3,), [(x3,), (x3 + 1,)], None),
    "tied": (
        lambda self, n: self.tied(self.table(n)),
        (torch.tensor([0, 4]),),
        [(torch.tensor([0, 5]),)],
        None,
    ),
    "bag": (lambda self, n, o: self.bag(n, o), (torch.tensor([0, 4, 2]), torch.tensor([0, 2])), [], None),
    "recurrent": (lambda self, x: self.lstm(x), (torch.randn(2, 4, 3),), [(torch.randn(1, 4, 3),)], {0: N}),
    "in place": (in_place, (grid, torch.tensor(2.0)), [], None),
    "transposed": (lambda self, x: x + 1, (grid.t(),), [(torch.randn(4, 3),)], None),
    "expanded": (lambda self, x: x * 2, (x3[:, None].expand(3, 4),), [(torch.randn(3, 4),)], None),
    "complex": (
        lambda self, x: (x * 1j).abs() + x.conj().real,
        (torch.randn(3, dtype=torch.complex64),),
        [],
        None,
    ),
    "types": (
        lambda self, a, b, c: (a + b.float() * c, c // 2, b.double()),
        (x3, x3.half(), torch.arange(3, dtype=torch.uint8)),
        [],
        None,
    ),
    "autocast": (autocast, (torch.randn(4, 4),), [], None),
    "no elements": (lambda self, x: (x.sum() + 1, x.softmax(0), x @ x.t()), (torch.zeros(0, 3),), [], None),
}


def outcome(call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What a call gives, with its arguments as they are afterwards, or the exception."""
    own = tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, args)
    try:
        return call(*own), own
    except (BrazeError, RuntimeError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        return error
    except AssertionError as error:
        assert call.__class__.__name__ != "Loaded", "an error without a name"
        return error


@pytest.mark.parametrize("kind", KINDS)
def test_packages_do_what_the_program_does(tmp_path: Path, kind: str) -> None:
    body, example, others, dims = KINDS[kind]
    shapes = None if dims is None else ((dims if isinstance(dims, tuple) else (dims,)),)
    copies = tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, example)
    source = export(Program(body), copies, dynamic_shapes=shapes)
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets="host"))
    module = source.module()
    for args in (example, *others):
        expected, found = outcome(module, args), outcome(loaded, args)
        if isinstance(expected, Exception):
            assert isinstance(found, Exception), f"the program raises {expected!r}"
            continue
        assert not isinstance(found, Exception), repr(found)
        assert tree_structure(found) == tree_structure(expected)
        for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
            assert type(one) is type(other)
            if isinstance(one, torch.Tensor):
                torch.testing.assert_close(one, other, equal_nan=True)
            else:
                assert one == (pytest.approx(other) if isinstance(other, float) else other)


def shared(x: torch.Tensor) -> Any:
    part = x[1:]
    part.mul_(2)
    return part, x.view(-1), x, x + 1, x.t()


@pytest.mark.parametrize(
    "body",
    [
        lambda self, x: (x.view(-1), x.t(), x[0], x, x * 2, x.detach(), x[:1].expand(3, 4)),
        lambda self, x: (x.add_(1), x.t(), x.sum()),
        lambda self, x: shared(x),
    ],
)
def test_results_share_memory_with_arguments_as_the_program_has_it(tmp_path: Path, body: Any) -> None:
    source = export(Program(body), (torch.randn(3, 4),))
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets="host"))
    one, two = torch.randn(3, 4), torch.zeros(3, 4)
    two.copy_(one)
    expected, found = source.module()(one), loaded(two)
    torch.testing.assert_close((found, two), (expected, one))
    places = [[t.untyped_storage().data_ptr() for t in (x, *r)] for x, r in ((one, expected), (two, found))]
    assert [p == places[0][0] for p in places[0]] == [p == places[1][0] for p in places[1]]


def test_what_takes_functions_is_refused_by_name(tmp_path: Path) -> None:
    source = export(
        Program(lambda self, x: hints_wrapper(torch.sin, (x,), {}, hints={"outermost": True})), (x3,)
    )
    with pytest.raises(PackageError, match=r"calls torch\.ops\.higher_order\.hints_wrapper") as caught:
        braze.aot_compile(source, tmp_path / "model.pt2", targets="host")
    assert caught.value.hint and not list(tmp_path.iterdir())


@pytest.mark.parametrize("dims", [None, {0: AUTO}])
def test_a_result_that_is_an_argument_under_another_type_shares_its_memory(tmp_path: Path, dims: Any) -> None:
    class Bits(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            bits = x.view(torch.int32)
            return bits.t(), bits + 1

    source = export(Bits(), (torch.randn(4, 6),), dynamic_shapes=(dims,))
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets=("host",)))
    x = torch.randn(4, 6)
    for found, expected in zip(loaded(x), source.module()(x), strict=True):
        torch.testing.assert_close(found, expected)
        assert (found.data_ptr() == x.data_ptr()) == (expected.data_ptr() == x.data_ptr())


def test_arguments_that_share_memory_in_the_example(tmp_path: Path) -> None:
    """One is written to, and they are of two types: PyTorch's own tracing finds no base for both."""

    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            x.clamp_(-3, 0)
            return y + 1, x * 2

    memory = torch.arange(-4, 4)
    source = export(Writes(), (memory[1:5], memory.view(torch.int32)[:6]))
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets=("host",)))
    ours, theirs = torch.arange(-4, 0), torch.arange(-4, 0)
    other = torch.arange(6, dtype=torch.int32)
    for found, expected in zip(loaded(ours, other), source.module()(theirs, other), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours, theirs)


def windows_of_one(self: Any, x: torch.Tensor) -> torch.Tensor:
    x.unfold(0, 1, 2).add_(10)
    return x + 0


def windows_of_two(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y.unfold(-1, 2, 2)[1:].mul_(3)
    return y


@pytest.mark.parametrize("dims", [None, ({0: Dim.AUTO, 1: Dim.AUTO},)], ids=["static", "dynamic"])
@pytest.mark.parametrize("body", [windows_of_one, windows_of_two])
def test_what_is_not_in_a_window_that_is_written_to_stays(tmp_path: Path, body: Any, dims: Any) -> None:
    program = Program(body)
    x = torch.randn(5, 7)
    source = export(program, (x.clone(),), dynamic_shapes={"args": dims} if dims else None)
    package = braze.aot_load(braze.aot_compile(source, tmp_path / "windows.pt2"))
    for size in ((5, 7), (8, 5), (4, 9))[: 3 if dims else 1]:
        given, expected = torch.ones(size), torch.ones(size)
        assert torch.equal(package(given), program(expected))
        assert torch.equal(given, expected)


def test_a_stride_that_does_not_count_decides_nothing(tmp_path: Path) -> None:
    """PyTorch gives equal strides of the example one symbol, also where one is of a dimension of size 1."""
    row, square = torch.zeros(8).as_strided((1, 5), (10, 1)), torch.arange(48.0).as_strided((5, 5), (1, 10))
    program = Program(lambda self, x, y: y)
    dims = {"args": ({1: Dim.AUTO}, {0: Dim.AUTO, 1: Dim.AUTO})}
    source = export(program, (row, square), dynamic_shapes=dims)
    package = braze.aot_load(braze.aot_compile(source, tmp_path / "strides.pt2"))
    for size, strides in (((5, 5), (1, 10)), ((12, 12), (1, 24)), ((4, 6), (1, 12))):
        other = torch.arange(400.0).as_strided(size, strides)
        found = package(row, other)
        assert torch.equal(found, other) and found.stride() == strides


def test_no_tensor_is_copied_to_strides_by_which_its_elements_share_memory(tmp_path: Path) -> None:
    expanded = torch.arange(4.0).expand(3, 4)
    source = export(Program(lambda self, x: x * 2), (expanded,))
    package = braze.aot_load(braze.aot_compile(source, tmp_path / "expanded.pt2"))
    assert torch.equal(package(expanded), expanded * 2)
    x = torch.randn(3, 4)
    result = outcome(package, (x,))
    assert isinstance(result, BrazeError) or torch.equal(result, x * 2)
