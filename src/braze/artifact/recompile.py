"""Code for this machine out of an artefact's sources, where it holds none that this machine can run."""

from __future__ import annotations

import msgspec

from braze.artifact.compiled_graph import CompiledFxGraph, Module, Variant
from braze.errors import ArtifactError, SignatureError
from braze.runtime.engines import engine

__all__ = ["for_this_machine", "recompiled"]


def for_this_machine(graph: CompiledFxGraph) -> CompiledFxGraph:
    """``graph`` itself if this machine can run one of its variants; otherwise with one variant, `recompiled`
    for it. Raises as that does."""
    try:
        graph.variant()
    except ArtifactError:
        return recompiled(graph)
    return graph


def recompiled(graph: CompiledFxGraph) -> CompiledFxGraph:
    """``graph`` with code for this machine alone, made of the sources of the variant that asks for least.

    Raises `SignatureError` where the graph is not trusted: a source is a program as well; `WorkerError` where
    no code can be made of it.
    """
    if not graph.trusted:
        raise SignatureError(f"the code of {graph.name} was not made here and is not signed")
    old = min(graph.variants, key=lambda variant: variant.demands)
    parts, modules = [], []
    for part, own in old.parts:
        made_for, objects = engine(part.kind).adapted(
            part.made_for, [(bytes(m.ir), m.opt_level) for m in own]
        )
        parts.append(msgspec.structs.replace(part, target=made_for.name, traits=dict(made_for.traits)))
        modules += [Module(code, m.ir, m.opt_level) for code, m in zip(objects, own, strict=True)]
    info = msgspec.structs.replace(old.info, parts=tuple(parts))
    calls = {key: call.of([recompiled(g) for g in call.graphs]) for key, call in graph.calls.items()}
    return CompiledFxGraph(
        msgspec.structs.replace(graph.info, variants=(info,)),
        (Variant(info, tuple(modules)),),
        graph.constants,
        {**graph.externs, **calls},
        trusted=True,
    )
