"""Every function by which one room enters another while a graph is compiled may fail: what those are is seen
by compiling. A few of them are tried each time, and all with ``HYPOTHESIS_PROFILE=thorough``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.injection.inject import Place, failing, state
from tests.injection.stages import ERRORS, WAYS
from tests.injection.ways import HERE, Outcome, Run, unchanged

EVERY = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 15

# What stands around all that can fail, and what makes sure of it.
THE_GUARD = (
    "braze.config:",
    "braze.notices:",
    "braze.runtime.ending:",  # its threads are known before anything is compiled in them
    "braze.runtime.engines:check_options",  # the options are looked at first
    "braze.compile.failing:",
    "braze.frontend.as_captured:",
    "braze.frontend.backend:",
    "braze._torch.dynamo:",
    "braze._torch.hidden:",  # what runs as captured is hidden, too
    "braze.artifact.autograd_call:guarded_backward",  # put around what was compiled, or is not
    "braze._torch.aot:boxed",
    "braze._torch.tracing:promised_strides",  # the last resort needs them
    "braze._torch.native:same_tensors",  # of a first call
)


def borders(run: Run) -> list[Place]:
    """Functions that are entered from another room while ``run`` compiles."""
    return [
        place
        for place in run.functions()
        if place.caller != place.room
        and not str(place).startswith(THE_GUARD)
        and "<locals>" not in place.name
    ]


@pytest.mark.parametrize("way", ["cold", "backward", "level 2"])
def test_whatever_fails_results_are_right(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = Run(WAYS[way], tmp_path, monkeypatch), state()
    places = borders(run)
    assert len(places) > 30
    wrong = []
    for number, place in enumerate(places[::EVERY]):
        kind = ERRORS[number % len(ERRORS)]
        outcome = run.break_down(place.code, lambda kind=kind: kind("injected"))  # type: ignore[misc]
        if outcome.raised:  # else it is entered the first time in a process only
            try:
                told_at_most_once_for_a_place(outcome)
                unchanged(before)
            except AssertionError as error:
                wrong.append(f"{place}: {error}")
    assert not wrong, "\n".join(wrong)


def told_at_most_once_for_a_place(outcome: Outcome) -> None:
    outcome.is_right()
    texts = [str(one.message) for one in outcome.said]
    assert texts or outcome.lines or not outcome.eager, "nothing was said"
    assert len(set(texts)) == len(texts) <= 4, texts
    assert {one.filename for one in outcome.said} <= {HERE}, texts


@pytest.mark.parametrize("way", ["cold", "backward", "level 2"])
def test_whatever_is_interrupted_is_as_before(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, before = Run(WAYS[way], tmp_path, monkeypatch), state()
    run.options["strict"] = True
    for place in borders(run)[EVERY // 2 :: EVERY]:
        run.prepare()
        compiled = run.compile()
        first = run.call(compiled, lambda place=place: failing(place.code, KeyboardInterrupt))  # type: ignore[misc]
        if not first.raised:
            continue
        assert isinstance(first.error, KeyboardInterrupt), f"{place}: {first.error!r}"
        unchanged(before)
        second = run.call(compiled)
        second.is_right()
        assert not second.eager, str(place)
