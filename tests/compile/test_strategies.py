"""Every strategy that goes through bytes gives what the in-process one gives, says what it says, and never
leaves the user with an error of its own."""

from __future__ import annotations

import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import distributed
import msgspec
import pytest
import torch
from torch._higher_order_ops.hints_wrap import hints_wrapper

from braze import config, notices
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.artifact.schema import TensorInput
from braze.compile.debug_file import DebugFileFxCompile
from braze.compile.fx_compile import FxCompile
from braze.compile.in_process import InProcessFxCompile
from braze.compile.messages import unpack_answer
from braze.compile.modes import MODES, strategy
from braze.compile.out_of_process import OutOfProcessFxCompile, SerializedFxCompile
from braze.compile.remote_job import compile_request
from braze.compile.workers import CompilePool
from braze.errors import BrazeWarning, FallbackError, WorkerError
from braze.inspect import stats
from braze.runtime.expr_parser import parse_condition
from tests.compile.requests import FakeExecutor, Kept


@pytest.fixture(scope="module")
def pool() -> Iterator[CompilePool]:
    with CompilePool(1) as started:
        started.prestart()
        yield started


@pytest.fixture(params=["serialized", "debug-file", "out-of-process", "threads"])
def compiler(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FxCompile]:
    """A strategy that goes through bytes."""
    if request.param == "threads":
        with ThreadPoolExecutor(1) as executor:
            yield OutOfProcessFxCompile(executor)
    elif request.param == "out-of-process":
        yield OutOfProcessFxCompile(request.getfixturevalue("pool"))
    else:
        yield MODES[request.param]()


@pytest.fixture(autouse=True)
def _warn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fallback is said once in a process: here, once in a test."""
    monkeypatch.setattr(notices, "_said", set())


def came_as_bytes(codes: list[OutputCode]) -> bool:
    """Whether all that was compiled was compiled elsewhere: reports stay with whoever compiled."""
    return bool(codes) and all(isinstance(c, CompiledFxGraph) and c.report is None for c in codes)


# -- the same results ---------------------------------------------------------------------------------------
def softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x.sin(), -1) @ torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def test_inference(compiler: FxCompile) -> None:
    kept, before = Kept(compiler), stats()
    x = torch.randn(4, 3)
    torch.testing.assert_close(kept.optimize(softmax)(x), softmax(x))
    assert came_as_bytes(kept.codes)
    after = stats()
    assert after.graphs - before.graphs == 1 and after.eager_graphs == before.eager_graphs
    assert after.kernels - before.kernels >= 1
    assert after.externs["aten.mm.default"] - before.externs.get("aten.mm.default", 0) == 1


def test_training(compiler: FxCompile) -> None:
    kept = Kept(compiler)
    x, y = torch.randn(4, 3, requires_grad=True), torch.randn(3, 3, requires_grad=True)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x @ y).pow(2).mean()

    ours = torch.autograd.grad(kept.optimize(loss)(x, y), (x, y))
    torch.testing.assert_close(ours, torch.autograd.grad(loss(x, y), (x, y)))
    assert [c.name.split("_")[1] for c in kept.codes] == ["forward", "backward"] and came_as_bytes(kept.codes)


def test_dynamic_shapes(compiler: FxCompile) -> None:
    kept = Kept(compiler)

    def merged(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x * 2]).reshape(-1, 2).sum(0) + x.shape[0]

    compiled = kept.optimize(merged, dynamic=True)
    for size in (4, 6, 10):
        x = torch.randn(size, 3)
        torch.testing.assert_close(compiled(x), merged(x))
    assert len(kept.codes) == 1 and came_as_bytes(kept.codes)


def test_random_numbers_are_those_of_the_in_process_strategy(compiler: FxCompile) -> None:
    def noisy(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.5) + torch.rand_like(x)

    found = []
    for one in (compiler, InProcessFxCompile()):
        torch.compiler.reset()
        kept = Kept(one)
        compiled = kept.optimize(noisy)
        torch.manual_seed(3)
        found.append([compiled(torch.ones(100)) for _ in range(2)])
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[0][1])


def test_mutation_and_views(compiler: FxCompile) -> None:
    kept = Kept(compiler)

    def step(x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state.mul_(0.9).add_(x)
        return state[1:], x.t()

    compiled = kept.optimize(step)
    ours, theirs = torch.ones(4, 4), torch.ones(4, 4)
    for _ in range(2):
        x = torch.randn(4, 4)
        torch.testing.assert_close(compiled(x, ours), step(x, theirs))
    torch.testing.assert_close(ours, theirs)
    assert came_as_bytes(kept.codes)


# -- what is said -------------------------------------------------------------------------------------------
def rectified(x: torch.Tensor) -> torch.Tensor:
    return torch._add_relu(x.sin(), x) + 1


def test_log_lines_are_said_here(compiler: FxCompile, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "braze"):
        Kept(compiler).optimize(softmax)(torch.randn(4, 3))
    (line,) = [r for r in caplog.records if "compiled in" in r.getMessage()]
    assert (line.name, line.levelno) == ("braze", logging.INFO) and line.pathname.endswith("debug.py")
    caplog.clear()
    torch.compiler.reset()
    with caplog.at_level(logging.WARNING, "braze"):
        Kept(compiler).optimize(softmax)(torch.randn(4, 3))
    assert not [r for r in caplog.records if "compiled in" in r.getMessage()]


def test_fallbacks_are_counted_and_warned_of(compiler: FxCompile) -> None:
    kept, before = Kept(compiler), stats()
    x = torch.randn(8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.testing.assert_close(kept.optimize(rectified)(x), rectified(x))
    assert came_as_bytes(kept.codes)
    new = stats().fallbacks[len(before.fallbacks) :]
    assert "aten._add_relu.Tensor" in [f.op for f in new]
    (warned,) = [w for w in caught if "_add_relu" in str(w.message)]
    assert warned.category is BrazeWarning and "test_strategies.py" in str(warned.message)


def test_a_warning_of_the_compiler_is_said_here(
    compiler: FxCompile, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "out-of-process" in request.node.name:
        return  # a worker has the real compiler, which warns of nothing
    from braze.compile import pipeline

    real = pipeline.compile_graph

    def warning(*args: Any, **keywords: Any) -> Any:
        warnings.warn("quite slow", BrazeWarning, stacklevel=1)
        return real(*args, **keywords)

    monkeypatch.setattr(pipeline, "compile_graph", warning)
    with pytest.warns(BrazeWarning, match="quite slow") as caught:
        Kept(compiler).optimize(softmax)(torch.randn(4, 3))
    (one,) = [w for w in caught if "quite slow" in str(w.message)]
    assert one.filename == __file__


def test_strict_mode_raises_the_error_itself(compiler: FxCompile) -> None:
    with config.patch(strict=True), pytest.raises(Exception, match="_add_relu") as caught:
        Kept(compiler).optimize(rectified)(torch.randn(8))
    error = caught.value.inner_exception  # type: ignore[attr-defined]
    assert type(error) is FallbackError and error.node is not None and "_add_relu" in error.node
    assert error.where is not None and "torch._add_relu" in error.where


def test_what_breaks_the_compiler_is_one_warning_and_runs_eagerly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from braze.compile import pipeline

    def broken(*args: Any, **keywords: Any) -> Any:
        raise ZeroDivisionError("in a pass")

    monkeypatch.setattr(pipeline, "compile_graph", broken)
    before, x = stats(), torch.randn(4, 3)
    with pytest.warns(BrazeWarning, match=r"runs as eager PyTorch: ZeroDivisionError: in a pass"):
        torch.testing.assert_close(Kept(SerializedFxCompile()).optimize(softmax)(x), softmax(x))
    assert stats().eager_graphs - before.eager_graphs == 1
    torch.compiler.reset()
    with config.patch(strict=True), pytest.raises(Exception, match="compiled: ZeroDivisionError: in a pass"):
        Kept(SerializedFxCompile()).optimize(softmax)(x)


# -- what cannot be sent ------------------------------------------------------------------------------------
@torch.library.custom_op("braze_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _twice_of_fakes(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [r.getMessage() for r in caplog.records if "is compiled in this process" in r.getMessage()]
    return [line.partition("is compiled in this process: ")[2] for line in lines]


def test_an_operator_of_this_process_alone(pool: CompilePool, caplog: pytest.LogCaptureFixture) -> None:
    def custom(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = twice(x.sin())
        return result + 1

    x = torch.randn(5)
    for compiler, expected in (
        (SerializedFxCompile(), []),  # it has a name here
        (OutOfProcessFxCompile(pool), ["no operator braze_tests.twice.default"]),
    ):
        caplog.clear()
        torch.compiler.reset()
        with caplog.at_level(logging.INFO, "braze"), warnings.catch_warnings():
            warnings.simplefilter("ignore", BrazeWarning)
            torch.testing.assert_close(Kept(compiler).optimize(custom)(x), custom(x))
        assert len(reasons(caplog)) == len(expected)
        assert all(part in line for part, line in zip(expected, reasons(caplog), strict=True))


def test_code_that_calls_python_stays_here(compiler: FxCompile, caplog: pytest.LogCaptureFixture) -> None:
    def hinted(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = hints_wrapper(lambda x: x.sin(), (x,), {}, hints={"outermost": True})
        return result + 1

    before = stats()
    with caplog.at_level(logging.INFO, "braze"), warnings.catch_warnings():
        warnings.simplefilter("ignore", BrazeWarning)
        torch.testing.assert_close(Kept(compiler).optimize(hinted)(torch.ones(3)), torch.ones(3).sin() + 1)
    (reason,) = reasons(caplog)
    assert "calls Python functions of this process" in reason
    assert {r.levelno for r in caplog.records if "in this process" in r.getMessage()} == {logging.INFO}
    assert stats().graphs - before.graphs == 1


def test_a_request_without_printed_form(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from braze.compile import messages
    from braze.errors import UnserializableError

    def unprintable(request: Any) -> Any:
        raise UnserializableError("an argument is a thing", node="mul", where="model.py:3")

    monkeypatch.setattr(messages, "print_request", unprintable)
    executor = FakeExecutor(lambda job, payload: job(payload))
    x = torch.randn(4, 3)
    with caplog.at_level(logging.INFO, "braze"):
        kept = Kept(OutOfProcessFxCompile(executor))
        torch.testing.assert_close(kept.optimize(softmax)(x), softmax(x))
    assert reasons(caplog) == ["it has no printed form: an argument is a thing (mul, model.py:3)"]
    assert not executor.payloads and not came_as_bytes(kept.codes)


# -- executors that fail ------------------------------------------------------------------------------------
def _raise(error: Exception) -> Any:
    raise error


def _flipped(payload: bytes) -> bytes:
    answer = bytearray(compile_request(payload))
    answer[len(answer) // 2] ^= 1
    return bytes(answer)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            lambda job, payload: _raise(WorkerError("2 compile workers were lost")),
            "2 compile workers were lost",
        ),
        (lambda job, payload: _raise(MemoryError()), "MemoryError"),
        (lambda job, payload: b"", "rubbish"),
        (lambda job, payload: b"rubbish" * 1000, "rubbish"),
        (lambda job, payload: payload, "rubbish"),
        (lambda job, payload: _flipped(payload), "checksum"),
        (lambda job, payload: "text", "TypeError"),
        (lambda job, payload: None, "TypeError"),
    ],
)
def test_whatever_an_executor_does(
    answer: Callable[..., Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept, before = Kept(OutOfProcessFxCompile(FakeExecutor(answer))), stats()
    x = torch.randn(4, 3)
    torch.testing.assert_close(kept.optimize(softmax)(x), softmax(x))
    (line,) = reasons(caplog)
    assert reason in line
    assert stats().graphs - before.graphs == 1 and not came_as_bytes(kept.codes)


def test_another_graphs_answer_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    first: list[bytes] = []

    def same_answer(job: Callable[[bytes], bytes], payload: bytes) -> bytes:
        first.append(job(payload))
        return first[0]

    compiler = OutOfProcessFxCompile(FakeExecutor(same_answer))
    x = torch.randn(4, 3)
    for fn in (softmax, lambda x: x + 1):
        torch.testing.assert_close(Kept(compiler).optimize(fn)(x), fn(x))
    (line,) = reasons(caplog)
    assert "the answer cannot be used: it is graph" in line


def test_an_executor_that_is_shut_down_or_sleeps(caplog: pytest.LogCaptureFixture) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    x = torch.randn(4, 3)
    torch.testing.assert_close(Kept(OutOfProcessFxCompile(executor)).optimize(softmax)(x), softmax(x))

    class Asleep(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            return Future()

    torch.compiler.reset()
    start = time.monotonic()
    with config.patch(compile_timeout=1):
        compiled = Kept(OutOfProcessFxCompile(Asleep())).optimize(softmax)
        torch.testing.assert_close(compiled(x), softmax(x))
    assert time.monotonic() - start < 30
    shut, late = reasons(caplog)
    assert "RuntimeError: cannot schedule new futures after shutdown" in shut and "TimeoutError" in late


# -- guards -------------------------------------------------------------------------------------------------
def _with_guard(text: str) -> Callable[..., bytes]:
    """Answers whose code is for sizes that fulfil one more guard; SIZE in it stands for the only symbol."""

    def answer(job: Callable[[bytes], bytes], payload: bytes) -> bytes:
        from braze.compile.messages import pack_answer

        found, artifact = unpack_answer(job(payload))
        assert artifact is not None
        graph = CompiledFxGraph.after_deserialization(artifact, trusted=True)
        tensors = [one.spec for one in graph.info.inputs if isinstance(one, TensorInput)]
        (symbol,) = {s for spec in tensors for e in spec.sizes for s in e.free_symbols}
        guard = parse_condition(text.replace("SIZE", symbol.name), {symbol.name: symbol})
        graph.info = msgspec.structs.replace(graph.info, guards=(guard,))
        return pack_answer(found, graph.prepare_for_serialization())

    return answer


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * x.shape[0]


def test_guards_of_an_answer_are_guards_here() -> None:
    kept = Kept(OutOfProcessFxCompile(FakeExecutor(_with_guard("SIZE - 10 >= 0"))))
    compiled = kept.optimize(scaled, dynamic=True)
    for size, graphs in ((12, 1), (10, 1), (100, 1)):
        x = torch.randn(size)
        torch.testing.assert_close(compiled(x), scaled(x))
        assert len(kept.codes) == graphs and came_as_bytes(kept.codes)
    torch.testing.assert_close(compiled(torch.ones(9)), scaled(torch.ones(9)))
    assert len(kept.codes) == 2 and not came_as_bytes(kept.codes)  # for 9, that answer is of no use


def test_code_for_other_sizes_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    kept, before = Kept(OutOfProcessFxCompile(FakeExecutor(_with_guard("SIZE - 1000 >= 0")))), stats()
    with caplog.at_level(logging.INFO, "braze"):
        torch.testing.assert_close(kept.optimize(scaled, dynamic=True)(torch.ones(9)), scaled(torch.ones(9)))
    assert reasons(caplog) == ["the answer is for sizes other than those here"]
    assert not came_as_bytes(kept.codes) and stats().graphs - before.graphs == 1


# -- executors from elsewhere -------------------------------------------------------------------------------
def _use(executor: Executor, caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(OutOfProcessFxCompile(executor))
    x = torch.randn(4, 3)
    with caplog.at_level(logging.INFO, "braze"):
        torch.testing.assert_close(kept.optimize(softmax)(x), softmax(x))
    assert came_as_bytes(kept.codes), reasons(caplog)
    assert any("compiled in" in r.getMessage() for r in caplog.records)


@pytest.mark.serial
def test_the_standard_librarys_processes(caplog: pytest.LogCaptureFixture) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        _use(processes, caplog)


@pytest.mark.serial
def test_a_dask_cluster(caplog: pytest.LogCaptureFixture) -> None:
    cluster = distributed.LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
    )
    with cluster, distributed.Client(cluster) as client:  # type: ignore[no-untyped-call]
        _use(client.get_executor(pure=False), caplog)


# -- the option ---------------------------------------------------------------------------------------------
def test_the_option_names_the_strategy() -> None:
    for mode, make in MODES.items():
        assert type(strategy(config.Config(fx_compile_mode=mode))) is type(make())


def test_files_of_a_mode_given_in_options(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.randn(4, 3)
    options: dict[str, Any] = {
        "fx_compile_mode": "debug-file",
        "debug_dir": str(tmp_path / "here"),
        "cache": True,
    }
    compiled = torch.compile(softmax, backend="braze", options=options)
    torch.testing.assert_close(compiled(x), softmax(x))
    (folder,) = [f for f in (tmp_path / "here").iterdir() if f.name.endswith(".request")]
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert {"request.txt", "constants.safetensors", "context.json", "answer.txt", "artifact.braze"} <= files
    assert {"variant0/plan.txt", "variant0/module0.ll"} <= files
    text = (folder / "request.txt").read_text()
    assert (
        "aten.mm.default" in text
        and "debug_dir" not in text
        and str(tmp_path) not in text.split("def forward(")[0]
    )
    answer = (folder / "answer.txt").read_text()
    assert "inference graph graph" in answer and "extern  aten.mm.default" in answer
    assert any(str(folder) in r.getMessage() for r in caplog.records)
    assert (tmp_path / "here" / folder.name.removesuffix(".request") / "ir.txt").exists()


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    x = torch.randn(4, 3)
    kept = Kept(DebugFileFxCompile())
    with config.patch(debug_dir=str(tmp_path / "file" / "folder")):
        torch.testing.assert_close(kept.optimize(softmax)(x), softmax(x))
    (line,) = reasons(caplog)
    assert "NotADirectoryError" in line
    assert isinstance(kept.codes[0], CompiledFxGraph)
    assert any("files about a graph cannot be written" in r.getMessage() for r in caplog.records)
