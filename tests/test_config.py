"""Options: where their values come from, who sees a change, and what is said of a wrong one."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import braze
from braze import config, errors
from braze.config import Config
from braze.cpus import cpu_names
from braze.errors import BrazeError, BrazeWarning, ConfigError


def test_every_option_is_described() -> None:
    described = config.options()
    assert [o.name for o in described] == sorted(f.name for f in dataclasses.fields(Config))
    assert all(o.doc.endswith(".") and o.env.startswith("BRAZE_") for o in described)
    assert len({o.env for o in described}) == len(described)
    assert all(getattr(Config(), o.name) == o.default for o in described)


def test_module_attributes_are_the_current_options() -> None:
    assert config.strict is config.current().strict
    assert "strict" in dir(config) and "patch" in dir(config)
    with pytest.raises(AttributeError, match="no attribute 'strickt'"):
        _ = config.strickt


def test_patches_nest_and_end() -> None:
    outside = config.current()
    with config.patch(strict=True, llvm_workers=3):
        assert (config.strict, config.llvm_workers) == (True, 3)
        with config.patch(llvm_workers=1):
            assert (config.strict, config.llvm_workers) == (True, 1)
        assert config.llvm_workers == 3
    assert config.current() is outside
    with pytest.raises(KeyError), config.patch(strict=True):
        raise KeyError
    assert config.current() is outside


def test_a_patch_is_seen_in_its_own_thread_only() -> None:
    inside, done = threading.Event(), threading.Event()

    def patched() -> bool:
        with config.patch(llvm_workers=17):
            inside.set()
            done.wait(10)
            return bool(config.llvm_workers == 17)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(patched)
        assert inside.wait(10)
        assert config.llvm_workers != 17
        done.set()
        assert future.result()


def test_a_patch_is_seen_in_its_own_task_only() -> None:
    async def task(workers: int) -> bool:
        with config.patch(llvm_workers=workers):
            await asyncio.sleep(0.001)
            return bool(config.llvm_workers == workers)

    async def both() -> list[bool]:
        return await asyncio.gather(task(11), task(12))

    assert asyncio.run(both()) == [True, True]


def test_resolve_changes_nothing_but_its_result() -> None:
    resolved = config.resolve({"strict": True, "vector_width": 8})
    assert (resolved.strict, resolved.vector_width) == (True, 8)
    assert config.current().vector_width is None
    assert config.resolve(None) is config.current() and config.resolve({}) is config.current()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strct": True}, "did you mean 'strict'?"),
        ({"zzz": 1}, "the options are: "),
        ({"strict": 1}, "option 'strict' must be True or False, not 1"),
        ({"llvm_workers": "2"}, "must be an integer from 1 to 256, not '2'"),
        ({"llvm_workers": True}, "must be an integer from 1 to 256, not True"),
        ({"llvm_opt_level": 4}, "from 0 to 3, not 4"),
        ({"min_parallel_work": -1}, "an integer of at least 0, not -1"),
        ({"vector_width": 5}, "one of None, 1, 4, 8, 16, not 5"),
        ({"target_cpu": 3}, "a string or None, not 3"),
        ({"strict": None}, "True or False, not None"),
    ],
)
def test_a_wrong_option_is_explained(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.resolve(given)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "name", "value"),
    [
        ({"BRAZE_STRICT": "1"}, "strict", True),
        ({"BRAZE_STRICT": " Off "}, "strict", False),
        ({"BRAZE_DEBUG": "/tmp/x"}, "debug_dir", "/tmp/x"),
        ({"BRAZE_DEBUG": ""}, "debug_dir", None),
        ({"BRAZE_LLVM_WORKERS": "7"}, "llvm_workers", 7),
        ({"BRAZE_VECTOR_WIDTH": "16"}, "vector_width", 16),
        ({"BRAZE_VECTOR_WIDTH": "none"}, "vector_width", None),
        ({"UNRELATED": "1"}, "strict", False),
    ],
)
def test_the_environment(environment: dict[str, str], name: str, value: object) -> None:
    assert getattr(config.from_environment(environment), name) == value


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"BRAZE_STRICT": "maybe"},
            "variable BRAZE_STRICT must be True or False, not 'maybe'",
        ),
        ({"BRAZE_LLVM_WORKERS": "many"}, "must be an integer from 1 to 256, not 'many'"),
        ({"BRAZE_VECTOR_WIDTH": "3"}, "BRAZE_VECTOR_WIDTH must be one of None, 1, 4, 8, 16, not 3"),
    ],
)
def test_a_wrong_variable_is_an_error(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_environment(environment)
    assert said in str(caught.value)


def test_an_unknown_variable_is_a_warning() -> None:
    with pytest.warns(
        BrazeWarning, match="BRAZE_STRICKT is not an option of Braze: did you mean BRAZE_STRICT?"
    ):
        assert config.from_environment({"BRAZE_STRICKT": "1"}) == Config()


def test_the_key_changes_with_what_changes_code() -> None:
    base = Config()
    assert base.code_key() == base.replace(strict=True, llvm_workers=9, debug_dir="/x").code_key()
    for change in (
        {"vector_width": 4},
        {"target_cpu": "generic"},
        {"llvm_opt_level": 3},
        {"fallback_random": True},
    ):
        assert base.replace(**change).code_key() != base.code_key()
    lines = base.code_key().splitlines()
    assert lines == sorted(lines) and "vector_width=None" in lines
    assert config.code_key() == config.current().code_key()


def test_options_are_immutable() -> None:
    with pytest.raises(ConfigError, match="a Config does not change") as caught:
        Config().strict = True  # type: ignore[misc]
    assert "replace(strict=True)" in str(caught.value)


# -- errors -----------------------------------------------------------------------------------------------
def test_an_error_says_what_where_and_what_to_do() -> None:
    error = errors.LoweringError("no lowering for aten.foo", node="foo_1").at(
        node="other", where="model.py:12"
    )
    assert str(error).splitlines() == [
        "no lowering for aten.foo",
        "  node:   foo_1",
        "  where:  model.py:12",
        f"  to do:  {errors.LoweringError.default_hint}",
    ]
    assert str(BrazeError("only this")) == "only this"
    assert str(errors.LinkError("no symbol", hint="look")) == "no symbol\n  to do:  look"


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n != "BrazeWarning"])
def test_errors_survive_a_process_boundary(name: str) -> None:
    error = getattr(errors, name)("what", node="n", where="w")
    assert isinstance(error, BrazeError)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.where == "w"


# -- the ways to set an option ------------------------------------------------------------------------------
Setter = Callable[[str, object], None]


def _patched(name: str, value: object) -> None:
    with config.patch(**{name: value}):
        pass


def _decorated(name: str, value: object) -> None:
    config.patch(**{name: value})(len)


def _constructed(name: str, value: object) -> None:
    Config(**{name: value})  # type: ignore[arg-type]


def _compiled(name: str, value: object) -> None:
    torch.compiler.reset()
    torch.compile(lambda x: x + 1, backend="braze", options={name: value})(torch.ones(2))


def _fused(name: str, value: object) -> None:
    braze.fuse(lambda x: x + 1, options={name: value})


def _exported(name: str, value: object) -> None:
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(2),))
    braze.aot_compile(program, os.devnull, ("generic",), options={name: value})


def _in_the_environment(name: str, value: object) -> None:
    variable = {o.name: o.env for o in config.options()}[name]
    config.from_environment({variable: str(value)})


SETTERS: dict[str, Setter] = {
    "assigned": lambda name, value: setattr(config, name, value),
    "patched": _patched,
    "decorated": _decorated,
    "constructed": _constructed,
    "replaced": lambda name, value: Config().replace(**{name: value}) and None,
    "options=": _compiled,
    "fused": _fused,
    "exported": _exported,
    "environment": _in_the_environment,
}
WRONG = (
    ("strict", 3, "must be True or False, not 3"),
    ("llvm_workers", "many", "must be an integer from 1 to 256, not 'many'"),
    ("llvm_opt_level", 4, "must be an integer from 0 to 3, not 4"),
    ("vector_width", 5, "must be one of None, 1, 4, 8, 16, not 5"),
    ("fx_compile_mode", "asynch", "must be one of in-process, "),
    ("target_cpu", "x86-64-v9", "must be the name of a CPU, not 'x86-64-v9'"),
)


@pytest.mark.parametrize(("name", "value", "said"), WRONG, ids=[name for name, _, _ in WRONG])
@pytest.mark.parametrize("way", SETTERS)
def test_a_wrong_value_is_an_error_in_every_way(way: str, name: str, value: object, said: str) -> None:
    before = config.current()
    with pytest.raises(ConfigError) as caught:
        SETTERS[way](name, value)
    answer = str(caught.value)
    if (way, name) == ("exported", "target_cpu"):  # which is said another way there
        said = "pass targets=('x86-64-v9',)"
    assert said in answer or (way == "environment" and f"not {str(value)!r}" in answer)
    assert config.current() is before


@pytest.mark.parametrize("way", [way for way in SETTERS if way not in ("constructed", "environment")])
def test_an_unknown_name_is_an_error_in_every_way(way: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SETTERS[way]("fx_compile_mod", "async")
    assert "no option 'fx_compile_mod'" in str(caught.value)
    assert "did you mean 'fx_compile_mode'" in str(caught.value)
    assert all(o.name in str(caught.value) for o in config.options())


def test_an_error_in_options_is_raised_by_every_call_and_not_suppressed() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x + 1, backend="braze", options={"stict": True})
    with torch._dynamo.config.patch(suppress_errors=True):
        for _ in range(2):
            with pytest.raises(ConfigError, match="did you mean 'strict'"):
                compiled(torch.ones(2))


def test_an_unknown_mode_is_an_error() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda x: x + 1, backend="braze", mode="max-autotun")
    with pytest.raises(ConfigError, match="no mode 'max-autotun'") as caught:
        compiled(torch.ones(2))
    assert "did you mean 'max-autotune'" in str(caught.value) and "reduce-overhead" in str(caught.value)


def _named_in_a_block(options: dict[str, object], call: Callable[[], object]) -> None:
    with config.patch(**options):
        call()


@braze.fuse
def _halved(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5


@braze.fuse
def _summed(x: torch.Tensor) -> torch.Tensor:
    return x.softmax(0) * 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target_cpu": "knm"}, "this machine can run code for that"),
        ({"target_cpu": "knm", "fx_compile_mode": "out-of-process"}, "x86-64-v2"),
        ({"cache": True, "remote_cache": "s3x://bucket"}, "did you mean 's3'"),
        ({"cache": True, "remote_cache": "simplecash::s3://bucket"}, "a storage 'simplecash'"),
    ],
    ids=["cpu", "cpu in a worker", "storage", "storage behind another"],
)
def test_a_name_that_means_nothing_here_is_an_error(
    options: dict[str, object], said: str, tmp_path: Path
) -> None:
    torch.compiler.reset()
    options = {**options, "cache_dir": str(tmp_path / "cache"), "keyring_dir": str(tmp_path / "keys")}
    x = torch.ones(3)
    for _ in range(2):  # the second is no different from the first
        for call in (
            torch.compile(lambda x: x + 1, backend="braze", options=options),
            braze.fuse(lambda x: x - 1, options=options),
            braze.fuse(lambda x: x.softmax(0), options=options),
        ):
            with pytest.raises(ConfigError) as caught:
                call(x)
            assert said in str(caught.value)
    if "target_cpu" not in options:
        return
    compiled = torch.compile(lambda x: x + 2, backend="braze")
    for call in (compiled, _halved, _summed):
        call(x)
        with pytest.raises(ConfigError):
            _named_in_a_block(options, lambda call=call: call(x))
        call(x)


@pytest.mark.parametrize("name", [o.name for o in config.options() if o.type == "str | None"])
def test_an_empty_text_is_no_value(name: str) -> None:
    with pytest.raises(ConfigError):
        config.resolve({name: ""})
    variable = {o.name: o.env for o in config.options()}[name]
    assert config.from_environment({variable: ""}) == Config()


@pytest.mark.parametrize("given", [["strict"], "strict", {1: True}, 3])
def test_options_that_are_no_mapping_are_an_error(given: Any) -> None:
    with pytest.raises(ConfigError, match="a mapping of their names to values"):
        config.resolve(given)


@pytest.mark.usefixtures("unassigned")
def test_an_assignment_is_for_the_whole_process_until_it_is_deleted() -> None:
    before = config.llvm_opt_level
    config.llvm_opt_level = 3
    config.strict = True
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (config.llvm_opt_level, config.current().strict)).result() == (3, True)
    with config.patch(llvm_opt_level=0):
        assert (config.llvm_opt_level, config.strict) == (0, True)
    del config.llvm_opt_level
    assert (config.llvm_opt_level, config.strict) == (before, True)


@pytest.mark.usefixtures("unassigned")
def test_an_assignment_that_would_not_hold_is_an_error() -> None:
    with config.patch(llvm_opt_level=0):
        with pytest.raises(ConfigError, match="cannot be assigned inside"):
            config.llvm_opt_level = 3
        with pytest.raises(ConfigError, match="cannot be assigned inside"):
            del config.strict
    assert config.llvm_opt_level == Config().llvm_opt_level


def test_a_decorator_holds_in_each_call() -> None:
    @config.patch(llvm_workers=13)
    def plain(x: int) -> tuple[int, int]:
        """Says it."""
        return x, config.llvm_workers

    @config.patch(llvm_workers=14)
    async def task(x: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        return x, config.llvm_workers

    outside = config.llvm_workers
    assert plain(1) == plain(1) == (1, 13) and plain.__doc__ == "Says it."
    assert asyncio.run(task(2)) == (2, 14)
    assert config.llvm_workers == outside


def test_a_decorator_of_what_it_cannot_hold_in_is_an_error() -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def generator_of_tasks() -> AsyncIterator[int]:
        yield 1

    for wrong in (generator, generator_of_tasks, Config, 3):
        with pytest.raises(ConfigError, match="`patch` decorates functions"):
            config.patch(strict=True)(wrong)  # type: ignore[type-var]


def test_one_patch_can_be_entered_again() -> None:
    block = config.patch(llvm_workers=15)
    with block, config.patch(llvm_workers=16), block:
        assert config.llvm_workers == 15
    with block:
        assert config.llvm_workers == 15
    assert config.llvm_workers != 15


def test_threads_may_enter_one_patch_at_once() -> None:
    block, both = config.patch(llvm_workers=15), threading.Barrier(2, timeout=10)

    def run() -> int:
        with block:
            both.wait()
            inside = config.llvm_workers
            both.wait()
        return int(inside)

    with ThreadPoolExecutor(2) as pool:
        assert [f.result() for f in [pool.submit(run), pool.submit(run)]] == [15, 15]
    assert config.llvm_workers != 15


# -- names of CPUs ------------------------------------------------------------------------------------------
_MAKES_CODE = """
import sys
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
triple, *names = sys.argv[1:]
for name in names:
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=name)
    module = llvm.parse_assembly("define double @f(double %x) { ret double %x }")
    module.triple = triple
    machine.emit_object(module)
"""


@pytest.mark.parametrize(
    ("machine", "triple"), [("x86_64", "x86_64-unknown-linux-gnu"), ("aarch64", "aarch64-unknown-linux-gnu")]
)
def test_llvm_makes_code_for_every_cpu_that_there_is(machine: str, triple: str) -> None:
    names = [name for name in cpu_names(machine) if name != "host"]
    assert len(names) > 50 and "generic" in names
    command = [sys.executable, "-c", _MAKES_CODE, triple, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # where it says that it does not know a name
    assert set(cpu_names("riscv64")) == {"host", "generic"}
