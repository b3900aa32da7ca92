"""Names of CPUs: what LLVM takes is taken, everything else is refused before LLVM sees it."""

from __future__ import annotations

import pytest

from braze.codegen.llvm import pool
from braze.errors import ConfigError
from braze.runtime import cpu_names
from braze.runtime.target import named_target

ADD = "define i32 @f(i32 %x) {\n  %y = add i32 %x, 1\n  ret i32 %y\n}\n"


@pytest.mark.parametrize("name", ["sm_80", "x86_64-v3", "HOST", "", "help", "native", "x86-64-v3,+avx"])
def test_other_names_are_refused_with_a_list(name: str) -> None:
    with pytest.raises(ConfigError, match="no CPU named") as caught:
        named_target(name)
    assert "host, generic" in str(caught.value.hint)


def test_every_name_on_the_list_can_be_compiled_for() -> None:
    names = cpu_names.cpu_names()
    assert names
    jobs = {name: pool.compile_ir(ADD, cpu=name, features="") for name in names}
    assert all(job.result().object for job in jobs.values())


@pytest.mark.skipif(not cpu_names.IS_X86, reason="these are names of x86")
def test_cpus_without_64_bits_are_not_on_the_list() -> None:
    assert "haswell" in cpu_names.cpu_names()
    with pytest.raises(ConfigError, match="no CPU named 'pentium4'"):
        named_target("pentium4")
    with pytest.raises(ConfigError) as caught:
        named_target("haswel")
    assert "did you mean 'haswell'" in str(caught.value.hint)


def test_without_processes_only_what_is_known_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_names, "no_processes_reason", lambda: "there are none")
    cpu_names.cpu_names.cache_clear()
    try:
        cpu_names.check_cpu_name("host")
        with pytest.raises(ConfigError):
            cpu_names.check_cpu_name("knl")
    finally:
        cpu_names.cpu_names.cache_clear()
