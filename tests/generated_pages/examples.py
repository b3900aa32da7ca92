"""The functions that the pages show, compiled for a stated target without being run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from braze import config
from braze.codegen.backend import KernelReport
from braze.codegen.backends import generate, limits_under
from braze.codegen.llvm.generate import KernelCode
from braze.codegen.llvm.native import NativeCode
from braze.codegen.plan.build import build_plan
from braze.config import Config
from braze.ir.graph import Graph
from braze.lowering.graph import GraphLowering
from braze.ops.kernel import Kernel
from braze.runtime.callgen import source_of
from braze.runtime.plan import Plan
from braze.schedule.schedule import Schedule, schedule
from tests.lowering.execute import trace

__all__ = ["Compiled", "compiled", "gelu", "softmax_of_norm", "softmax_rows", "source_of"]

Example = Callable[[torch.Tensor], torch.Tensor]


def softmax_rows(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


def gelu(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x)


def softmax_of_norm(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(torch.nn.functional.layer_norm(x, x.shape[-1:]), -1)


@dataclass(frozen=True)
class Compiled:
    """What a function becomes, stage by stage."""

    python: str
    fx: GraphModule
    ir: Graph
    schedule: Schedule
    kernels: tuple[Kernel, ...]
    codes: tuple[KernelCode, ...]
    reports: tuple[KernelReport, ...]
    plan: Plan


def compiled(function: Example, target: str, rows: int = 2048, columns: int = 1024) -> Compiled:
    """``function`` of a float32 matrix."""
    gm = trace(function, torch.empty(rows, columns))
    lowering = GraphLowering(gm, Config())
    graph = lowering.run()
    options = Config().replace(target_cpu=target)
    limits = limits_under(options)
    scheduled = schedule(graph, limits)
    with config.using(options):
        code = generate(scheduled, options)
    (native,) = code.parts.values()
    assert isinstance(native, NativeCode)
    built = build_plan(scheduled, code, limits, function.__name__, lowering.sizes.symbols, ())
    kernels = tuple(scheduled.kernels)
    python = inspect.getsource(function)
    return Compiled(python, gm, graph, scheduled, kernels, native.codes, code.reports, built.plan)
