"""Exceptions raised at the entry of functions of Braze's, and what the process looks like afterwards.

A function is given other code for a while. So it raises whoever calls it, and by whatever name it was
imported; and which functions there are to try is seen by running."""

from __future__ import annotations

import builtins
import gc
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
from torch._decomp import decompositions as torch_decompositions
from torch._functorch import config as functorch_config
from torch._functorch import partitioners
from torch._guards import TracingContext, detect_fake_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from braze import config

__all__ = ["Place", "called_by", "failing", "state"]


@dataclass(frozen=True)
class Place:
    """A function, by its code. ``caller``: the room (folder of the package) that it was first entered from,
    empty where that was not Braze."""

    module: str
    name: str
    caller: str = field(compare=False)
    code: CodeType = field(compare=False, repr=False)

    @property
    def room(self) -> str:
        return _room(self.module)

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "braze" and len(parts) > 1 else ""


def _place_of(frame: FrameType) -> Place | None:
    module = str(frame.f_globals.get("__name__", ""))
    code = frame.f_code
    if not module.startswith("braze.") or code.co_name.startswith("<"):
        return None
    back = frame.f_back
    caller = "" if back is None else _room(str(back.f_globals.get("__name__", "")))
    return Place(module, getattr(code, "co_qualname", code.co_name), caller, code)


@contextmanager
def _profiled(hook: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """In this thread, and in those that begin inside the block."""
    before = sys.getprofile()
    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        yield
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]


def called_by(action: Callable[[], object]) -> list[Place]:
    """The functions of Braze's that ``action`` enters, each once, in order."""
    found: dict[CodeType, Place | None] = {}

    def hook(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code not in found:
            found[frame.f_code] = _place_of(frame)

    with _profiled(hook):
        action()
    return [place for place in found.values() if place is not None]


@contextmanager
def failing(code: CodeType, error: Callable[[], BaseException]) -> Iterator[list[BaseException]]:
    """Inside the block every call of the functions with ``code`` raises what ``error`` makes; gives a list of
    what was raised. Functions that are made inside the block, by others, are not among them."""
    raised: list[BaseException] = []

    def make() -> BaseException:
        raised.append(error())
        return raised[-1]

    functions = [f for f in gc.get_referrers(code) if isinstance(f, FunctionType) and f.__code__ is code]
    # closures have to have as many cells as before
    raising = _raise.__code__.replace(co_freevars=code.co_freevars, co_name=code.co_name)
    vars(builtins)[_NAME] = make
    for function in functions:
        function.__code__ = raising
    try:
        yield raised
    finally:
        for function in functions:
            function.__code__ = code
        del vars(builtins)[_NAME]


_NAME = "_injected_by_tests"


def _raise(*args: Any, **kwargs: Any) -> Any:
    raise _injected_by_tests()  # type: ignore[name-defined]  # noqa: F821


def state() -> dict[str, Any]:
    """What a compilation changes while it runs and has to put back."""
    dynamo = torch._C._dynamo.eval_frame
    callback = dynamo.set_eval_frame(None)
    dynamo.set_eval_frame(callback)
    return {
        "frame evaluation": callback,
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch modes": len(_get_current_dispatch_mode_stack()),
        "fake mode": detect_fake_mode(),
        "tracing context": TracingContext.try_get(),
        "functorch": torch._C._functorch.peek_interpreter_stack(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "AOTAutograd's settings": functorch_config.get_config_copy(),
        "Dynamo's settings": torch._dynamo.config.get_config_copy(),
        "options": config.current(),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "levels": {name: logging.getLogger(name).level for name in ("", "braze")},
        "switch interval": sys.getswitchinterval(),
        "garbage": gc.isenabled(),
        "cuts": partitioners.min_cut_rematerialization_partition,
        "lstm": torch_decompositions.select_one_layer_lstm_function,
    }


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Raises ``AssertionError`` where it does not come true in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
