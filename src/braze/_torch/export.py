"""What `torch.export` captured, as one functional graph of ATen operators with everything it uses as an
input."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import sympy
import torch
from torch._dynamo import convert_frame
from torch._export import utils
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, ExportGraphSignature, InputKind, OutputKind
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import PropagateUnbackedSymInts, ShapeEnv
from torch.utils._pytree import tree_map

from braze._torch import shape_envs
from braze._torch.effect_tokens import call_plainly
from braze._torch.integers import LEAST
from braze._torch.native import storage_id
from braze._torch.shape_envs import SymbolFacts
from braze._torch.shapes import shape_env_of
from braze._torch.tracing import copied

__all__ = [
    "RaisesInside",
    "Walked",
    "checks_of",
    "conditions_on",
    "decomposed",
    "env_of",
    "narrowed",
    "rebased",
    "recalled",
    "results_of",
    "sizes_as_they_come",
    "surely_fails",
    "value_range",
    "walked",
    "with_graph",
    "worded",
]


def decomposed(
    program: ExportedProgram, decompositions: Mapping[Any, Callable[..., Any]]
) -> tuple[ExportedProgram, list[Any]]:
    """`program` in terms of operators that are not in the table and are no mere compositions of others:
    `torch.export` keeps the latter, which AOTAutograd takes apart. Beside it what that took for granted of
    sizes, which the program itself does not: sympy booleans.

    A decomposition that goes one way for some sizes and another for others is left out, if the operator
    serves both as it is."""
    table: dict[Any, Any] = {op: utils._get_decomp_for_cia(op) for op in utils._collect_all_valid_cia_ops()}
    table.update(decompositions)
    program = _with_memory_apart(_with_checks_kept(program))
    env = env_of(program)
    if env is None:
        return _run_decompositions(program, table), []
    spare = rebased(program, {})
    deciding: dict[Any, None] = {}
    watched = {op: _watched(op, function, env, deciding) for op, function in decompositions.items()}
    known = set(_conditions_in(env))
    made = _run_decompositions(program, {**table, **watched})
    assumed = [c for c in _conditions_in(env) if c not in known]
    if deciding and assumed:
        env = env_of(spare)
        assert env is not None
        known = set(_conditions_in(env))
        wide = _run_decompositions(spare, {op: f for op, f in table.items() if op not in deciding})
        fewer = [c for c in _conditions_in(env) if c not in known]
        if len(fewer) < len(assumed):
            made, assumed = wide, fewer
    # that sizes are 2 or more, or differ, is what small sizes are traced again for
    return made, [c for c in assumed if isinstance(c, sympy.Eq)]


def _conditions_in(env: ShapeEnv) -> list[Any]:
    return conditions_on(env, [name for name in shape_envs.symbols_by_name(env) if name.startswith("s")])


def _watched(
    operator: Any, decomposition: Callable[..., Any], env: ShapeEnv, deciding: dict[Any, None]
) -> Callable[..., Any]:
    """The decomposition, which enters its operator where it, and none inside of it, adds a guard."""

    @functools.wraps(decomposition)
    def watched(*args: Any, **kwargs: Any) -> Any:
        before, inside = shape_envs.mark_guards(env), len(deciding)
        result = decomposition(*args, **kwargs)
        if len(deciding) == inside and shape_envs.guards_added(env, before):
            deciding[operator] = None
        return result

    return watched


def _run_decompositions(program: ExportedProgram, table: dict[Any, Any]) -> ExportedProgram:
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch's own copying of the program uses what PyTorch says is deprecated
        warnings.simplefilter("ignore", FutureWarning)
        made = cast(ExportedProgram, program.run_decompositions(table))
    return _without_tokens(made)


def _without_tokens(program: ExportedProgram) -> ExportedProgram:
    """`program` without tokens, where operators that have no results are all that they keep in order."""
    signature = program.graph_signature
    if not any(spec.kind is InputKind.TOKEN for spec in signature.input_specs):
        return program
    gm = program.graph_module
    output = gm.graph.output_node()
    kept = [
        (value, spec)
        for value, spec in zip(output.args[0], signature.output_specs, strict=True)
        if spec.kind is not OutputKind.TOKEN
    ]
    output.args = (tuple(value for value, _ in kept),)
    call_plainly(gm)
    inputs = []
    for node, spec in zip(gm.graph.find_nodes(op="placeholder"), signature.input_specs, strict=True):
        if spec.kind is InputKind.TOKEN and not node.users:
            gm.graph.erase_node(node)
        else:
            inputs.append(spec)
    gm.recompile()
    without = ExportGraphSignature(inputs, [spec for _, spec in kept])
    return with_graph(program, gm, program.range_constraints, without)


def _with_checks_kept(program: ExportedProgram) -> ExportedProgram:
    """`program`, in which a check of a tensor has a message: without one PyTorch's tracing drops it."""
    silent, said = torch.ops.aten._assert_async.default, torch.ops.aten._assert_async.msg
    if not program.graph.find_nodes(op="call_function", target=silent):
        return program
    gm = copied(program.graph_module)
    for node in gm.graph.find_nodes(op="call_function", target=silent):
        node.target, node.args = said, (*node.args, "Expected Tensor with single nonzero value, but got zero")
    return with_graph(program, gm, program.range_constraints)


def _with_memory_apart(program: ExportedProgram) -> ExportedProgram:
    """`program`, whose inputs share memory with none before them: where one that is written to does in the
    example, PyTorch's tracing looks for a base that they are views of, and may find that they have none."""
    seen: set[int] = set()
    shared: dict[str, FakeTensor] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, FakeTensor) and value.layout is torch.strided:
            if storage_id(value) in seen:
                shared[node.name] = value
            seen.add(storage_id(value))
    if not shared:
        return program
    gm = copied(program.graph_module)
    for node in gm.graph.find_nodes(op="placeholder"):
        if node.name in shared:
            value = shared[node.name]
            with value.fake_mode:
                node.meta["val"] = torch.empty_strided(
                    value.shape,
                    value.stride(),
                    dtype=value.dtype,
                    device=value.device,
                    requires_grad=value.requires_grad,
                )
    return with_graph(program, gm, program.range_constraints)


def with_graph(
    program: ExportedProgram,
    gm: GraphModule,
    ranges: Mapping[Any, Any],
    signature: ExportGraphSignature | None = None,
) -> ExportedProgram:
    return ExportedProgram(
        root=gm,
        graph=gm.graph,
        graph_signature=signature or program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=dict(ranges),
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def env_of(program: ExportedProgram) -> ShapeEnv | None:
    """What is known of a program's symbols; None where it has none."""
    return shape_env_of(node.meta.get("val") for node in program.graph.find_nodes(op="placeholder"))


_tracing: Any = _config  # a module that has methods


def recalled(program: ExportedProgram) -> ExportedProgram:
    """`program`, or one that knows as much of its sizes as it did before it was stored: of a stored one the
    checks of sizes are texts, and ranges are known of expressions (``2*n``), which PyTorch's tracing stumbles
    over."""
    env = env_of(program)
    if env is None or getattr(env, "var_to_sources", None):
        return program
    made = rebased(program, {})
    if hasattr(program, "_guards_code"):
        made._guards_code = program._guards_code
    checks = checks_of(made)
    values = _given(made)
    mode = next((value.fake_mode for value in values if isinstance(value, FakeTensor)), None)
    if checks is not None and mode is not None:
        with mode, torch.no_grad():
            checks(*values)  # what holds for the example becomes a guard
    return made


def checks_of(program: ExportedProgram) -> Callable[..., Any] | None:
    """What the program's own module calls with its arguments before it runs: raises ``AssertionError`` for
    those that it refuses. None where it checks nothing."""
    return getattr(program.module(), "_guards_fn", None)


def _given(program: ExportedProgram) -> list[Any]:
    """What the trace had for the arguments."""
    specs = program.graph_signature.input_specs
    return [
        spec.arg.value if isinstance(spec.arg, ConstantArgument) else node.meta.get("val")
        for node, spec in zip(program.graph.find_nodes(op="placeholder"), specs, strict=True)
        if spec.kind is InputKind.USER_INPUT
    ]


def conditions_on(env: ShapeEnv, names: Collection[str]) -> list[Any]:
    """What a trace has assumed of the symbols of these names and of no others: sympy booleans."""
    symbols = {s for name, s in shape_envs.symbols_by_name(env).items() if name in names}
    found = shape_envs.conditions_of(env, symbols)
    # a symbol that was found to be a number, or another symbol, stands in no condition any more
    for symbol in symbols:
        instead = env.replace(symbol)
        if instead != symbol and instead.free_symbols <= symbols:
            found.append(sympy.Eq(symbol, instead, evaluate=False))
    return found


def surely_fails(condition: Any, values: Mapping[str, int]) -> bool:
    """Whether a condition holds for none of the sizes of which some are ``values``, as far as can be seen."""
    known = {
        s: sympy.Integer(values[s.name])
        if s.name in values
        else sympy.Symbol(s.name, integer=True, nonnegative=True)  # the trace has sizes that are positive
        for s in condition.free_symbols
    }
    try:
        return bool(condition.subs(known, simultaneous=True).doit() == sympy.false)
    except ArithmeticError:  # a division by 0
        return True


def rebased(program: ExportedProgram, facts: Mapping[str, SymbolFacts | int]) -> ExportedProgram:
    """`program` over other symbols: each one is the number that ``facts`` has for it, or a symbol of the same
    name of which no more is known than they say. A symbol that they lack stays as it is known.

    What the program assumes of its inputs' sizes is assumed of the new ones. Raises ``ValueError`` where
    that does not hold for the numbers among ``facts``."""
    gm = program.graph_module
    old = env_of(program)
    if old is None:
        raise ValueError("this program has no sizes that may differ")
    known: dict[str, SymbolFacts] = {}
    for name, symbol in shape_envs.symbols_by_name(old).items():
        given = facts.get(name, shape_envs.facts_of(old, symbol))
        if not isinstance(given, int):
            known[name] = given
    env, symbols = shape_envs.new_shape_env(known.values())
    mode = FakeTensorMode(shape_env=env, export=True)

    def renamed(expression: Any, least: int = 0) -> Any:
        known = old.replace(expression)
        instead: dict[Any, Any] = {}
        for symbol in known.free_symbols:
            given = facts.get(symbol.name)
            instead[symbol] = max(given, least) if isinstance(given, int) else symbols[symbol.name]
        return known.subs(instead, simultaneous=True).doit()

    def converted(value: Any, least: int = 0) -> Any:
        if isinstance(value, torch.SymInt):
            made = renamed(shape_envs.raw_expression(value), least)
            return int(made) if made.is_Integer else shape_envs.symbolic(env, made, int)
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            sizes = [converted(n) for n in value.shape]
            # eager PyTorch takes a size of 0 for 1 where it counts what is to be stepped over
            strides = [converted(n, least=1) for n in value.stride()]
            with mode:
                return torch.empty_strided(
                    sizes, strides, dtype=value.dtype, device=value.device, requires_grad=value.requires_grad
                )
        return value

    for condition in shape_envs.conditions_of(old, old.var_to_range):
        if any(old.is_unbacked_symint(s) for s in condition.free_symbols):
            continue  # the graph checks it, and so finds it again
        here = renamed(condition)
        if here == sympy.false:
            raise ValueError(f"{condition} does not hold for {dict(facts)}")
        if here != sympy.true:
            shape_envs.assume(env, here)
    made = copied(gm)
    for node in made.graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = tree_map(converted, node.meta["val"])
    ranges = {symbols[s.name]: r for s, r in program.range_constraints.items() if str(s) in symbols}
    return with_graph(program, made, {} if facts else ranges)


@dataclass(frozen=True)
class Walked:
    """What running a program on tensors without memory found. ``shapes``: by node, the shapes of its tensors,
    nested as they are: integers, or sympy expressions over the program's symbols; those of results have
    strides, too. ``env``: what the run assumed of the symbols, None where there are none."""

    shapes: Mapping[str, Any]
    env: ShapeEnv | None

    def at(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """The shapes for these values of symbols, with None for sizes that depend on data."""
        known: dict[Any, int | None] = {}

        def value(size: Any) -> Any:
            if isinstance(size, list):
                return [value(one) for one in size]
            if not isinstance(size, sympy.Basic):
                return size
            if size not in known:
                given = {s: sympy.Integer(sizes[s.name]) for s in size.free_symbols if s.name in sizes}
                try:
                    number = size.subs(given, simultaneous=True).doit()
                except ArithmeticError:  # a division by 0
                    number = None
                known[size] = int(number) if isinstance(number, sympy.Integer) else None
            return known[size]

        return {
            name: [_seen(value(one)) for one in shape] if name == "output" else value(shape)
            for name, shape in self.shapes.items()
        }


def _seen(result: Any) -> Any:
    """Sizes and strides of a result, less the strides that nobody can tell."""
    if not isinstance(result, list) or not result or not isinstance(result[0], list):
        return result
    sizes, strides = result
    if 0 in sizes:
        return [sizes]
    return [sizes, [None if size == 1 else stride for size, stride in zip(sizes, strides, strict=True)]]


def results_of(gm: GraphModule) -> Walked:
    """The shapes and strides of a graph's results as its trace has them."""
    results: Any = gm.graph.output_node().args[0]
    values = [one.meta.get("val") if isinstance(one, Node) else one for one in results]
    return Walked({"output": [_sizes_and_strides(value) for value in values]}, None)


def walked(
    program: ExportedProgram,
    facts: Mapping[str, SymbolFacts | int],
    checks: Callable[..., Any] | None = None,
) -> Walked:
    """Run `program` on tensors without memory, over the symbols and numbers that `rebased` makes of
    ``facts``. ``checks``: what `checks_of` the program found, for inputs of numbers only. Raises what its
    operators, or these, raise for such sizes."""
    fixed = rebased(program, facts)
    traced = list(fixed.graph.nodes)
    values = [node.meta.get("val") for node in traced if node.op == "placeholder"]
    mode = next((v.fake_mode for v in values if isinstance(v, FakeTensor)), None)
    if mode is None:
        return Walked({}, None)
    with _quiet(), mode, torch.no_grad():
        if checks is not None:
            checks(*_given(fixed))
        symbolic = any(isinstance(f, SymbolFacts) and f.hint is not None for f in facts.values())
        runner = (_NotingSymbols if symbolic else _Noting)(fixed.graph_module)
        runner.run(*values)
    return Walked(runner.shapes, mode.shape_env)


class RaisesInside(Exception):
    """An operator does not take such sizes, in a graph inside of the program, which may not run for them."""


class _Noting(Interpreter):
    """Runs a graph and notes the shape of each value."""

    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm)
        self.shapes: dict[str, Any] = {}

    def run_node(self, n: Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:
            if isinstance(n.target, torch._ops.HigherOrderOperator):
                raise RaisesInside(str(error)) from error
            raise
        self.shapes[n.name] = [_sizes_and_strides(v) for v in value] if n.op == "output" else _shapes(value)
        return value


class _NotingSymbols(_Noting, PropagateUnbackedSymInts):
    """The same, where a size that depends on data is that of the trace."""


def _sizes_and_strides(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.layout is torch.strided:
        return [[_written(n) for n in numbers] for numbers in (value.shape, value.stride())]
    return _shapes(value)


def _written(number: Any) -> Any:
    return number if isinstance(number, int) else shape_envs.raw_expression(number)


def _shapes(value: Any) -> Any:
    """The shapes of a value's tensors."""
    if isinstance(value, (list, tuple)):
        return [_shapes(one) for one in value]
    if isinstance(value, torch.Tensor):
        return [_written(n) for n in value.shape]
    return None


@contextmanager
def sizes_as_they_come() -> Iterator[None]:
    """Inside this block tracing does not take it for granted that a size is neither 0 nor 1 because that of
    the example isn't: where the code has a way for all sizes, it takes that. One thread at a time."""
    with convert_frame.compile_lock, _tracing.patch(backed_size_oblivious=True), _quiet():
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside this block PyTorch does not log, besides raising it, that an operator takes no such sizes."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def narrowed(program: ExportedProgram) -> list[str]:
    """Sizes that were to differ, of which the program asks for a range that has one number from 2 on: its
    trace has that number, and its own module takes 0 and 1, too. As ``L['x'].size()[0] == 2``."""
    env = env_of(program)
    sources = getattr(env, "var_to_sources", None) or {}
    if env is None:
        return []
    equal = {s for g in env.guards if isinstance(g.expr, sympy.Eq) for s in g.expr.free_symbols}
    return [
        f"{sources[symbol][0].name} == {env.replace(symbol)}"
        for symbol in shape_envs.symbols_by_name(env).values()
        if symbol not in equal and sources.get(symbol) and env.replace(symbol).is_Integer
    ]


def worded(condition: Any, names: Mapping[str, str]) -> str:
    """A condition over these names of symbols, as Python has it."""
    named = condition.subs(
        {s: sympy.Symbol(names.get(s.name, s.name), integer=True) for s in condition.free_symbols}
    )
    signs = {sympy.Eq: "==", sympy.Ne: "!="}
    sign = signs.get(type(named))
    return str(named) if sign is None else f"{named.lhs} {sign} {named.rhs}"


def value_range(constraint: Any) -> tuple[int, int | None]:
    """The least and greatest value of a symbol by a program's range constraint; None: no greatest. Without a
    least value it has that of 64 bits."""
    lower, upper = constraint.lower, constraint.upper
    return (
        int(lower) if getattr(lower, "is_Integer", False) else LEAST,
        int(upper) if getattr(upper, "is_Integer", False) else None,
    )
