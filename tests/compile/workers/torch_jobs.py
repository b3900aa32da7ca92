"""Jobs for workers that have torch and the compiler loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

import msgspec

from braze import config
from braze.compile import remote_job as jobs


def warm() -> None:
    jobs.warm()


def look(payload: bytes) -> bytes:
    """What is loaded, and how torch is set, as JSON."""
    import torch

    return json.dumps(
        {
            "threads": torch.get_num_threads(),
            "compiler": "braze.compile.pipeline" in sys.modules,
            "inductor": "torch._inductor.compile_fx" in sys.modules,
            "llvm": "llvmlite.binding" in sys.modules,
            "sealed": config.sealed(),
        }
    ).encode()


def default_dtype(payload: bytes) -> bytes:
    """The default dtype that the compiler sees, with the state that came along, or without."""
    from braze._torch.state import default_dtype
    from braze.compile import torch_state as state

    if not payload:
        return str(default_dtype()).encode()
    with state.apply(msgspec.msgpack.decode(payload, type=state.TorchState)):
        return str(default_dtype()).encode()


def compile_module(payload: bytes) -> bytes:
    """Object code for a module, made where compile workers make it; and how many LLVM workers there are."""
    from braze.codegen.llvm import pool

    with config.using(config.Config()):
        made = pool.compile_ir(payload.decode(), cpu="generic").result(30)
        return made.object[:4] + str(len(pool.shared().worker_pids())).encode()


JOBS: Mapping[str, Callable[[bytes], bytes]] = {
    "look": look,
    "default_dtype": default_dtype,
    "compile_module": compile_module,
    "echo": jobs.echo,
}
