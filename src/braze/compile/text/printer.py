"""A request to compile, printed; and the part of it that decides what code comes out, as a cache key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from braze._torch import shape_envs
from braze._torch.native import storage_id
from braze._torch.schema import foreign_signature
from braze._torch.shapes import shape_env_of
from braze._torch.state import default_dtype
from braze._torch.tracing import promised_strides, strides_of_outputs
from braze.compile.fx_compile import CompileRequest
from braze.compile.text.constants import as_stored, content_hash
from braze.compile.text.expressions import ExpressionPrinter
from braze.compile.text.graphs import Attributes, GraphPrinter, aligned
from braze.compile.text.values import ValuePrinter
from braze.compile.text.vocabulary import DTYPE_WORDS, FORMAT
from braze.config import Config, options
from braze.errors import UnserializableError

__all__ = ["Canonical", "RequestText", "canonical", "canonical_graph", "print_request"]


@dataclass(frozen=True)
class RequestText:
    """A printed request, and the tensors that it names, contiguous and on the CPU."""

    text: str
    constants: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Canonical:
    """The canonical text of a request, and the names in it of the trace's symbols. Two requests of the same
    text get the same code, whose symbols are matched through these names. ``parts`` are all of the text,
    taken apart into what a cache key names: the graph, its inputs, the options, and the state of PyTorch that
    lowerings read."""

    text: str
    symbols: dict[str, str]
    parts: tuple[tuple[str, str], ...] = ()


def print_request(
    request: CompileRequest, sections: Mapping[str, Sequence[str]] | None = None
) -> RequestText:
    """The whole request as text. `sections`: lines that somebody else wants to send along, by the name of
    their section; `sections_of` finds them again. Raises `UnserializableError`, which names the node, for
    what has no printed form."""
    printed = _Printed(request, renumber=False)
    lines = [FORMAT, "", *printed.header(), *printed.config(), *printed.conditions(), *printed.graphs()]
    for name, content in (sections or {}).items():
        lines += ["", f"[{name}]", *(f"  {line}" for line in content)]
    return RequestText("\n".join(lines) + "\n", printed.stored)


def canonical(request: CompileRequest) -> str:
    """The text that equal graphs share: no source lines, names, numbers of graphs or hints; only those
    options that affect code, and the default dtype, which lowerings promote to. The same in every process.
    Raises `UnserializableError`."""
    return canonical_graph(request).text


def canonical_graph(request: CompileRequest) -> Canonical:
    """`canonical`, with the names that it gives to the trace's symbols."""
    printed = _Printed(request, renumber=True)
    head = [FORMAT, f"kind = {request.kind}", f"visible outputs = {request.visible_outputs}"]
    options, conditions, graphs = (
        request.config.code_key(),
        list(printed.conditions()),
        list(printed.graphs()),
    )
    state = f"default_dtype={DTYPE_WORDS[default_dtype()]}"
    operators = printed.operators()
    inputs = [line for line in graphs if " = input" in line]
    rest = [line for line in graphs if " = input" not in line]
    parts = (
        ("graph", "\n".join([*head, *operators, *rest])),
        ("inputs", "\n".join([*conditions, *inputs])),
        ("tracing.state", state),
        ("config", options),
    )
    symbols = {str(symbol.name): name for symbol, name in printed.expressions.symbols.items()}
    return Canonical(
        "\n".join([*head, state, options, *operators, *conditions, *graphs]) + "\n", symbols, parts
    )


class _Printed:
    """One request, its graphs printed already: symbols and constants are known only then."""

    def __init__(self, request: CompileRequest, renumber: bool) -> None:
        self.request = request
        self.renumber = renumber
        self.expressions = ExpressionPrinter(renumber)
        self.attributes = Attributes()
        self.stored: dict[str, torch.Tensor] = {}
        placeholders = request.gm.graph.find_nodes(op="placeholder")
        if len(placeholders) != len(request.example_inputs):
            raise UnserializableError(
                f"the graph has {len(placeholders)} inputs, and {len(request.example_inputs)} are given"
            )
        self._main = GraphPrinter(request.gm, "", self.attributes, self.expressions, renumber)
        self._bodies = [("", self._body(self._main, request.example_inputs))]
        done = 0
        while done < len(self.attributes.graphs):
            path, gm = list(self.attributes.graphs.items())[done]
            inner = GraphPrinter(gm, path, self.attributes, self.expressions, renumber)
            self._bodies.append((path, self._body(inner)))
            done += 1
        self._constants = list(self._print_constants())
        self._promises = list(self._print_promises())

    def _body(self, printer: GraphPrinter, examples: Sequence[Any] | None = None) -> list[str]:
        words = () if examples is None else self._input_words(examples)
        rows = list(printer.rows(words, examples or ()))
        if self.renumber:
            lines = [f"{r.name}: {r.type} = {r.call}" if r.type else f"{r.name} = {r.call}" for r in rows]
        else:
            lines = list(aligned(rows))
        return [*lines, printer.output()]

    def _input_words(self, examples: Sequence[Any]) -> list[str]:
        static, words = self.request.static_inputs, []
        owners: dict[int, int] = {}
        nodes = self.request.gm.graph.find_nodes(op="placeholder")
        for position, value in enumerate(examples):
            word = "input static" if position in static else "input"
            if isinstance(value, torch.Tensor) and value.layout is torch.strided:
                if not self.renumber:
                    word += " parameter" if isinstance(value, torch.nn.Parameter) else ""
                    word += " grad" if value.requires_grad else ""
                owner = owners.setdefault(storage_id(value), position)
                if owner != position:
                    word += f" shares %{owner if self.renumber else nodes[owner].name}"
            words.append(word)
        return words

    # -- sections ---------------------------------------------------------------------------------------
    def header(self) -> Iterator[str]:
        yield "[request]"
        yield f"kind            = {self.request.kind}"
        yield f"graph           = {self.request.graph_id}"
        yield f"visible outputs = {self.request.visible_outputs}"

    def config(self) -> Iterator[str]:
        """The options that differ from their defaults."""
        ours, usual, values = self.request.config, Config(), ValuePrinter(self.expressions)
        changed = [o.name for o in options() if getattr(ours, o.name) != getattr(usual, o.name)]
        if changed:
            yield from ("", "[config]")
            width = max(map(len, changed))
            for name in changed:
                yield f"{name:<{width}} = {values.argument(getattr(ours, name))}"

    def conditions(self) -> Iterator[str]:
        """The symbols, and what is assumed of them."""
        names = self.expressions.symbols
        env = (self.request.shape_env or shape_env_of(self._first_values())) if names else None
        if env is None:
            return
        width = max(map(len, names.values()))
        yield from ("", "[symbols]")
        for symbol, name in names.items():
            yield _declaration(f"{name:<{width}}", shape_envs.facts_of(env, symbol), not self.renumber)
        conditions = []
        for condition in shape_envs.conditions_of(env, names):
            try:
                conditions.append(self.expressions.text(condition))
            except UnserializableError:
                continue  # what the compiler cannot say, it cannot have relied on
        if conditions:
            yield from ("", "[where]", *(sorted(conditions) if self.renumber else conditions))

    def _first_values(self) -> Iterator[Any]:
        for node in self.request.gm.graph.nodes:
            if node.meta.get("val") is not None:
                yield node.meta["val"]

    def operators(self) -> list[str]:
        """What is known of the operators that are not PyTorch's own, for each of them one line."""
        modules = (self.request.gm, *self.attributes.graphs.values())
        nodes = [node for gm in modules for node in gm.graph.nodes]
        # higher-order operators take the operator that they call as an argument
        found = {foreign_signature(one) for node in nodes for one in (node.target, *node.args)}
        return sorted(f"operator {text}" for text in found if text is not None)

    def graphs(self) -> Iterator[str]:
        if self._promises:
            yield from ("", "[promised strides]", *self._promises)
        if self._constants:
            yield from ("", "[constants]", *self._constants)
        for path, lines in self._bodies:
            yield from ("", f"[graph {path}]" if path else "[graph]", *lines)

    def _print_constants(self) -> Iterator[str]:
        for path, tensor in self.attributes.constants.items():
            stored = as_stored(tensor).clone() if not self.renumber else as_stored(tensor)
            self.stored[path] = stored
            yield f"@{path} = {self._main.values.tensor(tensor.detach())} sha256:{content_hash(stored)}"

    def _print_promises(self) -> Iterator[str]:
        """The strides that the caller expects of outputs which have others in the graph."""
        values = self._main.values
        pairs = zip(promised_strides(self.request.gm), strides_of_outputs(self.request.gm), strict=True)
        for position, both in enumerate(pairs):
            # numbers and expressions: to compare symbolic integers would guard on them
            promised, own = (None if s is None else values.plain(s) for s in both)
            if promised != own:
                text = "None" if promised is None else f"({values.sizes(promised)})"
                yield f"output {position} = {text}"


def _declaration(name: str, facts: shape_envs.SymbolFacts, hint: bool) -> str:
    if facts.is_float:
        text = f"{name} float"
    else:
        lower = "(-inf" if facts.lower is None else f"[{facts.lower}"
        upper = "inf)" if facts.upper is None else f"{facts.upper}]"
        text = f"{name} in {lower}, {upper}"
    if facts.size_like:
        text += " size"
    if facts.positive != facts.is_positive_by_name:
        text += " positive" if facts.positive else " signed"
    if hint and facts.hint is not None:
        text += f" hint {facts.hint!r}"
    return text
