"""What a fused function does about arguments that are new: the trace and the kernel for them, and a Python
function that looks whether arguments are like these, and launches it.

Loaded when the first such arguments come: a library that only declares its fused functions does not pay for
tracing and compiling.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from braze import config as configuration
from braze._torch import surroundings
from braze._torch.autograd import grad_enabled, increment_version
from braze.errors import ConfigError, Refused
from braze.fuser.arguments import FAST, Structure, conditions, describe, literal, number_positions, rebuild
from braze.fuser.fallback import EMPTY, unfusable
from braze.fuser.guards import call_guards
from braze.fuser.kernel import SingleFlight, reason_of, source_of
from braze.fuser.launch import Body, GraphRunner, PreparedCall, define, launcher, prepare
from braze.fuser.tracing import Depends, Traced, layout_class, symbols_of, trace
from braze.runtime.callgen import Instrument
from braze.runtime.overlaps import overlapping_pair, overlaps_itself

if TYPE_CHECKING:
    from braze.fuser.function import Entry, FusedFunction

__all__ = ["Specializer"]

_MOST_GUARDED = 16
"""For one layout class the function is traced at most so often, for sizes that fulfil other conditions."""

_MOST_TRACES = 256
"""A function is traced at most so often; further kinds of arguments fall back."""

_MOST_RECENT = 1024


@dataclass(frozen=True)
class ArgumentKind:
    """The arguments of one call, as tracing sees them: their structure, the tensors and numbers in it, and
    the state of the thread. ``gradients``: autograd will want to differentiate."""

    structure: Structure
    leaves: Sequence[Any]
    state: tuple[object, ...]
    gradients: bool

    @functools.cached_property
    def tensors(self) -> list[torch.Tensor]:
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    def key(self, static: frozenset[int]) -> tuple[object, ...]:
        """What a trace for any shape depends on. ``static``: the positions of numbers whose values count."""
        facts = [(type(t), t.dtype, t.dim() == 0, self.gradients and t.requires_grad) for t in self.tensors]
        values = [self.leaves[p] for p in sorted(static)]
        exact = [v.hex() if isinstance(v, float) else v for v in values]
        return self.structure, tuple(facts), self.any_shape, self.state, tuple(exact)

    @property
    def any_shape(self) -> bool:
        """Whether a trace for these arguments may serve others of any shape. The gradient of what was
        broadcast is a sum: with gradients only arguments of one shape, whatever it is, are alike."""
        return not self.gradients or len({t.shape for t in self.tensors}) < 2

    @property
    def empty(self) -> bool:
        """Whether a tensor has no elements. Nothing can be said of guards then: the trace was made for other
        sizes in place of 0."""
        return any(0 in t.shape for t in self.tensors)


class Specializer:
    """The traces of one function, and the entries made of them. May be used from several threads at once."""

    def __init__(self, fused: FusedFunction) -> None:
        self.fused = fused
        self._any_shape: dict[tuple[object, ...], Traced] = {}
        self._by_class: SingleFlight[tuple[object, ...], Traced | Depends] = SingleFlight()
        self._constants: dict[Structure, frozenset[int]] = {}
        self._hopeless: set[Structure] = set()
        self._recent: dict[Structure, tuple[dict[Any, Callable[..., Any]], Callable[..., Any]]] = {}

    def forget(self) -> None:
        """Nothing that was prepared may be used any more; traces and kernels may."""
        for by_shapes, _ in list(self._recent.values()):
            by_shapes.clear()

    def constants(self, structure: Structure) -> frozenset[int]:
        """The positions, among the leaves, of numbers whose values are known to be part of the code."""
        if self.fused.variables.inspects:
            return number_positions(structure)
        return self._constants.get(structure, frozenset())

    # -- traces -----------------------------------------------------------------------------------------
    def traced(self, structure: Structure, leaves: Sequence[Any]) -> Traced:
        """The trace for such arguments, made if need be. Raises `Refused`."""
        return self._traced(self._kind(structure, leaves))

    def _kind(self, structure: Structure, leaves: Sequence[Any]) -> ArgumentKind:
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        for reason in filter(None, map(unfusable, tensors)):
            raise Refused(reason)
        if not tensors:
            raise Refused("it was called without a tensor")
        asks = self.fused.variables.asks
        if asks is not None:
            raise Refused(f"it asks for what is another in a trace: {asks}")
        gradients = grad_enabled() and any(t.requires_grad for t in tensors)
        return ArgumentKind(structure, leaves, self.fused.state(), gradients)

    def _traced(self, kind: ArgumentKind) -> Traced:
        with configuration.patch(**self.fused.options):
            while True:
                constants = self.constants(kind.structure)
                key = kind.key(constants)
                known = self._any_shape.get(key)
                if known is not None and kind.any_shape:
                    return known
                try:
                    found = self._of_class(kind, constants)
                except Refused:
                    if not self._fix_numbers(kind):
                        raise
                    continue
                if isinstance(found, Depends):
                    self._constants[kind.structure] = constants | found.positions
                    continue
                if kind.empty and not found.any_shape:
                    raise Refused(EMPTY)
                if found.any_shape and kind.any_shape:
                    self._any_shape[key] = found
                return found

    def _fix_numbers(self, kind: ArgumentKind) -> bool:
        """Where the function can be traced with its numbers as constants, and could not be compiled with
        numbers that a call brings: take them as constants from now on. False where that would not help."""
        numbers = number_positions(kind.structure)
        if numbers <= self.constants(kind.structure) or kind.structure in self._hopeless:
            return False
        try:
            self._of_class(kind, numbers)
        except Refused:
            self._hopeless.add(kind.structure)
            return False
        self._constants[kind.structure] = numbers
        return True

    def _of_class(self, kind: ArgumentKind, constants: frozenset[int]) -> Traced | Depends:
        """The trace for tensors that lie in memory like these, or the numbers that turned out to matter.
        Raises `Refused`."""
        key = *kind.key(constants), *map(layout_class, kind.tensors)
        sizes = _sizes(kind.leaves)

        def make() -> Traced | Depends:
            function = functools.partial(self.fused.trace_flat, kind.structure)
            try:
                return trace(function, kind.leaves, kind.gradients, constants, configuration.current())
            except Depends as depends:
                return depends
            except (ConfigError, Refused):
                raise
            except Exception as error:
                if "convert all Tensors to FakeTensors" in str(error):
                    raise Refused("it reads a tensor that is not an argument") from None
                raise Refused(f"it could not be traced: {reason_of(error)}") from None

        tried = len(self._by_class) + len(self._by_class.refused)
        if tried >= _MOST_TRACES and not self._by_class.knows((*key, 0)):
            raise Refused(
                f"it was traced {_MOST_TRACES} times: does a number that changes decide a shape or a branch?"
            )
        for attempt in range(_MOST_GUARDED):
            found = self._by_class.get_or_make((*key, attempt), make)
            if isinstance(found, Depends) or kind.empty or found.admits(sizes):
                return found
            if found.any_shape and kind.any_shape:
                return found
        raise Refused(f"its sizes fulfil other conditions than {_MOST_GUARDED} compiled variants")

    # -- entries ----------------------------------------------------------------------------------------
    def entry(self, structure: Structure, leaves: Sequence[Any]) -> Entry:
        """What to do for such arguments: traced and compiled if need be. Raises `Refused`."""
        kind = self._kind(structure, leaves)
        while True:
            traced = self._traced(kind)
            try:
                prepared = None if traced.graph is None else self._prepared(traced, leaves)
            except Refused:
                with configuration.patch(**self.fused.options):
                    if not self._fix_numbers(kind):
                        raise
            else:
                return self._entry(structure, leaves, traced, prepared)

    def _prepared(
        self, traced: Traced, leaves: Sequence[Any], outputs: Sequence[torch.Tensor] | None = None
    ) -> PreparedCall:
        """The call of a trace that is one graph, its kernels compiled if need be; one that writes to these
        ``outputs``, where there are some. Raises `Refused`."""
        assert traced.graph is not None
        with configuration.patch(**self.fused.options):
            try:
                return prepare(traced.graph, _values(traced, leaves), outputs)
            except ConfigError:
                raise
            except ValueError as error:
                raise Refused(str(error)) from None

    def _entry(
        self, structure: Structure, leaves: Sequence[Any], traced: Traced, prepared: PreparedCall | None
    ) -> Entry:
        """A function of the parameters that looks whether arguments are like these, and if so returns the
        results. Else it calls ``_miss``: without one it does not look."""
        parameters = self.fused.parameters.identifiers
        names: dict[str, Any] = {}
        paths: list[str] = []
        numbers: dict[int, int] = {}

        def constant(value: Any) -> str:
            name = f"_c{numbers.setdefault(id(value), len(numbers))}"
            names[name] = value
            return name

        tests = [t for s, n in zip(structure, parameters) for t in conditions(s, n, constant, paths)]
        values = [*map(str, _leading(traced, leaves)), *[paths[p] for p in traced.live]]

        def write(instrument: Instrument | None) -> Body:
            if prepared is None:
                lines, globals_ = [f"_results = _call({', '.join(values)})"], {"_call": call}
                results = [f"_results[{p}]" for p in traced.places]
            else:
                lines, globals_ = prepared.body(instrument)
                lines = [*[f"in{k} = {values[k]}" for k in prepared.inputs], *lines]
                results = [prepared.results[p] for p in traced.places]
            shown = literal(traced.results, iter(results), constant)
            return [*lines, f"return {shown}"], {**globals_, **names}

        name = self.fused.identifier
        call = self._careful_call(structure, leaves, traced) if traced.writes else traced.call
        if traced.writes:  # it has to look, each time, whether they overlap
            return define(name, parameters, *write(None)), None
        lines, globals_ = write(None) if prepared is None else launcher(name, parameters, write)
        tests += call_guards(
            leaves,
            paths,
            sorted(self.constants(structure)),
            self.fused.options,
            self.fused.variables,
            names,
        )
        if self.fused.parameters.takes_out:
            tests.append(f"{parameters[-1]} is None")
        lines = [
            f"if _miss is None or {' and '.join(tests)}:",
            *[f"    {line}" for line in lines],
            f"return _miss({', '.join(parameters)})",
        ]
        by_shapes, again = self._again(structure, leaves)
        space = {**globals_, **names, "_again": again}
        fast = define(name, [*parameters, "*", "_miss=_again"], lines, space)
        if len(by_shapes) >= _MOST_RECENT:
            by_shapes.clear()
        by_shapes[tuple([leaf.shape for leaf in leaves if isinstance(leaf, torch.Tensor)])] = fast
        return functools.partial(fast, _miss=None), fast

    def _again(
        self, structure: Structure, leaves: Sequence[Any]
    ) -> tuple[dict[Any, Callable[..., Any]], Callable[..., Any]]:
        """For arguments of one structure: entries by the shapes of their tensors; and a function that calls
        the one for the shapes of its arguments, and makes it the first that is tried. That takes 1 us more
        than the first, where the table of all entries takes 6."""
        found = self._recent.get(structure)
        if found is None:
            parameters = self.fused.parameters.identifiers
            paths: list[str] = []
            for one, name in zip(structure, parameters):
                list(conditions(one, name, str, paths))
            shapes = [f"{paths[k]}.shape" for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
            lines = [
                "try:",
                f"    entry = _known(({', '.join(shapes)},))",
                # another structure
                "except (AttributeError, IndexError, KeyError, RuntimeError, TypeError):",
                "    entry = None",
                "if entry is None:",
                f"    return _dispatch({', '.join(parameters)})",
                "_space[_fast] = entry",
                f"return entry({', '.join(parameters)}, _miss=_dispatch)",
            ]
            by_shapes: dict[Any, Callable[..., Any]] = {}
            names = {
                "_known": by_shapes.get,
                "_dispatch": self.fused.dispatch,
                "_space": self.fused.space,
                "_fast": FAST,
            }
            again = define(f"again_{self.fused.identifier}", parameters, lines, names)
            found = self._recent[structure] = by_shapes, again
        return found

    def _careful_call(
        self, structure: Structure, leaves: Sequence[Any], traced: Traced
    ) -> Callable[..., Sequence[Any]]:
        """The call of a trace that writes to its arguments. Where these overlap, it is not what was traced,
        and the function is run as it is."""
        call, places, first, count = traced.call, traced.places, len(traced.sizes), len(leaves)
        assert call is not None
        fixed = {p: leaf for p, leaf in enumerate(leaves) if p not in traced.live}  # these are numbers
        call_flat = self.fused.call_flat

        def careful(*values: Any) -> Sequence[Any]:
            tensors = [v for v in values[first:] if isinstance(v, torch.Tensor)]
            apart = overlapping_pair(tensors, written=len(tensors)) is None
            if apart and not any(overlaps_itself(t.shape, t.stride()) for t in tensors):
                return call(*values)
            given = iter(values[first:])
            flat = [fixed[p] if p in fixed else next(given) for p in range(count)]
            found: list[Any] = []
            describe(call_flat(structure, flat), "the result", found, numbers=False)
            return [found[places.index(k)] for k in range(max(places, default=-1) + 1)]

        return careful

    # -- looking ----------------------------------------------------------------------------------------
    def source(self, structure: Structure, leaves: Sequence[Any]) -> str:
        """The generated code for such arguments, LLVM IR, compiled if need be. Raises `Refused`."""
        traced = self._traced_alone(structure, leaves)
        if traced.graph is None:
            return "\n".join([f"; {code.name}\n{source_of(code)}" for code in traced.codes])
        kernels = [launch.kernel for launch in self._prepared(traced, leaves).launches]
        texts = [f"; {kernel.spec}\n{source_of(kernel.code)}" for kernel in kernels]
        return "\n".join(texts) or f"; nothing is launched: {EMPTY}\n"

    def launched(self, structure: Structure, leaves: Sequence[Any]) -> Any:
        """What a call returns for such arguments, by compiled code and nothing else. Raises `Refused`."""
        traced = self._traced_alone(structure, leaves)
        values = _values(traced, leaves)
        if traced.graph is not None:
            results: Sequence[Any] = GraphRunner(traced.graph)(values)
        else:
            assert traced.call is not None
            results = traced.call(*values)
        return rebuild(traced.results, iter([results[p] for p in traced.places]))

    def _traced_alone(self, structure: Structure, leaves: Sequence[Any]) -> Traced:
        watched = surroundings.onlookers()
        if watched is not None:
            raise Refused(watched)
        return self.traced(structure, leaves)

    # -- results that are given -------------------------------------------------------------------------
    def launched_into(
        self, structure: Structure, leaves: Sequence[Any], results: Structure, outputs: Sequence[torch.Tensor]
    ) -> bool:
        """Launch the kernel for these arguments on tensors that are given, made like ``results``. False where
        it cannot write to them itself; nothing has happened then."""
        given = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        try:
            traced = self.traced(structure, leaves)
            if traced.graph is None or results != traced.results:
                return False
            if any(unfusable(o) is not None or o.is_inference() for o in outputs):
                return False
            if any(overlaps_itself(o.shape, o.stride()) for o in outputs):
                return False
            if list(traced.places) != list(range(len(outputs))):
                return False
            if overlapping_pair([*outputs, *given], written=len(outputs)) is not None:
                return False
            prepared = self._prepared(traced, leaves, outputs)
        except Refused:
            return False
        values = _values(traced, leaves)
        names = [*[f"in{k}" for k in range(len(values))], *[f"out{k}" for k in range(len(outputs))]]
        name = f"into_{traced.graph.graph.key}"
        define(name, names, *launcher(name, names, prepared.body))(*values, *outputs)
        increment_version(outputs)
        return True


def _sizes(leaves: Sequence[Any]) -> dict[str, int]:
    """The values of all size symbols."""
    found: dict[str, int] = {}
    for position, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            found |= symbols_of(position, leaf)
    return found


def _leading(traced: Traced, leaves: Sequence[Any]) -> list[int]:
    """The sizes that the graph or the call of a trace takes first."""
    known = {} if traced.any_shape else _sizes(leaves)
    return [known.get(name, 0) for name in traced.sizes]


def _values(traced: Traced, leaves: Sequence[Any]) -> list[Any]:
    """What the graph or the call of a trace takes."""
    return [*_leading(traced, leaves), *[leaves[p] for p in traced.live]]
