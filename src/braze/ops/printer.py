"""The printed form of bodies. Values are numbered in the order in which they are computed, so equal stages
print equal whatever Dag they come from; ``parser`` reads it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from braze.ops.dag import IndirectSymbol, Node, topological
from braze.ops.dtypes import short_name
from braze.ops.vocabulary import NODES, REDUCTIONS
from braze.runtime.expr import Expr, ExprLike, Symbol

if TYPE_CHECKING:
    from braze.ops.kernel import Store


class _Names:
    """Printed names: ``t0, t1, ...`` for values, and for indices that are computed. An index that was checked
    has the name of its check; one that somebody vouches for gets a line ``x0 = bounded(t3, 64)`` of its
    own."""

    def __init__(self, nodes: Sequence[Node], indices: Iterable[Expr] = ()) -> None:
        self.of = {n.id: f"t{k}" for k, n in enumerate(nodes)}
        self.indirect: dict[IndirectSymbol, str] = {}
        self.bounded: dict[int, list[str]] = {}
        position = {n.id: k for k, n in enumerate(nodes)}
        used = [a for n in nodes for a in n.attrs if isinstance(a, Expr)]
        for e in (*used, *indices):
            found = [s for s in e.free_symbols if isinstance(s, IndirectSymbol) and s not in self.indirect]
            for s in sorted(found, key=lambda s: (position[s.node.id], s.key)):
                self._name(s)

    def _name(self, s: IndirectSymbol) -> None:
        if s.node.op == "check_index" and s.node.attrs[0] == s.size:
            self.indirect[s] = self.of[s.node.id]
            return
        name = self.indirect[s] = f"x{sum(map(len, self.bounded.values()))}"
        line = f"{name} = bounded({self.of[s.node.id]}, {self.index(s.size)})"
        self.bounded.setdefault(s.node.id, []).append(line)

    def index(self, e: Expr) -> str:
        mapping: dict[Symbol, ExprLike] = {}
        for s in e.free_symbols:
            if isinstance(s, IndirectSymbol):
                mapping[s] = Symbol(self.indirect[s], 0, s.upper).expr
        return str(e.substitute(mapping))


def print_node(node: Node, names: _Names) -> str:
    """One line: ``t3 = fma(t0, t1, t2)``; types where they do not follow from the operands."""
    args = [names.of[a.id] for a in node.args]
    typed = NODES[node.op].result == "explicit"
    if node.op == "load":
        text = f"load({node.buffer}, {names.index(node.index)}{''.join(', mask=' + a for a in args)})"
    elif node.op == "constant":
        text = repr(node.attrs[0])
    elif node.op == "index_expr":
        text = f"index({names.index(node.index)})"
    elif node.op == "check_index":
        size, wrap, error = node.attrs
        assert isinstance(size, Expr)
        text = f"check_index({args[0]}, {names.index(size)}, wrap={wrap}, error={error!r}{_mask(args)})"
    elif node.op == "check_nonzero":
        text = f"check_nonzero({args[0]}, error={node.attrs[0]!r}{_mask(args)})"
    elif node.op == "check":
        text = f"check({', '.join(args)}, error={node.attrs[0]!r})"
    elif node.op == "reduction":
        kind, component, rvars = node.attrs
        over = ", ".join(v.name for v in rvars)  # type: ignore[attr-defined]
        part = f"component={component}, " if len(REDUCTIONS[str(kind)].components) > 1 else ""
        text = f"reduce.{kind}({', '.join(args)}, {part}over=[{over}])"
    elif node.op == "scan":
        text = f"scan.{node.attrs[0]}({args[0]}, along={node.attrs[1]})"
    else:
        text = f"{node.op}({', '.join(args)})"
    return f"{names.of[node.id]} = {text}" + (f": {short_name(node.dtype)}" if typed else "")


def print_lines(node: Node, names: _Names) -> list[str]:
    """The node's line, then a line for each index that it is vouched for as."""
    return [print_node(node, names), *names.bounded.get(node.id, ())]


def _mask(args: Sequence[str]) -> str:
    return f", mask={args[1]}" if len(args) > 1 else ""


def print_stage(
    vars: Sequence[Symbol], rvars: Sequence[Symbol], stores: Sequence[Store], nodes: Sequence[Node]
) -> str:
    """A stage as indented text: its loops, its values, its stores."""
    names = _Names(nodes, [s.index for s in stores])
    head = "stage " + (", ".join(f"{v.name} < {v.size}" for v in vars) or "once")
    if rvars:
        head += " reduce " + ", ".join(f"{v.name} < {v.size}" for v in rvars)
    lines = [head + ":"]
    lines += ["  " + line for n in nodes for line in print_lines(n, names)]
    for s in stores:
        word = "store" if s.mode == "set" else s.mode
        mask = f", mask={names.of[s.mask.id]}" if s.mask is not None else ""
        lines.append(f"  {word}({s.buffer}, {names.index(s.index)}, {names.of[s.value.id]}{mask})")
    return "\n".join(lines)


def print_values(roots: Iterable[Node]) -> str:
    """The values below ``roots``, one a line, the last root last."""
    nodes = topological(roots)
    names = _Names(nodes)
    return "\n".join("  " + line for n in nodes for line in print_lines(n, names))
