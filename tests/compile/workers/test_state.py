"""PyTorch's switches travel with a job, and nothing else of PyTorch's is read by the compiler."""

from __future__ import annotations

import ast
import threading
import time
from pathlib import Path

import msgspec
import pytest
import torch

from braze import config
from braze._torch import state as torch_state
from braze.compile import torch_state as state
from braze.compile.torch_state import TorchState
from braze.errors import ConfigError, InternalError, UnserializableError
from tests.source_tree import PACKAGE, dotted, python_files, tree

PLAIN = TorchState("float32", "default")
OTHER = TorchState("float64", "warn")


def test_capture_says_what_holds() -> None:
    assert state.capture() == PLAIN
    with state.apply(OTHER):
        assert torch.get_default_dtype() is torch.float64
        assert torch.get_deterministic_debug_mode() == 1
        assert state.capture() == OTHER
        with state.apply(OTHER):
            assert torch_state.default_dtype() is torch.float64
        assert state.capture() == OTHER
    assert state.capture() == PLAIN


def test_it_travels_as_bytes_and_is_checked() -> None:
    data = msgspec.msgpack.encode(OTHER)
    assert msgspec.msgpack.decode(data, type=TorchState) == OTHER
    wrong = msgspec.msgpack.encode({"default_dtype": "int64", "deterministic": "warn"})
    with pytest.raises(msgspec.ValidationError, match="default_dtype"):
        msgspec.msgpack.decode(wrong, type=TorchState)


def test_a_dtype_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.complex64)
    with pytest.raises(UnserializableError, match="complex64"):
        state.capture()


def test_two_states_at_once_in_one_thread_are_a_defect() -> None:
    with state.apply(OTHER), pytest.raises(InternalError), state.apply(PLAIN):
        pass
    assert state.capture() == PLAIN


def test_threads_that_want_different_states_take_turns() -> None:
    wrong = []

    def work(wanted: TorchState) -> None:
        for _ in range(20):
            with state.apply(wanted):
                time.sleep(0.0005)
                if state.capture() != wanted:
                    wrong.append(wanted)

    threads = [
        threading.Thread(target=work, args=(s,)) for s in (PLAIN, OTHER, TorchState("bfloat16", "error")) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert state.capture() == PLAIN


def test_a_sealed_process_reads_only_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_sealed", True)
    with pytest.raises(ConfigError, match="default dtype"):
        torch_state.default_dtype()
    with state.apply(OTHER):
        assert torch_state.default_dtype() is torch.float64
    with pytest.raises(ConfigError, match="an option was read"):
        config.current()
    with pytest.raises(ConfigError, match="an option was read"), config.patch(strict=True):
        pass
    with config.using(config.Config(strict=True)), config.patch(fallback_random=True) as both:
        assert both.strict and both.fallback_random


# What compiles a graph, once there is a request for it.
COMPILER = ("lowering", "schedule", "codegen", "templates", "tuning", "ir", "ops", "symbolic")
SWITCHES = {
    "get_default_dtype", "get_default_device", "is_grad_enabled", "is_inference_mode_enabled",
    "is_autocast_enabled", "get_num_threads", "are_deterministic_algorithms_enabled",
    "get_deterministic_debug_mode", "get_float32_matmul_precision", "is_anomaly_enabled", "initial_seed",
    "get_rng_state", "backends",
}  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [p for p in python_files(PACKAGE) if p.relative_to(PACKAGE).parts[0] in COMPILER],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_the_compiler_reads_no_other_switch(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and node.attr in SWITCHES:
            chain = dotted(node) or ""
            assert not chain.startswith("torch."), f"{path}:{node.lineno} reads {chain}"
