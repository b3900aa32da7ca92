"""Options: where their values come from, who sees a change, and what is said of a wrong one."""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from braze import config, errors
from braze.config import Config
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
    with pytest.warns(BrazeWarning, match="BRAZE_STRICKT is no option of Braze: did you mean BRAZE_STRICT?"):
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
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().strict = True  # type: ignore[misc]


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
