"""Failed checks: the first one's number, value and bound go to the error words."""

from __future__ import annotations

from braze.codegen.llvm.builder import I64 as WORD
from braze.codegen.llvm.builder import PTR, FunctionBuilder, ModuleBuilder, Type, Value
from braze.codegen.llvm.indices import Indices, number
from braze.codegen.program.grammar import Check

__all__ = ["check"]

_RECORD = "braze_record_failure"


def check(ix: Indices, s: Check) -> None:
    """Record where an active lane fails; what comes out of the check becomes the value of its var."""
    fb, value = ix.fb, ix.values[s.value]
    wide = Type("i64", value.type.lanes)
    if s.kind == "index":
        assert s.bound is not None and s.var is not None
        bound = _bound(ix, s, value.type.lanes)
        index = value
        if s.wraps:
            index = fb.add(value, fb.select(fb.icmp("slt", value, 0), bound, fb.zero(value.type)))
        bad = fb.icmp("uge", index, bound)
        _report(ix, s, bad, value, bound)
        ix.define(s.var, fb.select(bad, 0, index))
    elif s.kind == "nonzero":
        assert s.var is not None
        bad = fb.icmp("eq", value, 0)
        _report(ix, s, bad, fb.zero(wide), fb.zero(wide))
        ix.define(s.var, fb.select(bad, 1, value))
    else:
        _report(ix, s, fb.not_(value), fb.zero(wide), fb.zero(wide))


def _bound(ix: Indices, s: Check, lanes: int) -> Value:
    assert s.bound is not None
    if ix.varies(s.bound, s.along):
        return ix.lanes(s.bound, s.along, "i64")
    return ix.fb.splat(ix.scalar(s.bound), lanes)


def _report(ix: Indices, s: Check, bad: Value, value: Value, bound: Value) -> None:
    fb = ix.fb
    failed = bad if s.mask is None else fb.and_(bad, ix.values[s.mask])
    id = fb.add(fb.params["errbase"], s.number + 1)
    with fb.if_then(fb.any(failed), "failed"):
        lane = _first_lane(fb, failed)
        args = [fb.params["err"], id, _at(fb, value, lane), _at(fb, bound, lane)]
        _recorder(fb.module)
        fb.call(_RECORD, Type("void"), args)


def _first_lane(fb: FunctionBuilder, failed: Value) -> Value | None:
    if failed.type.lanes == 1:
        return None
    lanes = Type("i32", failed.type.lanes)
    return fb.reduce("umin", fb.select(failed, fb.lane_ids(lanes), failed.type.lanes))


def _at(fb: FunctionBuilder, value: Value, lane: Value | None) -> Value:
    return value if lane is None else fb.extract(value, lane)


def _recorder(module: ModuleBuilder) -> None:
    """``void (ptr err, i64 id, i64 value, i64 bound)``: the first failure wins."""
    if module.is_defined(_RECORD):
        return
    fb = FunctionBuilder(
        module,
        _RECORD,
        [("err", PTR), ("id", WORD), ("value", WORD), ("bound", WORD)],
        attributes=("nounwind", "noinline", "cold"),
        linkage="internal",
    )
    first = fb.replace_if(fb.params["err"], 0, fb.params["id"])
    with fb.if_then(first):
        fb.store(fb.params["value"], fb.gep(fb.params["err"], number(1), "i64"))
        fb.store(fb.params["bound"], fb.gep(fb.params["err"], number(2), "i64"))
    fb.ret()
