"""From an FX graph of ATen operators to the IR: one walk, one lowering call for each node."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from braze._torch.devices import HOST
from braze._torch.provenance import source_of
from braze._torch.random_calls import draws
from braze._torch.schema import is_ordered_call
from braze._torch.shapes import is_symbolic
from braze._torch.tracing import promised_strides
from braze.artifact.graph_call import GraphCall
from braze.config import Config
from braze.errors import BrazeError, ExpressionError, FallbackError, LoweringError, Refused
from braze.ir.boxes import StorageBox, TensorBox
from braze.ir.buffers import Origin
from braze.ir.externs import CheckCondition
from braze.ir.graph import Graph
from braze.ir.loops import Loops, Pointwise, Sizes, loop_indices
from braze.ir.views import ExpandView
from braze.lowering.calls import (
    call_extern,
    call_fallback,
    call_graphs,
    tensors_with_views_outside,
    written_tensors,
)
from braze.lowering.casts import held
from braze.lowering.extended import lowering_by_user
from braze.lowering.promotion import Operand, operand
from braze.lowering.refusals import refusal
from braze.lowering.registry import extern_of, lowering_of
from braze.lowering.scalars import computed_number, number_type, stored_number
from braze.lowering.sizes import SizeTable
from braze.ops import dag as ops_dag
from braze.ops.dtypes import PARTS, compute_dtype, is_supported
from braze.ops.vocabulary import NODES
from braze.runtime.checks import Check
from braze.runtime.engines import kind_for
from braze.runtime.expr import ZERO, Expr, as_expr, known_less, product
from braze.runtime.guard import BoolExpr, all_of
from braze.runtime.spec import Layout, TensorSpec, tensor_spec
from braze.runtime.verify import RESERVED

MULTI_USE_COST = 12
"""A value with several users is stored once instead of computed again where it costs at least this much
..."""
MULTI_USE_LOADS = 3
"""... or reads at least so many elements."""
MIN_SHARED_RUN = 16
"""A value that is the same for at least so many neighbouring elements costs little, however often it is
computed."""
MAX_LOADS = 32
"""A body that reads more elements than this is stored, so that kernels keep to a readable size."""


_OURS = re.compile(r"_.*|workspace|scratch|threads|(?!(?:in|out)\d)[a-z]+\d+")
"""Names that are no input's: of buffers, symbols, loop indices, areas, renamed inputs. Nothing here is called
``in0`` or ``out0``, which are names of the fuser's."""

NOTHING_FORCED: Mapping[str, str] = {}
NO_CALLS: Mapping[str, GraphCall | Refused] = {}


class GraphLowering:
    """The state of one lowering: the graph being built, the node being lowered, what is known of sizes.

    Family modules get it as ``ctx``. ``fallbacks`` lists (origin, reason) of what eager operators will run;
    ``forced`` are nodes (by name, with the reason) that must be among them; ``inner`` are calls with compiled
    graphs, by node, or why there is none.
    """

    def __init__(
        self,
        gm: GraphModule,
        config: Config,
        static_inputs: frozenset[int] = frozenset(),
        visible_outputs: int = 0,
        forced: Mapping[str, str] = NOTHING_FORCED,
        inner: Mapping[str, GraphCall | Refused] = NO_CALLS,
    ) -> None:
        self.gm = gm
        self.config = config
        self.static_inputs = static_inputs
        self.visible_outputs = visible_outputs
        self.forced = forced
        self.inner = inner
        self.graph = Graph()
        self.dag = self.graph.dag
        self.sizes = SizeTable()
        self.fallbacks: list[tuple[Origin, str]] = []
        self.node: Node = next(iter(gm.graph.nodes))
        self._env: dict[Node, Any] = {}
        self._position = 0
        self._devices: dict[torch.device, bool] = {}
        self._plain: set[Node] = set()  # results of our own, negated and conjugated at once
        self._in_memory = written_tensors(gm) | tensors_with_views_outside(gm)

    # -- the walk ---------------------------------------------------------------------------------------
    def run(self) -> Graph:
        """Lower the whole graph. Raises ``LoweringError`` where not even a fallback is possible."""
        last_used = _last_uses(self.gm)
        given = [node.meta.get("val") for node in self.gm.graph.find_nodes(op="placeholder")]
        numbers = (v for v in given if isinstance(v, (int, torch.SymInt)) and not isinstance(v, bool))
        tensors = (v for v in given if isinstance(v, torch.Tensor) and v.layout is torch.strided)
        self.sizes.measure(numbers, (n for t in tensors for n in (*t.shape, *t.stride())))
        for node in self.gm.graph.nodes:
            self.node = node
            self.graph.current = Origin(operator_name(node), node.name, source_of(node))
            self.dag.origin = self.graph.current
            self.graph.device = _device(node)
            try:
                self._env[node] = getattr(self, f"_{node.op}")(node)
            except BrazeError as error:
                error.at(node=f"{node.name} ({operator_name(node)})", where=source_of(node) or None)
                raise
            except Exception as error:
                raise LoweringError(
                    f"lowering failed: {type(error).__name__}: {error}",
                    node=f"{node.name} ({operator_name(node)})",
                    where=source_of(node) or None,
                ) from error
            # What nobody will read again must not be stored because an input is about to be overwritten.
            for done in last_used.get(node, ()):
                del self._env[done]
        return self.graph

    def _placeholder(self, node: Node) -> Any:
        position, self._position = self._position, self._position + 1
        value = node.meta.get("val")
        if _is_token(node):
            self.graph.inputs.append(None)
            return None
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided or not self._compiles_for(value.device):
                raise LoweringError(f"input {node.name} is a {value.layout} tensor on {value.device}")
            layout = self.layout_of(value)
            return self.graph.add_input(self._input_name(node), layout, position in self.static_inputs)
        if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
            e = self.sizes.named(value)
            self.graph.inputs.append(e)
            self.graph.know(e)
            return e
        dtype = number_type(value)
        if is_symbolic(value) and dtype is not None:
            # passed as a tensor of one number: its value is no part of the code
            box = self.graph.add_input(self._input_name(node), tensor_spec(dtype, ()), static=False)
            return box.load(self.dag, ())
        if value is None:
            self.graph.inputs.append(None)
            return None
        raise LoweringError(f"input {node.name} is a {type(value).__name__}")

    def _input_name(self, node: Node) -> str:
        """The node's own name, unless something of ours has such a name, or it means something else in
        generated code."""
        ours = _OURS.fullmatch(node.name) or node.name in RESERVED or not node.name.isascii()
        return f"input{self._position}" if ours else node.name

    def _get_attr(self, node: Node) -> Any:
        value: Any = self.gm
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if not isinstance(value, torch.Tensor):
            return value
        return self.graph.add_constant(value, self.layout_of(value))

    def layout_of(self, value: torch.Tensor) -> Layout:
        """How a tensor lies in memory, from its own beginning on, whatever offset it has in its storage."""
        sizes, strides = self.exprs(value.shape), self.exprs(value.stride())
        return TensorSpec(value.dtype, sizes, strides, device=value.device.type)

    def _call_function(self, node: Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, (torch.SymInt, int)) and not isinstance(value, bool):
            known = self.sizes.try_expr(value)
            if known is not None and self.sizes.is_bound(known, self.graph) and not reads_data(node):
                return known
        if node.target is operator.getitem:
            container, key = self.args_of(node.args)
            return self._settle(node, container[key])
        computed = computed_number(self)
        if computed is not None:
            return computed
        complex_types, extern = _complex_types(node), extern_of(called_by(node))
        usual = lowering_of(node.target) or lowering_by_user(node.target)
        lowering = lowering_of(node.target, of_complex=True) if complex_types else usual
        if extern is not None and lowering is None:
            return call_extern(self, extern)
        refused = refusal(node.target, *torch.fx.node.map_arg((node.args, dict(node.kwargs)), _meta))
        if refused is not None:
            self.fallbacks.append((self.origin, refused))  # an error to come, so not one in strict mode
            return call_fallback(self, refused)
        if self.config.fallback_random and draws(node.target):  # eager's numbers, which were asked for
            return call_fallback(self, "it draws from torch's generator as eager PyTorch does")
        inner = self.inner.get(node.name)
        if inner is not None:
            if isinstance(inner, Refused):
                return self.fallback(inner.reason)
            return call_graphs(self, inner)
        if lowering is None and usual is not None:
            return self.fallback(f"{complex_types[0]} is not compiled")
        if lowering is None:
            return self.fallback("no lowering for this operator")
        reason = self.forced.get(node.name) or self._unsupported_types(node)
        if reason is None:
            try:
                result = lowering(self, *self.args_of(node.args), **self.args_of(node.kwargs))
                self._plain.add(node)
                return self._settle(node, result)
            except (Refused, ExpressionError) as declined:
                if extern is not None:
                    return call_extern(self, extern)
                reason = str(declined)
            except BrazeError:
                raise
            except Exception as error:
                # What it had stored by then is dead code.
                reason = f"its lowering failed with {type(error).__name__}: {error}"
        return self.fallback(reason)

    def fallback(self, reason: str) -> Any:
        """Run the current node by eager operators. Raises ``FallbackError`` in strict mode."""
        origin = self.origin
        if self.config.strict:
            raise FallbackError(
                f"{origin.operator} would run as eager PyTorch: {reason}",
                node=origin.node,
                where=origin.source or None,
            )
        self.fallbacks.append((origin, reason))
        return call_fallback(self, reason)

    def _output(self, node: Node) -> None:
        values = node.args[0]
        assert isinstance(values, (list, tuple))
        promised = promised_strides(self.gm)
        for position, value in enumerate(self.args_of(tuple(values))):
            strides = promised[position]
            if isinstance(value, TensorBox):
                if position < self.visible_outputs and strides is not None:
                    value = self._as_traced(value, self.exprs(strides))
                value = self.graph.ref(value)
            elif isinstance(value, ops_dag.Node):
                value = stored_number(self, value)
            self.graph.outputs.append(value)

    def _as_traced(self, box: TensorBox, strides: Sizes) -> TensorBox:
        """The tensor with the strides that the trace promised: people see those, and AOTAutograd makes views
        of inputs by them."""
        repeated = [d for d, step in enumerate(strides) if step.constant == 0 and box.size[d].constant != 1]
        stored = box.layout is not None and box.layout.has_strides(strides)
        if repeated and not stored and all(known_less(0, box.size[d]) for d in repeated):
            return self._repeated(box, strides, repeated)
        if box.layout is None:
            assert isinstance(box.data, StorageBox)
            box.data.stride_hint = strides
            self.graph.realize(box)
        assert box.layout is not None
        promised = TensorSpec(box.dtype, box.size, strides)
        if box.layout.has_strides(strides) or not promised.is_injective:
            return box
        copy = self.pointwise(box.size, box.dtype, lambda indices: box.load(self.dag, indices))
        assert isinstance(copy.data, StorageBox)
        copy.data.stride_hint = promised.strides
        return copy

    def _repeated(self, box: TensorBox, strides: Sizes, dims: Sequence[int]) -> TensorBox:
        """The tensor, which does not change along ``dims``, with stride 0 there."""
        once = tuple(as_expr(1) if d in dims else n for d, n in enumerate(box.size))
        first = self.pointwise(
            once,
            box.dtype,
            lambda indices: box.load(self.dag, [ZERO if d in dims else i for d, i in enumerate(indices)]),
        )
        steps = tuple(as_expr(1) if d in dims else step for d, step in enumerate(strides))
        return self.graph.view(self._as_traced(first, steps), ExpandView(box.size, once))

    def _compiles_for(self, device: torch.device) -> bool:
        """Whether there is a backend for a device; the first one, where there are several of a type."""
        known = self._devices.get(device)
        if known is None:
            known = kind_for(device.type, self.config) is not None and not device.index
            self._devices[device] = known
        return known

    def _unsupported_types(self, node: Node) -> str | None:
        for value in (node, *node.all_input_nodes):
            for tensor in _tensors(value.meta.get("val")):
                if tensor.device.type != self.graph.device:
                    return f"it has tensors on {tensor.device} and on {self.graph.device}"
                if not is_supported(tensor.dtype) and tensor.dtype not in PARTS:
                    return f"{tensor.dtype} is not compiled"
                if tensor.layout is not torch.strided or not self._compiles_for(tensor.device):
                    return f"{tensor.layout} tensors on {tensor.device} are not compiled"
                lazily = tensor.is_neg() or tensor.is_conj()
                if lazily and value is not node and value not in self._plain:
                    # its memory holds other numbers than it does
                    return "tensors that are negated or conjugated lazily are not compiled"
        return None

    def _settle(self, node: Node, result: Any) -> Any:
        """Note eager's strides, and store now what would be computed several times or grow too large."""
        if isinstance(result, TensorBox) and isinstance(result.data, StorageBox):
            box = result.data
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and isinstance(box.data, Loops):
                box.stride_hint = self.exprs(value.stride())
                if node in self._in_memory or self._worth_storing(box.data.value, len(node.users)):
                    self.graph.realize(result)
        return result

    def _worth_storing(self, value: ops_dag.Node, users: int) -> bool:
        cost = reads = 0
        for n in _first(value, 256):
            cost += NODES[n.op].cost
            reads += n.op == "load"
        if reads > MAX_LOADS:
            return True
        return users > 1 and (cost >= MULTI_USE_COST or reads >= MULTI_USE_LOADS)

    # -- what lowerings use -----------------------------------------------------------------------------
    @property
    def origin(self) -> Origin:
        """The graph node being lowered."""
        assert self.graph.current is not None
        return self.graph.current

    @property
    def example(self) -> Any:
        """The fake result of the current node: its dtype, sizes and strides are eager's."""
        return self.node.meta.get("val")

    @property
    def out_dtype(self) -> torch.dtype:
        """The current node's element type (of the first result)."""
        return _tensors(self.example)[0].dtype

    @property
    def out_size(self) -> Sizes:
        """The current node's sizes (of the first result)."""
        return self.exprs(_tensors(self.example)[0].shape)

    def args_of(self, tree: Any) -> Any:
        """FX arguments with nodes replaced by what they were lowered to, symbolic integers by expressions."""
        if isinstance(tree, Node):
            return self._env[tree]
        if isinstance(tree, (tuple, list)):
            return (
                type(tree)(self.args_of(t) for t in tree)
                if type(tree) in (tuple, list)
                else [self.args_of(t) for t in tree]
            )
        if isinstance(tree, Mapping):
            return {k: self.args_of(v) for k, v in tree.items()}
        if isinstance(tree, torch.SymInt):
            return self.expr(tree)
        return tree

    def expr(self, value: Any) -> Expr:
        """An int, SymInt or Expr as an expression."""
        return value if isinstance(value, Expr) else self.sizes.expr(value)

    def exprs(self, values: Sequence[Any]) -> Sizes:
        """Several of them."""
        return tuple([self.expr(v) for v in values])

    def pointwise(
        self, size: Sequence[Expr], dtype: torch.dtype, fn: Callable[[tuple[Expr, ...]], ops_dag.Node]
    ) -> TensorBox:
        """A tensor whose element at ``indices`` is ``fn(indices)``, a node of ``compute_dtype(dtype)``."""
        size = tuple(size)
        compute = compute_dtype(dtype)
        if any(s.constant == 0 for s in size):  # no element, so nothing to say of it
            return self.graph.box(Pointwise(dtype, size, self.dag.constant(0, compute)))
        value = self.dag.to_dtype(fn(loop_indices(size)), compute)
        if self.config.emulate_precision_casts:
            value = held(self, value, dtype)
        return self.graph.box(Pointwise(dtype, size, value))

    def box(self, loops: Loops) -> TensorBox:
        """A tensor made of ``loops``, laid out like the current node's (first) result."""
        example = _tensors(self.example)[0]
        fits = example.dim() == len(loops.size)
        return self.graph.box(loops, self.exprs(example.stride()) if fits else None)

    def broadcast_load(self, box: TensorBox, indices: Sequence[Expr], size: Sequence[Expr]) -> ops_dag.Node:
        """The element of ``box``, broadcast to ``size``, at ``indices``."""
        self.store_if_repeated(box, size)
        lead = len(size) - box.ndim
        own = [
            as_expr(0) if self.sizes.is_repeated(n, size[d + lead]) else indices[d + lead]
            for d, n in enumerate(box.size)
        ]
        return box.load(self.dag, own)

    def store_if_repeated(self, box: TensorBox, size: Sequence[Expr]) -> None:
        """Store ``box`` before it is broadcast to ``size`` if it is costly and an outer loop would compute it
        again and again. What the innermost loops repeat is computed once outside of them, which, if they are
        long enough, is as good as stored."""
        if not isinstance(box.content, Loops):
            return
        lead = len(size) - box.ndim
        varying = [
            d + lead
            for d, n in enumerate(box.size)
            if n.constant != 1 and not self.sizes.is_repeated(n, size[d + lead])
        ]
        if not varying:
            return
        repeated = [d for d in range(varying[-1]) if d not in varying]
        if all(size[d].constant == 1 for d in repeated):
            return
        shared = product(size[varying[-1] + 1 :]).bounds()[0]
        if shared is not None and shared >= MIN_SHARED_RUN:
            return
        if sum(NODES[n.op].cost for n in _first(box.content.value, 256)) >= MULTI_USE_COST:
            self.graph.realize(box)

    def elementwise(
        self,
        fn: Callable[..., ops_dag.Node],
        *inputs: Operand,
        compute: torch.dtype,
        out: torch.dtype | None = None,
        exact: bool = False,
        wide: int | None = None,
    ) -> TensorBox:
        """``fn`` of the broadcast inputs, each converted to ``compute`` first; the result is of type ``out``
        (the current node's by default) and of the current node's sizes. ``exact``: ``fn`` makes much of small
        differences (see `operand`); ``wide``: the position of an input that keeps its precision if it is a
        number."""
        out = self.out_dtype if out is None else out
        size = self.out_size

        def value(indices: tuple[Expr, ...]) -> ops_dag.Node:
            operands = [
                operand(self, x, indices, size, compute, exact=exact, wide=position == wide)
                for position, x in enumerate(inputs)
            ]
            return fn(*operands)

        return self.pointwise(size, out, value)

    def require(self, conditions: Sequence[BoolExpr], exception: type[Exception], message: str) -> bool:
        """Have the graph raise where a condition does not hold that depends on data; the guards of the trace
        see to others. Whether there was one of the former."""
        found = [c for c in conditions if any(self.sizes.in_trace(s.expr) is None for s in c.free_symbols)]
        condition = all_of(found)
        if condition.constant is not True:
            name = self.graph.operation_name()
            self.graph.add_operation(
                CheckCondition(name, condition, message, exception.__name__, origins=[self.origin])
            )
        return bool(found)

    def check(self, exception: type[BaseException], text: str = "") -> str:
        """What a failed check of the current node raises, in the form that check nodes carry; ``text`` where
        the message is known."""
        from_source = self.origin.source.replace("|", "/")
        return Check(exception.__name__, self.origin.operator, from_source, text).encode()


def _meta(node: Node) -> Any:
    return node.meta.get("val")


def reads_data(node: Node) -> bool:
    """Whether a number comes out of a tensor: what the trace knows of it has to be checked."""
    return node.target is torch.ops.aten._local_scalar_dense.default


def _last_uses(gm: GraphModule) -> dict[Node, list[Node]]:
    """For each node those that it is the last to use."""
    found: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    for node in reversed(gm.graph.nodes):
        for value in (node, *node.all_input_nodes):
            if value not in seen:
                seen.add(value)
                found.setdefault(node, []).append(value)
    return found


def _is_token(node: Node) -> bool:
    """Whether an input only orders operators with side effects; it is traced as a tensor, and None in a
    call."""
    return bool(node.users) and all(
        getattr(u.target, "__name__", "") == "with_effects" and u.args[0] is node for u in node.users
    )


def _first(root: ops_dag.Node, limit: int) -> list[ops_dag.Node]:
    """The nodes below ``root``, at most about ``limit`` of them: enough to weigh it at constant cost."""
    seen = {root.id: root}
    stack = [root]
    while stack and len(seen) < limit:
        for i in stack.pop().inputs:
            if i.id not in seen:
                seen[i.id] = i
                stack.append(i)
    return list(seen.values())


def _device(node: Node) -> str:
    """Where a node's result is made: where that lies, or else what it reads first."""
    for one in (node, *node.all_input_nodes):
        for tensor in _tensors(one.meta.get("val")):
            return tensor.device.type
    return HOST


def _complex_types(node: Node) -> list[torch.dtype]:
    """The complex types among a node's tensors, its results and its arguments."""
    values = [tensor for one in (node, *node.all_input_nodes) for tensor in _tensors(one.meta.get("val"))]
    return [tensor.dtype for tensor in values if tensor.is_complex()]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in _tensors(v)]
    return []


def called_by(node: Node) -> Any:
    """What a node calls: the operator itself, where it does so in order with others."""
    return node.args[1] if is_ordered_call(node.target) else node.target


def operator_name(node: Node) -> str:
    """``aten.add.Tensor``, or the function's name."""
    if node.op != "call_function":
        return node.op
    target: Any = called_by(node)
    return str(target) if not hasattr(target, "__module__") or hasattr(target, "_schema") else target.__name__
