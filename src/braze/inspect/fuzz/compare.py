"""Two outcomes of one call side by side: in what a compiled program differs from the eager one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from braze.inspect.fuzz.execute import Outcome
from braze.ops.numerics import difference, difference_in_kind, within_factor

__all__ = ["Kind", "Leaf", "Problem", "aliases", "leaf_at", "leaves_of", "problems", "unmatched", "words_of"]

Kind = Literal["raises", "silent", "kind", "value", "memory", "gradient", "alias"]


@dataclass(frozen=True)
class Problem:
    """A difference. ``kind``: ``raises`` where eager does not, or is ``silent`` where eager raises; another
    ``kind`` of result (type, shape, strides); other ``value``s, also in the ``memory`` of the inputs and in a
    ``gradient``; another ``alias``. ``where``: of what."""

    kind: Kind
    where: str
    text: str


@dataclass(frozen=True)
class Leaf:
    """A tensor, or a number, that an outcome has; ``kind``: of a problem with its values."""

    kind: Literal["value", "memory", "gradient"]
    where: str
    value: Any


def leaves_of(outcome: Outcome) -> Iterator[Leaf]:
    """Results, the whole memory of the inputs, and gradients."""
    for place, result in enumerate(outcome.results):
        yield Leaf("value", f"output {place}", result)
    for name, memory in outcome.given.memories.items():
        yield Leaf("memory", f"memory of {name}", memory)
    for name, gradient in outcome.gradients.items():
        yield Leaf("gradient", f"gradient of {name}", gradient)


def problems(ours: Outcome, eager: Outcome) -> list[Problem]:
    """Every difference, values by the numerical rule's tolerances alone."""
    if ours.error is not None or eager.error is not None:
        return _of_errors(ours, eager)
    found = []
    for mine, theirs in zip(leaves_of(ours), leaves_of(eager)):
        other = difference_in_kind(mine.value, theirs.value, check_strides=mine.kind != "gradient")
        if other is not None:
            found.append(Problem("kind", mine.where, other))
            if not _comparable(mine.value, theirs.value):
                continue
        text = difference(mine.value, theirs.value)
        if text is not None:
            found.append(Problem(mine.kind, mine.where, text))
    for place, (mine, theirs) in enumerate(zip(ours.given.arguments, eager.given.arguments)):
        other = difference_in_kind(mine, theirs, check_strides=True)  # a write may change sizes
        if other is not None:
            found.append(Problem("kind", f"argument {place} afterwards", other))
    shared, expected = aliases(ours), aliases(eager)
    found += [
        Problem("alias", pair, "share memory only in eager PyTorch") for pair in sorted(expected - shared)
    ]
    found += [
        Problem("alias", pair, "share memory, in eager PyTorch not") for pair in sorted(shared - expected)
    ]
    return found


def _comparable(mine: Any, theirs: Any) -> bool:
    """Whether values can be compared although the kinds of results differ: in strides, say."""
    tensors = isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor)
    return tensors and mine.shape == theirs.shape and mine.dtype == theirs.dtype


def _of_errors(ours: Outcome, eager: Outcome) -> list[Problem]:
    if ours.error is not None and eager.error is not None:
        return []
    if ours.error is not None:
        return [Problem("raises", "the call", words_of(ours.error))]
    assert eager.error is not None
    return [Problem("silent", "the call", f"eager raises {words_of(eager.error)}")]


def words_of(error: BaseException) -> str:
    """An exception in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])}"[:400]


def aliases(outcome: Outcome) -> set[str]:
    """Which results share memory with each other, and with inputs."""
    places: dict[int, str] = {}
    for name, memory in outcome.given.memories.items():
        if memory.numel():
            places[memory.untyped_storage().data_ptr()] = name
    found = set()
    for place, result in enumerate(outcome.results):
        if not isinstance(result, torch.Tensor) or not result.numel():
            continue
        where = result.untyped_storage().data_ptr()
        first = places.setdefault(where, f"output {place}")
        if first != f"output {place}":
            found.add(f"{first} and output {place}")
    return found


def unmatched(found: Problem, ours: Outcome, eager: Outcome, exact: Outcome) -> bool:
    """Whether a problem with values remains one by the second half of the numerical rule: the error against
    float64 is more than twice eager's own."""
    if exact.error is not None:
        return True
    mine, theirs, wide = (leaf_at(outcome, found) for outcome in (ours, eager, exact))
    return not within_factor(mine, theirs, wide)


def leaf_at(outcome: Outcome, found: Problem) -> Any:
    """The value that a problem is of, in an outcome; None where it has none."""
    return next((leaf.value for leaf in leaves_of(outcome) if leaf.where == found.where), None)
