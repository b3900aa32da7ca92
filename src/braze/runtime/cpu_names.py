"""The names of CPUs that code can be made for, as LLVM spells them."""

from __future__ import annotations

import difflib
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from braze.errors import ConfigError
from braze.runtime.processes import no_processes_reason

__all__ = ["IS_X86", "check_cpu_name", "cpu_names"]

IS_X86: Final = platform.machine().lower() in ("x86_64", "amd64")
_OURS: Final = ("host", "generic")
_LEVELS: Final = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4") if IS_X86 else ()
_SECONDS: Final = 60
# LLVM's names of x86 CPUs without 64-bit code: it aborts where such code is asked for
_NARROW: Final = re.compile(
    r"[ik]\d.*|pentium.*|athlon(-(4|mp|tbird|xp))?|c3(-2)?|winchip.*|geode|lakemont|prescott|yonah"
)
_ASKING: Final = """
import sys
sys.path.insert(0, sys.argv[1])
import llvmlite.binding as llvm
llvm.initialize_native_target()
llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(cpu="help")
"""


def check_cpu_name(name: str, option: str = "target_cpu") -> None:
    """Raise `ConfigError` unless code can be made for a CPU of this name on this machine's architecture:
    ``host``, ``generic``, a level such as ``x86-64-v3``, or a name of LLVM's. The error lists what there is;
    ``option`` is what the name was given for. Asks LLVM, in a process of its own, for other names than the
    first few, once."""
    if name in _OURS or name in _LEVELS or name in cpu_names():
        return
    every = [*_OURS, *_LEVELS, *cpu_names()]
    near = difflib.get_close_matches(name, every, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"{option}: there is no CPU named {name!r} to make code for",
        hint=f"{meant}the names are {', '.join(dict.fromkeys(every))}",
    )


@lru_cache(maxsize=1)
def cpu_names() -> Sequence[str]:
    """LLVM's names of the CPUs of this machine's architecture that run 64-bit code. Empty where no process
    can be started to ask it."""
    if no_processes_reason() is not None:
        return ()
    import llvmlite  # noqa: PLC0415  only where somebody names a CPU

    command = [sys.executable, "-I", "-S", "-c", _ASKING, str(Path(llvmlite.__file__).parent.parent)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return _listed(done.stderr.decode(errors="replace"))


def _listed(text: str) -> tuple[str, ...]:
    """The names in what LLVM says of ``-mcpu=help``."""
    head = text.partition("Available features")[0]
    found = re.findall(r"^\s+(\S+)\s+- Select the \S+ processor", head, re.MULTILINE)
    return tuple(name for name in found if not (IS_X86 and _NARROW.fullmatch(name)))
