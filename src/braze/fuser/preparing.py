"""What a fused function does about arguments that are new: the trace and the kernel for them, and Python code
that launches it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from braze import config as configuration
from braze._torch import native, surroundings
from braze._torch.autograd import grad_enabled
from braze.errors import CodegenError, FallbackError
from braze.fuser.arguments import Structure, conditions, describe, literal, rebuild
from braze.fuser.devices import unfusable
from braze.fuser.elementwise import Made
from braze.fuser.entries import EMPTY, Entry, Subject
from braze.fuser.executor import GraphRunner, described, prepare, result_text
from braze.fuser.generated import Generated
from braze.fuser.kernel import Prepared, source_of
from braze.fuser.kernel_cache import spec_for
from braze.fuser.memory import overlap
from braze.fuser.strides import Geometry
from braze.fuser.tracing import Traced
from braze.fuser.variants import ArgumentKind, Variants

__all__ = ["Preparing"]


class Preparing:
    """The traces of one function, and the entries made of them. ``dispatch`` is called, with the values of
    the function's parameters, where arguments turn out to be of another kind than those of an entry."""

    def __init__(self, subject: Subject, dispatch: Callable[..., Any]) -> None:
        self.subject = subject
        self.variants = Variants()
        self._dispatch = dispatch

    def numbers_that_count(self, structure: Structure) -> frozenset[int]:
        """The positions, among the leaves, of numbers whose values are part of the code."""
        return self.variants.static(structure)

    def _kind(self, structure: Structure, leaves: Sequence[Any]) -> ArgumentKind | str:
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        for tensor in tensors:
            reason = unfusable(tensor)
            if reason is not None:
                return reason
        if not tensors:
            return "it was called without a tensor"
        gradients = grad_enabled() and any(t.requires_grad for t in tensors)
        state = (*surroundings.thread_state(), *self.subject.read_outside())
        return ArgumentKind(structure, leaves, state, gradients)

    def traced(self, structure: Structure, leaves: Sequence[Any]) -> Traced | str:
        """The trace for such arguments, made if need be, or why there is none."""
        kind = self._kind(structure, leaves)
        return kind if isinstance(kind, str) else self._traced(kind)

    def _traced(self, kind: ArgumentKind) -> Traced | str:
        with configuration.patch(**self.subject.options) as config:
            traced = self.variants.find(self._flat(kind), kind, config)
        if isinstance(traced, Traced) and kind.empty and not traced.any_shape:
            return EMPTY
        return traced

    def _flat(self, kind: ArgumentKind) -> Callable[[Sequence[Any]], Any]:
        return functools.partial(self.subject.call_flat, kind.structure)

    def entry(self, structure: Structure, leaves: Sequence[Any]) -> Entry | str:
        """What to do for such arguments: traced and compiled if need be; or why they are not fused."""
        kind = self._kind(structure, leaves)
        if isinstance(kind, str):
            return kind
        while True:
            traced = self._traced(kind)
            if isinstance(traced, str):
                return traced
            if traced.graph is None:
                return self._entry(structure, leaves, traced, None)
            prepared = self.launch(traced, leaves)
            if not isinstance(prepared, str):
                return self._entry(structure, leaves, traced, prepared)
            with configuration.patch(**self.subject.options) as config:
                if not self.variants.fix_numbers(self._flat(kind), kind, config):
                    return prepared

    def source(self, structure: Structure, leaves: Sequence[Any]) -> str:
        """The generated code for such arguments, LLVM IR, compiled if need be. Raises ``FallbackError``."""
        traced = self._fused(structure, leaves)
        if traced.graph is None:
            return "\n".join([f"; {code.name}\n{source_of(code)}" for code in traced.codes])
        prepared = self.launch(traced, leaves)
        if isinstance(prepared, str):
            raise self._not_fused(prepared)
        if prepared.kernel is None:
            return f"; nothing is launched: {EMPTY}\n"
        return f"; {prepared.kernel.spec}\n{source_of(prepared.kernel.code)}"

    def launched(self, structure: Structure, leaves: Sequence[Any]) -> Any:
        """What a call returns for such arguments, by compiled code and nothing else. Raises
        ``FallbackError``."""
        traced = self._fused(structure, leaves)
        live = [leaves[p] for p in traced.live]
        results: Sequence[Any]
        if traced.graph is not None:
            try:
                results = GraphRunner(traced.graph)(live)
            except CodegenError as error:
                raise self._not_fused(error.what) from error
        else:
            assert traced.call is not None
            results = traced.call(*self._sizes(traced, leaves), *live)
        return rebuild(traced.results, iter([results[p] for p in traced.places]))

    def _fused(self, structure: Structure, leaves: Sequence[Any]) -> Traced:
        """The trace for such arguments. Raises ``FallbackError``."""
        found = surroundings.onlookers() or self.traced(structure, leaves)
        if isinstance(found, str):
            raise self._not_fused(found)
        return found

    def _not_fused(self, reason: str) -> FallbackError:
        return FallbackError(f"{self.subject.name} is not fused for these arguments: {reason}")

    def launch(
        self, traced: Traced, leaves: Sequence[Any], outputs: Sequence[torch.Tensor] | None = None
    ) -> Prepared | str:
        """The launch of a trace that is one graph, its kernel compiled if need be, or why there is none.
        ``outputs``: tensors for the results, where they are given."""
        assert traced.graph is not None
        layouts = None if outputs is None else [(tuple(t.shape), t.stride()) for t in outputs]
        with configuration.patch(**self.subject.options):
            return prepare(spec_for(traced.graph.graph), _described(traced, leaves), layouts=layouts)

    def _entry(
        self, structure: Structure, leaves: Sequence[Any], traced: Traced, prepared: Prepared | None
    ) -> Entry:
        names = self.subject.signature.names

        def written(checked: bool) -> Callable[..., Any]:
            text = Generated(f"{'fast' if checked else 'run'}_{_identifier(self.subject.name)}", names)
            constant = _Constants(text)
            paths: list[str] = []
            tests: list[str] = []
            for one, name in zip(structure, names):
                tests += conditions(one, name, constant, paths)
            tests += self._further_tests(text, leaves, paths, structure)
            if self.subject.signature.takes_out:
                tests.append("out is None")
            indent = ""
            if checked:
                text.line(f"if {' and '.join(tests)}:")
                indent = "    "
            inputs = [paths[p] for p in traced.live]
            if prepared is not None:
                function = traced.graph
                assert function is not None
                used = [inputs[p] for p in function.inputs]
                made = text.results(prepared, function.graph.dtypes, used, indent)
                results = [result_text(r, made, inputs) for r in function.results]
            else:
                values = [*map(str, self._sizes(traced, leaves)), *inputs]
                text.constant("_call", _guarded(traced, self._eager_leaves(structure)))
                text.line(f"{indent}_results = _call({', '.join(values)})")
                results = [f"_results[{k}]" for k in range(max(traced.places, default=-1) + 1)]
            shown = iter([results[p] for p in traced.places])
            text.line(f"{indent}return {literal(traced.results, shown, constant)}")
            if checked:
                text.constant("_dispatch", self._dispatch)
                text.line(f"return _dispatch({', '.join(names)})")
            return text.function()

        # what writes to its arguments has to look, each time, whether they overlap
        return Entry(written(checked=False), None if traced.writes else written(checked=True))

    def _sizes(self, traced: Traced, leaves: Sequence[Any]) -> list[int]:
        if traced.any_shape:
            return [0] * len(traced.sizes)
        known = ArgumentKind((), leaves, (), gradients=False).sizes()
        return [known[name] for name in traced.sizes]

    def _eager_leaves(self, structure: Structure) -> Callable[..., Any]:
        """The function on its leaves, by eager operators."""
        return lambda *flat: self.subject.call_flat(structure, flat)

    def _further_tests(
        self, text: Generated, leaves: Sequence[Any], paths: Sequence[str], structure: Structure
    ) -> list[str]:
        """Conditions beyond those of the arguments' structure: the tensors' guard, numbers that are part of
        the code, modes, and what the function reads besides its arguments."""
        tensors = [k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        text.constant("_like", native.same_tensors([leaves[k] for k in tensors]))
        text.constant("_modes", surroundings.function_modes)
        text.constant("_default_dtype", torch.get_default_dtype)
        default = text.constant("_known_dtype", torch.get_default_dtype())
        tests = [f"_like({', '.join(paths[k] for k in tensors)})", "not _modes()"]
        tests.append(f"_default_dtype() is {default}")
        if any(leaves[k].requires_grad for k in tensors):
            text.constant("_grad", grad_enabled)
            tests.append("_grad()" if grad_enabled() else "not _grad()")
        for position in sorted(self.variants.static(structure)):
            leaf = leaves[position]
            if isinstance(leaf, float):
                tests.append(f"{paths[position]}.hex() == {leaf.hex()!r}")
            else:
                tests.append(f"{paths[position]} == {leaf}")
        for k, place in enumerate(self.subject.outside):
            text.constant(f"_read{k}", place.read)
            text.constant(f"_was{k}", place.read())
            tests.append(f"_read{k}() is _was{k}")
        return tests

    # -- results that are given -------------------------------------------------------------------------
    def launched_into(
        self, structure: Structure, leaves: Sequence[Any], results: Structure, outputs: Sequence[torch.Tensor]
    ) -> bool:
        """Launch the kernel for these arguments on tensors that are given, made like ``results``. False where
        it cannot write to them itself; nothing has happened then."""
        traced = self.traced(structure, leaves)
        if isinstance(traced, str) or traced.graph is None or results != traced.results:
            return False
        if not self._can_write(traced, leaves, outputs):
            return False
        prepared = self.launch(traced, leaves, outputs)
        if isinstance(prepared, str):
            return False
        self._launch_into(traced, prepared, leaves, outputs)
        return True

    @staticmethod
    def _can_write(traced: Traced, leaves: Sequence[Any], outputs: Sequence[Any]) -> bool:
        """Whether a kernel may write to these tensors itself: one for each of its outputs, of the right type
        and sizes, which no other argument shares memory with."""
        function = traced.graph
        assert function is not None
        graph = function.graph
        if list(traced.places) != list(range(len(graph.outputs))) or len(outputs) != len(graph.outputs):
            return False
        if not all(isinstance(r, Made) and r.number == k for k, r in enumerate(function.results)):
            return False
        layouts = graph.layouts([None if g is None else g[1] for g in _described(traced, leaves)])
        for output, (sizes, _), dtype in zip(outputs, layouts, graph.dtypes, strict=True):
            if output.dtype is not dtype or tuple(output.shape) != sizes or unfusable(output) is not None:
                return False
        others = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return not overlap(outputs, others)

    @staticmethod
    def _launch_into(
        traced: Traced, prepared: Prepared, leaves: Sequence[Any], outputs: Sequence[torch.Tensor]
    ) -> None:
        function = traced.graph
        assert function is not None
        values = [leaves[traced.live[p]] for p in function.inputs]
        inputs = [f"in{k}" for k in range(len(values))]
        names = [f"out{k}" for k in range(len(outputs))]
        text = Generated("launch_into", [*inputs, *names])
        text.launch(prepared, inputs, names)
        text.function()(*values, *outputs)
        torch.autograd.graph.increment_version(outputs)


class _Constants:
    """Names for objects in a function that is being written; one for each object."""

    def __init__(self, text: Generated) -> None:
        self._text = text
        self._names: dict[int, str] = {}

    def __call__(self, value: Any) -> str:
        if id(value) not in self._names:
            self._names[id(value)] = self._text.constant(f"_c{len(self._names)}", value)
        return self._names[id(value)]


def _described(traced: Traced, leaves: Sequence[Any]) -> list[tuple[torch.dtype, Geometry] | None]:
    """The inputs of a trace that is one graph."""
    assert traced.graph is not None
    return [described(leaves[traced.live[p]]) for p in traced.graph.inputs]


def _guarded(traced: Traced, eager: Callable[..., Any]) -> Callable[..., Any]:
    """The callable of a trace. Where it writes to arguments that overlap, it is not what was traced."""
    call = traced.call
    assert call is not None
    if not traced.writes:
        return call
    first = len(traced.sizes)

    def careful(*values: Any) -> Sequence[Any]:
        tensors = [v for v in values[first:] if isinstance(v, torch.Tensor)]
        if not any(overlap([t], tensors[k + 1 :]) for k, t in enumerate(tensors)):
            return call(*values)
        leaves: list[Any] = []
        describe(eager(*values[first:]), "the result", leaves, numbers=False)
        unique = list({id(leaf): leaf for leaf in leaves}.values())
        return unique

    return careful


def _identifier(name: str) -> str:
    return "".join([c if c.isalnum() and c.isascii() else "_" for c in name])
