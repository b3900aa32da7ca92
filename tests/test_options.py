"""Every option does something: for each there is a function here that sets it and sees what comes of it.

An option without one is no option: `EFFECTS` has to name all of them."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import braze
from braze import config
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.output_code import OutputCode
from braze.cache.keyring import KeyRing
from braze.cache.paths import keyring_folder
from braze.cache.remote import configured
from braze.cache.store import open_store
from braze.codegen.backends import registered
from braze.codegen.llvm import pool as llvm_pool
from braze.compile import background, debug_file, modes, out_of_process, pipeline, verifying
from braze.compile import workers as compile_pool
from braze.compile.fx_compile import CompileRequest
from braze.compile.in_process import InProcessFxCompile
from braze.compile.switching import SwitchingCode
from braze.compile.workers import CompilePool
from braze.config import Config
from braze.errors import BrazeWarning, WorkerError
from braze.frontend import backend as frontend
from braze.frontend.backend import make_backend
from braze.inspect import stats
from braze.ops.kernel import Kernel
from tests.cache.stores import put
from tests.cache.test_remote import KEY, Moody
from tests.codegen.numpy_backend import registering_name
from tests.codegen.numpy_backend.backend import NUMPY
from tests.compile.workers import light_jobs

X = torch.linspace(-1, 1, 4000)


def _f(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * 3 + x.cos()


class Kept:
    """Compiles as the options say, and keeps the code."""

    def __init__(self) -> None:
        self.codes: list[OutputCode] = []

    def compile(self, request: CompileRequest) -> OutputCode:
        self.codes.append(modes.strategy(request.config).compile(request))
        return self.codes[-1]


def _code(function: Callable[..., Any] = _f, **options: object) -> CompiledFxGraph:
    """What a function is compiled to with these options."""
    torch.compiler.reset()
    kept = Kept()
    torch.compile(function, backend=make_backend(kept), options=options or None)(X)
    (code,) = kept.codes
    assert isinstance(code, CompiledFxGraph)
    return code


def _ir(code: CompiledFxGraph) -> str:
    return "".join(bytes(m.ir).decode() for m in code.variant().modules)


def _until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- one function for each option ---------------------------------------------------------------------------
def _cache(folder: Path) -> None:
    for cache in (False, True):
        torch.compiler.reset()
        options = {"cache": cache, "cache_dir": str(folder / "kept")}
        torch.compile(_f, backend="braze", options=options)(X)
        assert (folder / "kept").exists() == cache


def _cache_size_mb(folder: Path) -> None:
    def kept(megabytes: int) -> int:
        options = Config(cache_dir=str(folder / str(megabytes)), cache_size_mb=megabytes)
        store = open_store(options)
        assert store is not None
        for number in range(600):
            put(store, number)
        return store.statistics().entries

    assert kept(1) < kept(100) == 600


def _compile_idle_seconds(folder: Path) -> None:
    with config.patch(compile_idle_seconds=1), CompilePool(1, jobs=light_jobs.__name__) as pool:
        pool.submit(light_jobs.double, b"x").result(60)
        assert pool.worker_pids()
        _until(lambda: not pool.worker_pids())


def _compile_memory_mb(folder: Path) -> None:
    with config.patch(compile_memory_mb=64), CompilePool(1, jobs=light_jobs.__name__) as pool:
        endless = pool.submit(light_jobs.allocate_without_end, b"")
        with pytest.raises(WorkerError, match=r"[Mm]emory"):
            endless.result(60)


def _compile_timeout(folder: Path) -> None:
    with config.patch(compile_timeout=1), CompilePool(1, attempts=1, jobs=light_jobs.__name__) as pool:
        endless = pool.submit(light_jobs.sleep_for_ever, b"")
        with pytest.raises(WorkerError, match="did not answer for 1 s"):
            endless.result(60)
    with ThreadPoolExecutor(1) as never, config.patch(compile_timeout=1):
        never.submit(time.sleep, 2)  # an executor that has no time for us
        kept = out_of_process.OutOfProcessFxCompile(never)
        torch.compiler.reset()
        torch.testing.assert_close(torch.compile(_f, backend=make_backend(kept))(X), _f(X))


def _compile_workers(folder: Path) -> None:
    for workers in (1, 2):
        with config.patch(compile_workers=workers), CompilePool(jobs=light_jobs.__name__) as pool:
            list(pool.map(light_jobs.nap, [b"0.2"] * 4))
            assert len(pool.worker_pids()) == workers
    for workers in (3, 1):
        with config.patch(compile_workers=workers):
            assert compile_pool.shared().size == workers


def _debug_dir(folder: Path) -> None:
    _code(debug_dir=str(folder / "debug"))
    assert any((folder / "debug").rglob("*.ll"))


def _emulate_precision_casts(folder: Path) -> None:
    x, y = (torch.linspace(-3, 3, 4000).sin() * n for n in (1.1, 2.3))
    x, y = x.bfloat16(), y.bfloat16()

    def chain(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x * y + x) * y + 0.3

    def result(emulated: bool) -> torch.Tensor:
        torch.compiler.reset()
        options = {"emulate_precision_casts": emulated}
        return torch.compile(chain, backend="braze", options=options)(x, y)  # type: ignore[no-any-return]

    assert torch.equal(result(True), chain(x, y)) and not torch.equal(result(False), chain(x, y))


def _fallback_random(folder: Path) -> None:
    def numbers(function: Callable[..., torch.Tensor]) -> torch.Tensor:
        torch.compiler.reset()
        torch.manual_seed(1)
        return function(X)

    def draw(x: torch.Tensor) -> torch.Tensor:
        return torch.rand_like(x) + x

    expected = numbers(draw)
    options = {"fallback_random": True, "strict": True}
    assert torch.equal(numbers(torch.compile(draw, backend="braze", options=options)), expected)
    assert not torch.equal(numbers(torch.compile(draw, backend="braze")), expected)


def _fx_compile_mode(folder: Path) -> None:
    with config.patch(debug_dir=str(folder), fx_compile_mode="debug-file"):
        _code()
    assert list(folder.rglob("request.txt")) and list(folder.rglob("answer.txt"))
    kinds = {name: type(modes.strategy(Config(fx_compile_mode=name))) for name in modes.MODES}
    assert len(set(kinds.values())) == len(kinds)
    assert kinds["debug-file"] is debug_file.DebugFileFxCompile
    for name in ("async", "progressive"):
        kept = Kept()
        torch.compiler.reset()
        torch.compile(_f, backend=make_backend(kept), options={"fx_compile_mode": name})(X)
        (code,) = kept.codes
        assert isinstance(code, SwitchingCode) and code.reason is None
        _until(lambda code=code: code.final)
    assert kinds["async"] is background.AsyncFxCompile


def _keyring_dir(folder: Path) -> None:
    KeyRing(keyring_folder(Config(keyring_dir=str(folder / "keys")))).generate("ada")
    assert any((folder / "keys").iterdir())


def _llvm_in_process(folder: Path) -> None:
    for here in (True, False):
        pool = llvm_pool.Pool(1)
        with config.patch(llvm_in_process=here):
            pool.compile("define void @f() { ret void }", cpu="").result()
        assert len(pool.worker_pids()) == (not here)
        pool.close()


def _llvm_opt_level(folder: Path) -> None:
    for level in (0, 3):
        assert _code(llvm_opt_level=level).variant().info.parts[0].opt_levels[0] == level


def _llvm_workers(folder: Path) -> None:
    for workers in (1, 3, 2):
        with config.patch(llvm_workers=workers):
            assert llvm_pool.shared().workers.size == workers
    with config.patch(llvm_workers=3):
        llvm_pool.prestart()
        assert len(llvm_pool.shared().worker_pids()) == 3


def _min_parallel_work(folder: Path) -> None:
    for least, alone in ((1 << 40, True), (0, False)):
        source: str = _code(min_parallel_work=least).run.source  # type: ignore[attr-defined]
        assert (".data_ptr()), 1):" in source) == alone  # the number of threads is the last argument


def _remote_cache(folder: Path) -> None:
    KeyRing(folder / "keys").generate("ada")
    options = {
        "cache": True,
        "cache_dir": str(folder / "here"),
        "keyring_dir": str(folder / "keys"),
        "remote_cache": f"file://{folder / 'shared'}",
    }
    torch.compiler.reset()
    torch.compile(_f, backend="braze", options=options)(X)
    remote = configured(Config().replace(**options))
    assert remote is not None and remote.flush(60)
    assert any((folder / "shared").rglob("*.braze"))


def _remote_cache_timeout_ms(folder: Path) -> None:
    Moody.mood = "hanging"
    options = Config(remote_cache="braze-moody://late", remote_cache_timeout_ms=1, keyring_dir=str(folder))
    remote = configured(options)
    try:
        assert remote is not None and remote.get(KEY) == [] and remote.counts.failures == 1
    finally:
        Moody.mood = "well"
        Moody.release.set()


def _strict(folder: Path) -> None:
    def falls_back(x: torch.Tensor) -> torch.Tensor:
        return torch._add_relu(x, x) + 1

    for strict in (False, True):
        torch.compiler.reset()
        compiled = torch.compile(falls_back, backend="braze", options={"strict": strict})
        if strict:
            with pytest.raises(Exception, match="would run as eager PyTorch"):
                compiled(X)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BrazeWarning)
                compiled(X)


def _target_cpu(folder: Path) -> None:
    assert _code(target_cpu="x86-64-v2").variant().info.target == "x86-64-v2"
    (part,) = _code(target_cpu="generic").variant().info.parts
    assert part.traits["features"] == ""


def _device_backends(folder: Path) -> None:
    with registered(NUMPY, module=registering_name):
        (part,) = _code(device_backends="cpu=numpy").variant().info.parts
        assert part.kind == "numpy"
    (part,) = _code().variant().info.parts
    assert part.kind == "cpu"


def _vector_width(folder: Path) -> None:
    assert "<4 x float>" in _ir(_code(vector_width=4))
    assert "x float>" not in _ir(_code(vector_width=1))


def _verify(folder: Path) -> None:
    """A kernel that runs under it is interpreted as well."""
    with pytest.MonkeyPatch.context() as patch:
        seen: list[str] = []
        interpreted = verifying.interpret

        def noted(kernel: Kernel, *rest: Any) -> None:
            seen.append(kernel.name)
            interpreted(kernel, *rest)

        patch.setattr(verifying, "interpret", noted)
        for verify in (False, True):
            torch._dynamo.reset()
            torch.compile(lambda x: x + 1, backend="braze", options={"verify": verify})(torch.randn(3))
            assert len(seen) == verify


EFFECTS: dict[str, Callable[[Path], None]] = {
    "cache": _cache,
    "cache_dir": _cache,
    "cache_size_mb": _cache_size_mb,
    "compile_idle_seconds": _compile_idle_seconds,
    "compile_memory_mb": _compile_memory_mb,
    "compile_timeout": _compile_timeout,
    "compile_workers": _compile_workers,
    "debug_dir": _debug_dir,
    "device_backends": _device_backends,
    "emulate_precision_casts": _emulate_precision_casts,
    "fallback_random": _fallback_random,
    "fx_compile_mode": _fx_compile_mode,
    "keyring_dir": _keyring_dir,
    "llvm_in_process": _llvm_in_process,
    "llvm_opt_level": _llvm_opt_level,
    "llvm_workers": _llvm_workers,
    "min_parallel_work": _min_parallel_work,
    "remote_cache": _remote_cache,
    "remote_cache_timeout_ms": _remote_cache_timeout_ms,
    "strict": _strict,
    "target_cpu": _target_cpu,
    "vector_width": _vector_width,
    "verify": _verify,
}


@pytest.fixture(autouse=True)
def _usual_pools() -> Iterator[None]:
    yield
    llvm_pool.shared()
    compile_pool.shared()


def test_every_option_has_an_effect_here() -> None:
    assert list(EFFECTS) == sorted(f.name for f in dataclasses.fields(Config))


@pytest.mark.parametrize("name", [name for name in EFFECTS if name != "cache_dir"])
def test_an_option_does_something(name: str, tmp_path: Path) -> None:
    EFFECTS[name](tmp_path)


@pytest.mark.parametrize("mode", frontend.MODES)
def test_a_mode_is_a_set_of_options(mode: str) -> None:
    seen: list[Config] = []

    class Recorder:
        def compile(self, request: CompileRequest) -> OutputCode:
            seen.append(request.config)
            return InProcessFxCompile().compile(request)

    torch.compiler.reset()
    torch.compile(_f, backend=make_backend(Recorder()), mode=mode)(X)
    assert seen == [config.current().replace(**frontend.MODES[mode])]
    assert ("llvm_opt_level" in frontend.MODES[mode]) == mode.startswith("max-autotune")


# -- the doors that take options ----------------------------------------------------------------------------
OPTIONS: dict[str, object] = {
    "strict": True,
    "emulate_precision_casts": True,
    "fallback_random": True,
    "llvm_opt_level": 2,
    "vector_width": 4,
    "min_parallel_work": 12345,
    "llvm_workers": 2,
    "cache": False,
}


def _through_compile(function: Callable[..., Any], folder: Path) -> None:
    torch.compile(function, backend="braze", options=OPTIONS)(X)


def _through_gradients(function: Callable[..., Any], folder: Path) -> None:
    result = torch.compile(function, backend="braze", options=OPTIONS)(X.clone().requires_grad_())
    result.sum().backward()


def _through_background(function: Callable[..., Any], folder: Path) -> None:
    before = stats().graphs
    torch.compile(function, backend="braze", options={**OPTIONS, "fx_compile_mode": "async"})(X)
    _until(lambda: stats().graphs > before)


def _through_fuse(function: Callable[..., Any], folder: Path) -> None:
    braze.fuse(function, options=OPTIONS)(X)


def _through_fused_gradients(function: Callable[..., Any], folder: Path) -> None:
    braze.fuse(function, options=OPTIONS)(X.clone().requires_grad_()).sum().backward()


def _through_fused_rows(function: Callable[..., Any], folder: Path) -> None:
    braze.fuse(lambda x: function(x).softmax(0), options=OPTIONS)(X)


def _through_a_package(function: Callable[..., Any], folder: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    program = torch.export.export(Model(), (X,))
    braze.aot_compile(program, folder / "model.pt2", ("generic",), options=OPTIONS)


def _through_explain(function: Callable[..., Any], folder: Path) -> None:
    with config.patch(**OPTIONS):
        braze.explain(function, X)


DOORS = {
    "compile": _through_compile,
    "gradients": _through_gradients,
    "background": _through_background,
    "fuse": _through_fuse,
    "fused gradients": _through_fused_gradients,
    "fused rows": _through_fused_rows,
    "package": _through_a_package,
    "explain": _through_explain,
}


@pytest.mark.parametrize("door", DOORS)
def test_options_hold_while_a_graph_is_compiled(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Config, Config]] = []
    real = pipeline.compile_graph

    def compile_graph(request: CompileRequest, *, link: bool = True) -> CompiledFxGraph:
        seen.append((request.config, config.current()))
        return real(request, link=link)

    monkeypatch.setattr(pipeline, "compile_graph", compile_graph)
    torch.compiler.reset()
    DOORS[door](lambda x: x.sin() * 3 + 1, tmp_path)
    assert seen
    for asked, held in seen:
        for name, value in OPTIONS.items():
            assert (getattr(asked, name), getattr(held, name)) == (value, value), name
