"""A compiled graph as data: the artefact. What the JIT loads, what a worker sends back, what the cache stores
and what a package ships are the bytes that `CompiledFxGraph.prepare_for_serialization` gives.

Sections of the file (see `braze.artifact.container`): ``metadata`` (`schema.Metadata`), ``constants`` where
there are any, for each variant and module ``v0/m0.o``, the object code, and ``v0/m0.src``, the source it
came from, and for each graph of each call that takes graphs ``c0/g0``, an artefact like this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from braze import config
from braze.artifact import codec, container
from braze.artifact.consistency import check_plan, check_specs
from braze.artifact.constants import CompiledFxGraphConstants
from braze.artifact.graph_call import GraphCall
from braze.artifact.output_code import BoxedCall, OutputCode, OutputStrides
from braze.artifact.schema import (
    SCHEMA_VERSION,
    CallInfo,
    GraphInfo,
    Metadata,
    Part,
    TensorOutput,
    ValueOutput,
    VariantInfo,
)
from braze.errors import ArtifactError, InternalError, SignatureError, UnserializableError
from braze.runtime.callgen import CompiledCall, Instrument, build
from braze.runtime.engines import device_types, engine, is_known, kind_for
from braze.runtime.expr import Symbol
from braze.runtime.guard import BoolExpr
from braze.runtime.plan import SymbolRange
from braze.runtime.verify import verify

__all__ = ["CompiledFxGraph", "Module", "Variant"]


@dataclass(frozen=True)
class Module:
    """A piece of a backend's code: ``object``, which runs; ``ir``, the text that it was made of, at the level
    of optimisation ``opt_level``."""

    object: bytes | memoryview
    ir: bytes | memoryview
    opt_level: int


@dataclass(frozen=True)
class Variant:
    """One way to run the graph. ``info`` says what for, and holds the launch plan; ``modules``: the code of
    its parts, one part after the other."""

    info: VariantInfo
    modules: tuple[Module, ...]

    @property
    def parts(self) -> Iterator[tuple[Part, tuple[Module, ...]]]:
        """Each part with its modules."""
        begin = 0
        for part in self.info.parts:
            end = begin + len(part.opt_levels)
            yield part, self.modules[begin:end]
            begin = end

    @property
    def runs_here(self) -> bool:
        """Whether this process, on this machine, can run all of it. Raises ``ArtifactError`` for a part that
        describes nothing."""
        parts = self.info.parts
        return all(is_known(part.kind) and engine(part.kind).runs(part.made_for) for part in parts)

    @property
    def demands(self) -> tuple[tuple[int, ...], ...]:
        """How much of a machine it uses, part by part."""
        return tuple([engine(part.kind).demands(part.made_for) for part in self.info.parts])


@dataclass(eq=False)
class CompiledFxGraph(OutputCode):
    """Compiled code, and all that is known of it.

    Attributes:
        info: specs, guards, metrics, and the launch plan of each variant.
        variants: the code, in the order of ``info.variants``.
        constants: the tensors that the graph holds.
        externs: what the plan calls by ``python::<key>``: calls of operators that take graphs, which are a
            part of the artefact, and callables of this process.
        trusted: whether the code was made here, or signed by somebody whom this user trusts. Only then does
            any of it reach the linker.
        unstorable: why the graph cannot leave this process; None where it can.
        report: what `braze.inspect` knows of the compilation, where it happened in this process.
    """

    info: GraphInfo
    variants: tuple[Variant, ...]
    constants: CompiledFxGraphConstants = field(default_factory=CompiledFxGraphConstants)
    externs: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    trusted: bool = False
    unstorable: str | None = None
    report: object = None
    _run: CompiledCall | None = field(default=None, init=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.info.name

    @property
    def run(self) -> BoxedCall:
        if self._run is None:
            raise InternalError(f"{self.name} was called before post_compile")
        return self._run

    @property
    def output_strides(self) -> OutputStrides:
        return tuple([_strides(output) for output in self.info.outputs])

    @property
    def lasting(self) -> bool:
        return not self.info.metrics.counters.get("mishaps")

    @property
    def guards(self) -> tuple[BoolExpr, ...]:
        """What the sizes have to fulfil, beyond the guards of the trace."""
        return self.info.guards

    def variant(self) -> Variant:
        """The variant for this machine: the most demanding that it can run, those first that are of the kind
        that the options ask for. Raises ``ArtifactError`` if there is none."""
        if len(self.variants) == 1 and self.variants[0].runs_here:
            return self.variants[0]
        fitting = [v for v in self.variants if v.runs_here]
        if not fitting:
            made_for = ", ".join(v.info.target for v in self.variants) or "nothing at all"
            kinds = {part.kind: None for v in self.variants for part in v.info.parts}
            here = " and ".join([engine(kind).here().name for kind in kinds])
            raise ArtifactError(f"there is code for {made_for}, none of which {here} can run")
        usual = {kind_for(device) for device in device_types()}
        return max(
            reversed(fitting),  # of equals the first
            key=lambda v: (all(part.kind in usual for part in v.info.parts), v.demands),
        )

    @property
    def calls(self) -> dict[str, GraphCall]:
        """Its calls of operators that take graphs, by key."""
        return {key: call for key, call in self.externs.items() if isinstance(call, GraphCall)}

    # -- into the process -------------------------------------------------------------------------------
    def post_compile(
        self,
        module: object = None,
        *,
        min_parallel_work: int | None = None,
        instrument: Instrument | None = None,
    ) -> None:
        """See `OutputCode`; ``instrument`` as in `bind`. Raises ``SignatureError`` where the code is not
        trusted, ``ArtifactError`` where none of it runs on this machine, ``LinkError``, and
        ``InputMismatchError`` for constants that are bound by name and not in ``module``."""
        if self._run is None:
            self._run = self.bind(instrument, module, min_parallel_work=min_parallel_work)

    def bind(
        self,
        instrument: Instrument | None,
        module: object = None,
        *,
        min_parallel_work: int | None = None,
    ) -> CompiledCall:
        """A new function of this graph; ``instrument`` as in `runtime.callgen.build`."""
        if not self.trusted:
            raise SignatureError(f"the code of {self.name} was not made here and is not signed")
        chosen = self.variant()
        plan = chosen.info.plan
        if min_parallel_work is None:
            min_parallel_work = config.current().min_parallel_work
        for call in self.calls.values():
            call.post_compile(module, min_parallel_work=min_parallel_work)
        return build(
            plan,
            self.loaded(chosen),
            self.constants.bind(module),  # type: ignore[arg-type]
            externs=self.externs,
            instrument=instrument,
            min_parallel_work=min_parallel_work,
        )

    def loaded(self, variant: Variant) -> dict[str, Any]:
        """The code of a variant in this process, by kind; each call brings it there anew."""
        plan = variant.info.plan
        return {
            part.kind: engine(part.kind).load([bytes(m.object) for m in modules], plan)
            for part, modules in variant.parts
            if modules
        }

    def admits(self, sizes: Mapping[str, int]) -> bool:
        """Whether the code is right for these values of the size symbols."""
        return all(guard.evaluate(sizes) for guard in self.guards)

    # -- to bytes and back ------------------------------------------------------------------------------
    def prepare_for_serialization(self) -> bytes:
        if self.unstorable is not None:
            raise UnserializableError(f"{self.name} cannot be stored: {self.unstorable}")
        graph, symbols = codec.encode(self.info)
        metadata, _ = codec.encode(Metadata(SCHEMA_VERSION, _ranges(symbols), msgspec.Raw(graph)))
        sections: dict[str, bytes] = {"metadata": metadata}
        if len(self.constants):
            sections["constants"] = self.constants.to_bytes()
        for v, variant in enumerate(self.variants):
            for m, one in enumerate(variant.modules):
                sections[f"v{v}/m{m}.o"] = bytes(one.object)
                sections[f"v{v}/m{m}.src"] = bytes(one.ir)
        for c, described in enumerate(self.info.calls):
            for g, part in enumerate(self.calls[described.key].graphs):
                sections[f"c{c}/g{g}"] = part.prepare_for_serialization()
        compress = [name for name in sections if name == "metadata" or name.endswith(".src")]
        return container.pack(sections, compress=compress)

    @classmethod
    def after_deserialization(cls, data: bytes | memoryview, *, trusted: bool = False) -> CompiledFxGraph:
        """The graph that `prepare_for_serialization` stored. Everything is verified and nothing executed;
        ``trusted`` is the caller's word for the code, which `post_compile` asks for. Raises
        ``ArtifactError``."""
        sections = container.unpack(data)
        if "metadata" not in sections:
            raise ArtifactError("the artefact has no metadata")
        metadata = codec.decode(sections.pop("metadata"), Metadata, {})
        if metadata.schema != SCHEMA_VERSION:
            raise ArtifactError(f"its metadata are of version {metadata.schema}, not {SCHEMA_VERSION}")
        table = {r.symbol: Symbol(r.symbol, r.lower, r.upper) for r in metadata.symbols}
        if len(table) != len(metadata.symbols):
            raise ArtifactError("two symbols have one name")
        info = codec.decode(metadata.graph, GraphInfo, table)
        constants = CompiledFxGraphConstants()
        if "constants" in sections:
            constants = CompiledFxGraphConstants.from_bytes(sections.pop("constants"))
        variants = []
        for v, one in enumerate(info.variants):
            modules = []
            levels = [level for part in one.parts for level in part.opt_levels]
            for m, level in enumerate(levels):
                try:
                    code, ir = sections.pop(f"v{v}/m{m}.o"), sections.pop(f"v{v}/m{m}.src")
                except KeyError as error:
                    raise ArtifactError(f"the artefact lacks its section {error}") from None
                modules.append(Module(code, ir, level))
            variants.append(Variant(one, tuple(modules)))
        calls = {one.key: _call(one, f"c{c}", sections, trusted=trusted) for c, one in enumerate(info.calls)}
        if sections:
            raise ArtifactError(f"the artefact has one section too many: {sorted(sections)[0]!r}")
        graph = cls(info, tuple(variants), constants, calls, trusted=trusted)
        graph.check()
        return graph

    def check(self) -> None:
        """That the parts fit each other. Raises ``ArtifactError``."""
        if not self.variants:
            raise ArtifactError(f"{self.name} has no code")
        check_specs(self.info)
        for variant in self.variants:
            plan = variant.info.plan
            try:
                verify(plan)
            except Exception as error:
                raise ArtifactError(f"the launch plan of {self.name} is not valid: {error}") from error
            check_plan(self.info, plan)
            kinds = [part.kind for part in variant.info.parts]
            if len(set(kinds)) != len(kinds) or not kinds:
                raise ArtifactError(f"{self.name} has no part, or two, of one backend")
            if not plan.kinds <= {part.kind for part in variant.info.parts if part.opt_levels}:
                raise ArtifactError(f"{self.name} has a plan and no code for it")
            missing = [key for key in plan.constants if key not in self.constants]
            if missing:
                raise ArtifactError(f"{self.name} lacks its constant {missing[0]!r}")
            for target in plan.externs:
                if target.startswith("python::") and target.removeprefix("python::") not in self.calls:
                    raise ArtifactError(f"{self.name} calls {target}, which no artefact may")


def _call(info: CallInfo, folder: str, sections: dict[str, memoryview], *, trusted: bool) -> GraphCall:
    """A call whose graphs are sections of that folder; they are taken out. Raises ``ArtifactError``."""
    graphs = []
    for g in range(len(info.single)):
        try:
            data = sections.pop(f"{folder}/g{g}")
        except KeyError as error:
            raise ArtifactError(f"the artefact lacks its section {error}") from None
        graphs.append(CompiledFxGraph.after_deserialization(data, trusted=trusted))
    return GraphCall(info.key, info.operator, graphs, info.single)


def _strides(output: TensorOutput | ValueOutput) -> tuple[int, ...] | None:
    if isinstance(output, ValueOutput):
        return None
    known = [e.constant for e in output.spec.strides]
    return None if None in known else tuple([n for n in known if n is not None])


def _ranges(symbols: Iterable[Symbol]) -> tuple[SymbolRange, ...]:
    """The symbols as they are stored. Raises ``UnserializableError`` where one name stands for two."""
    found: dict[str, SymbolRange] = {}
    for symbol in symbols:
        upper = symbol.upper
        if symbol.name in found:
            raise UnserializableError(f"two symbols are called {symbol.name}")
        if upper is not None and upper.constant is None:
            raise UnserializableError(f"the bound of {symbol.name} is not a number")
        found[symbol.name] = SymbolRange(symbol.name, symbol.lower, None if upper is None else upper.constant)
    return tuple(found[name] for name in sorted(found))
