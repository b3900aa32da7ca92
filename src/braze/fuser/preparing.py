"""What a fused function does about arguments that are new: the trace and the kernel for them, and Python code
that launches it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from braze import config as configuration
from braze._torch import surroundings
from braze._torch.autograd import grad_enabled, increment_version
from braze.errors import CodegenError, ConfigError, FallbackError
from braze.fuser.arguments import Structure, rebuild
from braze.fuser.devices import unfusable
from braze.fuser.entries import EMPTY, Entry, Subject
from braze.fuser.entry_code import EntryCode, Recent
from braze.fuser.executor import GraphRunner, Prepared, prepare, prepare_into, write_launches
from braze.fuser.generated import Generated
from braze.fuser.kernel import source_of
from braze.fuser.tracing import Traced
from braze.fuser.variants import ArgumentKind, Variants
from braze.runtime.overlaps import overlapping_pair, overlaps_itself

__all__ = ["Preparing"]


class Preparing:
    """The traces of one function, and the entries made of them. ``dispatch`` is called, with the values of
    the function's parameters, where arguments turn out to be of another kind than those of an entry;
    ``space`` holds the entry that the wrapper tries first."""

    def __init__(self, subject: Subject, dispatch: Callable[..., Any], space: dict[str, Any]) -> None:
        self.subject = subject
        self._space = space
        self.variants = Variants(lambda: subject.surroundings.inspects)
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
        if self.subject.surroundings.asks is not None:
            return f"it asks for what is another in a trace: {self.subject.surroundings.asks}"
        gradients = grad_enabled() and any(t.requires_grad for t in tensors)
        return ArgumentKind(structure, leaves, self.subject.state(), gradients)

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
        return functools.partial(self.subject.trace_flat, kind.structure)

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
            prepared = self._prepared(traced, leaves)
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
        prepared = self._prepared(traced, leaves)
        if isinstance(prepared, str):
            raise self._not_fused(prepared)
        kernels = [launch.kernel for launch in prepared.launches]
        texts = [f"; {kernel.spec}\n{source_of(kernel.code)}" for kernel in kernels]
        return "\n".join(texts) or f"; nothing is launched: {EMPTY}\n"

    def launched(self, structure: Structure, leaves: Sequence[Any]) -> Any:
        """What a call returns for such arguments, by compiled code and nothing else. Raises
        ``FallbackError``."""
        traced = self._fused(structure, leaves)
        values = self._values(traced, leaves)
        results: Sequence[Any]
        if traced.graph is not None:
            try:
                results = GraphRunner(traced.graph)(values)
            except CodegenError as error:
                raise self._not_fused(error.what) from error
        else:
            assert traced.call is not None
            results = traced.call(*values)
        return rebuild(traced.results, iter([results[p] for p in traced.places]))

    def _fused(self, structure: Structure, leaves: Sequence[Any]) -> Traced:
        """The trace for such arguments. Raises ``FallbackError``."""
        found = surroundings.onlookers() or self.traced(structure, leaves)
        if isinstance(found, str):
            raise self._not_fused(found)
        return found

    def _not_fused(self, reason: str) -> FallbackError:
        return FallbackError(f"{self.subject.name} is not fused for these arguments: {reason}")

    def _values(self, traced: Traced, leaves: Sequence[Any]) -> list[Any]:
        """What the trace's graph or call takes."""
        return [*self._sizes(traced, leaves), *[leaves[p] for p in traced.live]]

    def _prepared(self, traced: Traced, leaves: Sequence[Any]) -> Prepared | str:
        """The call of a trace that is one graph, its kernels compiled if need be, or why there is none."""
        assert traced.graph is not None
        with configuration.patch(**self.subject.options):
            try:
                return prepare(traced.graph, self._values(traced, leaves))
            except ConfigError:
                raise
            except ValueError as error:
                return str(error)

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
        if any(unfusable(o) is not None or o.is_inference() for o in outputs):
            return False
        if any(overlaps_itself(o.shape, o.stride()) for o in outputs):
            return False
        if list(traced.places) != list(range(len(outputs))):
            return False
        given = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if overlapping_pair([*outputs, *given], written=len(outputs)) is not None:
            return False
        values = self._values(traced, leaves)
        with configuration.patch(**self.subject.options):
            try:
                launches = prepare_into(traced.graph, values, outputs)
            except ConfigError:
                raise
            except ValueError:
                return False
        if isinstance(launches, str):
            return False
        inputs = [f"in{k}" for k in range(len(values))]
        names = [f"out{k}" for k in range(len(outputs))]
        text = Generated(f"into_{traced.graph.graph.key}", [*inputs, *names])
        write_launches(text, launches, inputs, names)
        text.function()(*values, *outputs)
        increment_version(outputs)
        return True
