"""The jobs of minifying in a worker whose compiler has defects, each in one function: a lowering that is
another's, one that raises, one that is wrong for one size, one that ends the process; a kernel that no code
is made for; and results that lie in memory as nobody asked."""

from __future__ import annotations

from typing import Any

import torch

from braze.codegen.llvm import native
from braze.inspect.fuzz import jobs
from braze.inspect.fuzz.jobs import JOBS
from braze.lowering import graph, registry
from tests.inspect.fuzz.faulty_jobs import aborts

__all__ = ["JOBS", "warm"]

aten = torch.ops.aten


def raises(*arguments: Any) -> Any:
    raise KeyError("asinh")


def warm() -> None:
    jobs.warm()
    known = registry.LOWERINGS
    erfc, expm1 = known[aten.erfc.default], known[aten.expm1.default]
    generate, promised = vars(native)["generate"], vars(graph)["promised_strides"]

    def wrong_for_seven(ctx: Any, x: Any) -> Any:
        return (erfc if str(x.size[-1]) == "7" else expm1)(ctx, x)

    def generate_but_for_cosh(kernel: Any, *arguments: Any, **named: Any) -> Any:
        if "cosh(" in str(kernel):
            raise AssertionError("there is no code for cosh")
        return generate(kernel, *arguments, **named)

    def reversed_for_atan(gm: Any) -> Any:
        found = promised(gm)
        if not gm.graph.find_nodes(op="call_function", target=aten.atan.default):
            return found
        return [None if one is None else tuple(reversed(one)) for one in found]

    known[aten.erf.default] = erfc
    known[aten.asinh.default] = raises
    known[aten.sinh.default] = aborts
    known[aten.expm1.default] = wrong_for_seven
    vars(native)["generate"] = generate_but_for_cosh
    vars(graph)["promised_strides"] = reversed_for_atan
