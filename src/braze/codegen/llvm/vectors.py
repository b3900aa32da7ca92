"""Instructions that move lanes: splat, shuffle, extract, insert, reduce, mask tests."""

from __future__ import annotations

from collections.abc import Sequence

from braze.codegen.llvm.instructions import InstructionEmitter
from braze.codegen.llvm.types import I1, IRBuildError, Type, Value, constant

__all__ = ["VectorEmitter"]


class VectorEmitter(InstructionEmitter):
    """Adds the instructions that move data between lanes; a scalar counts as one lane everywhere."""

    def vector_const(self, elem: str, values: Sequence[float]) -> Value:
        """A vector constant with its own value in each lane (a scalar for one value)."""
        scalar = Type(elem)
        items = [constant(scalar, v).text for v in values]
        if len(items) == 1:
            return Value(items[0], scalar)
        return Value("<" + ", ".join([f"{elem} {item}" for item in items]) + ">", Type(elem, len(items)))

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
            type,
            f"shufflevector {type.text} {seed.text}, {type.text} poison, <{lanes} x i32> zeroinitializer",
        )

    def lane_ids(self, type: Type) -> Value:
        """``0, 1, 2, ...`` in the lanes of an integer type (0 for a scalar)."""
        return self.vector_const(type.elem, range(type.lanes))

    def shuffle(self, a: Value, b: Value | None, mask: Sequence[int]) -> Value:
        """Lanes of a and b chosen by number (b's follow a's; -1: any value); ``mask`` has two or more."""
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
                for a, b in zip(values[::2], values[1::2], strict=True):
                    pair = self.insert(self.poison(a.type.with_lanes(2)), a, 0)
                    joined.append(self.insert(pair, b, 1))
                values = joined
            else:
                values = [
                    self.shuffle(a, b, range(2 * lanes))
                    for a, b in zip(values[::2], values[1::2], strict=True)
                ]
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
                vector = self.binary(kind, low, high)
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
