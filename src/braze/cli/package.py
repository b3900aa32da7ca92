"""``braze package``: what is in a package, and who signed it."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from braze.artifact.call_arguments import argument_paths
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.model_info import Model, Weight
from braze.artifact.package import WEIGHTS, Package, open_package, sign_package
from braze.artifact.schema import Input, NumberInput, TensorInput, TensorOutput
from braze.artifact.trees import leaf_paths
from braze.cache.keyring import KeyRing
from braze.cli.tables import add_row, table
from braze.dtypes import torch_name
from braze.errors import ArtifactError
from braze.runtime.engines import engine
from braze.words import amount

__all__ = ["package"]

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_key = click.option("--key", metavar="NAME", help="Which of your keys signs. [the youngest]")


@click.group()
def package() -> None:
    """Look at packages that `braze.aot_compile` made, sign them, and check who signed them."""


@package.command("show")
@click.argument("file", type=_file)
@click.option("--weights", "-w", is_flag=True, help="List every weight.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def show(file: Path, weights: bool, as_json: bool) -> None:
    """Show how a package's model is called and what it is made of. Checks everything in it; runs nothing."""
    opened = open_package(file)
    opened.digests()
    model = opened.model()
    graph, *others = opened.graphs(trusted=False)
    if as_json:
        click.echo(json.dumps(_plain(opened, model, graph), indent=2))
        return
    parts: list[Any] = [_title(opened), _calls(model, graph), _code(graph, others)]
    parts += [_operators(graph), _weights(opened, model, weights), _signatures(opened)]
    Console(highlight=False).print(Group(*[part for part in parts if part is not None]))


@package.command("sign")
@click.argument("file", type=_file)
@_key
def sign(file: Path, key: str | None) -> None:
    """Add your signature to a package. Those who trust your key can then require it."""
    signer = sign_package(file, KeyRing(), key)
    _say("✓ ", "green", file, f"signed by {signer.name}  ", signer.id)


@package.command("verify")
@click.argument("file", type=_file)
def verify(file: Path) -> None:
    """Check a package, and that somebody whom you trust signed it as it is."""
    try:
        signer = open_package(file).verify_signature(KeyRing())
    except ArtifactError as error:
        _say("✗ ", "red", file, error.what, "")
        sys.exit(1)
    _say("✓ ", "green", file, f"signed by {signer.name}  ", signer.id)


def _say(mark: str, style: str, file: Path, text: str, identity: str) -> None:
    line = Text.assemble((mark, style), (str(file), "bold"), f": {text}", (identity, "cyan"))
    Console(highlight=False, soft_wrap=True).print(line)


# -- tables -----------------------------------------------------------------------------------------------
def _title(opened: Package) -> Text:
    made = f"made by braze {opened.manifest.braze} with torch {opened.manifest.torch}"
    size = amount(os.path.getsize(opened.path), "B")
    return Text.assemble((opened.path, "bold"), f"  {size}, ", (made, "dim"))


def _calls(model: Model, graph: CompiledFxGraph) -> Table:
    shown = table("", "type", "sizes", "", title="How it is called")
    for path, text in _arguments(model, graph):
        add_row(shown, path, *text)
    for path, spec in zip(leaf_paths(model.parameters.results, "result"), graph.info.outputs, strict=True):
        kind = torch_name(spec.spec.dtype) if isinstance(spec, TensorOutput) else "value"
        sizes = _list(spec.spec.sizes) if isinstance(spec, TensorOutput) else str(spec.value)
        add_row(shown, Text(path, "green"), kind, sizes, "")
    for one in model.ranges:
        add_row(shown, Text(one.symbol, "dim"), "", Text(str(one), "dim"), "")
    return shown


def _arguments(model: Model, graph: CompiledFxGraph) -> Iterator[tuple[str, tuple[str, str, str]]]:
    items = {
        slot.given: item
        for slot, item in zip(model.slots, graph.info.inputs, strict=True)
        if slot.weight is None
    }
    for leaf, (path, given) in enumerate(zip(argument_paths(model.parameters), model.given, strict=True)):
        if given.kind == "constant":
            yield path, ("constant", repr(given.value), "part of the program")
            continue
        item = items[leaf]
        note = "written to" if isinstance(item, TensorInput) and item.mutated else ""
        yield path, (*_described(item), note)


def _described(item: Input) -> tuple[str, str]:
    if isinstance(item, TensorInput):
        return torch_name(item.spec.dtype), _list(item.spec.sizes)
    return ("int", str(item.expression)) if isinstance(item, NumberInput) else ("unused", "")


def _code(graph: CompiledFxGraph, others: Sequence[CompiledFxGraph]) -> Table:
    shown = table("for", "vectors", ">kernels", ">object code", "", title="Code")
    try:
        chosen = graph.variant()
    except ArtifactError:
        chosen = None
    for position, variant in enumerate(graph.variants):
        every = [variant, *[other.variants[position] for other in others]]
        size = sum(len(module.object) for one in every for module in one.modules)
        kernels = sum(len(one.info.kernels) for one in every)
        runs = Text("here", "green") if variant is chosen else Text("", "dim")
        if not variant.runs_here:
            runs = Text("not on this machine", "dim")
        widths = ", ".join(engine(part.kind).width(part.made_for) for part in variant.info.parts)
        add_row(shown, variant.info.target, widths, str(kernels), amount(size, "B"), runs)
    if chosen is None:
        add_row(
            shown, "this machine", "", "", "", Text("compiled from its source when it is loaded", "yellow")
        )
    if others:
        shown.caption = f"in {len(others) + 1} graphs: sizes of 0 or 1 have their own"
        shown.caption_justify = "left"
    return shown


def _operators(graph: CompiledFxGraph) -> Text | None:
    metrics = graph.info.metrics
    called = Counter([call.op for call in metrics.externs] + [one.op for one in metrics.fallbacks])
    if not called:
        return None
    names = ", ".join(f"{name} {times}x" if times > 1 else name for name, times in sorted(called.items()))
    return Text.assemble(("Operators of PyTorch's that it calls\n", "bold"), f"{names}\n")


def _weights(opened: Package, model: Model, every: bool) -> Table | None:
    if not model.weights:
        return None
    shown = table("name", "kind", "type", "sizes", ">size", "", title="Weights")
    inside = WEIGHTS in opened.members
    for weight in model.weights if every else ():
        add_row(shown, *_weight(weight, inside))
    for kind in ("parameter", "buffer", "constant"):
        of_kind = [weight for weight in model.weights if weight.kind == kind]
        if of_kind and not every:
            size = amount(sum(weight.nbytes for weight in of_kind), "B")
            note = "" if inside or kind == "constant" else "bound after loading"
            add_row(shown, f"{len(of_kind)} in all", f"{kind}s", "", "", size, Text(note, "yellow"))
    return shown


def _weight(weight: Weight, inside: bool) -> tuple[str, str, str, str, str, str]:
    notes = ["written to"] if weight.mutated else []
    if not inside and weight.kind != "constant" and weight.persistent:
        notes.append("bound after loading")
    size = amount(weight.nbytes, "B")
    return weight.name, weight.kind, torch_name(weight.dtype), _list(weight.sizes), size, ", ".join(notes)


def _signatures(opened: Package) -> Text:
    if not opened.signers:
        return Text(
            "not signed: loading it runs its code all the same, unless a signature is required", "dim"
        )
    try:
        signer = opened.verify_signature(KeyRing())
    except ArtifactError as error:
        return Text(f"signed by {', '.join(opened.signers)}: {error.what}", "yellow")
    return Text.assemble(("signed by ", "green"), (signer.name, "bold"), f"  {signer.id}")


def _list(values: Any) -> str:
    return f"[{', '.join(map(str, values))}]"


def _plain(opened: Package, model: Model, graph: CompiledFxGraph) -> dict[str, Any]:
    return {
        "path": opened.path,
        "braze": opened.manifest.braze,
        "torch": opened.manifest.torch,
        "members": {name: member.size for name, member in opened.members.items()},
        "arguments": [
            {"name": path, "type": kind, "sizes": sizes}
            for path, (kind, sizes, _) in _arguments(model, graph)
        ],
        "ranges": [{"symbol": r.symbol, "lower": r.lower, "upper": r.upper} for r in model.ranges],
        "targets": [variant.info.target for variant in graph.variants],
        "weights": [
            {"name": w.name, "kind": w.kind, "dtype": torch_name(w.dtype), "sizes": list(w.sizes)}
            for w in model.weights
        ],
        "weights_inside": WEIGHTS in opened.members,
        "signers": list(opened.signers),
    }
