"""What a fused function does about arguments that are new: the trace and the kernel for them, and Python code
that launches it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from braze import config as configuration
from braze._torch import surroundings
from braze._torch.autograd import grad_enabled
from braze.errors import CodegenError, FallbackError
from braze.fuser.arguments import Structure, rebuild
from braze.fuser.devices import unfusable
from braze.fuser.elementwise import Made
from braze.fuser.entries import EMPTY, Entry, Subject
from braze.fuser.entry_code import EntryCode, Recent
from braze.fuser.executor import GraphRunner, described, prepare
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
    the function's parameters, where arguments turn out to be of another kind than those of an entry;
    ``space`` holds the entry that the wrapper tries first."""

    def __init__(self, subject: Subject, dispatch: Callable[..., Any], space: dict[str, Any]) -> None:
        self.subject = subject
        self._space = space
        self.variants = Variants()
        self._dispatch = dispatch
        self._recent: dict[Structure, Recent] = {}

    def forget(self) -> None:
        """Nothing that was prepared may be used any more; traces and kernels may."""
        for recent in list(self._recent.values()):
            recent.clear()

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
        tensors = tuple(k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))
        recent = self._recent.get(structure)
        if recent is None:
            recent = self._recent[structure] = Recent(
                self.subject, structure, tensors, self._dispatch, self._space
            )
        sizes = self._sizes(traced, leaves)
        numbers = self.variants.static(structure)
        return EntryCode(self.subject, structure, leaves, traced, prepared, sizes, numbers).entry(recent)

    def _sizes(self, traced: Traced, leaves: Sequence[Any]) -> list[int]:
        if traced.any_shape:
            return [0] * len(traced.sizes)
        known = ArgumentKind((), leaves, (), gradients=False).sizes()
        return [known[name] for name in traced.sizes]

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


def _described(traced: Traced, leaves: Sequence[Any]) -> list[tuple[torch.dtype, Geometry] | None]:
    """The inputs of a trace that is one graph."""
    assert traced.graph is not None
    return [described(leaves[traced.live[p]]) for p in traced.graph.inputs]
