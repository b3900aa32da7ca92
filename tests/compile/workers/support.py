"""What the tests of compile workers share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from braze.compile.workers import CompilePool
from tests.compile.workers import light_jobs

ROOT = Path(__file__).parents[3]
LONG = 60.0  # seconds: a wait that ends long before, unless there is a defect


def light_pool(
    workers: int = 1, *, timeout: float = LONG, memory_mb: int = 256, idle_seconds: float = LONG
) -> CompilePool:
    """A pool whose workers know `light_jobs`."""
    return CompilePool(
        workers, timeout=timeout, memory_mb=memory_mb, idle_seconds=idle_seconds, jobs=light_jobs.__name__
    )


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def run_script(folder: Path, program: str, **environment: str) -> list[str]:
    """Run a program as a script of its own, from another folder; the lines that it prints."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", **environment},
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
