"""A request as what it is compiled to, printed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from braze import config
from braze.artifact.constants import CompiledFxGraphConstants
from braze.codegen.backends import generate, limits_under
from braze.codegen.llvm import native
from braze.codegen.llvm.generate import KernelCode
from braze.codegen.llvm.pool import CompiledObject
from braze.codegen.plan.build import build_plan
from braze.compile.debug_file import CONSTANTS
from braze.compile.fx_compile import CompileRequest
from braze.compile.guards import GuardWatch
from braze.compile.text.parser import parse_request
from braze.lowering import families as families  # fills the registry of lowerings
from braze.lowering.graph import GraphLowering
from braze.schedule.schedule import schedule

GRAPHS = Path(__file__).with_name("graphs")
EXPECTED = Path(__file__).with_name("expected")
TARGETS = ("x86-64-v4", "x86-64-v3")

_INSTRUCTION = re.compile(r"^\s+(?:%\S+ = )?(?:tail )?([a-z]+)(.*)$")
_CALLEE = re.compile(r"@([\w.]+)\(")


def names() -> list[str]:
    """Of the graphs there are."""
    return sorted(path.stem for path in GRAPHS.glob("*.txt"))


def printed(name: str) -> str:
    """What the request of that name is compiled to, by the code of this checkout."""
    return "\n".join(_sections(_request(name))) + "\n"


def _request(name: str) -> CompileRequest:
    path = GRAPHS / f"{name}.txt"
    constants = path.with_name(f"{name}.{CONSTANTS}")
    stored = CompiledFxGraphConstants.from_bytes(constants.read_bytes()).stored if constants.exists() else {}
    return parse_request(path.read_text(encoding="utf-8"), stored)


def _sections(request: CompileRequest) -> Iterator[str]:
    watch = GuardWatch(request.shape_env)
    lowering = GraphLowering(
        request.gm, request.config, request.static_inputs, request.visible_outputs, forced={}
    )
    limits = limits_under(request.config)
    scheduled = schedule(lowering.run(), limits)
    yield from (f"fallback {origin.operator}: {reason}" for origin, reason in lowering.fallbacks)
    yield str(scheduled)
    assumed = watch.assumed(lowering.sizes.condition)
    symbols = lowering.sizes.symbols
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "compile_ir", _not_compiled)
        for target in TARGETS:
            yield f"\n-- {target}"
            with config.using(request.config.replace(target_cpu=target)):
                code = generate(scheduled, config.current())
            (part,) = code.parts.values()
            assert isinstance(part, native.NativeCode)
            for kernel, own in zip(scheduled.kernels, part.codes, strict=True):
                yield f"{kernel.name}: {own.plan}"
                if target == TARGETS[0]:
                    yield str(own.program)
                yield from _counted(own)
    built = build_plan(scheduled, code, limits, request.name, symbols, assumed)
    yield f"\n-- launch\n{built.plan}"


def _not_compiled(*args: Any, **kwargs: Any) -> Future[CompiledObject]:
    return Future()


def _counted(code: KernelCode) -> Iterator[str]:
    """How often each instruction is in a kernel, calls by what they call: another order or other names of
    values are no other code."""
    counts: Counter[str] = Counter()
    for line in code.text.splitlines():
        found = _INSTRUCTION.match(line)
        if found is not None:
            callee = _CALLEE.search(found[2]) if found[1] == "call" else None
            counts[callee[1] if callee is not None else found[1]] += 1
    text = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    yield f"  {sum(counts.values())} instructions: {text}"
