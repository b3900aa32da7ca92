"""Calls that are made for what they do: none is dropped, merged with its equal, or moved past another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor

done: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def library() -> Iterator[None]:
    with torch.library._scoped_library("braze_effects", "DEF") as lib:
        for name in ("note", "mark"):
            lib.define(f"{name}(Tensor x) -> Tensor")

            def kernel(x: Tensor, name: str = name) -> Tensor:
                done.append(name)
                return x.clone()

            lib.impl(name, kernel, "CPU")
            lib.impl(name, torch.empty_like, "Meta")
            torch.fx.node.has_side_effect(getattr(torch.ops.braze_effects, name).default)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dist.ProcessGroup]:
    store = dist.FileStore(str(tmp_path_factory.mktemp("world") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def note(x: Tensor) -> Tensor:
    return torch.ops.braze_effects.note(x)


def mark(x: Tensor) -> Tensor:
    return torch.ops.braze_effects.mark(x)


def unused(x: Tensor) -> Tensor:
    note(x)
    return x + 1


def equal_calls(x: Tensor) -> Tensor:
    return note(x) + note(x)


def in_turn(x: Tensor) -> Tensor:
    y = (x * 2).sum()
    note(x)
    z = mark(y.reshape(1))
    note(x)
    return x + z


def later_operand_first(x: Tensor) -> Tensor:
    row = x + 1
    mark(x)
    scale = note(x.sum().reshape(1))
    return row * scale


@pytest.mark.parametrize(
    ("program", "order"),
    [
        (unused, ["note"]),
        (equal_calls, ["note", "note"]),
        (in_turn, ["note", "mark", "note"]),
        (later_operand_first, ["mark", "note"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
def test_registered_effects_happen_in_order(program: Callable[[Tensor], Tensor], order: list[str]) -> None:
    torch._dynamo.reset()
    x = torch.arange(5.0)
    expected = program(x)
    compiled = torch.compile(program, backend="braze")
    done.clear()
    torch.testing.assert_close(compiled(x), expected)
    assert done == order
    done.clear()
    compiled(x)
    assert done == order


@pytest.mark.filterwarnings("ignore::braze.errors.BrazeWarning")
def test_a_collective_without_a_user_meets_the_others(world: dist.ProcessGroup) -> None:
    torch._dynamo.reset()

    def program(x: Tensor) -> Tensor:
        collectives.wait_tensor(collectives.all_reduce(x, "sum", world))
        return x + 1

    x = torch.ones(4)
    with torch.profiler.profile() as profile:
        torch.testing.assert_close(torch.compile(program, backend="braze")(x), x + 1)
    names = {event.name for event in profile.events()}
    assert any("all_reduce" in name for name in names)
