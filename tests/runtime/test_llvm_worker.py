from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from braze import config
from braze.codegen.llvm import pool as pool_module
from braze.codegen.llvm.pool import Pool
from braze.errors import BrazeWarning, LLVMError, WorkerError
from braze.runtime.workers import pool as core
from braze.runtime.workers.process import describe_exit
from tests.runtime.kernels import ABORTS, constant_function

CPU = "x86-64-v3"


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(2)
    yield made
    made.close()


def wait_until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_compiles_object_assembly_and_ir(pool: Pool) -> None:
    made = pool.compile(constant_function(41), cpu=CPU, emit=("object", "asm", "opt_ir")).result()
    assert made.object.startswith(b"\x7fELF")
    assert "$41" in made.asm
    assert "ret i64 41" in made.opt_ir
    assert made.seconds > 0


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_level_compiles(pool: Pool, level: int) -> None:
    lines = ["%a = mul i64 %x, 6", "%b = mul i64 %x, 6", "%c = sub i64 %a, %b", "ret i64 %c"]
    text = "\n".join(["define i64 @f(i64 %x) {", *lines, "}"])
    made = pool.compile(text, cpu=CPU, opt_level=level, emit=("opt_ir",)).result()
    assert ("mul" in made.opt_ir) == (level == 0)
    assert made.object == b""


def test_same_text_is_compiled_once(pool: Pool) -> None:
    first = pool.compile(constant_function(1), cpu=CPU)
    second = pool.compile(constant_function(1), cpu=CPU)
    assert first.result() is second.result()
    assert pool.compile(constant_function(1), cpu=CPU).result() is first.result()
    assert pool.compile(constant_function(1), cpu=CPU, opt_level=2).result() is not first.result()


def test_what_is_kept_is_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_KEPT_BYTES", 1)
    first = pool.compile(constant_function(1), cpu=CPU).result()
    again = pool.compile(constant_function(1), cpu=CPU).result()
    assert again is not first
    assert again.object == first.object


def test_unknown_emit_is_refused(pool: Pool) -> None:
    with pytest.raises(ValueError, match="emit"):
        pool.compile(constant_function(1), cpu=CPU, emit=("bitcode",))


def test_module_that_does_not_parse_or_verify(pool: Pool) -> None:
    with pytest.raises(LLVMError, match="doesn't match function result type"):
        pool.compile("define void @f() { ret i32 0 }", cpu=CPU).result()
    text = "define i32 @f() {\n %a = add i32 %b, 1\n %b = add i32 1, 1\n ret i32 %a\n}\n"
    with pytest.raises(LLVMError, match="does not dominate"):
        pool.compile(text, cpu=CPU).result()
    assert pool.compile(constant_function(2), cpu=CPU).result().object


def test_abort_costs_one_job_and_says_why(pool: Pool) -> None:
    pool.prestart()
    before = pool.worker_pids()
    bad = pool.compile(ABORTS, cpu="x86-64")
    good = [pool.compile(constant_function(i), cpu=CPU) for i in range(20)]
    with pytest.raises(WorkerError, match=r"died \(SIGABRT: .*LLVM ERROR"):
        bad.result(30)
    assert all(f.result(30).object for f in good)
    assert set(pool.worker_pids()) - set(before) or len(pool.worker_pids()) < len(before)


def test_hang_costs_one_job() -> None:
    pool = Pool(1, deadline=0.5)
    try:
        pool.compile(constant_function(0), cpu=CPU).result(30)
        (pid,) = pool.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        stuck = pool.compile(constant_function(1), cpu=CPU)
        behind = pool.compile(constant_function(2), cpu=CPU)
        with pytest.raises(WorkerError, match=r"did not answer for 0\.5 s"):
            stuck.result(30)
        assert behind.result(30).object
        assert pid not in pool.worker_pids()
        assert not alive(pid)
    finally:
        pool.close()


def test_job_of_a_worker_that_somebody_killed_is_tried_again() -> None:
    pool = Pool(1)
    try:
        pool.compile(constant_function(0), cpu=CPU).result(30)
        (pid,) = pool.worker_pids()
        os.kill(pid, signal.SIGSTOP)
        job = pool.compile(constant_function(1), cpu=CPU)
        os.kill(pid, signal.SIGKILL)
        assert job.result(30).object
    finally:
        pool.close()


def test_idle_workers_leave_and_come_back() -> None:
    pool = Pool(2, idle_seconds=0.1)
    try:
        pool.prestart()
        assert len(pool.worker_pids()) == 2
        wait_until(lambda: not pool.worker_pids())
        assert pool.compile(constant_function(1), cpu=CPU).result(30).object
    finally:
        pool.close()


def test_large_module_does_not_block(pool: Pool) -> None:
    """Text beyond what the pipe holds is written while the worker reads."""
    body = "".join(
        f"define i64 @f{i}(i64 %x) {{\n %y = add i64 %x, {i}\n ret i64 %y\n}}\n" for i in range(40000)
    )
    assert len(body) > 2 << 20
    made = pool.compile(body, cpu=CPU, opt_level=0, codegen_level=0).result(120)
    assert len(made.object) > 1 << 20


def test_many_threads_share_a_pool(pool: Pool) -> None:
    wrong = []

    def use(number: int) -> None:
        for i in range(10):
            made = pool.compile(constant_function(number * 100 + i), cpu=CPU, emit=("opt_ir",)).result(60)
            if f"ret i64 {number * 100 + i}" not in made.opt_ir:
                wrong.append((number, i))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_close_fails_what_is_unfinished_and_ends_the_workers() -> None:
    pool = Pool(1)
    pool.compile(constant_function(0), cpu=CPU).result(30)
    (pid,) = pool.worker_pids()
    os.kill(pid, signal.SIGSTOP)
    job = pool.compile(constant_function(1), cpu=CPU)
    pool.close()
    with pytest.raises(WorkerError, match="closed"):
        job.result(10)
    assert not alive(pid)
    with pytest.raises(WorkerError, match="closed"):
        pool.compile(constant_function(2), cpu=CPU)


def test_in_process_when_asked(pool: Pool) -> None:
    with config.patch(llvm_in_process=True):
        pool.prestart()
        job = pool.compile(constant_function(3), cpu=CPU)
        assert job.done()
        assert job.result().object.startswith(b"\x7fELF")
        with pytest.raises(LLVMError, match="refused a module"):
            pool.compile("define", cpu=CPU).result()
    assert pool.worker_pids() == []


def test_in_process_when_no_thread_can_be_started(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.12 has it once the main thread has ended."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        pool.prestart()
        assert pool.compile(constant_function(8), cpu=CPU).done()
    assert pool.worker_pids() == []


@pytest.mark.parametrize("where", ["in process", "in a worker"])
def test_what_was_interrupted_is_compiled_when_it_is_wanted_again(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    text = constant_function(9)
    with config.patch(llvm_in_process=where == "in process"):
        with monkeypatch.context() as patched:
            patched.setattr(pool_module, "compile_module", interrupted)
            patched.setattr(core, "WorkerProcess", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.compile(text, cpu=CPU)
        assert pool.compile(text, cpu=CPU).result(30).object


def test_in_process_without_an_executable(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert pool.compile(constant_function(4), cpu=CPU).result().object
    assert pool.worker_pids() == []


def test_in_process_when_workers_do_not_start(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.warns(BrazeWarning, match="inside this process"):
        assert pool.compile(constant_function(5), cpu=CPU).result(30).object
    assert pool.compile(constant_function(6), cpu=CPU).done()


def test_in_process_when_no_process_can_be_made(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert pool.compile(constant_function(7), cpu=CPU).result(30).object


def test_describe_exit() -> None:
    assert describe_exit(-6) == "SIGABRT"
    assert describe_exit(1) == "exit status 1"
    assert describe_exit(-250) == "signal 250"


def run_python(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_forked_child_has_its_own_pool_and_the_parents_survives() -> None:
    done = run_python(
        """
import os
from braze.codegen.llvm import pool
from tests.runtime.kernels import constant_function
assert pool.compile_ir(constant_function(1), cpu="x86-64-v3").result(60).object
before = pool.shared().worker_pids()
child = os.fork()
if child == 0:
    made = pool.compile_ir(constant_function(2), cpu="x86-64-v3").result(60)
    ok = bool(made.object) and not set(pool.shared().worker_pids()) & set(before)
    pool.shared().close()
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pool.compile_ir(constant_function(3), cpu="x86-64-v3").result(60).object
print("fine")
"""
    )
    assert done.stdout == "fine\n", done.stderr


def test_a_daemonic_child_compiles_in_its_own_process() -> None:
    done = run_python(
        """
import multiprocessing
from braze.codegen.llvm import pool
from tests.runtime.kernels import constant_function

def work(queue):
    made = pool.compile_ir(constant_function(1), cpu="x86-64-v3").result(60)
    queue.put((len(made.object) > 0, pool.shared().worker_pids(), pool.unavailable_reason()))

context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
child = context.Process(target=work, args=(queue,), daemon=True)
child.start()
print(queue.get())
child.join()
"""
    )
    assert done.stdout.startswith("(True, [], 'a daemonic"), done.stderr


def test_workers_end_with_their_parent_however_it_ends() -> None:
    done = run_python(
        """
import os, signal
from braze.codegen.llvm import pool
pool.prestart()
if os.fork() == 0:  # this child lives on for a while and must not keep the workers
    os.close(1); os.close(2)
    import time; time.sleep(8); os._exit(0)
print(*pool.shared().worker_pids(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    wait_until(lambda: not any(map(alive, pids)), 6.0)


def test_a_worker_ends_with_its_parent_in_the_middle_of_a_job() -> None:
    done = run_python(
        """
import os, signal
from braze.codegen.llvm import pool
from tests.runtime.kernels import constant_function
pool.compile_ir(constant_function(1), cpu="x86-64-v3").result()
lines = "".join(f"  %r{i} = mul i64 %r{i - 1}, %r{i // 2}\\n" for i in range(1, 400_000))
text = f"define i64 @f(i64 %r0) {{\\n{lines}  ret i64 %r399999\\n}}\\n"
pool.compile_ir(text, cpu="x86-64-v3", opt_level=2)
print(*pool.shared().worker_pids(), flush=True)
import time; time.sleep(1)  # it has the job by then, and is not done
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    wait_until(lambda: not any(map(alive, pids)), 2.0)


def test_exit_is_quick_and_quiet_while_a_worker_is_busy() -> None:
    done = run_python(
        """
import os, signal
from braze.codegen.llvm import pool
from tests.runtime.kernels import constant_function
pool.prestart()
os.kill(pool.shared().worker_pids()[0], signal.SIGSTOP)
for i in range(8):
    pool.compile_ir(constant_function(i), cpu="x86-64-v3")
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_worker_is_light() -> None:
    """It imports llvmlite and no torch, and stays under 120 MB."""
    pool = Pool(1)
    try:
        pool.compile(constant_function(1), cpu=CPU).result(30)
        (pid,) = pool.worker_pids()
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(status.split("VmRSS:")[1].split()[0])
        maps = Path(f"/proc/{pid}/maps").read_text()
    finally:
        pool.close()
    assert "libllvmlite" in maps
    assert "torch" not in maps
    assert resident < 120 << 10, f"{resident >> 10} MB"
