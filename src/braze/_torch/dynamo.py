"""Dynamo: the list of backends, the counters that it keeps, and why it broke graphs."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo import exc, utils
from torch._dynamo.backends import registry
from torch._dynamo.guards import GuardBuilder, install_guard
from torch._dynamo.source import GlobalStateSource
from torch._dynamo.utils import counters
from torch._guards import Guard, TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.fx import GraphModule

from braze._torch.hidden import untraced
from braze.config import Watch

__all__ = [
    "FAKE",
    "break_reasons",
    "compile_again_unless",
    "compile_apart",
    "compiles_a_frame",
    "graph_breaks",
    "is_for_dynamo",
    "original_callable",
    "register_backend",
    "replace_backend",
    "untraced",
    "unusual_input",
    "watch_forward_mode",
]


FAKE = "a fake tensor"


def register_backend(name: str, function: Callable[..., Any]) -> None:
    """Make `torch.compile(backend=name)` find `function`. Does nothing where the name is taken, as it is when
    the installed package's entry point was found first."""
    if name not in registry.list_backends(exclude_tags=()):
        registry.register_backend(function, name=name)


def replace_backend(name: str, function: Callable[..., Any]) -> None:
    """Have `torch.compile(backend=name)` find `function`, and nothing else, in this process."""
    registry.list_backends()  # entry points are looked for once, and would come later
    registry._BACKENDS.setdefault(name, None)
    registry._COMPILER_FNS[name] = function


def graph_breaks() -> Counter[str]:
    """Reason of each graph break since the last `torch._dynamo.reset()`, and how often it happened."""
    return Counter(counters["graph_break"])


def break_reasons() -> list[tuple[str, str]]:
    """Each graph break since the last `torch._dynamo.reset()`, in order: the reason, and the user's line as
    ``file:line: code`` (empty where it is not known)."""
    found = []
    for reason in utils.graph_break_reasons:
        frame = reason.user_stack[-1] if reason.user_stack else None
        where = "" if frame is None else f"{frame.filename}:{frame.lineno}: {(frame.line or '').strip()}"
        found.append((reason.reason, where))
    return found


def original_callable(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `torch.compile` was given where `function` is its result; else `function` itself."""
    inner = getattr(function, "_orig_mod", None) or getattr(function, "_torchdynamo_orig_callable", None)
    return function if inner is None else original_callable(inner)


def compile_apart(function: Callable[..., Any], backend: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile(function, backend=backend)` that leaves other compilations of the same code alone: it
    does not count towards the number of times that Dynamo compiles it before it gives up. A PyTorch that has
    no way to say so counts it."""
    known = inspect.signature(torch.compile).parameters
    apart: dict[str, Any] = {"isolate_recompiles": True} if "isolate_recompiles" in known else {}
    compiled: Callable[..., Any] = torch.compile(function, backend=backend, **apart)
    return compiled


def compile_again_unless(watch: Watch) -> None:
    """Make it a guard of the frame that is being compiled that the options of ``watch`` hold where it is
    called. Dynamo keeps what it compiled for other options, and finds it again when they hold again. Does
    nothing where no frame is being compiled."""
    context = TracingContext.try_get()
    if context is None:
        return
    guards = context.guards_context.dynamo_guards
    mine = [getattr(guard.create_fn, "args", ()) for guard in guards]
    if (watch,) not in mine:  # a frame may come in several graphs
        guards.add(Guard(GlobalStateSource(), functools.partial(_guard_options, watch)))


def compiles_a_frame() -> bool:
    """Whether Dynamo has called its backend, and will call what that returns."""
    return TracingContext.try_get() is not None


def _guard_options(watch: Watch, builder: Any, guard: Guard) -> None:
    said = ["the options of braze.config are those that it was compiled for"]
    add = builder.guard_manager.root.add_lambda_guard
    try:
        add(watch.checker(), said, guard.user_stack)
    except TypeError:  # a PyTorch whose guards do not know the user's lines
        add(watch.checker(), said)


def watch_forward_mode() -> bool:
    """Whether forward-mode differentiation is on; have what is being compiled used only where that is as it
    is now. Dynamo by itself does not look."""
    guard = getattr(GuardBuilder, "DUAL_LEVEL", None)
    if guard is not None and TracingContext.try_get() is not None:
        install_guard(GlobalStateSource().make_guard(guard))
    return forward_ad._current_level >= 0


def unusual_input(gm: GraphModule) -> str | None:
    """What an input of Dynamo's graph is whose fake tensor looks like any other, and whose memory is not, or
    not there; None where there is no such input."""
    for node in gm.graph.find_nodes(op="placeholder"):
        given = getattr(node.meta.get("grapharg"), "example", None)
        if isinstance(given, FakeTensor):
            return FAKE
        if isinstance(given, torch.Tensor) and given.is_mkldnn:
            return "a tensor of oneDNN's"
        if isinstance(given, torch.Tensor) and torch._C._dispatch_keys(given).has(
            torch._C.DispatchKey.ZeroTensor
        ):
            return "a tensor of zeros without memory"
    return None


def is_for_dynamo(error: BaseException) -> bool:
    """Whether an exception in a backend is no failure: it asks Dynamo to trace again, or to leave the frame
    alone."""
    return isinstance(error, (exc.RestartAnalysis, exc.SkipFrame))
