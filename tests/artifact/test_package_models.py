"""The models of the zoo as packages: eager's results, and loading without the compiler, in little time."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import export

import braze
from braze.artifact.package import open_package
from braze.runtime.cpu_engine import target_of
from braze.runtime.workers.llvm_jobs import compile_module
from tests.models import zoo
from tests.numerics import assert_agrees, in_float64

# One of each kind of program; all of the zoo's go through `python -m benchmarks.packages`.
MODELS = ("bert", "gpt2", "mobilenet", "lstm", "dlrm", "llama-bfloat16", "bert-autocast")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def packed(name: str, folder: Path, **options: Any) -> Path:
    """The package of a model; those that are used in several tests are compiled once."""
    path = folder / f"{name}.pt2"
    if not path.exists():
        model = zoo.find(name)
        module, inputs = model.make("test")
        with model.context():  # autocast is what the region that compiles says
            braze.aot_compile(export(module, (), inputs, strict=False), path, **options)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_model_gives_eagers_results(name: str, folder: Path) -> None:
    model = zoo.find(name)
    module, inputs = model.make("test")
    loaded = braze.aot_load(packed(name, folder, targets=("host",)))
    with model.context():
        eager = copy.deepcopy(module)(**inputs)
    float32 = dataclasses.replace(model, precision="float32")

    def reference() -> Any:
        with float32.context():
            return in_float64(module)(**in_float64(inputs))

    assert_agrees(loaded(**inputs), eager, reference)
    assert_agrees(loaded(**inputs), eager, reference)


LOAD = """
import json, sys, time
import torch, llvmlite.binding
before = set(sys.modules)
start = time.perf_counter()
import braze
braze.aot_load
imported = time.perf_counter()
seconds = []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    model = braze.aot_load(sys.argv[1])
    seconds.append(time.perf_counter() - begin)
results = model(**torch.load(sys.argv[1] + ".inputs", weights_only=True))
rooms = sorted({m.split(".")[1] for m in sys.modules if m.startswith("braze.")})
print(json.dumps({"import": imported - start, "load": seconds, "rooms": rooms,
                  "new": sorted(set(sys.modules) - before)}))
"""


def load_alone(path: Path, inputs: dict[str, torch.Tensor], times: int = 1) -> dict[str, Any]:
    """Load a package in a process that does nothing else, and call it."""
    torch.save(inputs, f"{path}.inputs")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), str(times)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_loading_needs_neither_the_compiler_nor_dynamo_nor_sympy(folder: Path) -> None:
    path = packed("dlrm", folder, targets=("host",))
    answer = load_alone(path, zoo.find("dlrm").make("test")[1])
    rooms = {
        "_torch",
        "artifact",
        "cache",
        "config",
        "cpus",
        "dtypes",
        "errors",
        "notices",
        "runtime",
        "version",
    }
    assert set(answer["rooms"]) <= rooms
    heavy = {"sympy", "torch._dynamo", "torch._functorch", "torch._inductor", "cryptography", "safetensors"}
    assert not heavy & set(answer["new"])


@pytest.mark.serial
def test_loading_takes_at_most_50_ms(folder: Path) -> None:
    path = packed("bert", folder, targets=("host",))
    answer = load_alone(path, zoo.find("bert").make("test")[1], times=5)
    assert answer["load"][0] < 0.150, "the first time of a process, on a machine that may be busy"
    assert statistics.median(answer["load"]) < 0.050


# What only AVX-512 has, in AT&T's syntax: 512-bit registers, the upper 16 of the others, mask registers.
EVEX = re.compile(r"%zmm|%[xy]mm(?:1[6-9]|2\d|3[01])|%k[0-7]|\{z\}|\{1to\d+\}|\{r[nduz]-sae\}")


def test_code_for_x86_64_v3_has_no_instruction_of_avx512(folder: Path) -> None:
    if not os.uname().machine.startswith("x86"):
        pytest.skip("code for x86")
    module, inputs = zoo.find("bert").make("test")
    path = braze.aot_compile(export(module, (), inputs, strict=False), folder / "both.pt2")
    graph = open_package(path).graph(trusted=True)
    found = {}
    for variant in graph.variants:
        text = []
        target = target_of(variant.info.parts[0].made_for)
        for one in variant.modules:
            code, assembly, *_ = compile_module(
                bytes(one.ir).decode(),
                cpu=target.cpu,
                features=target.features,
                opt_level=one.opt_level,
                codegen_level=max(one.opt_level, 1),
                emit=frozenset({"object", "asm"}),
            )
            assert code == bytes(one.object), "the assembly is not that of the stored object"
            text.append(assembly)
        found[target.cpu] = len(EVEX.findall("\n".join(text)))
    assert found["x86-64-v3"] == 0 and found["x86-64-v4"] > 100
