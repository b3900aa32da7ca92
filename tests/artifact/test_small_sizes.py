"""Packages serve sizes of 0 and 1 as the exported program does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim, export

import braze
from braze.artifact.package import open_package
from braze.errors import BrazeWarning, InputMismatchError, PackageError
from braze.frontend import small_sizes


class Program(torch.nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.linear = torch.nn.Linear(6, 4)
        self.attention = torch.nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, *args: torch.Tensor) -> Any:
        return self.body(self, *args)


def images(self: Any, x: torch.Tensor) -> Any:
    return F.conv2d(x[:, None], torch.ones(2, 1, 3, 3), padding=1).flatten(1).softmax(1)


# each takes one [batch, 4, 6]
ONE: dict[str, Callable[..., Any]] = {
    "linear": lambda self, x: self.linear(x).relu(),
    "attention": lambda self, x: self.attention(x, x, x)[0],
    "attention of rows": lambda self, x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "images": images,
    "products": lambda self, x: (x @ x.transpose(1, 2)).softmax(-1) @ x,
    "rows with rows": lambda self, x: x.reshape(-1, 6) @ x.reshape(-1, 6).t(),
    "transposed": lambda self, x: x.transpose(0, 1).reshape(4, -1) + 1,
    "squeezed": lambda self, x: x[:, :1, :1].squeeze(),
    "squeezed and normed": lambda self, x: x.squeeze(0).softmax(0).sum((-2, -1)),
    "expanded": lambda self, x: x[:1].expand(x.shape[0], -1, -1) + x,
    "mean of the batch": lambda self, x: x - x.mean(0, keepdim=True),
    "deviation": lambda self, x: x.std(0),
    "maximum of the batch": lambda self, x: x.amax(0),
    "index": lambda self, x: x[0] + x[-1],
    "sizes": lambda self, x: (x.shape[0], x * 2, x.new_zeros(x.shape[0] + 1)),
    "sorted": lambda self, x: x.sort(0).values.cumsum(0),
    "views": lambda self, x: (x.view(-1), x.permute(2, 0, 1), x),
    "nonzero": lambda self, x: (x > 0).nonzero(),
}

BATCH = Dim("batch")
LOOKING = ["linear", "squeezed", "maximum of the batch"]


def outcome(call: Callable[..., Any], *args: torch.Tensor) -> Any:
    try:
        return call(*args)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        return error


def agree(loaded: Any, module: Any, *args: torch.Tensor) -> None:
    expected, found = outcome(module, *args), outcome(loaded, *args)
    assert not isinstance(found, AssertionError), "an error that does not say what it is about"
    if isinstance(expected, Exception):
        assert isinstance(found, Exception), f"the program raises {expected!r}"
    else:
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize(("name", "dim"), [(name, BATCH) for name in ONE] + [(n, Dim.AUTO) for n in LOOKING])
def test_batches_of_every_size(tmp_path: Path, name: str, dim: Any) -> None:
    source = export(Program(ONE[name]), (torch.randn(5, 4, 6),), dynamic_shapes=(({0: dim},),))
    path = braze.aot_compile(source, tmp_path / "model.pt2", targets="host")
    loaded, module = braze.aot_load(path), source.module()
    for batch in (0, 1, 2, 7):
        agree(loaded, module, torch.randn(batch, 4, 6))


def test_several_sizes_at_once(tmp_path: Path) -> None:
    module = Program(lambda self, x, y: (self.linear(x) @ y, y.sum(1)))
    rows, columns, depth = Dim("rows"), Dim("columns", min=1), Dim("depth")
    shapes = (({0: depth, 1: rows}, {0: depth, 2: columns}),)
    source = export(module, (torch.randn(2, 3, 6), torch.randn(2, 4, 5)), dynamic_shapes=shapes)
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets="host"))
    for depth_ in (0, 1, 3):
        for rows_ in (0, 1, 3):
            for columns_ in (1, 4):
                x, y = torch.randn(depth_, rows_, 6), torch.randn(depth_, 4, columns_)
                agree(loaded, source.module(), x, y)


def test_sizes_that_depend_on_each_other(tmp_path: Path) -> None:
    n = Dim("n", min=0, max=40)
    source = export(
        Program(lambda self, x, y: x[: y.shape[0]] - y.flip(0)),
        (torch.randn(5), torch.randn(4)),
        dynamic_shapes=(({0: n + 1}, {0: n}),),
    )
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets="host"))
    for size in (0, 1, 2, 40):
        agree(loaded, source.module(), torch.randn(size + 1), torch.randn(size))
    with pytest.raises(InputMismatchError, match="has to be 0 to 40, but is 41"):
        loaded(torch.randn(42), torch.randn(41))


def test_a_stored_program_keeps_its_checks(tmp_path: Path) -> None:
    """They are texts in it, and its ranges are those of expressions."""
    n = Dim("n", min=1, max=40)

    def branch(self: Any, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x[::2] * y + (z.sum() if z.shape[0] > y.shape[0] else y)

    dims = (({0: 2 * n}, {0: n}, {0: Dim.AUTO}),)
    torch.export.save(
        export(Program(branch), (torch.randn(8), torch.randn(4), torch.randn(7)), dynamic_shapes=dims),
        tmp_path / "program.pt2",
    )
    source = torch.export.load(tmp_path / "program.pt2")
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets="host"))
    for number, other in ((4, 7), (4, 3), (2, 3), (1, 2), (9, 9)):
        agree(loaded, source.module(), torch.randn(2 * number), torch.randn(number), torch.randn(other))


def test_what_the_program_writes_to(tmp_path: Path) -> None:
    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
            self.seen.add_(x.sum(0))
            out.copy_(x.transpose(0, 1).reshape(-1))
            return self.seen * 1

    batch = Dim("batch")
    example = (torch.randn(3, 4), torch.zeros(12))
    source = export(Counts(), example, dynamic_shapes=({0: batch}, {0: 4 * batch}))
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets="host"))
    module = source.module()
    for size in (3, 1, 0, 5, 1):
        x, one, two = torch.randn(size, 4), torch.zeros(4 * size), torch.zeros(4 * size)
        torch.testing.assert_close(loaded(x, one), module(x, two))
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("least", "size", "wanted"), [(1, 0, "1 to 64"), (0, 65, "0 to 64"), (2, 1, "2 to 64"), (3, 2, "3 to 64")]
)
def test_the_message_has_the_declared_range(tmp_path: Path, least: int, size: int, wanted: str) -> None:
    dims = (({0: Dim("batch", min=least, max=64)},),)
    source = export(Program(ONE["linear"]), (torch.randn(5, 4, 6),), dynamic_shapes=dims)
    loaded = braze.aot_load(braze.aot_compile(source, tmp_path / "model.pt2", targets="host"))
    with pytest.raises(InputMismatchError, match=f"size 0 of .* has to be {wanted}, but is {size}"):
        loaded(torch.randn(size, 4, 6))


def test_one_graph_serves_a_model_that_does_not_look_at_its_batch(tmp_path: Path) -> None:
    def graphs(body: Callable[..., Any], least: int) -> int:
        dims = (({0: Dim("batch", min=least, max=64)},),)
        source = export(Program(body), (torch.randn(5, 4, 6),), dynamic_shapes=dims)
        path = braze.aot_compile(source, tmp_path / "model.pt2", targets="host")
        return len([name for name in open_package(path).members if re.search(r"graph(-\d)?\.braze$", name)])

    assert [graphs(ONE["linear"], least) for least in (2, 1, 0)] == [1, 1, 2]
    assert [graphs(ONE["squeezed"], least) for least in (2, 1, 0)] == [1, 2, 3]


def test_a_declared_size_that_cannot_be_served_is_said_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from braze.frontend import small_sizes

    dims = (({0: Dim("batch", min=1, max=64)},),)
    source = export(Program(ONE["squeezed"]), (torch.randn(5, 4, 6),), dynamic_shapes=dims)
    real = small_sizes.prepare

    def prepare(program: Any, config: Any) -> Any:
        made = real(program, config)
        if made.inputs[-1].shape[0] == 1:
            raise PackageError("it is Monday")
        return made

    monkeypatch.setattr(small_sizes, "prepare", prepare)
    with pytest.raises(PackageError, match=r"shape\[0\] = 1, which its range has: it is Monday"):
        braze.aot_compile(source, tmp_path / "model.pt2", targets="host")


def test_sizes_that_do_not_fit_are_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with every combination of the sizes that have nothing to do with them."""
    tried: list[Any] = []
    looked = small_sizes.export.surely_fails

    def counted(condition: Any, values: Any) -> bool:
        tried.append((condition, tuple(sorted(values.items()))))
        return looked(condition, values)

    monkeypatch.setattr(small_sizes.export, "surely_fails", counted)
    args = (torch.randn(5, 5), torch.zeros(5, 5, dtype=torch.int64), torch.randn(5, 5), torch.randn(5, 5))

    def body(self: Any, x: torch.Tensor, index: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return torch.zeros_like(x).scatter_add(-1, index, x), y - z, torch.dot(y[0], z[:, 0])

    shapes = {"args": tuple({0: Dim.AUTO, 1: Dim.AUTO} for _ in args)}
    loaded = braze.aot_load(
        braze.aot_compile(export(Program(body), args, dynamic_shapes=shapes), tmp_path / "p.pt2", "host")
    )
    assert loaded(*args)[1].equal(args[2] - args[3])
    assert len(tried) < 3000, len(tried)


TWO = {0: Dim.AUTO, 1: Dim.AUTO}


def loaded_and_module(body: Callable[..., Any], args: Any, shapes: Any, folder: Path) -> tuple[Any, Any]:
    source = export(Program(body), args, dynamic_shapes={"args": shapes})
    return braze.aot_load(braze.aot_compile(source, folder / "model.pt2", "host")), source.module()


def test_sizes_that_cannot_be_small_do_not_hide_others(tmp_path: Path) -> None:
    """Each size by itself is tried: what the program refuses for one says nothing of the others."""

    def body(self: Any, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return x.amax(1), y.squeeze(-1), F.l1_loss(z, z + 1, reduction="none")

    def args(a: int, b: int, c: int, d: int, e: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(a, b), torch.randn(3, c), torch.randn(d, e)

    loaded, module = loaded_and_module(body, args(4, 5, 3, 3, 8), (TWO, {1: Dim.AUTO}, TWO), tmp_path)
    sizes = [
        (4, 5, 1, 3, 8),
        (4, 5, 2, 7, 0),
        (4, 0, 3, 3, 8),
        (0, 5, 3, 3, 8),
        (4, 5, 0, 2, 2),
        (0, 1, 1, 0, 0),
    ]
    for given in sizes:
        agree(loaded, module, *args(*given))


def test_a_replicated_border_of_nothing(tmp_path: Path) -> None:
    def body(self: Any, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        padded = F.pad(x, (3, 0), mode="replicate")
        return padded, padded @ y, z * 2

    def args(n: int, m: int, k: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(16, n), torch.randn(n + 3, m), torch.randn(k)

    shapes = ({1: Dim.AUTO}, TWO, {0: Dim.AUTO})
    loaded, module = loaded_and_module(body, args(17, 2, 4), shapes, tmp_path)
    for given in ((5, 0, 0), (33, 33, 33), (0, 2, 2), (1, 1, 0)):
        agree(loaded, module, *args(*given))


def test_results_lie_as_the_programs_do_for_small_sizes_of_others(tmp_path: Path) -> None:
    """Which of two strides is the greater is not known where a size may be 0."""
    transposed = torch.randn(5, 2).t()

    def body(self: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        return torch.logical_or(x, x > 0), y + 1

    loaded, module = loaded_and_module(body, (transposed, torch.randn(4, 3)), (TWO, TWO), tmp_path)
    for n, m in ((4, 3), (0, 3), (1, 0), (0, 0)):
        for rows, columns in ((2, 5), (16, 2), (1, 7)):
            args = torch.randn(columns, rows).t(), torch.randn(n, m)
            expected, found = module(*args), loaded(*args)
            torch.testing.assert_close(found, expected)
            assert found[0].stride() == expected[0].stride()


def test_relations_of_derived_sizes_are_refused_alike(tmp_path: Path) -> None:
    def body(self: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        return x.repeat_interleave(2, 0) * y

    loaded, module = loaded_and_module(
        body, (torch.randn(3), torch.randn(6)), ({0: Dim.AUTO}, {0: Dim.AUTO}), tmp_path
    )
    for n in (0, 1, 2, 5):
        agree(loaded, module, torch.randn(n), torch.randn(2 * n))


def test_a_decomposition_does_not_narrow_a_package(tmp_path: Path) -> None:
    """The mean over cells is one of two kernels when taken apart, by whether the sizes divide."""
    loaded, module = loaded_and_module(
        lambda self, x: F.adaptive_avg_pool2d(x, (2, 2)),
        (torch.randn(2, 1, 4, 4),),
        ({3: Dim.AUTO},),
        tmp_path,
    )
    for width in (4, 7, 5, 1):
        agree(loaded, module, torch.randn(2, 1, 4, width))


def test_what_is_not_served_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_sizes, "MAX_GRAPHS", 1)
    dims = (({0: Dim.AUTO},),)
    source = export(Program(ONE["squeezed"]), (torch.randn(5, 4, 6),), dynamic_shapes=dims)
    with pytest.warns(BrazeWarning, match=r"does not work for sizes with .*shape\[0\] = 0"):
        braze.aot_compile(source, tmp_path / "model.pt2", targets="host")


def test_a_size_that_the_trace_made_a_number_is_said(tmp_path: Path) -> None:
    """The program asks for less than 3, and so runs for 1."""
    source = export(
        Program(lambda self, x: x * 2 if x.shape[0] - 1 < 2 else x),
        (torch.randn(2),),
        dynamic_shapes=(({0: Dim.AUTO},),),
    )
    with pytest.warns(BrazeWarning, match=r"works for sizes with .* == 2 only"):
        braze.aot_compile(source, tmp_path / "model.pt2", targets="host")


def test_a_position_out_of_the_data_in_nothing(tmp_path: Path) -> None:
    source = export(
        Program(lambda self, x, i: x[i[0].item()] + 1),
        (torch.randn(4), torch.tensor([1])),
        dynamic_shapes=(({0: Dim("n", min=0)}, None),),
    )
    path = braze.aot_compile(source, tmp_path / "model.pt2", targets="host", options={"strict": True})
    loaded = braze.aot_load(path)
    for size in (0, 1, 4):
        for index in (0, -1, 3):
            agree(loaded, source.module(), torch.randn(size), torch.tensor([index]))


def test_a_branch_that_does_not_take_a_declared_size(tmp_path: Path) -> None:
    """The program takes it where that branch does not run, and no graph can be made of both."""

    def inner(self: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 1, lambda x: x.amax((0, 1)), lambda x: x.sum((0, 1)), (x,))

    def body(self: Any, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: inner(self, x), lambda x: x.sum((0, 1)), (x,))

    source = export(Program(body), (torch.randn(5, 4, 6),), dynamic_shapes=(({0: Dim("n", min=0, max=9)},),))
    assert source.module()(torch.randn(0, 4, 6)).shape == (6,)
    with pytest.raises(PackageError, match=r"cannot be compiled for .*shape\[0\] = 0"):
        braze.aot_compile(source, tmp_path / "model.pt2", targets="host")
