"""Workers are clean processes, wherever they are started from, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import braze
from braze import config
from braze.errors import WorkerError
from braze.runtime.workers import process as launch
from braze.runtime.workers.worker import Setup
from tests.compile.workers import light_jobs as jobs
from tests.compile.workers.support import LONG, ROOT, alive, light_pool, run_script, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def seen() -> Any:
    """What a worker sees, started while this process has files open and variables set."""
    patched = pytest.MonkeyPatch()
    patched.setenv("BRAZE_STRICT", "1")
    patched.setenv("PYTHONSTARTUP", "/nowhere")
    patched.setenv("TORCH_LOGS", "+dynamo")
    patched.setenv("KEPT", "1")
    with open(__file__) as held, light_pool(2) as pool:
        os.set_inheritable(held.fileno(), True)
        answers = [pool.submit(jobs.surroundings, b"") for _ in range(2)]
        result = [json.loads(answer.result(LONG)) for answer in answers][-1]
    patched.undo()
    return result


def test_no_descriptor_is_inherited(seen: Any) -> None:
    others = [name for name in seen["descriptors"].values() if not name.startswith(("pipe:", "/proc/"))]
    # and a handle of its parent, by which it sees the end of that, where the kernel has such a thing
    assert [name for name in others if "pidfd" not in name] == ["/dev/null"]
    # its own two ends, and standard error in two places; not the ends of another worker
    assert len({name for name in seen["descriptors"].values() if name.startswith("pipe:")}) == 3


def test_a_session_of_its_own_that_the_kernel_kills_first(seen: Any) -> None:
    assert seen["session"] == seen["pid"]
    assert seen["oom"] >= 700


def test_the_environment_is_passed_on_with_care(seen: Any) -> None:
    names = set(seen["environment"])
    assert "KEPT" in names and "PATH" in names
    assert not [n for n in names if n.startswith(("BRAZE_", "PYTHON", "TORCH_LOGS"))]
    assert seen["environment"]["OMP_NUM_THREADS"] == "1"


def test_the_path_is_the_parent_s_and_main_is_not(seen: Any) -> None:
    assert seen["path"] == launch.module_path()
    assert seen["main"] == ""
    light = {"torch", "sympy", "llvmlite", "psutil.tests", "pytest"}
    assert not light & set(seen["modules"])


def test_the_folders_that_packages_came_from_are_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "relative", Path("/not/text"), "/a", "/a"])
    path = launch.module_path()
    assert path[:3] == [os.getcwd(), os.path.abspath("relative"), "/a"]
    assert str(Path(braze.__file__).parents[1]) in path


def test_interpreter_flags_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", "/elsewhere")
    command = launch.command(Setup(1, "jobs", path=[]))
    assert command[0] == sys.executable and {"-I", "-B", "pycache_prefix=/elsewhere"} < set(command)


def test_options_come_with_a_job_or_not_at_all() -> None:
    with light_pool(1) as pool:
        with pytest.raises(WorkerError, match=r"ConfigError: an option was read in a worker process outside"):
            pool.submit(jobs.read_an_option, b"").result(LONG)
        sent = json.dumps({"llvm_opt_level": 3}).encode()
        assert pool.submit(jobs.read_an_option_that_was_sent, sent).result(LONG) == b"3"
        assert pool.submit(jobs.read_an_option_in_a_thread, b"").result(LONG) == b"ConfigError"
    assert not config.sealed()


WITHOUT_A_GUARD = """
    print("imported")
    from braze.compile.workers import CompilePool
    from tests.compile.workers.light_jobs import double
    pool = CompilePool(1, jobs="tests.compile.workers.light_jobs")
    print(pool.submit(double, b"ab").result(60))
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    assert run_script(tmp_path, WITHOUT_A_GUARD) == ["imported", "b'abab'"]


def test_in_a_program_that_has_no_file() -> None:
    program = "\n".join(line.strip() for line in WITHOUT_A_GUARD.splitlines())
    done = subprocess.run(
        [sys.executable, "-"],
        input=program,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=LONG,
        check=True,
    )
    assert done.stdout.splitlines() == ["imported", "b'abab'"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_a_daemonic_process(tmp_path: Path, method: str) -> None:
    lines = run_script(
        tmp_path,
        """
        import multiprocessing, sys
        from braze.compile.workers import CompilePool
        from tests.compile.workers.light_jobs import double

        def work(queue, pool):
            own = CompilePool(1, jobs="tests.compile.workers.light_jobs")
            assert multiprocessing.current_process().daemon
            queue.put(own.submit(double, b"ab").result(60))
            queue.put(own.worker_pids())
            if pool is not None:
                queue.put(pool.submit(double, b"cd").result(60))

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1] if len(sys.argv) > 1 else "METHOD")
            queue = context.Queue()
            pool = None
            if context.get_start_method() == "fork":
                pool = CompilePool(1, jobs="tests.compile.workers.light_jobs")
                pool.submit(double, b"").result(60)
            process = context.Process(target=work, args=(queue, pool), daemon=True)
            process.start()
            print(queue.get(timeout=60))
            print(queue.get(timeout=60)[0])
            print(queue.get(timeout=60) if pool else b"cdcd")
            process.join(60)
            print(process.exitcode)
        """.replace("METHOD", method),
    )
    assert [lines[0], *lines[2:]] == ["b'abab'", "b'cdcd'", "0"]
    wait_until(lambda: not alive(int(lines[1])))


def test_after_a_fork_parent_and_child_have_workers_of_their_own(tmp_path: Path) -> None:
    lines = run_script(
        tmp_path,
        """
        import os
        from braze.compile.workers import CompilePool
        from braze.errors import WorkerError
        from tests.compile.workers.light_jobs import double, nap
        pool = CompilePool(1, jobs="tests.compile.workers.light_jobs")
        finished = pool.submit(double, b"ab")
        finished.result(60)
        running = pool.submit(nap, b"0.5")
        child = os.fork()
        if not child:
            assert finished.result(60) == b"abab"
            try:
                running.result(60)
                os._exit(1)
            except WorkerError:
                pass
            os._exit(0 if pool.submit(nap, b"0").result(60) else 2)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(running.result(60) == str(pool.worker_pids()[0]).encode())
        """,
    )
    assert lines == ["0", "True"]


def test_a_program_that_ends_does_not_wait_for_its_jobs(tmp_path: Path) -> None:
    (line,) = run_script(
        tmp_path,
        """
        import time
        from braze.compile.workers import CompilePool
        from tests.compile.workers.light_jobs import sleep_for_ever
        pool = CompilePool(2, jobs="tests.compile.workers.light_jobs")
        futures = [pool.submit(sleep_for_ever, b"") for _ in range(4)]
        while not futures[1].running():
            time.sleep(0.01)
        print(*pool.worker_pids())
        """,
    )
    assert len(line.split()) == 2
    wait_until(lambda: not any(map(alive, map(int, line.split()))), 5)


DIES = """
import os, signal, time, ctypes
from braze.compile.workers import CompilePool
from tests.compile.workers.light_jobs import sleep_for_ever
pool = CompilePool(2, jobs="tests.compile.workers.light_jobs")
futures = [pool.submit(sleep_for_ever, b""), pool.submit(sleep_for_ever, b"")]
while not all(f.running() for f in futures):
    time.sleep(0.01)
print(*pool.worker_pids(), flush=True)
libc = ctypes.PyDLL(None)
if HOLDER and not libc.fork():  # a child that Python does not know of, and that keeps our pipes open
    os.close(1), os.close(2)
    libc.sleep(10)
    libc._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("holder", [False, True], ids=["alone", "with a child that holds the pipes"])
def test_workers_go_with_their_parent(holder: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"HOLDER = {holder}\n{DIES}"],
        capture_output=True, text=True, cwd=ROOT, timeout=LONG, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    wait_until(lambda: not any(map(alive, pids)), 5)
