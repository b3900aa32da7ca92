"""Slots: never two living storages on the same bytes, and no more bytes than needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from braze.runtime.expr import Expr, Symbol, as_expr
from braze.schedule.memory import MemoryPlan, plan_memory

ALIGNMENT = 64

lives = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 6), st.integers(0, 5000)), min_size=1, max_size=20
)


def planned(
    births: list[list[str]],
    deaths: list[list[str]],
    sizes: dict[str, Expr],
    in_place: dict[str, str] | None = None,
) -> MemoryPlan:
    """The plan of storages on one device."""
    devices = dict.fromkeys(sizes, "cpu")
    return plan_memory(births, deaths, sizes, {"cpu": ALIGNMENT}, devices, in_place or {})


@given(lives)
def test_living_storages_do_not_overlap(lives: list[tuple[int, int, int]]) -> None:
    steps = max(first + length for first, length, _ in lives) + 1
    births: list[list[str]] = [[] for _ in range(steps)]
    deaths: list[list[str]] = [[] for _ in range(steps)]
    for k, (first, length, _) in enumerate(lives):
        births[first].append(f"b{k}")
        deaths[first + length].append(f"b{k}")
    sizes = {f"b{k}": as_expr(n) for k, (_, _, n) in enumerate(lives)}
    plan = planned(births, deaths, sizes)
    spans = []
    for k, (first, length, n) in enumerate(lives):
        begin = plan.offsets[f"b{k}"].constant
        assert begin is not None
        assert begin % ALIGNMENT == 0
        assert begin + n <= (plan.size.constant or 0)
        spans.append((first, first + length, begin, begin + n))
    for a in range(len(spans)):
        for b in range(a):
            in_time = spans[a][0] <= spans[b][1] and spans[b][0] <= spans[a][1]
            in_space = spans[a][2] < spans[b][3] and spans[b][2] < spans[a][3]
            assert not (in_time and in_space)


def test_memory_is_used_again() -> None:
    births = [["a"], ["b"], ["c"], ["d"]]
    deaths = [[], ["a"], ["b"], ["c", "d"]]
    plan = planned(births, deaths, dict.fromkeys("abcd", as_expr(4096)))
    assert plan.size == 2 * 4096


def test_symbolic_sizes_share_with_equal_ones_only() -> None:
    n = Symbol("s0", 2).expr
    births, deaths = [["a"], ["b"], ["c"]], [["a"], ["b"], ["c"]]
    plan = planned(births, deaths, {"a": n * 64, "b": n * 64, "c": as_expr(64)})
    assert plan.slots["a"] == plan.slots["b"] != plan.slots["c"]


def test_a_result_may_replace_what_dies_in_its_step() -> None:
    births, deaths = [["a"], ["b"], ["c"]], [[], ["a"], ["b", "c"]]
    plan = planned(births, deaths, dict.fromkeys("abc", as_expr(4096)), {"b": "a", "c": "b"})
    assert plan.size == 4096
    apart = planned(births, deaths, {"a": as_expr(64), "b": as_expr(4096), "c": as_expr(64)}, {"b": "a"})
    assert apart.slots["a"] != apart.slots["b"]


def test_each_device_has_a_workspace_of_its_own() -> None:
    births, deaths = [["a"], ["b"], ["c"]], [["a"], ["b"], ["c"]]
    sizes = dict.fromkeys("abc", as_expr(100))
    devices = {"a": "cpu", "b": "npy", "c": "cpu"}
    plan = plan_memory(births, deaths, sizes, {"cpu": 64, "npy": 16}, devices)
    assert {device: size.constant for device, size in plan.sizes.items()} == {"cpu": 128, "npy": 112}
    assert plan.slots["a"] == plan.slots["c"] != plan.slots["b"]
    assert all(offset == 0 for offset in plan.offsets.values()) and plan.size == 240
