#!/usr/bin/env python3
"""The one entry point for people who have just cloned the repository. Standard library only.

    python3 dev.py demo                 make .venv, install, and run the demo on a real model
    python3 dev.py test                 the same, then lint, types and every test: what CI runs
    python3 dev.py test tests/ops -x    only pytest, with these arguments
    python3 dev.py lint [--fix]         ruff: rules and format
    python3 dev.py types                mypy
    python3 dev.py bench [NAME ...]     run benchmarks/NAME.py, or list what there is
    python3 dev.py replay [--update]    compile recorded graphs again, and show what comes out otherwise
    python3 dev.py pages                write the pages of docs/ that the code makes
    python3 dev.py sizes [REV]          files and lines of each room, and since REV or the last tag
    python3 dev.py setup                only make .venv and install

The environment is kept in .venv and made again only when pyproject.toml or constraints.txt change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "braze-installed"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
OLDEST = (3, 10)
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def say(text: str) -> None:
    line = f"── {text} "
    print(f"\033[1;36m{line}\033[0m" if COLOUR else line, flush=True)


def fail(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def run(*command: object, env: dict[str, str] | None = None) -> int:
    """Run a command in the repository's root, with its output shown as it comes; its exit status."""
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=env, check=False).returncode


def run_or_fail(*command: object, what: str) -> None:
    if run(*command) != 0:
        fail(f"{what} failed (see above)")


def fingerprint() -> str:
    """What the installed environment depends on."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def venv_version() -> tuple[int, ...] | None:
    """The version of .venv's Python; None where there is none that runs."""
    if not PYTHON.exists():
        return None
    asked = [str(PYTHON), "-c", "import sys; print(*sys.version_info[:2])"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    return tuple(map(int, answer.stdout.split())) if answer.returncode == 0 else None


def setup() -> None:
    """Make .venv and install the package with everything that the demo and the tests need."""
    want = fingerprint()
    if STAMP.exists() and STAMP.read_text() == want and PYTHON.exists():
        return
    started = time.monotonic()
    version = venv_version()
    if version is None or version < OLDEST:
        if sys.version_info < OLDEST:
            fail("Python {}.{} or newer is needed; this is {}.{}".format(*OLDEST, *sys.version_info[:2]))
        say("making .venv")
        shutil.rmtree(VENV, ignore_errors=True)
        if run(sys.executable, "-m", "venv", VENV) != 0:
            fail(
                "could not make .venv; on Debian and Ubuntu `apt install python3-venv` brings what is missing"
            )
    say("installing braze and its tools (the first time, this fetches PyTorch: some minutes)")
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run_or_fail(*pip, "--constraint", "constraints.txt", "--editable", ".[dev]", what="the installation")
    STAMP.write_text(want)
    say(f"ready in {time.monotonic() - started:.0f} s")


def lint(arguments: list[str]) -> int:
    fix = "--fix" in arguments
    say("ruff")
    rules = run(PYTHON, "-m", "ruff", "check", *(["--fix"] if fix else []), ".")
    layout = run(PYTHON, "-m", "ruff", "format", "--quiet" if fix else "--check", ".")
    return rules or layout


def types() -> int:
    say("mypy")
    return run(PYTHON, "-m", "mypy")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest(arguments: list[str]) -> int:
    """Tests marked `serial` alone with all the cores, then the rest side by side with one thread each."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    say("tests that run alone")
    alone = run(PYTHON, "-m", "pytest", "-q", "-m", "serial", *arguments, env=env)
    # Each process brings its own OpenMP team and LLVM workers: more than one of either would fight for cores.
    env.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", BRAZE_LLVM_WORKERS="1")
    side_by_side = ("-n", max(2, min(cores(), 8)), "--dist", "worksteal")
    say("tests")
    slowest = () if arguments else ("--durations=20",)
    rest = run(PYTHON, "-m", "pytest", "-q", *side_by_side, *slowest, "-m", "not serial", *arguments, env=env)
    nothing_collected = 5
    statuses = {alone, rest}
    return max(statuses - {nothing_collected}, default=nothing_collected)


def test(arguments: list[str]) -> int:
    if arguments:
        return pytest(arguments)
    failed = [name for name, status in (("ruff", lint([])), ("mypy", types())) if status != 0]
    status = pytest([])
    if failed:
        fail(f"{' and '.join(failed)} found something (see above)")
    return status


def bench(arguments: list[str]) -> int:
    folder = ROOT / "benchmarks"
    known = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    if not arguments:
        say("benchmarks (python3 dev.py bench NAME)")
        print("\n".join(f"   {name}" for name in known) or "   none yet")
        return 0
    name, *rest = arguments
    if name not in known:
        fail(f"there is no benchmark {name!r}; there are: {', '.join(known) or 'none yet'}")
    return run(PYTHON, folder / f"{name}.py", *rest)


def main(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if command in ("help", "-h", "--help"):
        print(__doc__)
        return 0
    jobs = {
        "demo": lambda: run(PYTHON, "-m", "braze.cli", "demo", *rest),
        "test": lambda: test(rest),
        "lint": lambda: lint(rest),
        "types": types,
        "bench": lambda: bench(rest),
        "replay": lambda: run(PYTHON, "-m", "tests.replay", *rest),
        "pages": lambda: run(PYTHON, "-m", "tests.generated_pages", *rest),
        "sizes": lambda: run(PYTHON, "-m", "tests.sizes", *rest),
        "setup": lambda: 0,
    }
    if command not in jobs:
        fail(f"there is no command {command!r}; python3 dev.py help lists them")
    setup()
    return jobs[command]()


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
