"""Fused functions of tensors without Dynamo: `braze.fuse`, and the interface below it.

=======================  =====================================================================================
`fuse`                   one fused function for every shape, as a decorator
`fuse_graph`             the fusable subgraphs of an `fx.GraphModule`, each as one fusion node
`register_fusion`        a graph to be fused; equal graphs share a key
`run_fusion`             run it on tensors and numbers
`can_fuse_on`            whether there is a code generator for a device, and it is enabled
`enable`, `disable`      for a type of device
`stats`                  what was traced, compiled, loaded, and what ran as eager PyTorch, and why
`debug_kernel_source`    the generated code for some arguments
`debug_launch`           launch the kernel for some arguments, or raise
`kernels`                the graphs that act on each element by itself, with their kernels
`compiled_kernel_count`  how many kernels there are
=======================  =====================================================================================

Loaded when used: a library that declares fused functions pays for tracing and compiling at their first call.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "FuserStats",
    "FusionNode",
    "can_fuse_on",
    "compiled_kernel_count",
    "debug_kernel_source",
    "debug_launch",
    "disable",
    "enable",
    "fuse",
    "fuse_graph",
    "is_enabled",
    "kernels",
    "register_fusion",
    "run_fusion",
    "stats",
]

_HOMES = {
    "FuserStats": "braze.fuser.fallback",
    "FusionNode": "braze.fuser.graphs",
    "can_fuse_on": "braze.fuser.fallback",
    "compiled_kernel_count": "braze.fuser.graphs",
    "debug_kernel_source": "braze.fuser.graphs",
    "debug_launch": "braze.fuser.graphs",
    "disable": "braze.fuser.fallback",
    "enable": "braze.fuser.fallback",
    "fuse": "braze.fuser.function",
    "fuse_graph": "braze.fuser.graphs",
    "is_enabled": "braze.fuser.fallback",
    "kernels": "braze.fuser.graphs",
    "register_fusion": "braze.fuser.graphs",
    "run_fusion": "braze.fuser.graphs",
    "stats": "braze.fuser.fallback",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'braze.fuser' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
