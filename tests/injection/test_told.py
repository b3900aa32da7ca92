"""What is said, where, how often, and what filters make of it."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from braze import notices
from braze.errors import BrazeWarning


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())


def told(action: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [one for one in caught if issubclass(one.category, BrazeWarning)]


def compiled(
    function: Callable[..., Any], folder: Path | None = None, **options: object
) -> Callable[..., Any]:
    torch._dynamo.reset()
    cache: dict[str, object] = {} if folder is None else {"cache": True, "cache_dir": str(folder)}
    return torch.compile(function, backend="braze", options={**cache, **options})


# -- notices ----------------------------------------------------------------------------------------------
def test_a_place_is_told_once() -> None:
    def say() -> None:
        for where in ("a.py:3: x.sin()", "a.py:3", "a.py:4", "b.py:3"):
            notices.say(f"{notices.SUBJECT} is slow", subject="sin", where=where)

    assert [(w.filename, w.lineno) for w in told(say)] == [("a.py", 3), ("a.py", 4), ("b.py", 3)]
    assert not told(say)


def test_what_has_no_place_is_told_at_the_users_line() -> None:
    (one,) = told(lambda: notices.say("slow"))
    assert one.filename == __file__


def test_several_subjects_of_one_text_are_one_warning() -> None:
    def say() -> None:
        with notices.held():
            for name in "abcdec":
                notices.say(f"{notices.SUBJECT} fails", subject=name, where="a.py:1")
            notices.say(f"{notices.SUBJECT} fails", subject="a", where="a.py:2")

    assert [str(w.message) for w in told(say)] == ["a, b, c and 2 more fails", "a fails"]


def test_what_is_said_everywhere_gives_way_to_what_is_said_in_a_place() -> None:
    def say(placed: bool) -> Callable[[], None]:
        def both() -> None:
            with notices.held():
                notices.say("not kept", topic="boom", everywhere=True)
                if placed:
                    notices.say("eager", topic="boom", where="a.py:1")

        return both

    assert [str(w.message) for w in told(say(True))] == ["eager"]
    assert [str(w.message) for w in told(say(False))] == ["not kept"]
    assert not told(say(False))


def test_a_block_that_fails_says_nothing() -> None:
    @notices.held()
    def fails() -> None:
        notices.say("slow")
        raise KeyError("injected")

    def both() -> None:
        with pytest.raises(KeyError):
            fails()

    assert not told(both)


def test_what_is_raised_is_raised_again() -> None:
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error", BrazeWarning)
            with pytest.raises(BrazeWarning, match="slow"):
                notices.say("slow", topic="slow", where="a.py:1")
    assert len(told(lambda: notices.say("slow", topic="slow", where="a.py:1"))) == 1


def test_a_thread_of_ours_logs_what_it_cannot_raise(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrazeWarning)
        with caplog.at_level(logging.WARNING, "braze"):
            thread = threading.Thread(target=notices.say_from_a_thread, args=("slow",))
            thread.start()
            thread.join()
    assert caplog.messages == ["slow"]


# -- compilations -----------------------------------------------------------------------------------------
def rectified(x: torch.Tensor) -> torch.Tensor:
    a = torch._add_relu(x, x)
    b = torch._add_relu(x * 2, x)
    return a + b


def test_an_operator_that_runs_eagerly_is_named_at_each_of_its_places() -> None:
    said = told(lambda: compiled(rectified)(torch.randn(2, 8)))
    lines = {w.lineno for w in said if "_add_relu" in str(w.message)}
    first = rectified.__code__.co_firstlineno
    assert lines == {first + 1, first + 2}
    assert {w.filename for w in said} == {__file__}
    assert not told(lambda: compiled(rectified)(torch.randn(2, 8)))


@pytest.mark.parametrize("mode", ["in-process", "serialized", "progressive"])
def test_filters_that_make_errors_of_warnings_do_so_whatever_is_cached(mode: str, tmp_path: Path) -> None:
    x = torch.randn(2, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrazeWarning)
        for _ in range(3):  # nothing is cached; the call is; and once more
            with pytest.raises(Exception, match="runs as eager PyTorch") as raised:
                compiled(rectified, tmp_path, fx_compile_mode=mode)(x)
            assert isinstance(raised.value.inner_exception, BrazeWarning)  # type: ignore[attr-defined]
    assert told(lambda: compiled(rectified, tmp_path, fx_compile_mode=mode)(x))


def test_filters_that_make_errors_of_warnings_reach_what_goes_on_behind() -> None:
    run, x = compiled(rectified, fx_compile_mode="async"), torch.randn(2, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrazeWarning)
        run(x)
        for thread in threading.enumerate():
            if thread.name.startswith("braze-compile-graph"):
                thread.join()
        with pytest.raises(BrazeWarning, match="runs as eager PyTorch"):
            run(x)


@pytest.mark.parametrize("folder", ["/proc/braze-cache", "/dev/null/cache"])
def test_a_cache_that_does_not_work_is_told_of_once(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    def several() -> None:
        for n in range(3):
            compiled(lambda x, n=n: x.sin() + n, Path(folder))(torch.randn(3))

    with caplog.at_level(logging.WARNING, "braze"):
        said = told(several)
    assert len(said) == 1 and not caplog.messages


# -- a backward inside of a compiled function -------------------------------------------------------------
def test_a_backward_inside_breaks_the_graph_where_it_does_for_others(tmp_path: Path) -> None:
    net = torch.nn.Linear(4, 4)

    def step(x: torch.Tensor) -> torch.Tensor:
        loss = net(x).square().sum()
        loss.backward()
        return loss.detach()

    def frames(run: Callable[..., Any]) -> dict[str, int]:
        counters.clear()
        for _ in range(2):
            run(torch.ones(3, 4))
        return dict(counters["graph_break"])

    torch._dynamo.reset()
    expected = frames(torch.compile(step, backend="aot_eager"))
    assert sum(expected.values()) == 1
    for _ in range(2):  # not cached, and cached
        assert frames(compiled(step, tmp_path)) == expected
