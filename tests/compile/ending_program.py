"""A program that compiles something in one of many ways, and ends in one of many (see `process_ends`).

``python -m tests.compile.ending_program SPEC`` is one such program. With ``--serve`` it loads PyTorch once,
and forks for each line of its standard input: what is forked goes on as a program of its own would, and its
interpreter ends as any other does.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from braze._torch.frames import is_compiling

STATUS = 7
"""What a program exits with that chooses."""
LINES = 100
"""What a program prints that nobody listens to: so little that Python keeps it until the end."""


@dataclass(frozen=True)
class Spec:
    """``what`` compiles, in which ``mode`` (``eager``: PyTorch's backend of that name, to compare with), and
    ``how`` the program ends, ``after`` so many seconds: since it began, where it is ended from outside, or
    else since it had nothing more to do. ``layers`` is the size of what is compiled.
    ``folder`` is for the program's output, temporary files and `mark`; ``cache`` is the folder of the cache,
    empty where there is to be none."""

    what: str
    mode: str
    how: str
    after: float
    layers: int
    cache: str
    folder: str

    @property
    def temporary(self) -> str:
        return os.path.join(self.folder, "tmp")

    @property
    def marks(self) -> str:
        return os.path.join(self.folder, "marks")

    def environment(self) -> dict[str, str]:
        """Variables for the program; the first tells its children from others'."""
        return {
            "ENDS_RUN": self.folder,
            "TMPDIR": self.temporary,
            "BRAZE_CACHE_DIR": self.cache or os.path.join(self.folder, "none"),
            "BRAZE_CACHE": str(int(bool(self.cache))),
            "BRAZE_FX_COMPILE_MODE": "in-process" if self.mode == "eager" else self.mode,
            "ENDS_BACKEND": "eager" if self.mode == "eager" else "braze",
            "BRAZE_COMPILE_WORKERS": "1",
            "BRAZE_LLVM_WORKERS": "1",
            "OMP_NUM_THREADS": "1",
        }


class OnPurpose(Exception):
    """How a program ends by an exception."""


def mark(spec: Spec, what: str) -> None:
    """Say that something happens now."""
    line = f"{what} {os.getpid()} {time.monotonic()}\n"
    fd = os.open(spec.marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


# -- what is compiled ---------------------------------------------------------------------------------------
def chain(layers: int) -> Callable[[Any], Any]:
    """A function of layer norms, as long as one wants it."""
    import torch  # a program that is spawned says so before it loads PyTorch

    def compute(x: Any) -> Any:
        for k in range(layers):
            x = torch.nn.functional.layer_norm(x, (x.shape[-1],)) + k
        return x

    return compute


def compile_and_call(layers: int, *, backward: bool = False) -> Callable[[], None]:
    """Compiles when it is called first."""
    import torch

    compiled = torch.compile(chain(layers), backend=os.environ["ENDS_BACKEND"])

    def call() -> None:
        x = torch.ones(8, 64, requires_grad=backward)
        y = compiled(x)
        if backward:
            y.sum().backward()

    return call


def fuse_and_call(layers: int) -> Callable[[], None]:
    import torch

    import braze

    def compute(x: Any) -> Any:
        for k in range(2 * layers):
            x = torch.tanh(x) * (k + 1) + 0.5
        return x

    fused = braze.fuse(compute)
    return lambda: fused(torch.ones(8, 64))


def pack_and_call(spec: Spec) -> Callable[[], None]:
    import torch

    import braze

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = chain(spec.layers)(x)
            return result

    def call() -> None:
        x = torch.ones(8, 64)
        path = os.path.join(spec.folder, "model.pt2")
        if not os.path.exists(path):
            braze.aot_compile(torch.export.export(Model(), (x,)), path, targets=("host", "x86-64-v3"))
        braze.aot_load(path)(x)

    return call


class Items:
    """A data set that computes its items with compiled code."""

    def __init__(self, layers: int) -> None:
        self.layers = layers

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> float:
        compile_and_call(self.layers)()
        return float(index)


def call_and_end(spec: Spec) -> None:
    """What a child process does."""
    compile_and_call(spec.layers)()


# -- the program --------------------------------------------------------------------------------------------
def run(spec: Spec) -> None:
    """Compile, for ``after`` seconds, and end."""
    import torch  # noqa: F401  what is registered before it finds no operators any more

    atexit.register(mark, spec, "closed")  # the first to be registered is the last to be called
    if spec.what == "atexit-before":
        atexit.register(lambda: compile_and_call(spec.layers + 1)())
    end = Ending(spec)
    end.arm()
    mark(spec, "begun")
    WHAT[spec.what](spec)
    end.here()


class Ending:
    """Ends this program when its time has come."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def arm(self) -> None:
        """Endings that come from outside, and `sys.exit` from a signal handler, happen at any moment."""
        if self.spec.how == "exit-anywhere":

            def handler(number: int, frame: object) -> NoReturn:
                mark(self.spec, "ending")
                sys.exit(STATUS)

            signal.signal(signal.SIGALRM, handler)
            # again, since Python forgets an exception that comes inside of a finaliser or a callback
            signal.setitimer(signal.ITIMER_REAL, max(self.spec.after, 1e-3), 20.0)

    def here(self) -> None:
        """The end of the program, for those who end by themselves."""
        how = self.spec.how
        if how in ("exit-anywhere", "interrupt", "interrupt-twice", "terminate", "kill"):
            time.sleep(3600)
        time.sleep(self.spec.after)
        mark(self.spec, "ending")
        if how == "exception":
            raise OnPurpose
        if how == "exit":
            sys.exit(STATUS)
        if how == "os-exit":
            os._exit(STATUS)
        if how == "unheard":
            for number in range(LINES):
                print(number)


def _call(spec: Spec) -> None:
    call = compile_and_call(spec.layers)
    call()
    call()


def _backward(spec: Spec) -> None:
    compile_and_call(spec.layers, backward=True)()


def _fuse(spec: Spec) -> None:
    fuse_and_call(spec.layers)()


def _pack(spec: Spec) -> None:
    pack_and_call(spec)()


def _in_thread(spec: Spec, daemon: bool) -> None:
    """Returns when it compiles: PyTorch itself does not stand the end of a daemon thread that calls it."""
    thread = threading.Thread(target=compile_and_call(spec.layers), daemon=daemon)
    thread.start()
    while thread.is_alive() and not is_compiling(sys._current_frames().get(thread.ident or 0)):
        time.sleep(1e-3)


def _in_executor(spec: Spec) -> None:
    ThreadPoolExecutor(2).submit(compile_and_call(spec.layers))


def _forked(spec: Spec) -> None:
    _call(spec)
    if os.fork() == 0:
        sys.stdout.flush()
        try:
            compile_and_call(spec.layers + 1)()
        finally:
            os._exit(0)


def _fork_that_ends(spec: Spec) -> None:
    """The child ends as this program does, and is waited for."""
    _call(spec)
    pid = os.fork()
    if pid == 0:
        compile_and_call(spec.layers + 1)()
        sys.exit(0)
    os.waitpid(pid, 0)


def _process(spec: Spec, method: str) -> None:
    context = multiprocessing.get_context(method)
    process = context.Process(target=call_and_end, args=(spec,))  # type: ignore[attr-defined]
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the child ended with {process.exitcode}")


def _in_processes(spec: Spec) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.submit(call_and_end, spec).result()


def _loader(spec: Spec) -> None:
    from torch.utils.data import DataLoader

    items: Any = Items(spec.layers)
    for _ in zip(range(2), DataLoader(items, num_workers=1), strict=False):
        pass


def _atexit(spec: Spec) -> None:
    call = compile_and_call(spec.layers)
    call()
    atexit.register(call)
    atexit.register(lambda: compile_and_call(spec.layers + 1)())


WHAT: dict[str, Callable[[Spec], None]] = {
    "call": _call,
    "backward": _backward,
    "fuse": _fuse,
    "package": _pack,
    "thread": lambda spec: _in_thread(spec, daemon=False),
    "daemon": lambda spec: _in_thread(spec, daemon=True),
    "thread-pool": _in_executor,
    "fork": _forked,
    "fork-that-ends": _fork_that_ends,
    "process-fork": lambda spec: _process(spec, "fork"),
    "process-spawn": lambda spec: _process(spec, "spawn"),
    "process-pool": _in_processes,
    "loader": _loader,
    "atexit": _atexit,
    "atexit-before": _call,
}


# -- many of them -------------------------------------------------------------------------------------------
def begin(spec: Spec) -> None:
    """In a process that was forked: become the program."""
    os.setsid()
    for fd, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, os.path.join(spec.folder, "out"), os.O_WRONLY | os.O_CREAT),
        (2, os.path.join(spec.folder, "err"), os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    if spec.how == "unheard":
        heard, pipe = os.pipe()
        os.close(heard)
        os.dup2(pipe, 1)
        os.close(pipe)
    os.environ.update(spec.environment())
    tempfile.tempdir = None
    faulthandler.register(signal.SIGUSR1)  # "where are you?"


def serve() -> Spec:
    """Fork for each line, and say how each process ended; in a forked process, return what it is to do."""
    import torch._dynamo  # noqa: F401  what every program would load

    print("ready", flush=True)
    for line in sys.stdin:
        spec = Spec(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            begin(spec)
            return spec
        _, status = os.waitpid(pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic()]), flush=True)
    sys.exit(0)


def as_line(spec: Spec) -> str:
    return json.dumps(asdict(spec))


if __name__ == "__main__":
    run(serve() if sys.argv[1] == "--serve" else Spec(**json.loads(sys.argv[1])))
