"""From a kernel to numpy source: one function, which runs the stages over arrays for each outer point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from braze.errors import CodegenError
from braze.ops.dag import IndirectSymbol, Node
from braze.ops.dtypes import SHORT
from braze.ops.kernel import Kernel, Stage, Store
from braze.ops.scalar import identity
from braze.ops.vocabulary import COMBINING
from braze.runtime.expr import Atom, Expr, FloorDiv, Min, Mod, Symbol

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "logical_and": "&",
    "logical_or": "|",
    "logical_xor": "^",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "shl": "<<",
    "shr": ">>",
}
FUNCTIONS = {
    **{
        op: f"np.{op}" for op in "abs minimum maximum copysign nextafter hypot where floor ceil trunc".split()
    },
    **{op: f"np.{op}" for op in "isnan isinf signbit sqrt exp exp2 expm1 tanh log log1p log2 log10".split()},
    **{op: f"np.{op}" for op in "sin cos tan sinh cosh fmod logical_not bitwise_not".split()},
    **{f"a{op}": f"np.arc{op}" for op in "sin cos tan sinh cosh tanh tan2".split()},
    "neg": "np.negative",
    "round": "np.rint",
    "pow": "np.power",
    "erf": "erf",
    "erfc": "erfc",
    "lgamma": "lgamma",
}
SPELLED = {
    "rsqrt": "1 / np.sqrt({0})",
    "sigmoid": "1 / (1 + np.exp(-{0}))",
    "fma": "{0} * {1} + {2}",
    "truncdiv": "np.trunc({0} / {1})",
}


@dataclass
class Rendered:
    """``text``; ``local``: the buffers that it wants memory for, and ``checks``: what it may report, in the
    order of their numbers."""

    text: str
    local: tuple[str, ...]
    checks: tuple[str, ...]


def render(kernel: Kernel, entry: str, first_check: int) -> Rendered:
    """The source of a kernel. Raises ``CodegenError`` for what numpy has nothing for."""
    return _Renderer(kernel, first_check).run(entry)


@dataclass
class _Renderer:
    kernel: Kernel
    first_check: int
    lines: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)

    def run(self, entry: str) -> Rendered:
        kernel = self.kernel
        outside = [b for b in kernel.buffers if b.role != "local"]
        local = [b for b in kernel.buffers if b.role == "local"]
        given = [*(f"p_{b.name}" for b in (*outside, *local)), *(f"s_{s.name}" for s in kernel.sizes)]
        self.line(0, f"def {entry}({', '.join([*given, 'error', 'grid', 'stream'])}):")
        for b in (*outside, *local):
            self.line(1, f"m_{b.name} = memory(p_{b.name}, {SHORT[b.dtype]!r}, {self.expr(b.numel)})")
        points = ", ".join(f"v_{v.name}" for v in kernel.outer)
        head = f"for ({points},) in np.ndindex(*grid):" if points else "if True:"
        self.line(1, head)
        for stage in kernel.stages:
            self.stage(stage)
        return Rendered("\n".join(self.lines) + "\n", tuple(b.name for b in local), tuple(self.checks))

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    # -- stages -----------------------------------------------------------------------------------------
    def stage(self, stage: Stage) -> None:
        axes = (*stage.vars, *stage.rvars)
        extents = [self.expr(v.size) for v in axes]
        kept = len(stage.vars)
        self.line(2, f"n = [{', '.join(extents)}]")
        self.line(2, f"if 0 not in n[:{kept}]:")
        for axis, v in enumerate(axes):
            shape = ", ".join("-1" if k == axis else "1" for k in range(len(axes)))
            self.line(3, f"v_{v.name} = np.arange(n[{axis}]).reshape({shape})")
        for node in stage.nodes:
            self.line(3, f"t{node.id} = {self.node(stage, node)}")
        shape = f"(*n[:{kept}], {'1, ' * len(stage.rvars)})"
        for one in stage.stores:
            self.store(one, shape)

    def store(self, one: Store, shape: str) -> None:
        kind = SHORT[self.kernel.buffer(one.buffer).dtype]
        mask = self.mask(one.mask, one.index)
        where = f"m_{one.buffer}, {kind!r}, {shape}, {self.place(one.buffer, one.index)}, {mask}"
        self.line(3, f"store({where}, t{one.value.id}, {COMBINING.get(one.mode)!r})")

    def place(self, buffer: str, index: Expr) -> str:
        return self.expr(index)

    def mask(self, mask: Node | None, index: Expr) -> str:
        """Whether an access takes place: an index into nothing has failed its check, and accesses nothing."""
        parts = ["True"] if mask is None else [f"t{mask.id}"]
        parts += [f"({self.expr(s.size)} > 0)" for s in index.free_symbols if isinstance(s, IndirectSymbol)]
        return " & ".join(parts)

    # -- values -----------------------------------------------------------------------------------------
    def node(self, stage: Stage, node: Node) -> str:
        text = self.value(stage, node)
        kind = SHORT[node.dtype]
        plain = node.op in ("load", "check_index") or node.dtype is torch.bool
        return text if plain else f"convert({text}, {kind!r})"

    def value(self, stage: Stage, node: Node) -> str:
        args = [f"t{a.id}" for a in node.args]
        if node.op == "constant":
            return self.constant(node.attrs[0])
        if node.op == "index_expr":
            return self.expr(node.index)
        if node.op == "load":
            kind = SHORT[self.kernel.buffer(node.buffer).dtype]
            at = self.place(node.buffer, node.index)
            return f"load(m_{node.buffer}, {kind!r}, {at}, {self.mask(node.mask, node.index)})"
        if node.op == "check_index":
            extent, wrap, error = node.attrs
            assert isinstance(extent, Expr)
            size, mask = self.expr(extent), self.mask(node.mask, extent)
            return f"check_index(error, {self.check(error)}, {args[0]}, {size}, {bool(wrap)}, {mask})"
        if node.op == "check_nonzero":
            mask = "True" if node.mask is None else f"t{node.mask.id}"
            return f"check_nonzero(error, {self.check(node.attrs[0])}, {args[0]}, {mask})"
        if node.op == "check":
            return f"check(error, {self.check(node.attrs[0])}, {', '.join(args)})"
        if node.op == "to_dtype":
            return args[0]
        if node.op == "reduction":
            return self.reduction(stage, node)
        if node.op == "scan":
            kind, along = node.attrs
            assert isinstance(along, Expr) and along.symbol is not None
            axis = [*stage.vars, *stage.rvars].index(along.symbol)
            shape = f"[m if k == {axis} else d for k, (m, d) in enumerate(zip(n, np.shape({args[0]})))]"
            return f"scan({kind!r}, {args[0]}, {shape}, {axis})"
        if node.op in INFIX:
            return f"{args[0]} {INFIX[node.op]} {args[1]}"
        if node.op in FUNCTIONS:
            return f"{FUNCTIONS[node.op]}({', '.join(args)})"
        if node.op in SPELLED:
            return SPELLED[node.op].format(*args)
        raise CodegenError(f"numpy has no {node.op}")

    def constant(self, value: object) -> str:
        return {"inf": "np.inf", "-inf": "-np.inf", "nan": "np.nan"}.get(repr(value), repr(value))

    def check(self, error: object) -> int:
        self.checks.append(str(error))
        return self.first_check + len(self.checks) - 1

    def reduction(self, stage: Stage, node: Node) -> str:
        kind, component, rvars = node.attrs
        assert isinstance(kind, str) and isinstance(component, int) and isinstance(rvars, tuple)
        axes = [*stage.vars, *stage.rvars]
        order = [axes.index(v) for v in rvars]
        lengths = f"[{', '.join(f'n[{k}]' for k in order)}]"
        kept = len(stage.vars)
        flat = [f"rows(t{a.id}, {kept}, {order}, {lengths})" for a in node.args]
        position = flat[1] if len(flat) > 1 else "None"
        result = f"reduce({kind!r}, {component}, {flat[0]}, {position})"
        ones = f"(..., {', '.join(['None'] * len(rvars))})"
        nothing = self.constant(identity(kind, component, node.dtype))
        return f"({result}[{ones}] if 0 not in n else {nothing})"

    # -- indices ----------------------------------------------------------------------------------------
    def expr(self, e: Expr) -> str:
        return " + ".join(self.terms(e)) or "0"

    def terms(self, e: Expr) -> Iterator[str]:
        for factors, coefficient in e.terms:
            parts = [self.atom(atom) for atom in factors]
            if coefficient != 1 or not parts:
                parts.insert(0, str(coefficient))
            yield " * ".join(parts)

    def atom(self, atom: Atom) -> str:
        if isinstance(atom, IndirectSymbol):
            return f"t{atom.node.id}"
        if isinstance(atom, Symbol):
            return f"s_{atom.name}" if atom in self.kernel.sizes else f"v_{atom.name}"
        parts = [f"({self.expr(p)})" for p in atom.parts]
        if isinstance(atom, (FloorDiv, Mod)):
            return f"({parts[0]} {'//' if isinstance(atom, FloorDiv) else '%'} {parts[1]})"
        return self.nested("np.minimum" if isinstance(atom, Min) else "np.maximum", parts)

    def nested(self, function: str, parts: Sequence[str]) -> str:
        first, *rest = parts
        return f"{function}({first}, {self.nested(function, rest)})" if rest else first
