"""What loads code and does not compile is light: no compiler, no sympy, nothing heavy before its time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

COMPILER = """
cli inspect frontend fuser compile tuning codegen schedule lowering templates ir ops symbolic
""".split()
HEAVY = "sympy cryptography fsspec safetensors sqlite3 rich click psutil zipfile distributed".split()

CHILD = """
import gc, importlib, json, pkgutil, sys
import torch, llvmlite.binding, braze
before = set(sys.modules)
names = [m.name for room in sys.argv[1:]
         for m in pkgutil.iter_modules([f"{braze.__path__[0]}/{room}"], f"braze.{room}.")]
gc.disable()
objects = len(gc.get_objects())
for name in names:
    importlib.import_module(name)
objects = len(gc.get_objects()) - objects
print(json.dumps({"names": names, "new": sorted(set(sys.modules) - before), "objects": objects}))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str] | int]:
    command = [sys.executable, "-c", CHILD, "runtime", "artifact", "cache"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, list[str] | int] = json.loads(done.stdout)
    assert {"braze.runtime.callgen", "braze.artifact.compiled_graph"} <= set(made["names"])  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("room", COMPILER)
def test_no_room_of_the_compiler(room: str, loaded: dict[str, list[str]]) -> None:
    assert not [m for m in loaded["new"] if m == f"braze.{room}" or m.startswith(f"braze.{room}.")]


@pytest.mark.parametrize("library", HEAVY)
def test_nothing_heavy(library: str, loaded: dict[str, list[str]]) -> None:
    assert not [m for m in loaded["new"] if m == library or m.startswith(library + ".")]


def test_of_torch_nothing_that_torch_has_not_loaded(loaded: dict[str, list[str]]) -> None:
    assert not [m for m in loaded["new"] if m.startswith("torch.")]


def test_few_objects_are_made(loaded: dict[str, int]) -> None:
    """Time is measured by `benchmarks.import_time`; what takes it is modules, and what they make: an import
    of 30 ms makes about this many objects that the garbage collector has to know."""
    assert loaded["objects"] < 12_000
