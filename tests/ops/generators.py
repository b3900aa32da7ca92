"""Random kernels for comparing what runs them: the reference interpreter, machine code, rewritten bodies.

Inputs are small integers and multiples of a quarter, so that arithmetic, and the sums of loaded values, are
exact in every type whatever the order: results are compared bit for bit. Functions whose last bit is open
(exp and the like, variances) are applied last and stored in buffers of their own, which ``Case.inexact``
names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from hypothesis import strategies as st

from braze.ops.dag import Dag, Node
from braze.ops.dtypes import HALF_TYPES, compute_dtype, is_float, is_integer
from braze.ops.kernel import BufferArg, Kernel, Role, Stage, Store
from braze.ops.vocabulary import COMBINING
from braze.runtime.checks import Check
from braze.runtime.expr import Expr, Symbol, as_expr, product

FLOATS = (torch.float32, torch.float64)
INTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
COMPUTED = (*FLOATS, *INTS, torch.bool)
STORED = (*COMPUTED, torch.float16, torch.bfloat16)
INNER_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 65)
OUTER_SIZES = (0, 1, 2, 3, 5)

MATH = (
    *("exp", "exp2", "expm1", "sigmoid", "tanh", "log", "log1p", "log2", "log10", "erf", "erfc", "rsqrt"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erfinv"),
)
MATH_OF_TWO = ("pow", "atan2", "hypot")
EXACT_UNARY = {
    "float": ("neg", "abs", "floor", "ceil", "trunc", "round", "sqrt"),
    "int": ("neg", "abs", "bitwise_not"),
}
EXACT_BINARY = {
    "float": ("add", "sub", "mul", "truediv", "minimum", "maximum", "copysign"),
    "int": (
        *(
            "add",
            "sub",
            "mul",
            "minimum",
            "maximum",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "shl",
            "shr",
        ),
        *("floordiv", "truncdiv", "mod", "fmod"),
    ),
    "bool": ("logical_and", "logical_or", "logical_xor", "bitwise_xor", "minimum", "maximum"),
}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
INDEX_CHECK = Check("IndexError", "aten.index.Tensor", "test.py:1").encode()
RANGE_CHECK = Check("RuntimeError", "aten.bernoulli.default", "test.py:3", "not a probability").encode()
ZERO_CHECK = Check("ZeroDivisionError", "aten.div.Tensor", "test.py:2").encode()


@dataclass
class Case:
    """A kernel with storage to run it on. ``buffers`` are flat and in the state before the run."""

    kernel: Kernel
    dag: Dag
    buffers: dict[str, torch.Tensor]
    sizes: dict[str, int]
    inexact: frozenset[str]

    def fresh(self) -> dict[str, torch.Tensor]:
        """A copy of the buffers, to be run on."""
        return {name: t.clone() for name, t in self.buffers.items()}

    @property
    def outputs(self) -> list[str]:
        """The buffers that the kernel writes and that outlive it."""
        return [b.name for b in self.kernel.buffers if b.role in ("out", "inout")]

    def __repr__(self) -> str:
        return f"{self.kernel}\nsizes {self.sizes}, inexact {sorted(self.inexact)}"


def compare(case: Case, actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Assert that two runs of a case wrote the same; every NaN is the same NaN."""
    for name in case.outputs:
        a, b = actual[name], expected[name]
        if name in case.inexact:
            torch.testing.assert_close(a, b, equal_nan=True)
            continue
        same = (a == b) & (torch.signbit(a) == torch.signbit(b))
        if is_float(a.dtype):
            same |= a.isnan() & b.isnan()
        if not bool(same.all()):
            at = int((~same).nonzero()[0, 0])
            raise AssertionError(f"{name}[{at}] is {a[at]}, not {b[at]}\n{case!r}")


class Maker:
    """Builds one case out of the choices of a hypothesis ``draw``."""

    def __init__(self, draw: Any, *, specials: bool) -> None:
        self.draw = draw
        self.specials = specials
        self.dag = Dag()
        self.sizes: dict[str, int] = {}
        self.size_symbols: list[Symbol] = []
        self.extent: dict[Symbol, int] = {}
        self.args: list[BufferArg] = []
        self.buffers: dict[str, torch.Tensor] = {}
        self.inexact: set[str] = set()

    def pick(self, items: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(items)))

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) < percent)

    # -- loops and memory -------------------------------------------------------------------------------
    def loop(self, name: str, sizes: Sequence[int]) -> Symbol:
        n = self.pick(sizes)
        size: Expr = as_expr(n)
        if self.chance(35):
            symbol = Symbol(f"s{len(self.size_symbols)}", 0)
            self.size_symbols.append(symbol)
            self.sizes[symbol.name] = n
            size = symbol.expr
        v = Symbol(name, 0, size - 1)
        self.extent[v] = n
        return v

    def loops(self, prefix: str, first: int, count: int) -> tuple[Symbol, ...]:
        """``count`` loops, of which the last is the long one."""
        return tuple(
            self.loop(f"{prefix}{first + k}", INNER_SIZES if k == count - 1 else OUTER_SIZES)
            for k in range(count)
        )

    def buffer(self, role: Role, dtype: torch.dtype, numel: Expr, data: torch.Tensor | None = None) -> str:
        name = f"{role[0]}{len(self.args)}"
        self.args.append(BufferArg(name, dtype, role, numel))
        if role != "local":
            self.buffers[name] = self.data(dtype, numel.evaluate(self.sizes)) if data is None else data
        return name

    def data(self, dtype: torch.dtype, numel: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.draw(st.integers(0, 2**16)))
        if dtype is torch.bool:
            return torch.randint(0, 2, (numel,), generator=generator).bool()
        low = 0 if dtype is torch.uint8 else -8
        values = torch.randint(low, 9, (numel,), generator=generator)
        if not is_float(dtype):
            return values.to(dtype)
        floats = values.to(dtype) / 4
        if self.specials and numel:
            pick = torch.randint(0, 12, (numel,), generator=generator)
            for k, special in enumerate((float("nan"), float("inf"), -float("inf"), -0.0, 2.0**100)):
                floats[pick == k] = special
        return floats

    def row_major(self, loops: Sequence[Symbol]) -> Expr:
        index = as_expr(0)
        for v in loops:
            index = index * v.size + v.expr
        return index

    def numel(self, loops: Sequence[Symbol]) -> Expr:
        return product(v.size for v in loops)

    # -- loads ------------------------------------------------------------------------------------------
    def load(self, loops: Sequence[Symbol], dtype: torch.dtype | None = None) -> Node:
        """A load inside bounds, in the type that it is computed in."""
        dtype = dtype or self.pick(STORED)
        kind = self.pick(
            ("linear", "linear", "permuted", "broadcast", "strided", "divmod", "indirect", "padded")
        )
        node = getattr(self, f"_load_{kind}")(loops, dtype)
        if self.chance(15):
            node = self.dag.mask(node, self.condition(loops))
        return self.dag.to_dtype(node, compute_dtype(dtype))

    def _fetch(self, dtype: torch.dtype, index: Expr, numel: Expr) -> Node:
        return self.dag.load(self.buffer("in", dtype, numel), index, dtype)

    def _load_linear(self, loops: Sequence[Symbol], dtype: torch.dtype) -> Node:
        offset = self.pick((0, 0, 1, 3))
        return self._fetch(dtype, self.row_major(loops) + offset, self.numel(loops) + offset)

    def _load_permuted(self, loops: Sequence[Symbol], dtype: torch.dtype) -> Node:
        order = self.draw(st.permutations(list(loops)))
        return self._fetch(dtype, self.row_major(order), self.numel(order))

    def _load_broadcast(self, loops: Sequence[Symbol], dtype: torch.dtype) -> Node:
        some = [v for v in loops if self.chance(50)]
        return self._fetch(dtype, self.row_major(some), self.numel(some))

    def _load_strided(self, loops: Sequence[Symbol], dtype: torch.dtype) -> Node:
        k = self.pick((2, 3))
        return self._fetch(dtype, self.row_major(loops) * k, self.numel(loops) * k)

    def _load_divmod(self, loops: Sequence[Symbol], dtype: torch.dtype) -> Node:
        k, flat = self.pick((2, 3, 8, 16)), self.row_major(loops)
        width = (self.numel(loops) + (k - 1)) // k
        return self._fetch(dtype, (flat % k) * width + flat // k, width * k)

    def _load_indirect(self, loops: Sequence[Symbol], dtype: torch.dtype) -> Node:
        """Through an index that is loaded, an element each or a row: checked, or clamped and vouched for."""
        n = self.pick((1, 5, 64))
        inner = min(len(loops), self.pick((0, 0, 1, 2)))
        outer, row = loops[: len(loops) - inner], loops[len(loops) - inner :]
        stride: Expr = self.numel(row) * self.pick((1, 2))
        points = self.numel(outer)
        generator = torch.Generator().manual_seed(self.draw(st.integers(0, 2**16)))
        count = points.evaluate(self.sizes)
        positions = torch.randint(-n, n, (count,), generator=generator)
        name = self.buffer("in", torch.int64, points, positions)
        position = self.dag.load(name, self.row_major(outer), torch.int64)
        if self.chance(50):
            index = self.dag.check_index(position, n, wrap=True, error=INDEX_CHECK)
        else:
            low, high = self.dag.constant(0, torch.int64), self.dag.constant(n - 1, torch.int64)
            clamped = self.dag.op("minimum", self.dag.op("maximum", position, low), high)
            index = self.dag.indirect(clamped, n)
        return self._fetch(dtype, index * stride + self.row_major(row), stride * n)

    def _load_padded(self, loops: Sequence[Symbol], dtype: torch.dtype) -> Node:
        """Shifted, with a mask where the shift leaves the buffer."""
        numel, pad = self.numel(loops), self.pick((1, 2, 9))
        index = self.row_major(loops) - pad
        position = self.dag.index_expr(index)
        inside = self.dag.op("ge", position, self.dag.constant(0, torch.int64))
        return self.dag.mask(self._fetch(dtype, index, numel), inside)

    def condition(self, loops: Sequence[Symbol]) -> Node:
        if loops and self.chance(60):
            bound = self.dag.constant(self.pick((0, 1, 3, 8)), torch.int64)
            return self.dag.op(self.pick(COMPARISONS), self.dag.index_expr(self.pick(loops).expr), bound)
        return self._load_broadcast(loops, torch.bool)

    # -- arithmetic -------------------------------------------------------------------------------------
    def convert(self, node: Node, dtype: torch.dtype) -> Node:
        """To another type, by way of values that it can hold."""
        if is_float(node.dtype) and is_integer(dtype):
            zero, top = self.dag.constant(0.0, node.dtype), self.dag.constant(100.0, node.dtype)
            low = zero if dtype is torch.uint8 else self.dag.constant(-100.0, node.dtype)
            node = self.dag.where(self.dag.op("isnan", node), zero, node)
            node = self.dag.op("minimum", self.dag.op("maximum", node, low), top)
        return self.dag.to_dtype(node, dtype)

    def operand(self, pool: Sequence[Node], dtype: torch.dtype) -> Node:
        return self.convert(self.pick(pool), dtype)

    def constant(self, dtype: torch.dtype) -> Node:
        choices: tuple[float, ...] = (0, 1, 2, 3) if dtype in (torch.bool, torch.uint8) else (0, 1, -1, 3, -7)
        if is_float(dtype):
            choices = (*choices, 0.25, -0.0, float("inf"))
        return self.dag.constant(self.pick(choices), dtype)

    def grow(self, pool: list[Node], steps: int) -> None:
        """Add ``steps`` values, each made of values of the pool."""
        for _ in range(steps):
            pool.append(self.step(pool))

    def step(self, pool: Sequence[Node]) -> Node:
        dag = self.dag
        dtype = self.pick(COMPUTED)
        family = "float" if is_float(dtype) else "int" if is_integer(dtype) else "bool"
        what = self.pick(
            ("unary", "binary", "binary", "where", "compare", "convert", "constant", "fma", "classify")
        )
        a, b = self.operand(pool, dtype), self.operand(pool, dtype)
        if what == "unary":
            return dag.op("logical_not", a) if family == "bool" else dag.op(self.pick(EXACT_UNARY[family]), a)
        if what == "binary":
            name = self.pick(EXACT_BINARY[family])
            if name in ("floordiv", "truncdiv", "mod", "fmod"):
                b = dag.check_nonzero(dag.op("bitwise_or", b, dag.constant(1, dtype)), ZERO_CHECK)
            if name in ("minimum", "maximum"):
                return self.unsigned_zero(dag.op(name, a, b))
            return dag.op(name, a, self.signed(b) if name == "copysign" else b)
        if what == "where":
            condition = self.operand(pool, torch.bool)
            always = dag.op("logical_or", condition, dag.op("logical_not", condition))
            return dag.where(condition, a, dag.check(b, always, RANGE_CHECK))
        if what == "compare":
            return dag.op(self.pick(COMPARISONS), a, b)
        if what == "constant":
            return self.unsigned_zero(dag.op("maximum", a, self.constant(dtype)))
        if what in ("fma", "classify") and family == "float":
            if what == "fma":
                return dag.op("fma", a, b, self.operand(pool, dtype))
            name = self.pick(("isnan", "isinf", "signbit", "nextafter"))
            if name == "nextafter":
                return dag.op(name, a, b)
            return dag.op(name, self.signed(a) if name == "signbit" else a)
        return a

    def unsigned_zero(self, node: Node) -> Node:
        """The value, -0 made 0: nobody says which of two zeros is the greater one, or what sign an empty sum
        has.
        """
        return self.dag.op("add", node, self.dag.constant(0.0, node.dtype)) if is_float(node.dtype) else node

    def signed(self, node: Node) -> Node:
        """The value, or 0 where it is a NaN: nobody says what sign a computed NaN has."""
        return self.dag.where(self.dag.op("isnan", node), self.dag.constant(0.0, node.dtype), node)

    def leaves(self, loops: Sequence[Symbol]) -> list[Node]:
        pool = [self.load(loops) for _ in range(self.draw(st.integers(1, 3)))]
        if loops and self.chance(40):
            dtype = self.pick((torch.int64, torch.int32))
            pool.append(self.dag.index_expr(self.row_major(loops), dtype))
        if self.chance(15):
            pool.append(self.random(loops, self.pick(("rand", "randint64"))))
        return pool

    def random(self, loops: Sequence[Symbol], name: str) -> Node:
        seed = self.dag.load(self.buffer("in", torch.int64, as_expr(1)), 0, torch.int64)
        offset = self.dag.index_expr(self.row_major(loops))
        if name != "randint64":
            return self.dag.random(name, torch.float32, seed, offset)
        low, high = self.dag.constant(-3, torch.int64), self.dag.constant(self.pick((5, 2**40)), torch.int64)
        return self.dag.random("randint64", torch.int64, seed, offset, low, high)

    # -- stores -----------------------------------------------------------------------------------------
    def stores(self, pool: Sequence[Node], loops: Sequence[Symbol], count: int) -> list[Store]:
        """Stores of values of the pool (the last one among them), each to a buffer of its own."""
        values = [pool[-1], *(self.pick(pool) for _ in range(count - 1))]
        return [self.store(v, pool, loops) for v in values]

    def inexact_value(self, value: Node, pool: Sequence[Node], loops: Sequence[Symbol]) -> Node:
        """A function of ``value`` whose last bits are open."""
        if value.dtype is torch.float32 and self.chance(10):
            return self.random(loops, "randn")
        if self.chance(25):
            return self.dag.op(self.pick(MATH_OF_TWO), value, self.operand(pool, value.dtype))
        return self.dag.op(self.pick(MATH), value)

    def store(self, value: Node, pool: Sequence[Node], loops: Sequence[Symbol]) -> Store:
        inexact = is_float(value.dtype) and not self.specials and self.chance(20)
        if inexact:
            value = self.inexact_value(value, pool, loops)
        dtype = value.dtype
        if dtype is torch.float32 and not inexact and self.chance(25):
            dtype = self.pick(sorted(HALF_TYPES, key=str))
        order = self.draw(st.permutations(list(loops))) if self.chance(25) else list(loops)
        mask = self.condition(loops) if self.chance(15) else None
        name = self.buffer("out", dtype, self.numel(order))
        if inexact:
            self.inexact.add(name)
        return Store(name, self.row_major(order), value, mask=mask)

    def kernel(self, outer: Sequence[Symbol], stages: Sequence[Stage]) -> Case:
        kernel = Kernel("fuzz", tuple(outer), tuple(stages), tuple(self.args), tuple(self.size_symbols))
        return Case(kernel, self.dag, self.buffers, self.sizes, frozenset(self.inexact))


@st.composite
def pointwise(draw: Any, specials: bool = False) -> Case:
    """One stage without reductions, its loops outside, inside, or both; sometimes in place."""
    m = Maker(draw, specials=specials)
    loops = m.loops("i", 0, draw(st.integers(1, 3)))
    pool = m.leaves(loops)
    in_place: list[Store] = []
    if m.chance(25):
        dtype = m.pick(COMPUTED)
        name, index = m.buffer("inout", dtype, m.numel(loops)), m.row_major(loops)
        pool.append(m.dag.load(name, index, dtype))
        in_place = [Store(name, index, m.operand(pool, dtype))]
    m.grow(pool, draw(st.integers(1, 8)))
    stores = m.stores(pool, loops, draw(st.integers(1, 2)))
    outside = draw(st.integers(0, len(loops) - 1))
    return m.kernel(loops[:outside], [Stage(loops[outside:], (), (*stores, *in_place))])


REDUCTIONS = {
    "float": ("sum", "max", "min", "argmax", "argmin", "prod", "welford"),
    "int": ("sum", "prod", "max", "min", "argmax", "argmin"),
    "bool": ("any", "all", "max", "min", "argmax"),
}


def reduce_one(m: Maker, loops: Sequence[Symbol], rvars: Sequence[Symbol]) -> tuple[Node, bool]:
    """A reduction over ``rvars`` of a value whose sums and products are exact, and whether its result is
    exact.
    """
    dtype = m.pick(COMPUTED)
    value = m.load(loops, dtype)
    family = "float" if is_float(dtype) else "int" if is_integer(dtype) else "bool"
    kind = m.pick(REDUCTIONS[family])
    if kind == "prod" and is_float(dtype):  # powers of two
        one, two = m.dag.constant(1.0, dtype), m.dag.constant(-2.0, dtype)
        value = m.dag.where(m.dag.op("gt", value, one), two, one)
    component = 0
    if kind == "welford":
        component = m.draw(st.integers(0, 2))
    return m.unsigned_zero(m.dag.reduction(kind, [value], rvars, component)), kind != "welford"


@st.composite
def reductions(draw: Any, specials: bool = False) -> Case:
    """One stage with reductions, and arithmetic on their results."""
    m = Maker(draw, specials=specials)
    kept = tuple(m.loop(f"i{k}", (*OUTER_SIZES, 17)) for k in range(draw(st.integers(0, 2))))
    rvars = m.loops("r", 0, draw(st.integers(1, 2)))
    if kept and m.chance(30):  # so short that the vector lies along a kept loop
        rvars = (m.loop("r0", (1, 2, 3)),)
    pool: list[Node] = []
    stores: list[Store] = []
    for _ in range(draw(st.integers(1, 3))):
        node, exact = reduce_one(m, (*kept, *rvars), rvars)
        if exact:
            pool.append(node)
        else:
            name = m.buffer("out", node.dtype, m.numel(kept))
            m.inexact.add(name)
            stores.append(Store(name, m.row_major(kept), node))
    if pool:
        if m.chance(50):
            pool.append(m.load(kept))
        m.grow(pool, draw(st.integers(0, 4)))
        stores += m.stores(pool, kept, draw(st.integers(1, 2)))
    outside = draw(st.integers(0, len(kept)))
    return m.kernel(kept[:outside], [Stage(kept[outside:], rvars, tuple(stores))])


@st.composite
def rows(draw: Any, specials: bool = False) -> Case:
    """Several stages under shared outer loops, which talk through scalars and rows."""
    m = Maker(draw, specials=specials)
    outer = tuple(m.loop(f"i{k}", OUTER_SIZES) for k in range(draw(st.integers(1, 2))))
    column = m.loop(f"i{len(outer)}", INNER_SIZES)
    n = column.size
    r = Symbol("r0", 0, n - 1)
    stages: list[Stage] = []
    shared: list[tuple[str, torch.dtype, bool]] = []  # local buffers: name, type, whether a row
    for _ in range(draw(st.integers(2, 4))):
        if m.chance(45):
            value, exact = reduce_one(m, (*outer, r), (r,))
            if shared and m.chance(50):
                name, dtype, is_row = m.pick(shared)
                loaded = m.dag.load(name, r.expr if is_row else 0, dtype)
                value, exact = m.unsigned_zero(m.dag.reduction("max", [loaded], (r,))), True
            if exact:
                name = m.buffer("local", value.dtype, as_expr(1))
                shared.append((name, value.dtype, False))
                stages.append(Stage((), (r,), (Store(name, as_expr(0), value),)))
            continue
        loops = (*outer, column)
        pool = m.leaves(loops)
        for name, dtype, is_row in shared:
            index = m.pick((column.expr, n - 1 - column.expr)) if is_row else as_expr(0)
            pool.append(m.dag.load(name, index, dtype))
        m.grow(pool, draw(st.integers(1, 4)))
        if m.chance(60):
            name = m.buffer("local", pool[-1].dtype, n)
            stages.append(Stage((column,), (), (Store(name, column.expr, pool[-1]),)))
            shared.append((name, pool[-1].dtype, True))
        else:
            stages.append(Stage((column,), (), tuple(m.stores(pool, loops, 1))))
    loops = (*outer, column)
    pool = [m.dag.load(name, column.expr if is_row else 0, dtype) for name, dtype, is_row in shared]
    pool = pool or m.leaves(loops)
    m.grow(pool, 2)
    stages.append(Stage((column,), (), tuple(m.stores(pool, loops, 1))))
    return m.kernel(outer, stages)


@st.composite
def scans(draw: Any, specials: bool = False) -> Case:
    """A scan along the last loop of a stage."""
    m = Maker(draw, specials=specials)
    loops = m.loops("i", 0, draw(st.integers(1, 2)))
    dtype = m.pick((*FLOATS, torch.int64, torch.int32))
    kinds = ("sum", "max", "min", "last_max", "last_min")
    kind = m.pick((*kinds, "prod") if is_integer(dtype) else (*kinds, "logsumexp"))
    value = m.load(loops, dtype)
    pool = [m.unsigned_zero(m.dag.scan(kind, value, loops[-1])), value]
    m.grow(pool, draw(st.integers(0, 2)))
    outside = draw(st.integers(0, len(loops) - 1))
    return m.kernel(loops[:outside], [Stage(loops[outside:], (), tuple(m.stores(pool, loops, 1)))])


@st.composite
def scatters(draw: Any, specials: bool = False) -> Case:
    """Values joined to elements that are found at run time, several of which may be one."""
    m = Maker(draw, specials=specials)
    loops = m.loops("i", 0, draw(st.integers(1, 2)))
    dtype = m.pick((*FLOATS, torch.int64, torch.int32))
    n = m.pick((1, 3, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    where = torch.randint(-n, n, (prod(m.extent[v] for v in loops),), generator=generator)
    position = m.dag.load(m.buffer("in", torch.int64, m.numel(loops), where), m.row_major(loops), torch.int64)
    index = m.dag.check_index(position, n, wrap=True, error=INDEX_CHECK)
    name = m.buffer("inout", dtype, as_expr(n))
    mask = m.condition(loops) if m.chance(25) else None
    store = Store(name, index, m.load(loops, dtype), m.pick(tuple(COMBINING)), mask)
    return m.kernel((), [Stage(loops, (), (store,))])


def cases(specials: bool = False) -> st.SearchStrategy[Case]:
    """Kernels of every kind."""
    return st.one_of(
        pointwise(specials),
        pointwise(specials),
        reductions(specials),
        rows(specials),
        scans(specials),
        scatters(specials),
    )


KINDS = {
    "pointwise": pointwise,
    "reductions": reductions,
    "rows": rows,
    "scans": scans,
    "scatters": scatters,
}
"""Strategies for random kernels; each takes whether values may be special."""
