from __future__ import annotations

import pytest
import torch

from braze.runtime.checks import Check
from braze.runtime.expr import Symbol, as_expr
from braze.runtime.guard import TRUE, compare
from braze.runtime.plan import (
    Allocate,
    Assert,
    BindItem,
    BindSize,
    BindThreads,
    BufferArg,
    CallExtern,
    CheckRange,
    CheckSizes,
    CheckTensor,
    ErrorEntry,
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
from braze.runtime.verify import PlanError, verify

F32, F64 = torch.float32, torch.float64
s0 = Symbol("s0", 0).expr
u0 = Symbol("u0", 0).expr
n = Symbol("n", 0).expr
FOUR, ONE = exprs([4]), exprs([1])


def plan(*instructions: Instruction, inputs: tuple[str, ...] = ("a",), numbers: tuple[str, ...] = ()) -> Plan:
    if not instructions or not isinstance(instructions[-1], Return):
        instructions = (*instructions, Return(()))
    return Plan("p", inputs, instructions, numbers=numbers)


def test_prints_as_a_program() -> None:
    whole = Plan(
        "graph0",
        ("a", "n"),
        (
            BindSize("s0", "a", 0),
            CheckTensor("a", TensorSpec(F32, (s0, as_expr(4)), (as_expr(4), None))),
            LoadConstant("c", "weight"),
            Allocate("b", TensorSpec(F32, (s0, as_expr(4)), exprs([4, 1]))),
            Workspace("ws", s0 * 16 + 64),
            Slice("t", "ws", as_expr(64), TensorSpec(torch.bfloat16, (s0,), ONE)),
            RunSegment(
                "seg0",
                (BufferArg("a"), BufferArg("ws", as_expr(8))),
                (s0,),
                s0 * 4,
                (KernelEntry("fused_add", "k0"),),
                True,
            ),
            CallExtern(
                "aten::topk", (Ref("b"), 2, -1, True, (s0, None)), (("dtype", F32),), ("v", None), "f.py:3"
            ),
            View("w", "b", TensorSpec(F32, (s0,), exprs([4]), as_expr(2))),
            BindItem("u0", "v"),
            Assert(compare(u0, "<=", s0), "u0 is too large"),
            Free(("t", "ws")),
            Return((Ref("w"), s0, None)),
        ),
        (ErrorEntry(1, Check("IndexError", "aten::index", "f.py:9")),),
        ("n",),
    )
    assert str(whole) == (
        "plan graph0(a, n: int):\n"
        "  s0 = a.shape[0]\n"
        "  check a: float32[s0, 4] stride (4, _) on cpu\n"
        "  c = constant 'weight'\n"
        "  b = allocate float32[s0, 4] stride (4, 1) on cpu\n"
        "  ws = workspace s0*16 + 64 bytes\n"
        "  t = ws[64] as bfloat16[s0] stride (1)\n"
        "  run seg0(a, ws + 8; s0) work s0*4 kernels fused_add checked\n"
        "  (v, _) = call aten::topk(b, 2, -1, True, [s0, None], dtype=float32)\n"
        "  w = view b + 2 as [s0] stride (4)\n"
        "  u0 = int(v)\n"
        "  assert s0 >= u0, 'u0 is too large'\n"
        "  free t, ws\n"
        "  return w, s0, None\n"
        "  error 1: IndexError|aten::index|f.py:9"
    )
    verify(whole)
    assert whole.entries == ("seg0", "k0")


def allocate(name: str) -> Allocate:
    return Allocate(name, TensorSpec(F32, FOUR, ONE))


def slice_of(name: str, offset: int, length: int = 4) -> Slice:
    return Slice(name, "ws", as_expr(offset), TensorSpec(F32, exprs([length]), ONE))


def view_of(base: str, offset: int, length: int = 4, dtype: torch.dtype = F32) -> View:
    out = "v" if base != "v" else "w"
    return View(out, base, TensorSpec(dtype, exprs([length]), ONE, as_expr(offset)), dtype is not F32)


def segment(*buffers: BufferArg) -> RunSegment:
    return RunSegment("f", buffers, (), as_expr(1))


WS = Workspace("ws", as_expr(64))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (plan(Return((Ref("b"),))), "b is not defined"),
        (plan(allocate("a")), "a is defined twice"),
        (plan(allocate("_b")), "not a name"),
        (plan(allocate("class")), "not a name"),
        (plan(allocate("b c")), "not a name"),
        (plan(Free(("a",)), Return((Ref("a"),))), "a is used after it was freed"),
        (plan(Free(("a",)), allocate("a")), "a is defined twice"),
        (plan(Free(("a", "a"))), "a is used after it was freed"),
        (plan(Allocate("b", TensorSpec(F32, (s0,), ONE))), "s0 in s0 is not a number"),
        (
            plan(BindItem("u0", "a", as_int=False), Allocate("b", TensorSpec(F32, (u0,), ONE))),
            "u0 in u0 is not a number",
        ),
        (plan(Allocate("b", TensorSpec(F32, FOUR, ()))), "1 sizes and 0 strides"),
        (plan(BindSize("s0", "a", 0, "rank")), "no rank"),
        (plan(Return(()), Return(())), "one return"),
        (Plan("p", (), ()), "one return"),
        (Plan("p", (), (allocate("b"),)), "one return"),
        (plan(WS, Slice("t", "a", as_expr(0), TensorSpec(F32, FOUR, ONE))), "a is not a workspace"),
        (plan(WS, slice_of("t", 2)), "not a multiple of 4"),
        (plan(WS, slice_of("t", -4)), "negative"),
        (plan(WS, slice_of("t", 52)), "ends at byte 68 of 64"),
        (plan(WS, slice_of("t", 0), Return((Ref("t"),))), "lies in a workspace"),
        (
            plan(
                WS,
                slice_of("t", 0),
                View("v", "t", TensorSpec(F32, FOUR, ONE, as_expr(0))),
                Return(((Ref("v"),),)),
            ),
            "lies in a workspace",
        ),
        (
            plan(WS, slice_of("t", 0), Free(("ws",)), View("v", "t", TensorSpec(F32, FOUR, ONE, as_expr(0)))),
            "t is used after",
        ),
        (plan(WS, Free(("ws",)), slice_of("t", 0)), "ws is used after"),
        (plan(RunSegment("f", (BufferArg("b"),), (), as_expr(1))), "b is not defined"),
        (plan(RunSegment("f", (BufferArg("n"),), (), as_expr(1)), inputs=("n",), numbers=("n",)), "a number"),
        (plan(CallExtern("mm", ())), "qualified name"),
        (plan(CallExtern("aten::mm", (Ref("a"), (Ref("b"),)))), "b is not defined"),
        (plan(CallExtern("aten::mm", (Ref("a"),), (), ("b", "b"))), "b is defined twice"),
        (plan(Assert(compare(s0, "==", 1), "")), "s0 in s0 == 1 is not a number"),
        (plan(numbers=("n",)), "no inputs"),
        (plan(allocate("max")), "means something else"),
        (plan(allocate("\ufb01")), "means something else"),
        (Plan("p\0", (), (Return(()),)), "not the name of a plan"),
        (plan(Allocate("b", TensorSpec(F32, exprs([-1]), ONE))), "-1 is negative"),
        (plan(Allocate("b", TensorSpec(F32, FOUR, exprs([-1])))), "-1 is negative"),
        (plan(Allocate("b", TensorSpec(F32, exprs([1 << 40, 1 << 40]), exprs([1 << 40, 1])))), "a tensor of"),
        (plan(Allocate("b", TensorSpec(F32, exprs([1 << 63]), ONE))), "too large"),
        (plan(Allocate("b", TensorSpec(F32, exprs([1] * 65), exprs([1] * 65)))), "65 dimensions"),
        (plan(Allocate("b", TensorSpec(F32, FOUR, ONE, device="cpu' or"))), "not a device"),
        (plan(CheckTensor("a", TensorSpec(F32, FOUR, ONE, device=""))), "not a device"),
        (plan(Workspace("ws", as_expr(-1))), "-1 is negative"),
        (
            plan(BindSize("n", "a"), Allocate("b", TensorSpec(F32, (-n - 1,), ONE))),
            "-n - 1 is always negative",
        ),
        (plan(BindSize("s0", "a", 64)), "no size 64"),
        (plan(BindSize("s0", "a", factor=0)), "nothing follows from 0 times"),
        (plan(BindSize("s0", "a", rest=u0)), "u0 in u0 is not a number"),
        (plan(CheckRange("s0", 2)), "s0 is not a number"),
        (plan(BindSize("s0", "a"), CheckRange("s0")), "no bounds to check"),
        (plan(CheckSizes(compare(s0, ">=", 3))), "s0 in s0 >= 3 is not a number"),
        (plan(Assert(TRUE, "", "SystemExit")), "no check raises 'SystemExit'"),
        (plan(BindSize("s0", "a", -1)), "no size -1"),
        (plan(CheckTensor("a", TensorSpec(F32, FOUR, ONE)), view_of("a", 1)), "ends at byte 20 of 16"),
        (plan(allocate("b"), view_of("b", 0, 5)), "ends at byte 20 of 16"),
        (
            plan(allocate("b"), view_of("b", 0, 2, torch.float64), view_of("v", 2, 1, torch.float64)),
            "byte 24 of 16",
        ),
        (
            plan(allocate("b"), View("v", "b", TensorSpec(torch.int32, ONE, ONE))),
            "b is of float32, and so are views of it",
        ),
        (plan(allocate("b"), view_of("b", -1)), "-1 is negative"),
        (plan(WS, slice_of("t", 0), view_of("t", 13)), "ends at byte 68 of 16"),
        (plan(view_of("n", 0), inputs=("n",), numbers=("n",)), "not a tensor"),
        (plan(allocate("b"), segment(BufferArg("b", as_expr(17)))), "beyond the 16 bytes"),
        (plan(WS, segment(BufferArg("ws", as_expr(65)))), "beyond the 64 bytes"),
        (plan(segment(BufferArg("a", as_expr(-8)))), "-8 is negative"),
        (plan(RunSegment("f;", (), (), as_expr(1))), "not a symbol"),
        (plan(RunSegment("f", (), (), as_expr(1), (KernelEntry("k", "k\n"),))), "not a symbol"),
        (
            plan(RunSegment("f", (), (), as_expr(1), threads="n"), inputs=("n",), numbers=("n",)),
            "not a number of threads",
        ),
        (plan(CallExtern("aten::mm.", ())), "qualified name"),
        (plan(CallExtern("aten::mm.a.b", ())), "qualified name"),
        (plan(CallExtern("os::system('x')", ())), "qualified name"),
        (plan(CallExtern("aten::mm", (), (("x=1, y", None),))), "not a keyword"),
        (plan(CallExtern("aten::mm", (), (("lambda", None),))), "not a keyword"),
        (plan(CallExtern("aten::mm", (), (("x", None), ("x", None)))), "there twice"),
        (
            Plan("p", (), (Return(()),), (ErrorEntry(0, Check("IndexError")),)),
            "must be positive",
        ),
    ],
)
def test_verifier_refuses(bad: Plan, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        verify(bad)


def test_verifier_accepts_an_empty_slice_at_the_end() -> None:
    verify(plan(WS, slice_of("t", 64, 0), slice_of("u", 48)))


def test_verifier_accepts_what_lies_inside() -> None:
    verify(
        plan(
            CheckTensor("a", TensorSpec(F32, exprs([4, 1]), (as_expr(1), None))),
            view_of("a", 3, 1),
            BindThreads("team"),
            Allocate("b", TensorSpec(F32, exprs([0, 9]), exprs([9, 1]))),
            View("e", "b", TensorSpec(F32, exprs([3, 0]), exprs([7, 7]), as_expr(5))),
            RunSegment("f", (BufferArg("a", as_expr(16)),), (), as_expr(1), threads="team"),
        )
    )
