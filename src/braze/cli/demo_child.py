"""One measured process of the demo: build the model, call it for the first time, then wait for orders.

Each way of running the model gets a process of its own, so that the first call is a cold one. The parent
talks to it in lines: it gets JSON objects with an ``event``, and sends ``round SECONDS`` or ``kernels``.

    {"event": "ready"}                      torch and transformers are imported, the model is built
    {"event": "first", "seconds": 1.5}      torch.compile and the first call; its result is in FOLDER/NAME.npy
    {"event": "round", "ms": [4.1, ...]}    the duration of each call of a round
    {"event": "kernels", ...}               a `KernelReport`
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypedDict

import numpy as np
import torch
from transformers import BertConfig, BertModel

import braze
from braze.cli.demo_model import BATCH, BERT, SEQUENCE

__all__ = ["KernelReport", "KernelRow", "main"]


class KernelRow(TypedDict):
    """A kernel (or the ATen calls of one name) and what it cost in a call of the model."""

    name: str
    launches: int
    operators: list[str]
    source: str
    microseconds: float
    share: float


class KernelReport(TypedDict):
    """What `braze.explain` says, in the form in which the demo shows it; shares are of the whole call."""

    event: str
    kernels: list[KernelRow]
    externs: list[KernelRow]
    fallbacks: list[str]
    graph_breaks: int


def _model() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    config = BertConfig(**BERT)
    model = BertModel(config).eval()
    tokens = torch.randint(0, config.vocab_size, (BATCH, SEQUENCE))
    mask = torch.ones_like(tokens)
    mask[:, SEQUENCE * 3 // 4 :] = 0
    return model, {"input_ids": tokens, "attention_mask": mask}


def _round(call: Callable[[], object], seconds: float) -> list[float]:
    """Call until the time is up, twice at least; milliseconds of each call."""
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while len(durations) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        durations.append((time.perf_counter() - start) * 1e3)
    return durations


def _serve(way: str, folder: Path, orders: TextIO, answers: TextIO) -> None:
    def answer(event: str, **fields: object) -> None:
        print(json.dumps({"event": event, **fields}), file=answers, flush=True)

    model, inputs = _model()
    answer("ready")
    with torch.no_grad():
        start = time.perf_counter()
        function: Any = model if way == "eager" else torch.compile(model, backend=way)
        result = function(**inputs).last_hidden_state
        answer("first", seconds=time.perf_counter() - start)
        np.save(folder / f"{way}.npy", result.numpy())
        for line in orders:
            order, *arguments = line.split()
            if order == "round":
                answer("round", ms=_round(lambda: function(**inputs), float(arguments[0])))
            elif order == "kernels":
                answer(**_kernels(model, inputs))


def _row(entry: Any, total: float) -> KernelRow:
    return KernelRow(
        name=entry.name,
        launches=entry.launches,
        operators=list(entry.operators),
        source=entry.source or "",
        microseconds=entry.time_us,
        share=entry.time_us / total if total else 0.0,
    )


def _kernels(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> KernelReport:
    report = braze.explain(model, **inputs)
    total = sum(entry.time_us for entry in (*report.kernels, *report.externs))
    return KernelReport(
        event="kernels",
        kernels=[_row(entry, total) for entry in report.kernels],
        externs=[_row(entry, total) for entry in report.externs],
        fallbacks=[str(fallback) for fallback in report.fallbacks],
        graph_breaks=len(report.graph_breaks),
    )


def main() -> None:
    """``python -m braze.cli.demo_child WAY FOLDER``; WAY is eager or the name of a backend."""
    way, folder = sys.argv[1:]
    # Libraries print to stdout when they feel like it: the protocol gets a descriptor of its own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(way, Path(folder), sys.stdin, answers)


if __name__ == "__main__":
    main()
