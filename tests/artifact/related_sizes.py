"""Exported programs whose inputs' sizes have to do with each other, made at random, as packages: what the
exported program refuses is refused, what it accepts is computed alike, and no byte outside of the inputs is
touched.

``python -m tests.artifact.related_sizes --programs 300`` looks at as many, each with five sets of sizes."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.export import Dim, ExportedProgram, export

import braze
from braze.errors import BrazeError, InputMismatchError, PackageError
from tests.guard_pages import PLACES, guarded

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SETS = 5


def _branch(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] > y.shape[0] else y - 1


def _parity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + 1 if (x.shape[0] + y.shape[0]) % 2 == 0 else x * y[:1]


def _case(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if x.shape[0] == y.shape[0]:
        return x * y
    return x[: y.shape[0]].sum() if x.shape[0] >= 2 * y.shape[0] else x.sum() + y


def _pieces(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    first, second = torch.cat([x, y]).split([y.shape[0], x.shape[0]])
    return first * y + second.sum()


def _filled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    room = x.new_zeros(y.shape[0])
    room[: x.shape[0] // 2] = x[: x.shape[0] // 2]
    return room + y


# each with two vectors, and the sizes of an example that it accepts
STEPS: dict[str, tuple[Step, int, int]] = {
    "head": (lambda x, y: x[: y.shape[0]] + y, 7, 4),
    "tail": (lambda x, y: x[y.shape[0] :] * 2, 7, 4),
    "last": (lambda x, y: x[-y.shape[0] :] + y, 7, 4),
    "middle": (lambda x, y: x[1 : y.shape[0] + 1] - y, 7, 4),
    "strided": (lambda x, y: x[::2][: y.shape[0]] + y, 9, 4),
    "one": (lambda x, y: x[y.shape[0] - 1] + y, 7, 4),
    "one from behind": (lambda x, y: x[-y.shape[0]] + y, 7, 4),
    "half way": (lambda x, y: x[y.shape[0] // 2] * y, 7, 4),
    "narrow": (lambda x, y: x.narrow(0, 0, y.shape[0]) * y, 7, 4),
    "narrow rest": (lambda x, y: x.narrow(0, y.shape[0], x.shape[0] - y.shape[0]) + 1, 7, 4),
    "narrow inside": (lambda x, y: x.narrow(0, 2, y.shape[0]) + y, 7, 4),
    "rows": (lambda x, y: x.view(y.shape[0], -1) + y[:, None], 12, 4),
    "columns": (lambda x, y: x.view(-1, y.shape[0]) * y, 12, 4),
    "pairs": (lambda x, y: x.unflatten(0, (-1, 2)).sum(1) + y, 8, 4),
    "expand": (lambda x, y: x[:1].expand(y.shape[0]) + y, 7, 4),
    "expand rows": (lambda x, y: x.expand(y.shape[0], -1) + y[:, None], 7, 4),
    "equal": (lambda x, y: x + y, 6, 6),
    "one more": (lambda x, y: x[1:] + y, 7, 6),
    "twice": (lambda x, y: x[::2] * y, 8, 4),
    "windows": (lambda x, y: x.unfold(0, 3, 2).sum(1) + y, 9, 4),
    "windows of y": (lambda x, y: x.unfold(0, y.shape[0], 1) * y, 7, 4),
    "cat and split": (_pieces, 7, 4),
    "cat and cut": (lambda x, y: torch.cat([x, y])[: x.shape[0]] * x, 7, 4),
    "chunks": (lambda x, y: x.chunk(2)[0] + y, 8, 4),
    "branch": (_branch, 7, 4),
    "parity": (_parity, 7, 5),
    "case": (_case, 9, 4),
    "roll": (lambda x, y: x.roll(y.shape[0]) + 1, 7, 4),
    "pad": (lambda x, y: F.pad(y, (0, x.shape[0] - y.shape[0])) + x, 7, 4),
    "numbers": (lambda x, y: x[torch.arange(y.shape[0])] + y, 7, 4),
    "dot": (lambda x, y: x[: y.shape[0]] @ y + x, 7, 4),
    "outer": (lambda x, y: torch.outer(x, y)[: y.shape[0]].sum(0) + y, 7, 4),
    "as_strided": (lambda x, y: x.as_strided((y.shape[0],), (1,)) + y, 7, 4),
    "diagonal": (lambda x, y: x[: y.shape[0] * 2].view(2, -1).diagonal(1) + y[1:2], 9, 4),
    "filled": (_filled, 7, 4),
    "repeated": (lambda x, y: y.repeat(2)[: x.shape[0]] + x, 7, 4),
    "flipped": (lambda x, y: x.flip(0)[: y.shape[0]].cumsum(0) + y, 7, 4),
    "softmax": (lambda x, y: x[: y.shape[0]].softmax(0) * y, 7, 4),
}


@dataclass
class Program:
    """``sizes``: of the example; ``derived``: what the dimensions were declared to be, of one number."""

    name: str
    body: Callable[..., Any]
    sizes: list[int]
    dims: str
    derived: list[tuple[int, int]] = field(default_factory=list)

    def declared(self, sizes: Sequence[int]) -> bool:
        """Whether sizes are what the dimensions were declared to be."""
        if not self.derived:
            return True
        numbers = {(n - rest) / factor for n, (factor, rest) in zip(sizes, self.derived, strict=True)}
        return len(numbers) == 1 and numbers.pop().is_integer()


class Two(torch.nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.body(x, y)


class Three(Two):
    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:  # type: ignore[override]
        return self.body(x, y, z)


def made(seed: int) -> Program:
    """A program; the same for the same seed."""
    rng = random.Random(seed)
    first = list(STEPS)[seed % len(STEPS)]
    step, n, m = STEPS[first]
    if rng.random() < 0.5:
        scale = rng.choice([1, 2, 3])
        body = _with_pointwise(step, rng.choice([torch.relu, torch.tanh, torch.neg]))
        return Program(first, body, [n * scale, m * scale] if first != "one more" else [n, m], "auto")
    second = rng.choice(list(STEPS))
    other, k, _ = STEPS[second]
    third = other is not step and k == n
    if third:  # x with y by the first step, x with z by the second
        sizes = [n, m, STEPS[second][2]]
        return Program(
            f"{first}, {second}", lambda x, y, z: (step(x, y).sum() * x, other(x, z)), sizes, "auto"
        )
    factor, rest = rng.choice([(1, 1), (2, 0), (2, 1), (3, 0), (1, 3)])
    length = rng.choice([4, 5, 6])
    sizes = [factor * length + rest, length]
    return Program(f"{first}, derived", step, sizes, "derived", [(factor, rest), (1, 0)])


def _with_pointwise(step: Step, function: Callable[[torch.Tensor], torch.Tensor]) -> Step:
    return lambda x, y: function(step(function(x), y) + 1)


def exported(program: Program) -> ExportedProgram | None:
    """None where PyTorch does not export it."""
    inputs = tuple(torch.randn(n) for n in program.sizes)
    if program.dims == "derived":
        number = Dim("n", min=1, max=1000)
        shapes: Any = tuple({0: factor * number + rest} for factor, rest in program.derived)
    else:
        shapes = tuple({0: Dim.AUTO} for _ in inputs)
    module = Two(program.body) if len(inputs) == 2 else Three(program.body)
    try:
        return export(module, inputs, dynamic_shapes=shapes)
    except (RuntimeError, ValueError, AssertionError, torch._dynamo.exc.UserError):
        return None


def sets_of(program: Program, seed: int) -> list[list[int]]:
    """Sizes to call a program with: the example's, such that keep its relations, and others."""
    rng = random.Random(-seed)
    found = [list(program.sizes)]
    grown = rng.choice([2, 3])
    found.append([n * grown for n in program.sizes])
    if program.derived:
        number = rng.randrange(2, 9)
        found[-1] = [factor * number + rest for factor, rest in program.derived]
    found.append([max(1, n + rng.choice([-2, -1, 1, 2])) for n in program.sizes])
    found.append(list(reversed(program.sizes)))
    while len(found) < SETS:
        found.append([rng.choice([0, 1, 2, 3, 5, 8, 13, 40, 1500]) for _ in program.sizes])
    return found


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def check(seed: int, folder: Path, tally: Tally) -> None:
    """One program, with all its sizes."""
    torch.manual_seed(seed)
    program = made(seed)
    source = exported(program)
    if source is None:
        tally.counts["programs that PyTorch does not export"] += 1
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = braze.aot_compile(source, folder / "model.pt2", targets=("host",))
    except PackageError as error:
        tally.counts["programs that are refused"] += 1
        tally.counts[f"refused: {error.what[:90]}"] += 1
        return
    tally.counts["programs"] += 1
    loaded, module = braze.aot_load(path), source.module()
    for sizes in sets_of(program, seed):
        inputs = [torch.randn(n) for n in sizes]
        expected = _outcome(module, inputs)
        for place in PLACES:
            print(f"  {seed} {program.name} {sizes} {place}", file=sys.stderr)
            found = _outcome(loaded, [guarded(t, place) for t in inputs])
            what = _judge(program, sizes, expected, found)
            # the graph by itself, without what the package does before it
            _, graph = loaded._chosen(inputs)
            direct = _outcome(lambda *args, run=graph: run(list(args)), [guarded(t, place) for t in inputs])
            if isinstance(direct, Exception) != isinstance(found, Exception):
                what = f"WRONG: the graph itself gives {direct!r}"
            tally.counts[what] += 1
            if what.startswith("WRONG"):
                tally.wrong.append(f"{what}: seed {seed}, {program.name} {sizes}: {expected!r} and {found!r}")


def _outcome(call: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Any:
    try:
        return call(*inputs)
    except (BrazeError, RuntimeError, ValueError, IndexError, ArithmeticError, AssertionError) as error:
        return error


def _judge(program: Program, sizes: Sequence[int], expected: Any, found: Any) -> str:
    if isinstance(expected, Exception):
        if isinstance(found, InputMismatchError):
            named = any(words in found.what for words in (".shape[0]", "size 0 of", "its sizes are"))
            return "both refuse" if named else "WRONG: it does not say what is refused"
        return "both raise" if isinstance(found, Exception) else "WRONG: only the program refuses"
    if isinstance(found, InputMismatchError):
        if not program.declared(sizes):
            return "the package alone refuses what was not declared"
        if "size 0 of" in found.what and "at least" in found.what:
            return "the package alone refuses a size below the trace's bound"
        return "WRONG: only the package refuses"
    if isinstance(found, Exception):
        return "WRONG: only the package fails"
    try:
        torch.testing.assert_close(found, expected)
    except AssertionError:
        return "WRONG: other numbers"
    return "both agree"


def run(seeds: Sequence[int]) -> Tally:
    """All programs of these seeds."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            check(seed, Path(folder), tally)
            torch._dynamo.reset()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    tally = run(range(args.first, args.first + args.programs))
    for what, count in sorted(tally.counts.items()):
        print(f"{count:6} {what}")
    print(*tally.wrong[:40], sep="\n")
    return 1 if tally.wrong or not tally.counts["both agree"] else 0


if __name__ == "__main__":
    sys.exit(main())
