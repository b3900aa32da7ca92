"""Loop bodies as data: hash-consed DAGs of scalar operations.

A :class:`Dag` owns the nodes of one compile and guarantees that equal nodes are the same object, so that
comparison is identity, and inlining a producer into many consumers costs what the shared graph costs. Index
expressions are :class:`~braze.runtime.expr.Expr`; an index that is computed by other nodes appears in them as
an :class:`IndirectSymbol`.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cmp_to_key
from typing import Union
from weakref import ReferenceType, ref

import torch

from braze.errors import InternalError
from braze.ops.dtypes import HALF_TYPES, PARTS, integer_limits, is_float, is_integer, short_name
from braze.ops.vocabulary import COMPLEX, NODES, OPS, REDUCTIONS, SCANS
from braze.runtime.expr import ZERO, Expr, ExprLike, Symbol, as_expr, known_less, known_nonnegative

Scalar = bool | int | float | complex
NodeLike = Union["Node", Scalar]


def _operator(name: str, booleans: str = "") -> Callable[[Node, NodeLike], Node]:
    """``name`` of a node and what is written to its right; ``booleans``: what it is of truth values."""

    def apply(left: Node, right: NodeLike) -> Node:
        chosen = booleans if booleans and left.dtype is torch.bool else name
        return left.dag.op(chosen, left, right if isinstance(right, Node) else left.like(right))

    return apply


def _reflected(name: str) -> Callable[[Node, Scalar], Node]:
    """``name`` of a number and the node to its right."""

    def apply(right: Node, left: Scalar) -> Node:
        return right.dag.op(name, right.like(left), right)

    return apply


class Node:
    """One scalar operation. Made by a :class:`Dag` only; two nodes of a Dag are equal if they are the same
    object.

    ``inputs`` are the operands together with the nodes that ``attrs``' index expressions refer to;
    ``free`` the loop and size symbols on which the value depends; ``symbols`` those and the reduction
    variables that are bound below it. ``origin`` is what the Dag's ``origin`` was when the node was first
    made; it is no part of the node's identity.

    Python's operators make nodes of the same Dag: ``half * (1 + tanh(inner))``. A number becomes a constant
    of the node's type (see `like`). Of truth values ``& | ^ ~`` are the logical operations. Nodes compare by
    identity, so that whether values are equal is asked by `eq` and `ne`; no node is true or false itself.
    What is written as a function stands in :mod:`braze.ops.functions`.
    """

    __slots__ = ("_dag", "args", "attrs", "depth", "dtype", "free", "id", "inputs", "op", "origin", "symbols")
    depth: int
    free: frozenset[Symbol]
    symbols: frozenset[Symbol]

    def __init__(
        self,
        dag: ReferenceType[Dag],
        id: int,
        op: str,
        args: tuple[Node, ...],
        attrs: tuple[object, ...],
        dtype: torch.dtype,
    ) -> None:
        self._dag = dag
        self.id = id
        self.origin: object = None
        self.op = op
        self.args = args
        self.attrs = attrs
        self.dtype = dtype
        self.inputs = args
        free: frozenset[Symbol] = frozenset().union(*[a.free for a in args]) if args else frozenset()
        symbols_below: list[frozenset[Symbol]] = [a.symbols for a in args]
        for attr in attrs:
            if isinstance(attr, Expr):
                symbols = attr.free_symbols
                for n in indirect_nodes(attr):
                    self.inputs = (*self.inputs, n)
                    free |= n.free
                    symbols_below.append(n.symbols)
                free |= frozenset(s for s in symbols if not isinstance(s, IndirectSymbol))
        self.depth = 1 + max([n.depth for n in self.inputs], default=-1)
        below = free.union(*symbols_below)
        self.symbols = free if below == free else below
        if op == "reduction":
            bound = frozenset(attrs[2])  # type: ignore[call-overload]
            self.symbols |= bound
            free -= bound
        self.free = free

    @property
    def buffer(self) -> str:
        """The buffer that a ``load`` reads."""
        assert self.op == "load"
        return self.attrs[0]  # type: ignore[return-value]

    @property
    def index(self) -> Expr:
        """The flat element index of a ``load``, or the expression of an ``index_expr``."""
        return self.attrs[1] if self.op == "load" else self.attrs[0]  # type: ignore[return-value]

    @property
    def mask(self) -> Node | None:
        """The node that guards a ``load`` or a checked index or divisor, if one does."""
        position = 0 if self.op == "load" else 1
        return self.args[position] if len(self.args) > position else None

    @property
    def dag(self) -> Dag:
        """The Dag that made the node. Raises ``InternalError`` where that is gone: nodes do not keep it."""
        dag = self._dag()
        if dag is None:
            raise InternalError(f"the Dag of {self} is gone")
        return dag

    def like(self, value: Scalar) -> Node:
        """``value`` as a constant of the node's type, rounded if that is a floating one. Raises
        ``InternalError`` for a fraction beside integers, and for what is no truth value beside booleans."""
        if self.dtype in PARTS:
            return self.dag.constant(value, self.dtype)
        assert not isinstance(value, complex)
        if not is_float(self.dtype) and value != (bool(value) if self.dtype is torch.bool else value // 1):
            raise InternalError(f"{value} beside {short_name(self.dtype)}")
        return self.dag.constant(value, self.dtype)

    # -- arithmetic -------------------------------------------------------------------------------------
    __add__, __radd__ = _operator("add"), _reflected("add")
    __sub__, __rsub__ = _operator("sub"), _reflected("sub")
    __mul__, __rmul__ = _operator("mul"), _reflected("mul")
    __truediv__, __rtruediv__ = _operator("truediv"), _reflected("truediv")
    __pow__ = _operator("pow")
    __rshift__ = _operator("shr")
    __lt__, __le__ = _operator("lt"), _operator("le")
    __gt__, __ge__ = _operator("gt"), _operator("ge")
    eq, ne = _operator("eq"), _operator("ne")
    __or__ = _operator("bitwise_or", "logical_or")
    __xor__ = _operator("bitwise_xor", "logical_xor")

    def __and__(self, other: NodeLike) -> Node:
        other = other if isinstance(other, Node) else self.like(other)
        folds = self.dtype is torch.bool
        return self.dag.logical_and(self, other) if folds else self.dag.op("bitwise_and", self, other)

    def __invert__(self) -> Node:
        return self.dag.op("logical_not" if self.dtype is torch.bool else "bitwise_not", self)

    def __neg__(self) -> Node:
        return self.dag.op("neg", self)

    def __abs__(self) -> Node:
        return self.dag.op("abs", self)

    def __round__(self) -> Node:
        return self.dag.op("round", self)

    def __bool__(self) -> bool:
        raise InternalError(f"{self} is not known before the kernel runs")

    def __repr__(self) -> str:
        attrs = ", ".join(str(a) for a in self.attrs)
        args = ", ".join(f"t{a.id}" for a in self.args)
        return f"t{self.id} = {self.op}({', '.join(p for p in (args, attrs) if p)}): {short_name(self.dtype)}"


class IndirectSymbol(Symbol):
    """An index that ``node`` (int64) computes at run time, known to lie in ``[0, size - 1]``."""

    __slots__ = ("node",)
    node: Node

    def __init__(self, node: Node, size: Expr) -> None:
        super().__init__(f"t{node.id}", 0, size - 1)
        self.node = node


def indirect_nodes(e: Expr) -> list[Node]:
    """The nodes that compute indices in ``e``, in an order that depends on nothing but their graph."""
    found = {s.node.id: s.node for s in e.free_symbols if isinstance(s, IndirectSymbol)}
    return sorted(found.values(), key=lambda n: (n.depth, n.id))


def topological(roots: Iterable[Node], within: frozenset[Symbol] | None = None) -> list[Node]:
    """Every node below ``roots``, inputs before users. With ``within``, only nodes that mention, free or
    bound, one of its symbols."""
    order: list[Node] = []
    done: set[int] = set()
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
            continue
        if node.id in done or (within is not None and within.isdisjoint(node.symbols)):
            continue
        done.add(node.id)
        stack.append((node, True))
        stack.extend((i, False) for i in reversed(node.inputs) if i.id not in done)
    return order


def _rebound(symbol: Symbol, target: Expr) -> list[Symbol]:
    """The loop variables that take the place of the reduction variable ``symbol`` where it becomes
    ``target``, outermost first: the symbols of ``target`` that are no size of ``symbol`` or of another."""
    found = target.free_symbols
    sizes = {s for v in (symbol, *found) if v.upper is not None for s in v.upper.free_symbols}

    def slope(v: Symbol) -> Expr:
        split = target.coefficient(v)
        return split[0] if split is not None else ZERO

    def order(a: Symbol, b: Symbol) -> int:
        return -1 if known_less(slope(b), slope(a)) else int(known_less(slope(a), slope(b)))

    return sorted(sorted(found - sizes, key=lambda v: v.key), key=cmp_to_key(order))


def _guarded(value: Node, mask: Node | None) -> tuple[Node, ...]:
    """The operands of a check: without a mask where the mask always holds."""
    if mask is None or (mask.op == "constant" and mask.attrs[0]):
        return (value,)
    return (value, mask)


def _holds(wide: torch.dtype, narrow: torch.dtype) -> bool:
    """Whether every value of ``narrow`` is one of ``wide``, so that going there and back changes nothing."""
    if is_float(narrow):
        return is_float(wide) and wide.itemsize > narrow.itemsize
    if is_float(wide) or wide is torch.bool:
        return False
    (low, high), (least, most) = integer_limits(wide), integer_limits(narrow)
    return low <= least and most <= high


def _constant_key(value: object) -> object:
    return struct.pack("<d", value) if isinstance(value, float) else value


def _rounded(value: float, dtype: torch.dtype) -> float:
    """``value`` in the precision of ``dtype``; every NaN is the one NaN."""
    if value != value:
        return math.nan
    if dtype is torch.float32:
        return ctypes.c_float(value).value
    return value if dtype is torch.float64 else float(torch.tensor(value, dtype=torch.float64).to(dtype))


@cache
def _result_type(name: str, dtype: torch.dtype) -> torch.dtype:
    """The type of an operation on operands of ``dtype``. Raises ``InternalError`` where there is none."""
    definition = OPS[name]
    bad = (
        dtype in HALF_TYPES
        or dtype in PARTS
        or (definition.domain == "float" and not is_float(dtype))
        or (definition.domain == "int" and not is_integer(dtype))
        or (definition.domain == "bool" and dtype is not torch.bool)
        or (definition.domain == "number" and dtype is torch.bool)
        or (definition.domain == "bits" and is_float(dtype))
    )
    if bad or definition.result == "explicit":
        raise InternalError(f"{name} is not defined for {short_name(dtype)}")
    return torch.bool if definition.result == "bool" else dtype


class Dag:
    """The nodes of one compile, each made once."""

    def __init__(self) -> None:
        self.origin: object = None
        self._self = ref(self)
        self._nodes: dict[tuple[object, ...], Node] = {}
        self._indirect: dict[tuple[int, Expr], IndirectSymbol] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    # -- making nodes -----------------------------------------------------------------------------------
    def make(self, op: str, args: tuple[Node, ...], attrs: tuple[object, ...], dtype: torch.dtype) -> Node:
        """The node with these fields, new or known. Checks arity only; the named makers below check types."""
        definition = NODES[op]
        if not definition.arity[0] <= len(args) <= definition.arity[1]:
            raise InternalError(f"{op} takes {definition.arity} operands, not {len(args)}")
        shown = tuple(map(_constant_key, attrs)) if op == "constant" else attrs
        key = (op, dtype, tuple([a.id for a in args]), shown)
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = Node(self._self, len(self._nodes), op, args, attrs, dtype)
            found.origin = self.origin
        return found

    def constant(self, value: Scalar, dtype: torch.dtype) -> Node:
        """A literal, converted to ``dtype`` (integers wrap, as torch's conversion does)."""
        part = PARTS.get(dtype)
        if part is not None:
            value = complex(value)
            return self.complex(self.constant(value.real, part), self.constant(value.imag, part))
        assert not isinstance(value, complex)
        if dtype is torch.bool:
            value = bool(value)
        elif is_float(dtype):
            value = _rounded(float(value), dtype)
        else:
            low, high = integer_limits(dtype)
            value = (int(value) - low) % (high - low + 1) + low
        return self.make("constant", (), (value,), dtype)

    def complex(self, real: Node, imag: Node) -> Node:
        """A complex number of two floating-point ones."""
        dtype = next((c for c, part in PARTS.items() if part is real.dtype is imag.dtype), None)
        if dtype is None:
            raise InternalError(f"no complex number of {short_name(real.dtype)} and {short_name(imag.dtype)}")
        return self.make(COMPLEX, (real, imag), (), dtype)

    def parts(self, node: Node) -> tuple[Node, Node]:
        """The real and the imaginary part of a node of a complex type."""
        if node.op != COMPLEX:
            raise InternalError(f"{node} has no parts")
        return node.args[0], node.args[1]

    def each_part(self, fn: Callable[..., Node], *nodes: Node) -> Node:
        """The complex number of ``fn`` of the real parts, and of the imaginary parts, of ``nodes``."""
        real, imag = zip(*map(self.parts, nodes))
        return self.complex(fn(*real), fn(*imag))

    def index_expr(self, e: ExprLike, dtype: torch.dtype = torch.int64) -> Node:
        """An index expression as a value."""
        e = as_expr(e)
        if e.constant is not None:
            return self.constant(e.constant, dtype)
        if dtype in PARTS:
            return self.to_dtype(self.index_expr(e, PARTS[dtype]), dtype)
        symbol = e.symbol
        if isinstance(symbol, IndirectSymbol):
            return self.to_dtype(symbol.node, dtype)
        return self.make("index_expr", (), (e,), dtype)

    def load(self, buffer: str, index: ExprLike, dtype: torch.dtype, mask: Node | None = None) -> Node:
        """The element of ``buffer`` at flat ``index``; 0, and no access, where ``mask`` is false. A complex
        one is two elements of memory."""
        part = PARTS.get(dtype)
        if part is not None:
            at = as_expr(index) * 2
            return self.complex(self.load(buffer, at, part, mask), self.load(buffer, at + 1, part, mask))
        if mask is not None and mask.op == "constant":
            if not mask.attrs[0]:
                return self.constant(0, dtype)
            mask = None
        return self.make("load", () if mask is None else (mask,), (buffer, as_expr(index)), dtype)

    def indirect(self, node: Node, size: ExprLike) -> Expr:
        """``node``'s value as an index in ``[0, size - 1]``; the caller vouches for the range."""
        if node.op == "constant":
            return as_expr(int(node.attrs[0]))  # type: ignore[call-overload]
        if node.op == "index_expr" and node.dtype is torch.int64:
            return node.index
        size = as_expr(size)
        node = self.to_dtype(node, torch.int64)
        found = self._indirect.get((node.id, size))
        if found is None:
            found = self._indirect[node.id, size] = IndirectSymbol(node, size)
        return found.expr

    def check_index(
        self, node: Node, size: ExprLike, *, wrap: bool, error: str, mask: Node | None = None
    ) -> Expr:
        """``node`` as an index into ``size`` elements, checked at run time; negative ones wrap if ``wrap``.

        ``error`` names the exception that the compiled call raises, and its operator and place.
        """
        size = as_expr(size)
        value = self.to_dtype(node, torch.int64)
        if value.op == "constant" and size.constant is not None:
            k = int(value.attrs[0])  # type: ignore[call-overload]
            k = k + size.constant if wrap and k < 0 else k
            if 0 <= k < size.constant:
                return as_expr(k)
        if value.op == "index_expr" and known_nonnegative(value.index) and known_less(value.index, size):
            return value.index
        args = _guarded(value, mask)
        return self.indirect(self.make("check_index", args, (size, wrap, error), torch.int64), size)

    def check_nonzero(self, node: Node, error: str, mask: Node | None = None) -> Node:
        """``node`` where it is not 0; 1, with the failure recorded, where it is."""
        if node.op == "constant" and node.attrs[0]:
            return node
        args = _guarded(node, mask)
        return self.make("check_nonzero", args, (error,), node.dtype)

    def check(self, node: Node, condition: Node, error: str) -> Node:
        """``node``, with a failure recorded where ``condition`` (bool) does not hold."""
        if condition.op == "constant" and condition.attrs[0]:
            return node
        if node.dtype in PARTS:
            return self.each_part(lambda part: self.check(part, condition, error), node)
        return self.make("check", (node, condition), (error,), node.dtype)

    def op(self, name: str, *args: Node) -> Node:
        """An operation whose type follows from its operands. Operands must agree in type."""
        dtype = args[0].dtype
        for a in args:
            if a.dtype is not dtype:
                raise InternalError(f"{name} of mixed types: {', '.join(short_name(a.dtype) for a in args)}")
        return self.make(name, args, (), _result_type(name, dtype))

    def where(self, condition: Node, a: Node, b: Node) -> Node:
        """``a`` where ``condition`` holds, else ``b``."""
        if a is b:
            return a
        if condition.op == "constant":
            return a if condition.attrs[0] else b
        if a.dtype is not b.dtype or condition.dtype is not torch.bool:
            raise InternalError("where: operands disagree in type")
        if a.dtype in PARTS:
            return self.each_part(lambda x, y: self.where(condition, x, y), a, b)
        return self.make("where", (condition, a, b), (), a.dtype)

    def logical_and(self, a: Node, b: Node) -> Node:
        """``a and b`` of booleans, folding constants."""
        for x, y in ((a, b), (b, a)):
            if x.op == "constant":
                return y if x.attrs[0] else x
        return a if a is b else self.op("logical_and", a, b)

    def to_dtype(self, node: Node, dtype: torch.dtype) -> Node:
        """``node`` converted to ``dtype``, as torch converts."""
        if node.dtype is dtype:
            return node
        if node.dtype in PARTS or dtype in PARTS:
            return self._to_or_from_complex(node, dtype)
        if node.op == "constant" and dtype not in HALF_TYPES:
            # torch's answer to NaN and overflow is not ours to fold
            if is_float(node.dtype) and is_integer(dtype):
                return self.make("to_dtype", (node,), (), dtype)
            value = torch.tensor(node.attrs[0], dtype=node.dtype).to(dtype).item()
            return self.constant(value, dtype)
        if node.op == "index_expr" and dtype is torch.int64 and node.dtype is torch.int32:
            return self.index_expr(node.index)
        if node.op == "to_dtype" and node.args[0].dtype is dtype and _holds(node.dtype, dtype):
            return node.args[0]
        return self.make("to_dtype", (node,), (), dtype)

    def _to_or_from_complex(self, node: Node, dtype: torch.dtype) -> Node:
        if node.dtype not in PARTS:
            part = PARTS[dtype]
            return self.complex(self.to_dtype(node, part), self.constant(0, part))
        if dtype in PARTS:
            return self.each_part(lambda part: self.to_dtype(part, PARTS[dtype]), node)
        real, imag = self.parts(node)
        if dtype is torch.bool:
            return real.ne(0) | imag.ne(0)
        return self.to_dtype(real, dtype)

    def bitcast(self, node: Node, dtype: torch.dtype) -> Node:
        """The same bits as another type of the same width."""
        if node.dtype.itemsize != dtype.itemsize:
            raise InternalError(
                f"bitcast from {short_name(node.dtype)} to {short_name(dtype)} changes the width"
            )
        return node if node.dtype is dtype else self.make("bitcast", (node,), (), dtype)

    def random(self, name: str, dtype: torch.dtype, *args: Node) -> Node:
        """``rand``, ``randn`` (float32) or ``randint64``; operands int64."""
        return self.make(name, args, (), dtype)

    def reduction(self, kind: str, args: Sequence[Node], rvars: Sequence[Symbol], component: int = 0) -> Node:
        """Component ``component`` of the reduction of ``args`` over ``rvars``, in the type of its first
        operand; positions are int64."""
        if kind == "sum" and args[0].dtype in PARTS:
            return self.each_part(lambda part: self.reduction(kind, [part], rvars), args[0])
        components = REDUCTIONS[kind].components
        if component >= len(components):
            raise InternalError(f"{kind} has {len(components)} components")
        dtype = torch.int64 if kind in ("argmax", "argmin") else args[0].dtype
        if dtype in HALF_TYPES or (len(args) == 2 and kind not in ("argmax", "argmin")):
            raise InternalError(
                f"reduction {kind} is not defined for {', '.join(short_name(a.dtype) for a in args)}"
            )
        return self.make("reduction", tuple(args), (kind, component, tuple(rvars)), dtype)

    def scan(self, kind: str, arg: Node, var: Symbol) -> Node:
        """The inclusive scan of ``arg`` along ``var``; positions are int64."""
        if kind not in SCANS:
            raise InternalError(f"no scan of kind {kind}")
        dtype = torch.int64 if kind in ("last_max", "last_min") else arg.dtype
        return self.make("scan", (arg,), (kind, var.expr), dtype)

    # -- rewriting --------------------------------------------------------------------------------------
    def rewrite(self, node: Node, args: tuple[Node, ...], attrs: tuple[object, ...]) -> Node:
        """``node`` with other operands and attributes, through the folding makers. It keeps its origin."""
        before, self.origin = self.origin, node.origin
        try:
            return self._rewrite(node, args, attrs)
        finally:
            self.origin = before

    def _rewrite(self, node: Node, args: tuple[Node, ...], attrs: tuple[object, ...]) -> Node:
        if node.op == "load":
            return self.load(attrs[0], attrs[1], node.dtype, args[0] if args else None)  # type: ignore[arg-type]
        if node.op == "index_expr":
            return self.index_expr(attrs[0], node.dtype)  # type: ignore[arg-type]
        if node.op == "where":
            return self.where(*args)
        if node.op == "logical_and":
            return self.logical_and(*args)
        if node.op == "to_dtype":
            return self.to_dtype(args[0], node.dtype)
        if node.op in ("eq", "ne") and args[0].op == args[1].op == "constant" and is_integer(args[0].dtype):
            return self.constant((args[0].attrs == args[1].attrs) == (node.op == "eq"), torch.bool)
        return self.make(node.op, args, attrs, node.dtype)

    def substitute(self, roots: Sequence[Node], mapping: Mapping[Symbol, ExprLike]) -> list[Node]:
        """``roots`` with symbols replaced in every index; linear in the nodes that depend on them.

        Bound reduction variables are replaced too; one that becomes an expression (a split, a merge) is bound
        again by that expression's loop variables, outermost first. No new symbol may be bound already where
        an old one occurs.
        """
        mapping = {s: as_expr(e) for s, e in mapping.items() if as_expr(e).symbol != s}
        if not mapping:
            return list(roots)
        done: dict[int, Node] = {}
        for node in topological(roots, frozenset(mapping)):
            args = tuple([done.get(a.id, a) for a in node.args])
            attrs = tuple([self._substitute_attr(a, mapping, done) for a in node.attrs])
            if args != node.args or attrs != node.attrs:
                done[node.id] = self.rewrite(node, args, attrs)
        return [done.get(r.id, r) for r in roots]

    def _substitute_attr(
        self, attr: object, mapping: Mapping[Symbol, ExprLike], done: Mapping[int, Node]
    ) -> object:
        if isinstance(attr, Expr):
            local = dict(mapping)
            for s in attr.free_symbols:
                if isinstance(s, IndirectSymbol):
                    assert s.upper is not None
                    target = done.get(s.node.id, s.node)
                    local[s] = self.indirect(target, (s.upper + 1).substitute(mapping))
            return attr.substitute(local)
        if isinstance(attr, tuple):  # the variables of a reduction
            renamed: list[Symbol] = []
            for s in attr:
                target_expr = mapping.get(s)
                renamed.extend([s] if target_expr is None else _rebound(s, as_expr(target_expr)))
            return tuple(dict.fromkeys(renamed))
        return attr

    def replace(self, roots: Sequence[Node], known: Mapping[int, Node]) -> list[Node]:
        """``roots`` with the nodes whose ids are in ``known`` replaced (store-to-load forwarding)."""
        done = dict(known)
        for node in topological(roots):
            if node.id in known:
                continue
            args = tuple([done.get(a.id, a) for a in node.args])
            attrs = node.attrs
            if len(node.inputs) > len(node.args):
                attrs = tuple(
                    [self._substitute_attr(a, {}, done) if isinstance(a, Expr) else a for a in attrs]
                )
            if args != node.args or attrs != node.attrs:
                done[node.id] = self.rewrite(node, args, attrs)
        return [done.get(r.id, r) for r in roots]

    def mask(self, node: Node, condition: Node) -> Node:
        """``node`` with every load and check below it guarded by ``condition`` as well; no access where it is
        false.
        """
        if condition.op == "constant" and condition.attrs[0]:
            return node
        done: dict[int, Node] = {}
        inside_condition = {n.id for n in topological([condition])}
        for current in topological([node]):
            if current.id in inside_condition:
                continue
            args = tuple([done.get(a.id, a) for a in current.args])
            attrs = tuple(
                [self._substitute_attr(a, {}, done) if isinstance(a, Expr) else a for a in current.attrs]
            )
            if current.op == "load":
                guard = self.logical_and(args[0], condition) if args else condition
                done[current.id] = self.load(attrs[0], attrs[1], current.dtype, guard)  # type: ignore[arg-type]
            elif current.op in ("check_index", "check_nonzero"):
                guard = self.logical_and(args[1], condition) if len(args) > 1 else condition
                done[current.id] = self.make(current.op, _guarded(args[0], guard), attrs, current.dtype)
            elif current.op == "check":
                allowed = args[1] | ~condition
                done[current.id] = self.make("check", (args[0], allowed), attrs, current.dtype)
            elif args != current.args or attrs != current.attrs:
                done[current.id] = self.rewrite(current, args, attrs)
        return done.get(node.id, node)


def loads(roots: Iterable[Node]) -> list[Node]:
    """The distinct ``load`` nodes below ``roots``."""
    return [n for n in topological(roots) if n.op == "load"]


def cost(roots: Iterable[Node]) -> int:
    """The summed cost of the distinct nodes below ``roots``, by the vocabulary's table."""
    return sum(NODES[n.op].cost for n in topological(roots))
