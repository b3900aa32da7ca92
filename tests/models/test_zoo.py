"""Real models: what they compute, and what they are compiled to."""

from __future__ import annotations

import itertools

import pytest

from tests import support
from tests.models import zoo
from tests.models.compare import Outcome, optimizer_outcome, outcome


def names(models: tuple[zoo.Model, ...]) -> list[str]:
    return [model.name for model in models]


def assert_compiled_whole(stats: support.Stats) -> None:
    """One graph came, all of it was compiled, and only operators that are kept whole were called in ATen."""
    assert stats.graphs >= 1
    if not stats.detailed:
        return
    assert stats.eager_graphs == 0, f"graphs run by eager operators: {[str(f) for f in stats.fallbacks]}"
    assert not stats.fallbacks, [str(f) for f in stats.fallbacks]
    assert not stats.foreign_externs, stats.foreign_externs
    assert stats.kernels >= 1


def check(found: Outcome, graphs: int | None) -> None:
    found.check()
    assert_compiled_whole(found.stats)
    if graphs is not None:
        assert found.stats.graphs == graphs


@pytest.mark.parametrize("name", names(tuple(m for m in zoo.MODELS if m.kind == "inference")))
def test_inference_agrees_with_eager(name: str) -> None:
    check(outcome(zoo.find(name)), graphs=1)


@pytest.mark.parametrize("name", names(tuple(m for m in zoo.MODELS if m.kind == "training")))
def test_loss_gradients_and_buffers_agree_with_eager(name: str) -> None:
    check(outcome(zoo.find(name)), graphs=None)


@pytest.mark.parametrize("name", names(zoo.TRAINING))
def test_optimizer_steps_agree_with_eager(name: str) -> None:
    check(optimizer_outcome(zoo.find(name)), graphs=None)


def test_training_reduces_the_loss() -> None:
    """The whole loop compiled, twenty steps on one batch."""
    model = zoo.find("mlp-train")
    module, inputs = model.make("test")
    optimizer = zoo.optimizer(module)
    call, step = support.compile_with(module), support.compile_with(optimizer.step)
    losses = []
    for _ in range(20):
        optimizer.zero_grad(set_to_none=True)
        losses.append(zoo.run(model, call, inputs).item())
        step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(later < earlier + 0.05 for earlier, later in itertools.pairwise(losses))


def test_the_zoo_is_the_same_each_time() -> None:
    first, inputs = zoo.find("dlrm").make("test")
    second, again = zoo.find("dlrm").make("test")
    assert all((a == b).all() for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert all((inputs[key] == again[key]).all() for key in inputs)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(KeyError, match="there are bert, gpt2"):
        zoo.find("bart")
