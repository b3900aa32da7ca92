from __future__ import annotations

import pytest
import torch

from braze.runtime.checks import Check
from braze.runtime.expr import Symbol, as_expr
from braze.runtime.guard import compare
from braze.runtime.plan import (
    Allocate,
    Assert,
    BindItem,
    BindSize,
    BufferArg,
    CallExtern,
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
    exprs,
)
from braze.runtime.verify import PlanError, verify

F32 = torch.float32
s0 = Symbol("s0", 0).expr
u0 = Symbol("u0", 0).expr
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
            CheckTensor("a", F32, (s0, as_expr(4)), (as_expr(4), None)),
            LoadConstant("c", "weight"),
            Allocate("b", F32, (s0, as_expr(4)), exprs([4, 1])),
            Workspace("ws", s0 * 16 + 64),
            Slice("t", "ws", as_expr(64), torch.bfloat16, (s0,), ONE),
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
            View("w", "b", (s0,), exprs([4]), as_expr(2)),
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
    return Allocate(name, F32, FOUR, ONE)


def slice_of(name: str, offset: int, length: int = 4) -> Slice:
    return Slice(name, "ws", as_expr(offset), F32, exprs([length]), ONE)


WS = Workspace("ws", as_expr(64))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (plan(Return((Ref("b"),))), "b is not defined"),
        (plan(allocate("a")), "a is defined twice"),
        (plan(allocate("_b")), "no name"),
        (plan(allocate("class")), "no name"),
        (plan(allocate("b c")), "no name"),
        (plan(Free(("a",)), Return((Ref("a"),))), "a is used after it was freed"),
        (plan(Free(("a",)), allocate("a")), "a is defined twice"),
        (plan(Free(("a", "a"))), "a is used after it was freed"),
        (plan(Allocate("b", F32, (s0,), ONE)), "s0 in s0 is no number"),
        (plan(BindItem("u0", "a", as_int=False), Allocate("b", F32, (u0,), ONE)), "u0 in u0 is no number"),
        (plan(Allocate("b", F32, FOUR, ())), "1 sizes and 0 strides"),
        (plan(BindSize("s0", "a", 0, "rank")), "no rank"),
        (plan(Return(()), Return(())), "one return"),
        (Plan("p", (), ()), "one return"),
        (Plan("p", (), (allocate("b"),)), "one return"),
        (plan(WS, Slice("t", "a", as_expr(0), F32, FOUR, ONE)), "a is no workspace"),
        (plan(WS, slice_of("t", 2)), "no multiple of 4"),
        (plan(WS, slice_of("t", -4)), "negative"),
        (plan(WS, slice_of("t", 52)), "ends at byte 68 of 64"),
        (plan(WS, slice_of("t", 0), Return((Ref("t"),))), "lies in a workspace"),
        (
            plan(WS, slice_of("t", 0), View("v", "t", FOUR, ONE, as_expr(0)), Return(((Ref("v"),),))),
            "lies in a workspace",
        ),
        (
            plan(WS, slice_of("t", 0), Free(("ws",)), View("v", "t", FOUR, ONE, as_expr(0))),
            "t is used after",
        ),
        (plan(WS, Free(("ws",)), slice_of("t", 0)), "ws is used after"),
        (plan(RunSegment("f", (BufferArg("b"),), (), as_expr(1))), "b is not defined"),
        (plan(RunSegment("f", (BufferArg("n"),), (), as_expr(1)), inputs=("n",), numbers=("n",)), "a number"),
        (plan(CallExtern("mm", ())), "qualified name"),
        (plan(CallExtern("aten::mm", (Ref("a"), (Ref("b"),)))), "b is not defined"),
        (plan(CallExtern("aten::mm", (Ref("a"),), (), ("b", "b"))), "b is defined twice"),
        (plan(Assert(compare(s0, "==", 1), "")), "s0 in s0 == 1 is no number"),
        (plan(numbers=("n",)), "no inputs"),
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
