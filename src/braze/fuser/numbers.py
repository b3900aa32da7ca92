"""Floating-point numbers among a graph's inputs and outputs.

Compiled code takes such a number as a tensor of one element, and returns tensors only; functions pass
Python's numbers, and keep them for their backward.

A file of its own: tracing sees nothing but tensors, thanks to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch.fx import Node

from braze._torch.tracing import keep_promised_strides, promised_strides, set_promised_strides
from braze.artifact.output_code import BoxedCall, OutputStrides
from braze.compile.fx_compile import CompileRequest

__all__ = ["with_numbers"]

Adapt: TypeAlias = Callable[[BoxedCall], BoxedCall]
Widen: TypeAlias = Callable[[OutputStrides], OutputStrides]


def with_numbers(request: CompileRequest) -> tuple[CompileRequest, Adapt, Widen]:
    """A request without outputs that are numbers of the inputs; how its code is called with Python's
    numbers; and its output strides, widened by those outputs again."""
    inputs = request.gm.graph.find_nodes(op="placeholder")
    floats = [k for k, value in enumerate(request.example_inputs) if isinstance(value, torch.SymFloat)]
    numbers = [
        k
        for k, value in enumerate(request.example_inputs)
        if isinstance(value, (torch.SymFloat, torch.SymInt))
    ]
    output = request.gm.graph.output_node()
    values: Sequence[Any] = output.args[0]  # type: ignore[assignment]
    given = {k: inputs.index(v) for k, v in enumerate(values) if isinstance(v, Node) and v in inputs}
    given = {k: position for k, position in given.items() if position in numbers}
    if not floats and not given:
        return request, lambda run: run, lambda strides: strides
    kept = [k for k in range(len(values)) if k not in given]
    if given:
        keep_promised_strides(request.gm)
        promised = promised_strides(request.gm)
        output.args = (tuple(values[k] for k in kept),)
        set_promised_strides(request.gm, [promised[k] for k in kept])
        visible = sum(k < request.visible_outputs for k in kept)
        request = dataclasses.replace(request, visible_outputs=visible)

    def adapt(run: BoxedCall) -> BoxedCall:
        def call(arguments: list[Any]) -> Sequence[Any]:
            known = {k: arguments[position] for k, position in given.items()}
            for position in floats:
                arguments[position] = torch.scalar_tensor(arguments[position], dtype=torch.float64)
            results = run(arguments)
            if not given:
                return results
            rest = iter(results)
            return [known[k] if k in known else next(rest) for k in range(len(kept) + len(given))]

        return call

    def widen(strides: OutputStrides) -> OutputStrides:
        rest = iter(strides)
        return tuple([None if k in given else next(rest) for k in range(len(kept) + len(given))])

    return request, adapt, widen
