"""A request to compile, printed; and the part of it that decides what code comes out, as a cache key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import Node

from braze._torch import shape_envs
from braze._torch.native import storage_id
from braze._torch.schema import foreign_signature
from braze._torch.shapes import shape_env_of
from braze._torch.state import default_dtype
from braze._torch.tracing import promised_strides, strides_of_outputs
from braze.compile.fx_compile import CompileRequest
from braze.compile.text.graphs import GraphPrinter, plain
from braze.compile.text.vocabulary import DTYPE_WORDS, FORMAT
from braze.config import Config, options
from braze.errors import Refused, UnserializableError
from braze.extensions import registry as extensions

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
    printed = _Printed(request, numbered=False)
    head = f"kind={request.kind!a}, graph={request.graph_id}, visible_outputs={request.visible_outputs}"
    lines = [FORMAT, f"request({head})"]
    ours, usual = request.config, Config()
    changed = [o.name for o in options() if getattr(ours, o.name) != getattr(usual, o.name)]
    if changed:
        values = [f"{name}={printed.argument(getattr(ours, name))}" for name in changed]
        lines.append(f"config({', '.join(values)})")
    for name, content in (sections or {}).items():
        lines.append(f"section({', '.join(map(ascii, (name, *content)))})")
    lines += [*printed.conditions(), *printed.promises, "", *printed.graph]
    return RequestText("\n".join(lines) + "\n", printed.constants)


def canonical(request: CompileRequest) -> str:
    """The text that equal graphs share: no source lines, names, numbers of graphs or hints; only those
    options that affect code, and the default dtype, which lowerings promote to. The same in every process.
    Raises `UnserializableError`."""
    return canonical_graph(request).text


def canonical_graph(request: CompileRequest) -> Canonical:
    """`canonical`, with the names that it gives to the trace's symbols."""
    printed = _Printed(request, numbered=True)
    head = f"request(kind={request.kind!a}, visible_outputs={request.visible_outputs})"
    graph = [FORMAT, head, *printed.operators(), *printed.promises, *printed.graph]
    parts = (
        ("graph", "\n".join(graph)),
        ("inputs", "\n".join([*printed.conditions(), *printed.inputs])),
        ("tracing.state", f"default_dtype={DTYPE_WORDS[default_dtype()]}"),
        ("config", request.config.code_key()),
    )
    symbols = {str(symbol.name): name for symbol, name in printed.expressions.symbols.items()}
    return Canonical("\n".join([text for _, text in parts]) + "\n", symbols, parts)


class _Printed(GraphPrinter):
    """One request, its graph printed already: symbols and constants are known only then."""

    def __init__(self, request: CompileRequest, numbered: bool) -> None:
        super().__init__(numbered)
        self.request = request
        self.inputs, self.graph = self.function(request.gm, "forward", inputs=self._inputs())
        self.promises = list(self._promises())

    def _inputs(self) -> Iterator[str]:
        """What the inputs are, and how they are given."""
        owners: dict[int, Node] = {}
        for position, node in enumerate(self.request.gm.graph.find_nodes(op="placeholder")):
            value = node.meta.get("val")
            words = [self.metadata(value)]
            if position in self.request.static_inputs:
                words.append("static")
            if isinstance(value, torch.Tensor) and value.layout is torch.strided:
                if not self.numbered:
                    words += ["parameter"] if isinstance(value, torch.nn.Parameter) else []
                    words += ["grad"] if value.requires_grad else []
                owner = owners.setdefault(storage_id(value), node)
                if owner is not node:
                    words.append(f"shares({self.names[owner]})")
            yield " & ".join(words)

    def operators(self) -> list[str]:
        """What is known of the operators that are not PyTorch's own, and what people registered for them."""
        found = {foreign_signature(target) for target in self.words}
        try:
            registered = extensions.texts(self.words)
        except Refused as error:
            raise UnserializableError(error.reason) from None
        lines = sorted(f"operator({signature!a})" for signature in found if signature is not None)
        return [*lines, *[f"extension({text!a})" for text in registered]]

    def conditions(self) -> Iterator[str]:
        """The symbols, and what is assumed of them."""
        names = self.expressions.symbols
        values = (n.meta.get("val") for n in self.request.gm.graph.nodes)
        env = (self.request.shape_env or shape_env_of(values)) if names else None
        if env is None:
            return
        yield from self.declarations(env)
        conditions = []
        for condition in shape_envs.conditions_of(env, names):
            try:
                conditions.append(f"assume({self.expressions.text(condition)})")
            except UnserializableError:
                continue  # what the compiler cannot say, it cannot have relied on
        yield from sorted(conditions) if self.numbered else conditions

    def _promises(self) -> Iterator[str]:
        """The strides that the caller expects of outputs which have others in the graph."""
        pairs = zip(promised_strides(self.request.gm), strides_of_outputs(self.request.gm), strict=True)
        for position, both in enumerate(pairs):
            # numbers and expressions: to compare symbolic integers would guard on them
            promised, own = (None if s is None else plain(s) for s in both)
            if promised != own:
                text = "None" if promised is None else f"[{self.sizes(promised)}]"
                yield f"promised_strides(output{position}={text})"
