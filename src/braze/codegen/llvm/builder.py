"""A text emitter for LLVM IR: typed SSA values, one string append for each instruction.

LLVM's own C++ builders would need LLVM in the process that generates code, and an error in them aborts it.
Text needs neither; operand types are compared here, so that a mistake is a Python exception.

Rules that hold for all IR of Braze: no fast-math flags, fused multiply-add only where ``fma`` is asked for,
addresses only through :meth:`FunctionBuilder.gep`, alignment always written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from braze.codegen.llvm.instructions import Operand
from braze.codegen.llvm.module import ModuleBuilder
from braze.codegen.llvm.types import (
    BF16,
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
from braze.codegen.llvm.vectors import VectorEmitter

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

    ``index`` and ``carried`` hold the current iteration's values; :meth:`set_next` states the next ones
    (a value that is never set stays what it is); after the ``with`` block ``results`` holds the final ones.
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


class FunctionBuilder(VectorEmitter):
    """Emits one function, instruction after instruction, into the current block.

    Args:
        module: the module that takes the function.
        name: its symbol.
        params: ``(name, type)`` or ``(name, type, attributes)``, attributes being text such as ``noalias``.
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

    # -- text

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
        for phi, value in zip(phis, loop.next_values, strict=True):
            phi.add(value, latch)
        self.place(done)
        for initial, value in zip(carried, loop.next_values, strict=True):
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
        return [self.phi(a.type, (a, left_block), (b, right_block)) for a, b in zip(left, right, strict=True)]

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
        """Load the lanes where ``mask`` is true; ``other`` elsewhere, no memory touched. A branch for one."""
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
        self,
        pointers: Value,
        type: Type,
        mask: Value | None = None,
        other: Operand = 0,
        align: int | None = None,
    ) -> Value:
        """Load each lane from its own address; ``other`` where ``mask`` is false. One lane: a load."""
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

    def scatter(
        self, value: Value, pointers: Value, mask: Value | None = None, align: int | None = None
    ) -> None:
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
        """Atomic read-modify-write of a scalar; returns the old value.

        ``op``: add sub and or xor xchg max min umax umin fadd fsub fmax fmin.
        """
        if value.type.lanes != 1 or pointer.type is not PTR:
            raise IRBuildError(f"atomicrmw {op} of {value!r} at {pointer!r}")
        type = value.type
        return self._emit(
            type,
            f"atomicrmw {op} ptr {pointer.text}, {type.text} {value.text} {ordering}, align {type.align}",
        )

    def replace_if(self, pointer: Value, old: Operand, new: Value) -> Value:
        """Atomically put ``new`` where ``old`` is; whether it was there."""
        if new.type.lanes != 1 or pointer.type is not PTR:
            raise IRBuildError(f"cmpxchg of {new!r} at {pointer!r}")
        type = new.type
        expected = old if isinstance(old, Value) else constant(type, old)
        pair = self._emit(
            type,
            f"cmpxchg ptr {pointer.text}, {type.text} {expected.text}, {type.text} {new.text} "
            f"monotonic monotonic, align {type.align}",
        )
        return self._emit(I1, f"extractvalue {{ {type.text}, i1 }} {pair.text}, 1")


class _Closed(list[str]):
    """Stands for a terminated block's lines: appending to it is an error."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self._message = message

    def append(self, _line: str) -> NoReturn:
        raise IRBuildError(self._message)
