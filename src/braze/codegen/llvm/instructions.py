"""Instructions without control flow or memory: constants, arithmetic, comparison, casts, calls."""

from __future__ import annotations

from collections.abc import Sequence

from braze.codegen.llvm.module import ModuleBuilder
from braze.codegen.llvm.types import VOID, IRBuildError, Type, Value, constant

__all__ = ["InstructionEmitter", "Operand"]

Operand = Value | int | float
"""Binary operations take a Python number for their second operand: the constant of the first one's type."""


class InstructionEmitter:
    """Appends instructions to ``self._lines``, the current block's list of lines."""

    module: ModuleBuilder
    _lines: list[str]
    _count: int

    def _name(self) -> str:
        self._count += 1
        return f"%.{self._count}"

    def _emit(self, type: Type, text: str) -> Value:
        self._count += 1
        name = f"%.{self._count}"
        self._lines.append(f"  {name} = {text}")
        return Value(name, type)

    # -- constants

    def const(self, type: Type, value: float) -> Value:
        """The constant in every lane of ``type``."""
        return constant(type, value)

    def operand(self, value: Operand, type: Type) -> Value:
        """A Python number as a constant of ``type``; a value as it is, its type checked."""
        if isinstance(value, Value):
            if value.type is not type:
                raise IRBuildError(f"expected {type.text}, got {value!r}")
            return value
        return constant(type, value)

    def zero(self, type: Type) -> Value:
        """The all-zero value of any type."""
        return Value("zeroinitializer", type) if type.lanes > 1 else constant(type, 0)

    def poison(self, type: Type) -> Value:
        """A value nobody may look at (the start of an insertelement chain)."""
        return Value("poison", type)

    # -- arithmetic

    def binary(self, op: str, a: Value, b: Operand) -> Value:
        """The instruction ``op`` of two operands of one type."""
        type = a.type
        if not isinstance(b, Value):
            b = constant(type, b)
        elif b.type is not type:
            raise IRBuildError(f"{op} of {a!r} and {b!r}")
        self._count += 1
        name = f"%.{self._count}"
        self._lines.append(f"  {name} = {op} {type.text} {a.text}, {b.text}")
        return Value(name, type)

    def fadd(self, a: Value, b: Operand) -> Value:
        """a + b, IEEE."""
        return self.binary("fadd", a, b)

    def fsub(self, a: Value, b: Operand) -> Value:
        """a - b, IEEE."""
        return self.binary("fsub", a, b)

    def fmul(self, a: Value, b: Operand) -> Value:
        """a * b, IEEE."""
        return self.binary("fmul", a, b)

    def fdiv(self, a: Value, b: Operand) -> Value:
        """a / b, IEEE."""
        return self.binary("fdiv", a, b)

    def frem(self, a: Value, b: Operand) -> Value:
        """C's fmod (a library call for each lane)."""
        return self.binary("frem", a, b)

    def add(self, a: Value, b: Operand) -> Value:
        """a + b, wrapping."""
        return self.binary("add", a, b)

    def sub(self, a: Value, b: Operand) -> Value:
        """a - b, wrapping."""
        return self.binary("sub", a, b)

    def mul(self, a: Value, b: Operand) -> Value:
        """a * b, wrapping."""
        return self.binary("mul", a, b)

    def sdiv(self, a: Value, b: Operand) -> Value:
        """Signed division towards zero; undefined for a divisor of 0 and for MIN / -1."""
        return self.binary("sdiv", a, b)

    def udiv(self, a: Value, b: Operand) -> Value:
        """Unsigned division; undefined for a divisor of 0."""
        return self.binary("udiv", a, b)

    def srem(self, a: Value, b: Operand) -> Value:
        """Remainder with the dividend's sign; undefined for a divisor of 0 and for MIN % -1."""
        return self.binary("srem", a, b)

    def urem(self, a: Value, b: Operand) -> Value:
        """Unsigned remainder; undefined for a divisor of 0."""
        return self.binary("urem", a, b)

    def and_(self, a: Value, b: Operand) -> Value:
        """Bitwise and."""
        return self.binary("and", a, b)

    def or_(self, a: Value, b: Operand) -> Value:
        """Bitwise or."""
        return self.binary("or", a, b)

    def xor(self, a: Value, b: Operand) -> Value:
        """Bitwise exclusive or."""
        return self.binary("xor", a, b)

    def not_(self, a: Value) -> Value:
        """All bits inverted."""
        return self.binary("xor", a, True if a.type.elem == "i1" else -1)

    def shl(self, a: Value, b: Operand) -> Value:
        """Shift left; poison for a count of the width or more."""
        return self.binary("shl", a, b)

    def lshr(self, a: Value, b: Operand) -> Value:
        """Shift right, zeros in; poison for a count of the width or more."""
        return self.binary("lshr", a, b)

    def ashr(self, a: Value, b: Operand) -> Value:
        """Shift right, sign in; poison for a count of the width or more."""
        return self.binary("ashr", a, b)

    def fneg(self, a: Value) -> Value:
        """-a (the sign bit flipped, NaN too)."""
        return self._emit(a.type, f"fneg {a.type.text} {a.text}")

    def fma(self, a: Value, b: Operand, c: Operand) -> Value:
        """a * b + c, rounded once."""
        return self.intrinsic("llvm.fma", a.type, (a, self.operand(b, a.type), self.operand(c, a.type)))

    def icmp(self, predicate: str, a: Value, b: Operand) -> Value:
        """Integer or pointer comparison: eq ne slt sle sgt sge ult ule ugt uge."""
        b = self.operand(b, a.type)
        return self._emit(a.type.with_elem("i1"), f"icmp {predicate} {a.type.text} {a.text}, {b.text}")

    def fcmp(self, predicate: str, a: Value, b: Operand) -> Value:
        """Float comparison: oeq une olt ole ogt oge ord uno ueq one ult ule ugt uge."""
        b = self.operand(b, a.type)
        return self._emit(a.type.with_elem("i1"), f"fcmp {predicate} {a.type.text} {a.text}, {b.text}")

    def select(self, cond: Value, a: Operand, b: Operand) -> Value:
        """a where ``cond`` else b; a scalar condition chooses between vectors. Not two numbers."""
        if isinstance(a, Value):
            type = a.type
        elif isinstance(b, Value):
            type = b.type
        else:
            raise IRBuildError("select between two Python numbers has no type")
        a, b = self.operand(a, type), self.operand(b, type)
        if cond.type.elem != "i1" or cond.type.lanes not in (1, type.lanes):
            raise IRBuildError(f"select on {cond!r} between {a!r} and {b!r}")
        return self._emit(
            type, f"select {cond.type.text} {cond.text}, {type.text} {a.text}, {type.text} {b.text}"
        )

    # -- casts

    def _cast(self, op: str, value: Value, elem: str) -> Value:
        if value.type.elem == elem:
            return value
        type = value.type.with_elem(elem)
        return self._emit(type, f"{op} {value.type.text} {value.text} to {type.text}")

    def trunc(self, value: Value, elem: str) -> Value:
        """Integer to a narrower integer."""
        return self._cast("trunc", value, elem)

    def zext(self, value: Value, elem: str) -> Value:
        """Integer to a wider one, zeros in."""
        return self._cast("zext", value, elem)

    def sext(self, value: Value, elem: str) -> Value:
        """Integer to a wider one, sign in."""
        return self._cast("sext", value, elem)

    def fptrunc(self, value: Value, elem: str) -> Value:
        """Float to a narrower float, to nearest even. Not for bfloat: see ``vecmath.convert``."""
        return self._cast("fptrunc", value, elem)

    def fpext(self, value: Value, elem: str) -> Value:
        """Float to a wider float, exact."""
        return self._cast("fpext", value, elem)

    def fptosi(self, value: Value, elem: str) -> Value:
        """Float to signed integer towards zero; poison out of range (see ``vecmath.convert``)."""
        return self._cast("fptosi", value, elem)

    def fptoui(self, value: Value, elem: str) -> Value:
        """Float to unsigned integer towards zero; poison out of range."""
        return self._cast("fptoui", value, elem)

    def sitofp(self, value: Value, elem: str) -> Value:
        """Signed integer to float, to nearest even."""
        return self._cast("sitofp", value, elem)

    def uitofp(self, value: Value, elem: str) -> Value:
        """Unsigned integer to float, to nearest even."""
        return self._cast("uitofp", value, elem)

    def bitcast(self, value: Value, type: Type) -> Value:
        """The same bits as another type of the same total width."""
        if value.type is type:
            return value
        if value.type.bits * value.type.lanes != type.bits * type.lanes or "ptr" in (
            value.type.elem,
            type.elem,
        ):
            raise IRBuildError(f"bitcast of {value!r} to {type.text}")
        return self._emit(type, f"bitcast {value.type.text} {value.text} to {type.text}")

    # -- calls and intrinsics

    def _declare(self, name: str, ret: Type, params: Sequence[Type]) -> None:
        if not self.module.is_declared(name):
            self.module.declare(name, ret, params)

    def call(
        self, name: str, ret: Type, args: Sequence[Value], attributes: Sequence[str] = ("nounwind",)
    ) -> Value:
        """Call a C function, declaring it with the arguments' types if the module doesn't know it."""
        if not (self.module.is_declared(name) or self.module.is_defined(name)):
            self.module.declare(name, ret, [a.type for a in args], attributes)
        text = f"call {ret.text} @{name}({', '.join([f'{a.type.text} {a.text}' for a in args])})"
        if ret is VOID:
            self._lines.append("  " + text)
            return Value("", VOID)
        return self._emit(ret, text)

    def intrinsic(self, name: str, ret: Type, args: Sequence[Value], suffix: str | None = None) -> Value:
        """Call an LLVM intrinsic overloaded on ``ret`` (or on what ``suffix`` says; ``""`` for none)."""
        full = f"{name}.{ret.suffix}" if suffix is None else f"{name}.{suffix}" if suffix else name
        if not self.module.is_declared(full):
            self.module.declare(full, ret, [a.type for a in args])
        return self._emit(
            ret, f"call {ret.text} @{full}({', '.join([f'{a.type.text} {a.text}' for a in args])})"
        )

    def sqrt(self, a: Value) -> Value:
        """Square root, correctly rounded."""
        return self.intrinsic("llvm.sqrt", a.type, (a,))

    def fabs(self, a: Value) -> Value:
        """Sign bit cleared."""
        return self.intrinsic("llvm.fabs", a.type, (a,))

    def floor(self, a: Value) -> Value:
        """Towards minus infinity."""
        return self.intrinsic("llvm.floor", a.type, (a,))

    def ceil(self, a: Value) -> Value:
        """Towards plus infinity."""
        return self.intrinsic("llvm.ceil", a.type, (a,))

    def ftrunc(self, a: Value) -> Value:
        """Towards zero."""
        return self.intrinsic("llvm.trunc", a.type, (a,))

    def roundeven(self, a: Value) -> Value:
        """To the nearest integer, halves to even."""
        return self.intrinsic("llvm.roundeven", a.type, (a,))

    def copysign(self, magnitude: Value, sign: Operand) -> Value:
        """Magnitude of one, sign of the other."""
        return self.intrinsic(
            "llvm.copysign", magnitude.type, (magnitude, self.operand(sign, magnitude.type))
        )

    def minimum(self, a: Value, b: Operand) -> Value:
        """Smaller value; NaN if one is NaN; -0 < +0."""
        return self.intrinsic("llvm.minimum", a.type, (a, self.operand(b, a.type)))

    def maximum(self, a: Value, b: Operand) -> Value:
        """Larger value; NaN if one is NaN; -0 < +0."""
        return self.intrinsic("llvm.maximum", a.type, (a, self.operand(b, a.type)))

    def integer_minmax(self, kind: str, a: Value, b: Operand) -> Value:
        """``smin``, ``smax``, ``umin`` or ``umax``."""
        return self.intrinsic("llvm." + kind, a.type, (a, self.operand(b, a.type)))

    def ctpop(self, a: Value) -> Value:
        """Number of one bits in each lane."""
        return self.intrinsic("llvm.ctpop", a.type, (a,))
