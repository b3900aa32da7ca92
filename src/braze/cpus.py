"""The names of CPUs that code can be made for, as LLVM spells them.

LLVM takes any name: one that it does not know ends the process that it runs in, or is taken for the oldest
CPU there is. So names are looked at here, before they get there.
"""

from __future__ import annotations

import difflib
import platform

from braze.errors import ConfigError

__all__ = ["check_cpu_target", "cpu_names"]

_X86 = """
    alderlake amdfam10 arrowlake arrowlake-s athlon-fx athlon64 athlon64-sse3 atom barcelona bdver1 bdver2
    bdver3 bdver4 bonnell broadwell btver1 btver2 cannonlake cascadelake clearwaterforest cooperlake
    core-avx-i core-avx2 core2 corei7 corei7-avx diamondrapids emeraldrapids goldmont goldmont-plus gracemont
    grandridge graniterapids graniterapids-d haswell icelake-client icelake-server ivybridge k8 k8-sse3 knl
    knm lunarlake meteorlake nehalem nocona opteron opteron-sse3 pantherlake penryn raptorlake rocketlake
    sandybridge sapphirerapids sierraforest silvermont skx skylake skylake-avx512 slm tigerlake tremont
    westmere x86-64 x86-64-v2 x86-64-v3 x86-64-v4 znver1 znver2 znver3 znver4 znver5
"""
_ARM = """
    a64fx ampere1 ampere1a ampere1b apple-a7 apple-a8 apple-a9 apple-a10 apple-a11 apple-a12 apple-a13
    apple-a14 apple-a15 apple-a16 apple-a17 apple-m1 apple-m2 apple-m3 apple-m4 carmel cobalt-100 cortex-a34
    cortex-a35 cortex-a510 cortex-a520 cortex-a53 cortex-a55 cortex-a57 cortex-a65 cortex-a65ae cortex-a710
    cortex-a715 cortex-a72 cortex-a720 cortex-a725 cortex-a73 cortex-a75 cortex-a76 cortex-a76ae cortex-a77
    cortex-a78 cortex-a78c cortex-r82 cortex-x1 cortex-x1c cortex-x2 cortex-x3 cortex-x4 cortex-x925 cyclone
    exynos-m3 exynos-m4 exynos-m5 falkor fujitsu-monaka grace kryo neoverse-512tvb neoverse-e1 neoverse-n1
    neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3 neoverse-v3ae oryon-1 saphira thunderx
    thunderx2t99 thunderx3t110 thunderxt81 thunderxt83 thunderxt88 tsv110
"""
_NAMES = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}


def cpu_names(machine: str | None = None) -> tuple[str, ...]:
    """The names that there are for a kind of machine, as `platform.machine` calls it (None: this one's):
    ``host``, ``generic``, and 64-bit CPUs of LLVM 22."""
    kind = (platform.machine() if machine is None else machine).lower()
    return ("host", "generic", *_NAMES.get(kind, "").split())


def check_cpu_target(name: str, source: str = "the CPU") -> None:
    """Raises `ConfigError`, with the names that there are, for one that is no CPU of this kind of machine.
    ``source`` says what the name was given for."""
    known = cpu_names()
    if name in known:
        return
    close = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=3, cutoff=0.7)
    guess = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ConfigError(
        f"{source} must be the name of a CPU, not {name!r}", hint=f"{guess}the names are: {', '.join(known)}"
    )
