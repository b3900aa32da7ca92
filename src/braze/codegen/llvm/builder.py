"""A text emitter for LLVM IR: typed SSA values, one string append for each instruction.

LLVM's own C++ builders would need LLVM in the process that generates code, and an error in them aborts it.
Text needs neither; operand types are compared here, so that a mistake is a Python exception.

Rules that hold for all IR of Braze: no fast-math flags, fused multiply-add only where :meth:`FunctionBuilder.fma`
says so, addresses only through :meth:`FunctionBuilder.gep`, alignment always written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from braze.codegen.llvm.module import ModuleBuilder
from braze.codegen.llvm.types import (
    BF16,
    ELEM_BITS,
    F16,
    F32,
    F64,
    I1,
    I8,
    I16,
    I32,
    I64,
    PTR,
    VOID,
    IRBuildError,
    Type,
    Value,
    constant,
)

__all__ = [
    "BF16",
    "F16",
    "F32",
    "F64",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "PTR",
    "VOID",
    "Block",
    "FunctionBuilder",
    "IRBuildError",
    "Loop",
    "ModuleBuilder",
    "Phi",
    "Type",
    "Value",
    "constant",
]

Operand = Value | int | float
"""Binary operations take a Python number for their second operand: the constant of the first one's type."""


class Block:
    """A basic block; ``label`` is its name without ``%``."""

    __slots__ = ("label", "lines", "phis", "terminated")

    def __init__(self, label: str) -> None:
        self.label = label
        self.phis: list[Phi] = []
        self.lines: list[str] = []
        self.terminated = False


class Phi(Value):
    """A phi node; incoming values may be added until the function is printed."""

    __slots__ = ("incoming",)

    def __init__(self, text: str, type: Type) -> None:
        super().__init__(text, type)
        self.incoming: list[tuple[Value, Block]] = []

    def add(self, value: Value, block: Block) -> None:
        """``value`` arrives from ``block``."""
        if value.type is not self.type:
            raise IRBuildError(f"phi of {self.type.text} got {value!r}")
        self.incoming.append((value, block))

    def line(self) -> str:
        """The phi as an instruction."""
        if not self.incoming:
            raise IRBuildError(f"phi {self.text} has no incoming value")
        pairs = ", ".join([f"[ {v.text}, %{b.label} ]" for v, b in self.incoming])
        return f"  {self.text} = phi {self.type.text} {pairs}"


class Loop:
    """What :meth:`FunctionBuilder.for_range` yields.

    ``index`` and ``carried`` hold the current iteration's values; :meth:`set_next` states the next ones (a carried
    value that is never set stays what it is); after the ``with`` block ``results`` holds the final carried values.
    """

    __slots__ = ("carried", "index", "next_values", "results")

    def __init__(self, index: Value, carried: list[Value]) -> None:
        self.index = index
        self.carried = carried
        self.next_values: list[Value] = list(carried)
        self.results: list[Value] = []

    def set_next(self, *values: Value) -> None:
        """Values that the next iteration carries, in the order of ``carried``."""
        if len(values) != len(self.carried):
            raise IRBuildError(f"loop carries {len(self.carried)} values, got {len(values)}")
        self.next_values = list(values)


class FunctionBuilder:
    """Emits one function, instruction after instruction, into the current block.

    Args:
        module: the module that takes the function.
        name: its symbol.
        params: ``(name, type)`` or ``(name, type, attributes)``, attributes being text such as ``noalias readonly``.
        ret: return type.
        attributes: function attributes, one group.
        linkage: ``""`` (external), ``internal`` or ``private``.
    """

    def __init__(
        self,
        module: ModuleBuilder,
        name: str,
        params: Sequence[tuple[str, Type] | tuple[str, Type, str]],
        ret: Type = VOID,
        attributes: Sequence[str] = ("nounwind",),
        linkage: str = "",
    ) -> None:
        self.module = module
        self.name = name
        self.ret_type = ret
        self.params: dict[str, Value] = {}
        self._allocas: list[str] = []
        self._count = 0
        signature = []
        for param in params:
            value = Value("%" + param[0], param[1])
            if param[0] in self.params:
                raise IRBuildError(f"@{name}: two parameters named {param[0]!r}")
            self.params[param[0]] = value
            words = [param[1].text, param[2], value.text] if len(param) == 3 else [param[1].text, value.text]
            signature.append(" ".join(words))
        group = " " + module.attributes(attributes) if attributes else ""
        prefix = f"define {linkage} " if linkage else "define "
        self._header = f"{prefix}{ret.text} @{name}({', '.join(signature)}){group} {{"
        self._labels: dict[str, int] = {}
        self._blocks: list[Block] = []
        self.entry = self.block("entry")
        self._block = self.entry
        self._lines = self.entry.lines
        self._blocks.append(self.entry)
        module.define(self)

    # -- names and text

    def _name(self) -> str:
        self._count += 1
        return f"%.{self._count}"

    def _emit(self, type: Type, text: str) -> Value:
        self._count += 1
        name = f"%.{self._count}"
        self._lines.append(f"  {name} = {text}")
        return Value(name, type)

    def comment(self, text: str) -> None:
        """A comment line in the current block."""
        self._lines.append("  ; " + text.replace("\n", " "))

    def text(self) -> str:
        """The function as LLVM assembly.

        Raises:
            IRBuildError: a block has no terminator, or a phi no incoming value.
        """
        out = [self._header]
        for block in self._blocks:
            if not block.terminated:
                raise IRBuildError(f"@{self.name}: block {block.label} has no terminator")
            out.append(block.label + ":")
            if block is self.entry:
                out.extend(self._allocas)
            out.extend([phi.line() for phi in block.phis])
            out.extend(block.lines)
        out.append("}")
        return "\n".join(out)

    # -- blocks and control flow

    def block(self, label: str = "bb") -> Block:
        """A new block, not yet placed: :meth:`place` puts it after the last one and makes it current."""
        count = self._labels.get(label, 0)
        self._labels[label] = count + 1
        return Block(label if count == 0 else f"{label}.{count}")

    @property
    def current(self) -> Block:
        """The block that instructions go to."""
        return self._block

    def place(self, block: Block) -> Block:
        """Append ``block`` to the function and emit into it from now on."""
        if not self._block.terminated:
            raise IRBuildError(f"@{self.name}: block {self._block.label} has no terminator")
        self._blocks.append(block)
        self._block = block
        self._lines = block.lines
        return block

    def _terminate(self, text: str) -> None:
        if self._block.terminated:
            raise IRBuildError(f"@{self.name}: block {self._block.label} already has a terminator")
        self._lines.append(text)
        self._block.terminated = True
        self._lines = _Closed(f"@{self.name}: instruction after the terminator of {self._block.label}")

    def br(self, target: Block, loop: str | None = None) -> None:
        """Jump; ``loop`` is the loop id from :meth:`ModuleBuilder.loop_metadata` for a back edge."""
        self._terminate(f"  br label %{target.label}" + (f", !llvm.loop {loop}" if loop else ""))

    def cond_br(self, cond: Value, yes: Block, no: Block, loop: str | None = None) -> None:
        """Jump to ``yes`` where ``cond`` (a scalar i1) is true, else to ``no``."""
        if cond.type is not I1:
            raise IRBuildError(f"br on {cond!r}")
        tail = f", !llvm.loop {loop}" if loop else ""
        self._terminate(f"  br i1 {cond.text}, label %{yes.label}, label %{no.label}{tail}")

    def switch(self, value: Value, default: Block, cases: Sequence[tuple[int, Block]]) -> None:
        """Jump by the value of a scalar integer."""
        arms = " ".join([f"{value.type.text} {case}, label %{block.label}" for case, block in cases])
        self._terminate(f"  switch {value.type.text} {value.text}, label %{default.label} [ {arms} ]")

    def ret(self, value: Value | None = None) -> None:
        """Return."""
        if (VOID if value is None else value.type) is not self.ret_type:
            raise IRBuildError(f"@{self.name} returns {self.ret_type.text}, got {value!r}")
        self._terminate("  ret void" if value is None else f"  ret {value.type.text} {value.text}")

    def unreachable(self) -> None:
        """End the block where control never comes."""
        self._terminate("  unreachable")

    def phi(self, type: Type, *incoming: tuple[Value, Block]) -> Phi:
        """A phi at the head of the current block."""
        node = Phi(self._name(), type)
        for value, block in incoming:
            node.add(value, block)
        self._block.phis.append(node)
        return node

    @contextmanager
    def for_range(
        self,
        start: Value,
        stop: Operand,
        step: Operand = 1,
        carried: Sequence[Value] = (),
        *,
        label: str = "loop",
        runs: bool = False,
        hints: Sequence[str] = (),
    ) -> Iterator[Loop]:
        """``for index in range(start, stop, step)`` with a positive step, on signed integers.

        The test stands at the end of the body (one jump an iteration), guarded by one before it.

        Args:
            start, stop, step: scalars of one integer type; ``stop + step`` must not overflow.
            carried: initial values of what the loop carries.
            label: prefix of the blocks' names.
            runs: the body is known to run at least once (leaves the guard out).
            hints: loop hints, as :meth:`ModuleBuilder.loop_metadata` takes them.
        """
        end = self.operand(stop, start.type)
        increment = self.operand(step, start.type)
        body, done = self.block(label), self.block(label + ".end")
        before = self._block
        if runs:
            self.br(body)
        else:
            self.cond_br(self.icmp("slt", start, end), body, done)
        self.place(body)
        index = self.phi(start.type, (start, before))
        phis = [self.phi(v.type, (v, before)) for v in carried]
        loop = Loop(index, list(phis))
        yield loop
        following = self._emit(start.type, f"add nsw {start.type.text} {index.text}, {increment.text}")
        more = self.icmp("slt", following, end)
        latch = self._block
        self.cond_br(more, body, done, self.module.loop_metadata(hints) if hints else None)
        index.add(following, latch)
        for phi, value in zip(phis, loop.next_values):
            phi.add(value, latch)
        self.place(done)
        for initial, value in zip(carried, loop.next_values):
            result = self.phi(value.type, (value, latch))
            if not runs:
                result.add(initial, before)
            loop.results.append(result)

    @contextmanager
    def if_then(self, cond: Value, label: str = "then") -> Iterator[None]:
        """The ``with`` body runs where the scalar ``cond`` is true."""
        then, after = self.block(label), self.block(label + ".end")
        self.cond_br(cond, then, after)
        self.place(then)
        yield
        if not self._block.terminated:
            self.br(after)
        self.place(after)

    def if_else(
        self,
        cond: Value,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
        label: str = "if",
    ) -> list[Value]:
        """Emit both branches; returns, for each position, the value of the branch that was taken."""
        yes, no, after = self.block(label), self.block(label + ".else"), self.block(label + ".end")
        self.cond_br(cond, yes, no)
        self.place(yes)
        left = then()
        left_block = self._block
        self.br(after)
        self.place(no)
        right = otherwise()
        right_block = self._block
        self.br(after)
        self.place(after)
        if len(left) != len(right):
            raise IRBuildError(f"branches give {len(left)} and {len(right)} values")
        return [self.phi(a.type, (a, left_block), (b, right_block)) for a, b in zip(left, right)]

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

    def vector_const(self, elem: str, values: Sequence[float]) -> Value:
        """A vector constant with its own value in each lane (a scalar for one value)."""
        scalar = Type(elem)
        items = [constant(scalar, v).text for v in values]
        if len(items) == 1:
            return Value(items[0], scalar)
        return Value("<" + ", ".join([f"{elem} {item}" for item in items]) + ">", Type(elem, len(items)))

    def zero(self, type: Type) -> Value:
        """The all-zero value of any type."""
        return Value("zeroinitializer", type) if type.lanes > 1 else constant(type, 0)

    def poison(self, type: Type) -> Value:
        """A value nobody may look at (the start of an insertelement chain)."""
        return Value("poison", type)

    def splat(self, scalar: Value, lanes: int) -> Value:
        """``scalar`` in each of ``lanes`` lanes."""
        if lanes == 1 or scalar.type.lanes != 1:
            if scalar.type.lanes == lanes:
                return scalar
            raise IRBuildError(f"splat of {scalar!r} to {lanes} lanes")
        if scalar.text[0] not in "%@":
            return Value(f"splat ({scalar.type.text} {scalar.text})", scalar.type.with_lanes(lanes))
        type = scalar.type.with_lanes(lanes)
        seed = self._emit(type, f"insertelement {type.text} poison, {scalar.type.text} {scalar.text}, i64 0")
        return self._emit(
            type, f"shufflevector {type.text} {seed.text}, {type.text} poison, <{lanes} x i32> zeroinitializer"
        )

    def lane_ids(self, type: Type) -> Value:
        """``0, 1, 2, ...`` in the lanes of an integer type (0 for a scalar)."""
        return self.vector_const(type.elem, range(type.lanes))

    # -- arithmetic

    def _binary(self, op: str, a: Value, b: Operand) -> Value:
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
        return self._binary("fadd", a, b)

    def fsub(self, a: Value, b: Operand) -> Value:
        """a - b, IEEE."""
        return self._binary("fsub", a, b)

    def fmul(self, a: Value, b: Operand) -> Value:
        """a * b, IEEE."""
        return self._binary("fmul", a, b)

    def fdiv(self, a: Value, b: Operand) -> Value:
        """a / b, IEEE."""
        return self._binary("fdiv", a, b)

    def frem(self, a: Value, b: Operand) -> Value:
        """C's fmod (a library call for each lane)."""
        return self._binary("frem", a, b)

    def add(self, a: Value, b: Operand) -> Value:
        """a + b, wrapping."""
        return self._binary("add", a, b)

    def sub(self, a: Value, b: Operand) -> Value:
        """a - b, wrapping."""
        return self._binary("sub", a, b)

    def mul(self, a: Value, b: Operand) -> Value:
        """a * b, wrapping."""
        return self._binary("mul", a, b)

    def sdiv(self, a: Value, b: Operand) -> Value:
        """Signed division towards zero; undefined for a divisor of 0 and for MIN / -1."""
        return self._binary("sdiv", a, b)

    def udiv(self, a: Value, b: Operand) -> Value:
        """Unsigned division; undefined for a divisor of 0."""
        return self._binary("udiv", a, b)

    def srem(self, a: Value, b: Operand) -> Value:
        """Remainder with the dividend's sign; undefined for a divisor of 0 and for MIN % -1."""
        return self._binary("srem", a, b)

    def urem(self, a: Value, b: Operand) -> Value:
        """Unsigned remainder; undefined for a divisor of 0."""
        return self._binary("urem", a, b)

    def and_(self, a: Value, b: Operand) -> Value:
        """Bitwise and."""
        return self._binary("and", a, b)

    def or_(self, a: Value, b: Operand) -> Value:
        """Bitwise or."""
        return self._binary("or", a, b)

    def xor(self, a: Value, b: Operand) -> Value:
        """Bitwise exclusive or."""
        return self._binary("xor", a, b)

    def not_(self, a: Value) -> Value:
        """All bits inverted."""
        return self._binary("xor", a, True if a.type.elem == "i1" else -1)

    def shl(self, a: Value, b: Operand) -> Value:
        """Shift left; poison for a count of the width or more."""
        return self._binary("shl", a, b)

    def lshr(self, a: Value, b: Operand) -> Value:
        """Shift right, zeros in; poison for a count of the width or more."""
        return self._binary("lshr", a, b)

    def ashr(self, a: Value, b: Operand) -> Value:
        """Shift right, sign in; poison for a count of the width or more."""
        return self._binary("ashr", a, b)

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
        """a where ``cond`` else b; a scalar condition may choose between vectors. One of a, b must be a value."""
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
        if value.type.bits * value.type.lanes != type.bits * type.lanes or "ptr" in (value.type.elem, type.elem):
            raise IRBuildError(f"bitcast of {value!r} to {type.text}")
        return self._emit(type, f"bitcast {value.type.text} {value.text} to {type.text}")

    # -- memory

    def gep(self, base: Value, index: Value, elem: str, *, inbounds: bool = True) -> Value:
        """Address of element ``index`` (integer, scalar or vector) of an array of ``elem`` at ``base``."""
        if base.type.elem != "ptr" or base.type.lanes not in (1, index.type.lanes):
            raise IRBuildError(f"gep from {base!r} by {index!r}")
        flag = "inbounds " if inbounds else ""
        return self._emit(
            Type("ptr", index.type.lanes),
            f"getelementptr {flag}{elem}, {base.type.text} {base.text}, {index.type.text} {index.text}",
        )

    def load(self, pointer: Value, type: Type, align: int | None = None, tail: str = "") -> Value:
        """Load; alignment in bytes, the element's size by default. ``tail``: metadata text, if any."""
        if pointer.type is not PTR:
            raise IRBuildError(f"load from {pointer!r}")
        return self._emit(type, f"load {type.text}, ptr {pointer.text}, align {align or type.align}{tail}")

    def store(self, value: Value, pointer: Value, align: int | None = None, tail: str = "") -> None:
        """Store; alignment in bytes, the element's size by default."""
        if pointer.type is not PTR:
            raise IRBuildError(f"store to {pointer!r}")
        type = value.type
        self._lines.append(
            f"  store {type.text} {value.text}, ptr {pointer.text}, align {align or type.align}{tail}"
        )

    def _check_mask(self, mask: Value, lanes: int) -> None:
        if mask.type is not Type("i1", lanes):
            raise IRBuildError(f"mask {mask!r} for {lanes} lanes")

    def masked_load(
        self, pointer: Value, type: Type, mask: Value, other: Operand = 0, align: int | None = None
    ) -> Value:
        """Load the lanes where ``mask`` is true; ``other`` elsewhere, no memory touched. A branch for one lane."""
        self._check_mask(mask, type.lanes)
        fill = self.operand(other, type)
        if type.lanes == 1:
            return self.if_else(mask, lambda: [self.load(pointer, type, align)], lambda: [fill], "mload")[0]
        name = f"llvm.masked.load.{type.suffix}.p0"
        self._declare(name, type, (PTR, mask.type, type))
        return self._emit(
            type,
            f"call {type.text} @{name}(ptr align {align or type.align} {pointer.text}, "
            f"{mask.type.text} {mask.text}, {type.text} {fill.text})",
        )

    def masked_store(self, value: Value, pointer: Value, mask: Value, align: int | None = None) -> None:
        """Store the lanes where ``mask`` is true. A branch for one lane."""
        type = value.type
        self._check_mask(mask, type.lanes)
        if type.lanes == 1:
            with self.if_then(mask, "mstore"):
                self.store(value, pointer, align)
            return
        name = f"llvm.masked.store.{type.suffix}.p0"
        self._declare(name, VOID, (type, PTR, mask.type))
        self._lines.append(
            f"  call void @{name}({type.text} {value.text}, ptr align {align or type.align} {pointer.text}, "
            f"{mask.type.text} {mask.text})"
        )

    def gather(
        self, pointers: Value, type: Type, mask: Value | None = None, other: Operand = 0, align: int | None = None
    ) -> Value:
        """Load each lane from its own address; ``other`` where ``mask`` is false. One lane: a (masked) load."""
        if type.lanes == 1:
            if mask is None:
                return self.load(pointers, type, align)
            return self.masked_load(pointers, type, mask, other, align)
        if mask is None:
            mask = constant(Type("i1", type.lanes), True)
        self._check_mask(mask, type.lanes)
        fill = self.operand(other, type)
        name = f"llvm.masked.gather.{type.suffix}.v{type.lanes}p0"
        self._declare(name, type, (pointers.type, mask.type, type))
        return self._emit(
            type,
            f"call {type.text} @{name}({pointers.type.text} align {align or type.align} {pointers.text}, "
            f"{mask.type.text} {mask.text}, {type.text} {fill.text})",
        )

    def scatter(self, value: Value, pointers: Value, mask: Value | None = None, align: int | None = None) -> None:
        """Store each lane to its own address, lanes in order. One lane: a (masked) store."""
        type = value.type
        if type.lanes == 1:
            if mask is None:
                self.store(value, pointers, align)
            else:
                self.masked_store(value, pointers, mask, align)
            return
        if mask is None:
            mask = constant(Type("i1", type.lanes), True)
        self._check_mask(mask, type.lanes)
        name = f"llvm.masked.scatter.{type.suffix}.v{type.lanes}p0"
        self._declare(name, VOID, (type, pointers.type, mask.type))
        self._lines.append(
            f"  call void @{name}({type.text} {value.text}, "
            f"{pointers.type.text} align {align or type.align} {pointers.text}, {mask.type.text} {mask.text})"
        )

    def alloca(self, type: Type, count: int = 1, align: int | None = None) -> Value:
        """``count`` elements on the stack, allocated once in the entry block; returns their address."""
        name = self._name()
        self._allocas.append(f"  {name} = alloca {type.text}, i64 {count}, align {align or type.align}")
        return Value(name, PTR)

    def atomicrmw(self, op: str, pointer: Value, value: Value, ordering: str = "monotonic") -> Value:
        """Atomic read-modify-write of a scalar (add sub and or xor xchg max min umax umin fadd fmax fmin); old value."""
        if value.type.lanes != 1 or pointer.type is not PTR:
            raise IRBuildError(f"atomicrmw {op} of {value!r} at {pointer!r}")
        type = value.type
        return self._emit(
            type, f"atomicrmw {op} ptr {pointer.text}, {type.text} {value.text} {ordering}, align {type.align}"
        )

    # -- vectors

    def shuffle(self, a: Value, b: Value | None, mask: Sequence[int]) -> Value:
        """Lanes of a and b chosen by number (b's follow a's; -1: any value); as many lanes as ``mask`` has (>= 2)."""
        if b is not None and b.type is not a.type:
            raise IRBuildError(f"shuffle of {a!r} and {b!r}")
        items = ", ".join(["i32 poison" if i < 0 else f"i32 {i}" for i in mask])
        other = "poison" if b is None else b.text
        return self._emit(
            a.type.with_lanes(len(mask)),
            f"shufflevector {a.type.text} {a.text}, {a.type.text} {other}, <{len(mask)} x i32> <{items}>",
        )

    def extract(self, vector: Value, lane: int | Value) -> Value:
        """One lane as a scalar (a scalar is its own lane 0)."""
        if vector.type.lanes == 1:
            return vector
        index = f"{lane.type.text} {lane.text}" if isinstance(lane, Value) else f"i64 {lane}"
        return self._emit(vector.type.scalar, f"extractelement {vector.type.text} {vector.text}, {index}")

    def insert(self, vector: Value, scalar: Value, lane: int | Value) -> Value:
        """``vector`` with one lane replaced."""
        if scalar.type is not vector.type.scalar:
            raise IRBuildError(f"insert of {scalar!r} into {vector!r}")
        if vector.type.lanes == 1:
            return scalar
        index = f"{lane.type.text} {lane.text}" if isinstance(lane, Value) else f"i64 {lane}"
        return self._emit(
            vector.type,
            f"insertelement {vector.type.text} {vector.text}, {scalar.type.text} {scalar.text}, {index}",
        )

    def slice(self, vector: Value, start: int, lanes: int) -> Value:
        """``lanes`` consecutive lanes from ``start`` on."""
        if lanes == 1:
            return self.extract(vector, start)
        return self.shuffle(vector, None, range(start, start + lanes))

    def concat(self, parts: Sequence[Value]) -> Value:
        """The lanes of equally typed parts one after another (a power of two of them)."""
        values = list(parts)
        while len(values) > 1:
            lanes = values[0].type.lanes
            if lanes == 1:
                joined = []
                for a, b in zip(values[::2], values[1::2]):
                    pair = self.insert(self.poison(a.type.with_lanes(2)), a, 0)
                    joined.append(self.insert(pair, b, 1))
                values = joined
            else:
                values = [self.shuffle(a, b, range(2 * lanes)) for a, b in zip(values[::2], values[1::2])]
        return values[0]

    def reduce(self, kind: str, vector: Value) -> Value:
        """All lanes combined into a scalar.

        ``kind``: fadd fmul (pairwise, upper half onto lower half, in that fixed order), add mul and or xor
        smax smin umax umin fmaximum fminimum (NaN wins) fmax fmin (NaN loses).
        """
        if vector.type.lanes == 1:
            return vector
        if kind in ("fadd", "fmul"):
            lanes = vector.type.lanes
            while lanes > 1:
                lanes //= 2
                low, high = self.slice(vector, 0, lanes), self.slice(vector, lanes, lanes)
                vector = self._binary(kind, low, high)
            return vector
        name = f"llvm.vector.reduce.{kind}.{vector.type.suffix}"
        scalar = vector.type.scalar
        self._declare(name, scalar, (vector.type,))
        return self._emit(scalar, f"call {scalar.text} @{name}({vector.type.text} {vector.text})")

    def any(self, mask: Value) -> Value:
        """Scalar i1: some lane of an i1 vector is true."""
        return self._mask_bits("ne", mask, 0)

    def all(self, mask: Value) -> Value:
        """Scalar i1: every lane of an i1 vector is true."""
        return self._mask_bits("eq", mask, -1)

    def _mask_bits(self, predicate: str, mask: Value, bits: int) -> Value:
        if mask.type.elem != "i1":
            raise IRBuildError(f"mask test of {mask!r}")
        if mask.type.lanes == 1:
            return mask
        # An iN bitcast of the mask is a k-register move (or movmsk), cheaper than vector.reduce.or.
        integer = f"i{mask.type.lanes}"
        packed = self._emit(mask.type, f"bitcast {mask.type.text} {mask.text} to {integer}")
        return self._emit(I1, f"icmp {predicate} {integer} {packed.text}, {bits}")

    # -- calls and intrinsics

    def _declare(self, name: str, ret: Type, params: Sequence[Type]) -> None:
        if not self.module.is_declared(name):
            self.module.declare(name, ret, params)

    def call(self, name: str, ret: Type, args: Sequence[Value], attributes: Sequence[str] = ("nounwind",)) -> Value:
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
        return self.intrinsic("llvm.copysign", magnitude.type, (magnitude, self.operand(sign, magnitude.type)))

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

    def fptosi_sat(self, value: Value, elem: str) -> Value:
        """Float to signed integer, saturating, 0 for NaN. Slow on vectors (one lane after another)."""
        ret = value.type.with_elem(elem)
        return self.intrinsic("llvm.fptosi.sat", ret, (value,), f"{ret.suffix}.{value.type.suffix}")

    def elem_bytes(self, type: Type) -> int:
        """Bytes of one element as it lies in memory (i1 counts as one byte)."""
        return max(1, ELEM_BITS[type.elem] // 8)


class _Closed(list[str]):
    """Stands for a terminated block's lines: appending to it is an error."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self._message = message

    def append(self, _line: str) -> NoReturn:
        raise IRBuildError(self._message)
