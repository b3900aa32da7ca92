from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import pytest
import torch

from braze.errors import InputMismatchError, InternalError, LinkError, ResultMismatchError
from braze.runtime.callgen import CompiledCall, build, source_of
from braze.runtime.checks import Check
from braze.runtime.expr import Symbol, as_expr
from braze.runtime.guard import compare
from braze.runtime.memory import workspaces
from braze.runtime.plan import (
    Allocate,
    Assert,
    BindItem,
    BindSize,
    BufferArg,
    CallExtern,
    CheckRange,
    CheckSizes,
    CheckTensor,
    ErrorEntry,
    Event,
    Free,
    Instruction,
    KernelEntry,
    LoadConstant,
    Plan,
    Ref,
    Return,
    RunSegment,
    Slice,
    View,
    Workspace,
)
from braze.runtime.spec import TensorSpec, exprs
from braze.runtime.verify import PlanError
from tests.runtime.kernels import ADD_ONE, FAIL, TEAM, linked

F32, I64 = torch.float32, torch.int64
s0, s1, u0 = (Symbol(name, 0).expr for name in ("s0", "s1", "u0"))
EIGHT, ONE = exprs([8]), exprs([1])


@pytest.fixture(scope="module")
def code() -> object:
    return linked(["add_one", "team", "fail"], ADD_ONE, TEAM, FAIL)


def add_one(source: str, out: str, n: object = 8, **more: object) -> RunSegment:
    size = as_expr(n)  # type: ignore[arg-type]
    return RunSegment("add_one", (BufferArg(source), BufferArg(out)), (size,), size, **more)  # type: ignore[arg-type]


def fixed_plan(kernels: tuple[KernelEntry, ...] = ()) -> Plan:
    """One segment over eight floats."""
    return Plan(
        "fixed",
        ("a",),
        (
            CheckTensor("a", TensorSpec(F32, EIGHT, ONE)),
            Allocate("b", TensorSpec(F32, EIGHT, ONE)),
            add_one("a", "b", kernels=kernels),
            Return((Ref("b"),)),
        ),
    )


def dynamic_plan() -> Plan:
    """One segment over a two-dimensional tensor of any size."""
    sizes, strides = (s0, s1), (s1, as_expr(1))
    return Plan(
        "dynamic",
        ("a",),
        (
            BindSize("s0", "a", 0),
            BindSize("s1", "a", 1),
            CheckTensor("a", TensorSpec(F32, sizes, strides)),
            Allocate("b", TensorSpec(F32, sizes, strides)),
            add_one("a", "b", s0 * s1),
            Return((Ref("b"), s0 * s1, None)),
        ),
    )


def extern_plan(*middle: Instruction, out: str = "r", inputs: tuple[str, ...] = ("a",)) -> Plan:
    return Plan("extern", inputs, (*middle, Return((Ref(out),))))


def test_runs_and_follows_the_boxed_convention(code) -> None:
    function = build(fixed_plan(), code)
    x = torch.arange(8.0)
    args = [x]
    (out,) = function(args)
    assert args == []
    assert torch.equal(out, x + 1)
    assert function._boxed_call
    assert "_add_one(" in source_of(function)
    assert function.plan == fixed_plan()
    assert torch.equal(function([out])[0], x + 2)


def test_an_argument_dies_as_soon_as_it_is_freed() -> None:
    seen = []
    plan = extern_plan(
        CallExtern("aten::clone", (Ref("a"),), (), "r"),
        Free(("a",)),
        CallExtern("python::look", ()),
    )
    args = [torch.ones(3)]
    import weakref

    alive = weakref.ref(args[0])
    build(plan, externs={"look": lambda: seen.append(alive())})(args)
    assert seen == [None]


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (2, 5), (7, 31)])
def test_symbolic_sizes(code, shape: tuple[int, int]) -> None:
    function = build(dynamic_plan(), code)
    x = torch.randn(shape)
    out, count, nothing = function([x])
    assert torch.equal(out, x + 1)
    assert (out.shape, out.stride()) == (x.shape, (shape[1], 1))
    assert (count, nothing) == (x.numel(), None)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: torch.ones(8, dtype=torch.float64), r"dtype is torch.float64, and not torch.float32"),
        (lambda: torch.ones(9), r"sizes are \[9\], and not \[8\]"),
        (lambda: torch.ones(8, 1), "2 dimensions, and not 1"),
        (lambda: torch.ones(16)[::2], r"strides are \[2\], and not \[1\]"),
        (lambda: torch.ones(8, device="meta"), "on meta, and not on cpu"),
        (lambda: 3, "of type int, and not a tensor"),
        (lambda: None, "of type NoneType, and not a tensor"),
    ],
)
def test_inputs_are_checked(code, bad, says: str) -> None:
    function = build(fixed_plan(), code)
    with pytest.raises(InputMismatchError, match=says):
        function([bad()])
    function([torch.ones(8)])
    with pytest.raises(InputMismatchError, match=says):  # now that it has learnt what inputs look like
        function([bad()])
    assert function([torch.ones(8)])[0].sum() == 16


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: torch.ones(3), "1 dimensions, and not 2"),
        (lambda: torch.ones(3, 4).t(), r"strides are \[1, 4\], and not \[3, 1\]"),
        (lambda: torch.ones(3, 4).half(), "dtype"),
        (lambda: "text", "of type str, and not a tensor"),
    ],
)
def test_symbolic_inputs_are_checked(code, bad, says: str) -> None:
    with pytest.raises(InputMismatchError, match=says):
        build(dynamic_plan(), code)([bad()])


def test_what_is_not_relied_on_may_vary(code) -> None:
    check = CheckTensor("a", TensorSpec(F32, (None, as_expr(8)), (None, as_expr(1))))
    function = build(Plan("p", ("a",), (check, Return(()))))
    for good in (torch.ones(3, 8), torch.ones(5, 16)[:, :8], torch.ones(0, 8)):
        assert function([good]) == []
    for bad in (torch.ones(3, 9), torch.ones(8), torch.ones(8, 3).t()):
        with pytest.raises(InputMismatchError):
            function([bad])


def test_the_stride_of_a_dimension_of_size_one_does_not_count(code) -> None:
    plan = Plan("p", ("a",), (CheckTensor("a", TensorSpec(F32, exprs([1, 8]), exprs([8, 1]))), Return(())))
    odd = torch.ones(8).as_strided((1, 8), (5, 1))
    assert build(plan)([odd]) == []


def test_kinds_of_tensor_that_eager_accepts_alike(code) -> None:
    function = build(fixed_plan(), code)
    x = torch.ones(8)
    with torch.inference_mode():
        inference = torch.ones(8)
        assert function([inference])[0].is_inference()
    for tensor in [x, torch.nn.Parameter(x), inference, x.view(8), torch.ones(12)[2:10]] * 10:
        with torch.no_grad():
            assert function([tensor])[0].sum() == 16


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((9, 4), r"s0 >= s1 \+ 1"),
        ((5, 1), "2 <= s1 <= 7"),
        ((17, 8), "2 <= s1 <= 7"),
        ((10, 3), r"its sizes are \[10\], and not \[9\]"),
        ((0, 4), "2 <= s0"),
    ],
)
def test_relations_and_bounds_are_checked(sizes: tuple[int, int], says: str) -> None:
    """``a`` has 2*s0 + 1 elements, ``b`` s1, and s0 > s1."""
    bounded = Symbol("s1", 2, 7).expr
    plan = Plan(
        "p",
        ("a", "b"),
        (
            BindSize("s1", "b"),
            BindSize("s0", "a", factor=2, rest=as_expr(1)),
            CheckRange("s1", 2, 7),
            CheckRange("s0", 2),
            CheckSizes(compare(s0, ">", bounded)),
            CheckTensor("a", TensorSpec(F32, (s0 * 2 + 1,), ONE)),
            CheckTensor("b", TensorSpec(F32, (bounded,), ONE)),
            Return((s0, bounded)),
        ),
    )
    function = build(plan)
    assert function([torch.zeros(11), torch.zeros(4)]) == [5, 4]
    with pytest.raises(InputMismatchError, match=says):
        function([torch.zeros(n) for n in sizes])


def test_a_tensor_without_elements_is_of_no_other_size() -> None:
    plan = Plan(
        "p",
        ("a",),
        (BindSize("s0", "a"), CheckTensor("a", TensorSpec(F32, (s0, s0), (s0, as_expr(1)))), Return((s0,))),
    )
    assert build(plan)([torch.zeros(3, 3)]) == [3]
    for sizes in ((3, 0), (0, 3)):
        with pytest.raises(InputMismatchError, match="its sizes"):
            build(plan)([torch.zeros(sizes)])


def test_wrong_number_of_inputs(code) -> None:
    with pytest.raises(ValueError, match="unpack"):
        build(fixed_plan(), code)([torch.ones(8), torch.ones(8)])


def test_numbers_as_inputs(code) -> None:
    plan = Plan(
        "p",
        ("s0", "x"),
        (Allocate("b", TensorSpec(F32, (s0 * 2,), ONE)), Return((Ref("b"), Ref("x")))),
        (),
        ("s0",),
    )
    out, x = build(plan)([3, 2.5])
    assert (out.shape, x) == ((6,), 2.5)


def test_error_words_raise_what_the_table_says(code) -> None:
    entry = ErrorEntry(7, Check("IndexError", "aten::index", "model.py:12"))
    segment = RunSegment("fail", (BufferArg("a"),), (), as_expr(1), checked=True)
    plan = Plan("p", ("a",), (segment, Return((Ref("a"),))), (entry,))
    function = build(plan, code)
    for _ in range(3):
        assert function([torch.tensor([4])])[0].item() == 4
        with pytest.raises(
            IndexError, match=r"index -3 is out of bounds .* 10 \(aten::index at model.py:12\)"
        ):
            function([torch.tensor([-3])])
    with pytest.raises(InternalError, match="unknown error 7"):
        build(Plan("p", ("a",), plan.instructions), code)([torch.tensor([-3])])


def team_plan(work: object) -> Plan:
    return Plan(
        "teams",
        ("a", "s0"),
        (RunSegment("team", (BufferArg("a"),), (), as_expr(work)), Return(())),  # type: ignore[arg-type]
        (),
        ("s0",),
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_team_has_the_size_that_torch_says(code, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = torch.zeros(2, dtype=I64)
        build(team_plan(1 << 20), code)([out, 0])
        assert out.tolist() == [threads, threads]
    finally:
        torch.set_num_threads(before)


def test_small_work_gets_one_thread(code) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for plan in (team_plan(99), team_plan(s0)):
            function = build(plan, code, min_parallel_work=100)
            out = torch.zeros(2, dtype=I64)
            function([out, 99])
            assert out.tolist() == [1, 1]
        out = torch.zeros(2, dtype=I64)
        function([out, 100])
        assert out.tolist() == [2, 2]
    finally:
        torch.set_num_threads(before)


def test_externs_constants_and_views() -> None:
    plan = extern_plan(
        LoadConstant("w", "weight"),
        CallExtern("aten::mm", (Ref("a"), Ref("w")), (), "m"),
        CallExtern("aten::topk", (Ref("m"), 1, -1, True, True), (), ("v", None)),
        CallExtern("aten::cat", ((Ref("v"), Ref("v")), 1), (), "c"),
        View("r", "c", TensorSpec(F32, exprs([3]), exprs([2]), as_expr(1))),
    )
    a, w = torch.randn(3, 4), torch.randn(4, 5)
    (r,) = build(plan, constants={"weight": w})([a])
    assert torch.equal(r, (a @ w).amax(1))


def test_extern_keyword_arguments_of_every_kind() -> None:
    plan = extern_plan(
        CallExtern(
            "aten::full",
            ((2, as_expr(3)), float("inf")),
            (("dtype", torch.float64), ("device", torch.device("cpu")), ("layout", torch.strided)),
            "f",
        ),
        CallExtern("aten::clone", (Ref("f"),), (("memory_format", torch.contiguous_format),), "g"),
        CallExtern("aten::div.Tensor_mode", (Ref("g"), Ref("g")), (("rounding_mode", "floor"),), "r"),
        inputs=(),
    )
    (r,) = build(plan)([])
    assert (r.shape, r.dtype) == ((2, 3), torch.float64)
    assert r.isnan().all()


def test_view_as_another_dtype() -> None:
    plan = extern_plan(
        View("r", "a", TensorSpec(torch.int16, exprs([2, 2]), exprs([2, 1]), as_expr(4)), True)
    )
    a = torch.arange(8, dtype=torch.int32)
    (r,) = build(plan)([a])
    assert r.tolist() == [[2, 0], [3, 0]]
    assert r.data_ptr() == a.data_ptr() + 8
    assert build(plan)([a[2:]])[0].tolist() == [[4, 0], [5, 0]]
    with pytest.raises(ValueError, match="no place"):
        build(extern_plan(View("r", "a", TensorSpec(I64, ONE, ONE, as_expr(0)), True)))([a[1:]])


def test_views_count_from_where_the_tensor_begins() -> None:
    plan = extern_plan(View("r", "a", TensorSpec(F32, exprs([2]), ONE, as_expr(1))))
    assert build(plan)([torch.arange(8.0)[3:]])[0].tolist() == [4.0, 5.0]


def test_unbacked_size_from_a_tensor() -> None:
    plan = Plan(
        "p",
        ("a",),
        (
            CallExtern("aten::sum", (Ref("a"),), (), "n"),
            BindItem("u0", "n"),
            Assert(compare(u0, "<=", 4), "u0 <= 4 does not hold"),
            CallExtern("aten::nonzero", (Ref("a"),), (), "z"),
            BindSize("s0", "z", 0),
            CheckTensor("z", TensorSpec(I64, (u0, as_expr(1)), (None, None)), origin="aten::nonzero"),
            Return((u0, s0, Ref("z"))),
        ),
    )
    function = build(plan)
    out = function([torch.tensor([True, False, True])])
    assert out[:2] == [2, 2]
    with pytest.raises(RuntimeError, match="u0 <= 4 does not hold"):
        function([torch.ones(5, dtype=torch.bool)])
    with pytest.raises(ResultMismatchError, match=r"aten::nonzero did not return .* sizes are \[1, 1\]"):
        function([torch.tensor([3])])


def test_unknown_operator_constant_callable_and_entry(code) -> None:
    with pytest.raises(LinkError, match="no aten::nothing_of_this_name"):
        build(extern_plan(CallExtern("aten::nothing_of_this_name", (), (), "r")))
    with pytest.raises(LinkError, match="python::gone"):
        build(extern_plan(CallExtern("python::gone", (), (), "r")))
    with pytest.raises(LinkError, match="constant 'w'"):
        build(extern_plan(LoadConstant("r", "w")))
    with pytest.raises(LinkError, match="exports no 'gone'"):
        build(Plan("p", (), (RunSegment("gone", (), (), as_expr(1)), Return(()))), code)
    with pytest.raises(LinkError, match="none was given"):
        build(fixed_plan())
    with pytest.raises(PlanError):
        build(Plan("p", (), ()))


def workspace_plan(size: object = 8) -> Plan:
    """a + 1 in a workspace, that plus itself by an extern into the workspace, that + 1 into the result."""
    n = as_expr(size)  # type: ignore[arg-type]
    return Plan(
        "ws",
        ("a", "s0"),
        (
            Allocate("r", TensorSpec(F32, (n,), ONE)),
            Workspace("ws", n * 4 + 256),
            Slice("t", "ws", as_expr(64), TensorSpec(F32, (n,), ONE)),
            Slice("t2", "ws", as_expr(0), TensorSpec(F32, (n,), ONE))
            if size == 8
            else View("t2", "r", TensorSpec(F32, (n,), ONE, as_expr(0))),
            add_one("a", "t", n),
            View("v", "t", TensorSpec(F32, (n,), ONE, as_expr(0))),
            CallExtern("aten::add.out", (Ref("v"), Ref("t")), (("out", Ref("t2")),)),
            add_one("t2", "r", n),
            Free(("t", "ws") if size != 8 else ("t", "v", "t2", "ws")),
            Return((Ref("r"),)),
        ),
        (),
        ("s0",),
    )


@pytest.mark.parametrize("size", [8, s0])
def test_workspace(code, size: object) -> None:
    workspaces.release()
    function = build(workspace_plan(size), code)
    x = torch.arange(8.0)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.no_grad()):
        with mode:
            out = function([x, 8])[0]
            assert torch.equal(out, (x + 1) * 2 + 1)
    assert workspaces.nbytes == 1 << 16
    assert ("ws.views.get" in source_of(function)) == (size == 8)


def test_views_of_a_workspace_go_with_their_plan(code) -> None:
    import gc

    workspaces.release()
    function = build(workspace_plan(), code)
    function([torch.zeros(8), 8])
    block = workspaces.take(1)
    assert len(block.views) == 1
    workspaces.give(block)
    del function
    gc.collect()
    assert block.views == {}


def test_a_call_inside_a_call_gets_other_memory(code) -> None:
    seen = []
    inner: list[CompiledCall] = []

    def again(t: torch.Tensor) -> None:
        seen.append(t.data_ptr())
        if len(seen) < 3:
            t.fill_(len(seen))
            mark = len(seen)
            inner[0]([torch.zeros(8)])
            assert bool((t == mark).all())

    plan = Plan(
        "nest",
        ("a",),
        (
            Workspace("ws", as_expr(64)),
            Slice("t", "ws", as_expr(0), TensorSpec(F32, EIGHT, ONE)),
            CallExtern("python::again", (Ref("t"),)),
            Return(()),
        ),
    )
    inner.append(build(plan, externs={"again": again}))
    inner[0]([torch.zeros(8)])
    assert len(set(seen)) == 3


def test_a_call_that_raises_keeps_its_memory_from_others(code) -> None:
    workspaces.release()

    def fail(t: torch.Tensor) -> None:
        raise KeyError("no")

    plan = Plan(
        "p",
        (),
        (
            Workspace("ws", as_expr(64)),
            Slice("t", "ws", as_expr(0), TensorSpec(F32, EIGHT, ONE)),
            CallExtern("python::fail", (Ref("t"),)),
            Return(()),
        ),
    )
    with pytest.raises(KeyError):
        build(plan, externs={"fail": fail})([])
    assert workspaces.nbytes == 0


def test_eight_threads_call_at_once(code) -> None:
    fixed, dynamic, work = (
        build(fixed_plan(), code),
        build(dynamic_plan(), code),
        build(workspace_plan(), code),
    )
    checked = build(
        Plan(
            "p",
            ("a",),
            (RunSegment("fail", (BufferArg("a"),), (), as_expr(1), checked=True), Return(())),
            (ErrorEntry(7, Check("RuntimeError")),),
        ),
        code,
    )
    wrong: list[str] = []

    def use(number: int) -> None:
        try:
            for i in range(300):
                x = torch.full((8,), float(number * 1000 + i))
                if not torch.equal(fixed([x])[0], x + 1):
                    wrong.append("fixed")
                y = torch.full((number, 7), float(i))
                if not torch.equal(dynamic([y])[0], y + 1):
                    wrong.append("dynamic")
                with torch.no_grad():
                    if not torch.equal(work([x, 8])[0], (x + 1) * 2 + 1):
                        wrong.append("workspace")
                if number % 2:
                    with pytest.raises(RuntimeError, match=f"index -{number} "):
                        checked([torch.tensor([-number])])
                else:
                    checked([torch.tensor([number])])
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_instrument_sees_every_kernel_and_extern(code) -> None:
    kernels = (KernelEntry("fused_add", "add_one"), KernelEntry("fused_add_again", "add_one"))
    plan = Plan(
        "p",
        ("a",),
        (
            Allocate("b", TensorSpec(F32, EIGHT, ONE)),
            add_one("a", "b", kernels=kernels),
            CallExtern("aten::neg", (Ref("b"),), (), "c"),
            add_one("c", "b"),
            Return((Ref("b"),)),
        ),
    )
    seen: list[Event] = []

    @contextmanager
    def watch(event: Event, _values: Sequence[int]) -> Iterator[None]:
        start = time.perf_counter()
        yield
        assert time.perf_counter() > start
        seen.append(event)

    (out,) = build(plan, code, instrument=watch)([torch.zeros(8)])
    assert torch.equal(out, torch.zeros(8))
    assert [(e.kind, e.name, e.instruction, e.index) for e in seen] == [
        ("kernel", "fused_add", 1, 0),
        ("kernel", "fused_add_again", 1, 1),
        ("extern", "aten::neg", 2, 0),
        ("segment", "add_one", 3, 0),
    ]


def test_kernels_show_under_their_names_in_the_profiler(code) -> None:
    function = build(fixed_plan((KernelEntry("fused_add_one", "add_one"),)), code)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert function([torch.zeros(8)])[0].sum() == 8
    assert "fused_add_one" in [event.key for event in profile.key_averages()]


def test_traceback_shows_the_generated_line() -> None:
    import traceback

    plan = extern_plan(CallExtern("aten::mm", (Ref("a"), Ref("a")), (), "r"))
    try:
        build(plan)([torch.ones(2, 3)])
    except RuntimeError:
        assert "r = _mm(a, a)" in traceback.format_exc()
    else:
        raise AssertionError("2x3 times 2x3 has no product")


def test_code_lives_as_long_as_the_function(code) -> None:
    function = build(fixed_plan(), linked(["add_one"], ADD_ONE))
    import gc

    gc.collect()
    assert function([torch.zeros(8)])[0].sum() == 8


def test_a_forked_child_runs_on_one_thread_and_does_not_hang() -> None:
    text = """
import os, torch
from tests.runtime.kernels import TEAM, linked
from tests.runtime.test_callgen import team_plan
from braze.runtime.callgen import build
torch.set_num_threads(2)
function = build(team_plan(1 << 20), linked(["team"], TEAM))
def team():
    out = torch.zeros(2, dtype=torch.int64)
    function([out, 0])
    return out.tolist()
assert team() == [2, 2]
child = os.fork()
if child == 0:
    os._exit(0 if team() == [1, 1] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert team() == [2, 2]
print("fine")
"""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.serial
def test_what_a_small_call_costs(code) -> None:
    """The best of many rounds: one input, one output, eight elements."""
    function = build(fixed_plan(), code)
    x = torch.zeros(8)
    best = min(_seconds(function, x) for _ in range(40))
    assert best < 5e-6, f"{best * 1e6:.2f} us"


def _seconds(function: CompiledCall, x: torch.Tensor, rounds: int = 2000) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        function([x])
    return (time.perf_counter() - start) / rounds


@pytest.mark.parametrize(
    "target", ["aten::no_such_thing", "load_library::__call__.__call__", "aten::mm.__class__", "os::system"]
)
def test_only_operators_are_called(target: str) -> None:
    with pytest.raises(LinkError, match="this PyTorch has no"):
        build(extern_plan(CallExtern(target, (Ref("a"),), (), "r")))


def test_names_of_a_plan_never_meet_those_of_generated_code(code) -> None:
    names = ("args", "failure", "values", "threads", "error", "unused0_", "p_args_", "code", "names")
    plan = Plan(
        "class",
        names,
        (
            *(CheckTensor(name, TensorSpec(F32, EIGHT, ONE)) for name in names),
            *(add_one("args", name, checked=True) for name in names[1:]),
            CallExtern("aten::topk", (Ref("error"), 1), (), ("top", None)),
            Return(tuple(map(Ref, names))),
        ),
    )
    for function in (build(plan, code), build(plan, code, instrument=lambda event, values: nullcontext())):
        found = function([torch.zeros(8) for _ in names])
        assert [t.sum().item() for t in found] == [0.0] + [8.0] * (len(names) - 1)
