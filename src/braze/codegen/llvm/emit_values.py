"""From nodes to instructions: arithmetic, logic, comparison, conversion, checks, and the calls into vector
math."""

from __future__ import annotations

from collections.abc import Callable

import torch

from braze.codegen.llvm.builder import FunctionBuilder, Type, Value, constant
from braze.codegen.llvm.emit_convert import convert, register_type
from braze.codegen.llvm.emit_memory import MemoryEmitter
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.math_ops import emit_math
from braze.codegen.llvm.vecmath.integer import divide, floor_divide
from braze.errors import CodegenError
from braze.ops.dag import Node
from braze.ops.dtypes import HALF_TYPES, is_float
from braze.runtime.expr import Expr

__all__ = ["ValueEmitter"]

_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_BITS = {"bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
         "logical_and": "and", "logical_or": "or", "logical_xor": "xor"}  # fmt: skip

_Simple = Callable[[FunctionBuilder, Value, Value, Value], Value]


def _isinf(fb: FunctionBuilder, a: Value, _b: Value, _c: Value) -> Value:
    return fb.fcmp("oeq", fb.fabs(a), float("inf"))


def _signbit(fb: FunctionBuilder, a: Value, _b: Value, _c: Value) -> Value:
    return fb.icmp("slt", fb.bitcast(a, a.type.with_elem(f"i{a.type.bits}")), 0)


_SIMPLE_FLOAT: dict[str, _Simple] = {
    "add": lambda fb, a, b, c: fb.fadd(a, b),
    "sub": lambda fb, a, b, c: fb.fsub(a, b),
    "mul": lambda fb, a, b, c: fb.fmul(a, b),
    "truediv": lambda fb, a, b, c: fb.fdiv(a, b),
    "fma": lambda fb, a, b, c: fb.fma(a, b, c),
    "neg": lambda fb, a, b, c: fb.fneg(a),
    "abs": lambda fb, a, b, c: fb.fabs(a),
    "sqrt": lambda fb, a, b, c: fb.sqrt(a),
    "floor": lambda fb, a, b, c: fb.floor(a),
    "ceil": lambda fb, a, b, c: fb.ceil(a),
    "trunc": lambda fb, a, b, c: fb.ftrunc(a),
    "round": lambda fb, a, b, c: fb.roundeven(a),
    "copysign": lambda fb, a, b, c: fb.copysign(a, b),
    "isnan": lambda fb, a, b, c: fb.fcmp("uno", a, a),
    "isinf": _isinf,
    "signbit": _signbit,
}
_SIMPLE_INT: dict[str, _Simple] = {
    "add": lambda fb, a, b, c: fb.add(a, b),
    "sub": lambda fb, a, b, c: fb.sub(a, b),
    "mul": lambda fb, a, b, c: fb.mul(a, b),
    "neg": lambda fb, a, b, c: fb.sub(fb.zero(a.type), a),
}


class ValueEmitter(MemoryEmitter):
    """Emits the value of one node for one copy of the body."""

    checks: list[str]
    err: Value
    err_base: Value

    def emit_node(self, node: Node, ctx: Lanes) -> None:
        """Emit ``node`` (its inputs are there) and remember its value. Raises ``CodegenError`` for an
        operation that has no machine form here."""
        varies = self.varies(node, ctx)
        table = ctx.values if varies else self.values
        if node.id in table:
            return
        value = self._value(node, ctx, varies)
        self.remember(table, node.id, value)
        if not varies:
            self.remember(self.node_levels, node.id, self.level)

    def _value(self, node: Node, ctx: Lanes, varies: bool) -> Value:
        lanes = ctx.lanes if varies else 1
        op = node.op
        if op == "constant":
            return self.constant_of(node, lanes)
        if op == "index_expr":
            return self._index_value(node, ctx, varies)
        if op == "load":
            loaded = self.load(node.buffer, node.index, node.mask, ctx, varies)
            return self.from_memory(loaded, node.dtype)
        if op == "check_index":
            return self._check_index(node, ctx, varies)
        if op == "check_nonzero":
            return self._check_nonzero(node, ctx, varies)
        args = [self.vector(a, ctx) if varies else self.get(a, ctx) for a in node.args]
        if op == "check":
            return self._check(node, args, ctx, varies)
        return self.compute(node, args)

    def constant_of(self, node: Node, lanes: int) -> Value:
        """A literal in every lane."""
        (value,) = node.attrs
        assert isinstance(value, bool | int | float)
        type = register_type(node.dtype, lanes)
        if node.dtype in HALF_TYPES:
            bits = int(torch.tensor(value, dtype=node.dtype).view(torch.int16).item())
            return constant(type, bits)
        return constant(type, value)

    def _index_value(self, node: Node, ctx: Lanes, varies: bool) -> Value:
        e = node.index
        if not varies:
            return convert(self.fb, self.scalar(e), torch.int64, node.dtype)
        lo, hi = e.bounds()
        small = lo is not None and hi is not None and lo >= -(2**31) and hi < 2**31
        if node.dtype is torch.int32 or (
            small and self.step(e, ctx) is not None and node.dtype is not torch.int64
        ):
            return convert(self.fb, self.lanes_of(e, ctx, "i32"), torch.int32, node.dtype)
        return convert(self.fb, self.lanes_of(e, ctx, "i64"), torch.int64, node.dtype)

    # -- computation ------------------------------------------------------------------------------------
    def compute(self, node: Node, args: list[Value]) -> Value:
        """The operation on values that all have the same number of lanes."""
        fb = self.fb
        op = node.op
        dtype = node.args[0].dtype if node.args else node.dtype
        if op == "to_dtype":
            return convert(fb, args[0], dtype, node.dtype)
        if op == "bitcast":
            return fb.bitcast(args[0], register_type(node.dtype, args[0].type.lanes))
        if op == "where":
            return fb.select(args[0], args[1], args[2])
        simple = _SIMPLE_FLOAT.get(op) if is_float(dtype) else _SIMPLE_INT.get(op)
        if simple is not None:
            a, b, c = (*args, *args[:1], *args[:1])[:3]
            return simple(fb, a, b, c)
        if op == "abs":
            return args[0] if dtype is torch.uint8 else self._int_abs(args[0])
        if op in _FLOAT_COMPARE:
            return self._compare(op, args, dtype)
        if op in _BITS:
            return fb.binary(_BITS[op], args[0], args[1])
        if op in ("bitwise_not", "logical_not"):
            return fb.not_(args[0])
        if op in ("minimum", "maximum"):
            return self.extremum(op == "minimum", args[0], args[1], dtype)
        if op in ("floordiv", "truncdiv", "mod", "fmod"):
            return self._float_division(op, args) if is_float(dtype) else self._int_division(op, args, dtype)
        if op in ("shl", "shr"):
            return self._shift(op, args, dtype)
        if op in ("rand", "randn", "randint64") or is_float(dtype):
            return emit_math(fb, op, args)
        raise CodegenError(f"no machine code for {op} of {dtype}", node=op)

    def _int_abs(self, a: Value) -> Value:
        return self.fb.select(self.fb.icmp("slt", a, 0), self.fb.sub(self.fb.zero(a.type), a), a)

    def _compare(self, op: str, args: list[Value], dtype: torch.dtype) -> Value:
        if is_float(dtype):
            return self.fb.fcmp(_FLOAT_COMPARE[op], args[0], args[1])
        sign = "u" if dtype in (torch.uint8, torch.bool) else "s"
        return self.fb.icmp(op if op in ("eq", "ne") else sign + op, args[0], args[1])

    def extremum(self, least: bool, a: Value, b: Value, dtype: torch.dtype) -> Value:
        """Minimum or maximum; NaN where either is NaN."""
        fb = self.fb
        if dtype is torch.bool:
            return fb.and_(a, b) if least else fb.or_(a, b)
        if not is_float(dtype):
            sign = "u" if dtype is torch.uint8 else "s"
            return fb.integer_minmax(sign + ("min" if least else "max"), a, b)
        # minps and maxps give the second operand where one is NaN, so only the first has to be looked at.
        chosen = fb.select(fb.fcmp("olt" if least else "ogt", a, b), a, b)
        return fb.select(fb.fcmp("uno", a, a), a, chosen)

    def _float_division(self, op: str, args: list[Value]) -> Value:
        fb = self.fb
        a, b = args
        if op == "truncdiv":
            return fb.ftrunc(fb.fdiv(a, b))
        if op == "fmod":
            return emit_math(fb, "fmod", args)
        rest = emit_math(fb, "fmod", args)
        # the remainder takes the divisor's sign: one more divisor where the signs differ
        differ = fb.and_(fb.fcmp("une", rest, 0.0), fb.xor(fb.fcmp("olt", rest, 0.0), fb.fcmp("olt", b, 0.0)))
        if op == "mod":
            return fb.select(differ, fb.fadd(rest, b), rest)
        quotient = fb.fdiv(fb.fsub(a, rest), b)
        quotient = fb.select(differ, fb.fsub(quotient, 1.0), quotient)
        down = fb.floor(quotient)
        down = fb.select(fb.fcmp("ogt", fb.fsub(quotient, down), 0.5), fb.fadd(down, 1.0), down)
        zero = fb.copysign(fb.zero(a.type), fb.fdiv(a, b))
        whole = fb.select(fb.fcmp("oeq", quotient, 0.0), zero, down)
        return fb.select(fb.fcmp("oeq", b, 0.0), fb.fdiv(a, b), whole)

    def _int_division(self, op: str, args: list[Value], dtype: torch.dtype) -> Value:
        fb = self.fb
        a, b = args
        zero = fb.icmp("eq", b, 0)  # a masked lane may hold anything; checked lanes never hold 0
        safe = fb.select(zero, 1, b)
        if dtype is torch.uint8:
            quotient, rest = divide(fb, a, safe, signed=False)
        elif op in ("truncdiv", "fmod"):
            quotient, rest = divide(fb, a, safe)
        else:
            quotient, rest = floor_divide(fb, a, safe)
        return quotient if op in ("floordiv", "truncdiv") else rest

    def _shift(self, op: str, args: list[Value], dtype: torch.dtype) -> Value:
        fb = self.fb
        a, count = args
        bits = 8 * dtype.itemsize
        far = fb.icmp("ugt", count, bits - 1)
        near = fb.select(far, bits - 1, count)
        if op == "shl":
            return fb.select(far, 0, fb.shl(a, near))
        if dtype is torch.uint8:
            return fb.select(far, 0, fb.lshr(a, near))
        return fb.ashr(a, near)

    # -- checks -----------------------------------------------------------------------------------------
    def _check_index(self, node: Node, ctx: Lanes, varies: bool) -> Value:
        fb = self.fb
        size, wrap, error = node.attrs
        assert isinstance(size, Expr)
        value = self.vector(node.args[0], ctx) if varies else self.get(node.args[0], ctx)
        lanes = value.type.lanes
        bound = self._bound_of(size, ctx, lanes)
        index = value
        if wrap:
            index = fb.add(value, fb.select(fb.icmp("slt", value, 0), bound, fb.zero(value.type)))
        bad = fb.icmp("uge", index, bound)
        active = self.active(node.mask, ctx) if varies else self._uniform_mask(node, ctx)
        failed = bad if active is None else fb.and_(bad, active)
        self._report(str(error), failed, value, bound)
        return fb.select(bad, 0, index)

    def _bound_of(self, size: Expr, ctx: Lanes, lanes: int) -> Value:
        if self.expr_varies(size, ctx):
            return self.lanes_of(size, ctx, "i64")
        return self.fb.splat(self.scalar(size), lanes)

    def _uniform_mask(self, node: Node, ctx: Lanes) -> Value | None:
        return None if node.mask is None else self.get(node.mask, ctx)

    def _check_nonzero(self, node: Node, ctx: Lanes, varies: bool) -> Value:
        fb = self.fb
        value = self.vector(node.args[0], ctx) if varies else self.get(node.args[0], ctx)
        bad = fb.icmp("eq", value, 0)
        active = self.active(node.mask, ctx) if varies else self._uniform_mask(node, ctx)
        failed = bad if active is None else fb.and_(bad, active)
        wide = Type("i64", value.type.lanes)
        self._report(str(node.attrs[0]), failed, fb.zero(wide), fb.zero(wide))
        return fb.select(bad, 1, value)

    def _check(self, node: Node, args: list[Value], ctx: Lanes, varies: bool) -> Value:
        fb = self.fb
        value, holds = args
        active = self.active(None, ctx) if varies else None
        broken = fb.not_(holds)
        failed = broken if active is None else fb.and_(broken, active)
        wide = Type("i64", holds.type.lanes)
        self._report(str(node.attrs[0]), failed, fb.zero(wide), fb.zero(wide))
        return value

    def _report(self, error: str, failed: Value, value: Value, bound: Value) -> None:
        """Record the first failure: where any lane failed, its check, value and bound go to the error
        words."""
        fb = self.fb
        if error not in self.checks:
            self.checks.append(error)
        number = fb.add(self.err_base, self.checks.index(error) + 1)
        with fb.if_then(fb.any(failed), "failed"):
            lane = self._first_lane(failed)
            args = [self.err, number, self._lane_at(value, lane), self._lane_at(bound, lane)]
            self._error_function()
            fb.call(self.error_name, Type("void"), args)

    error_name = "braze_record_failure"

    def _first_lane(self, failed: Value) -> Value | None:
        if failed.type.lanes == 1:
            return None
        lanes = Type("i32", failed.type.lanes)
        return self.fb.reduce("umin", self.fb.select(failed, self.fb.lane_ids(lanes), failed.type.lanes))

    def _lane_at(self, value: Value, lane: Value | None) -> Value:
        if lane is None:
            return value
        return self.fb.extract(value, lane)

    def _error_function(self) -> None:
        raise NotImplementedError
