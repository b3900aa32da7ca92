"""Sizes of 0 and 1: which graphs it takes to serve them.

`torch.export` traces a size that may differ as a symbol from 2 on, whatever range was declared for it, and
the exported program runs for 0 and 1 all the same. Compiled code relies on what its trace assumed. So the
program is traced again, over symbols from 1 on, in the way in which PyTorch traces sizes that depend on data:
without looking whether one is 1. Mostly the graph is the same, and one graph serves all. Where it is not, or
a decision was needed, there is one more graph, for the small sizes alone. A size of 0 is always a number in a
graph of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from braze._torch import export, shape_envs, shapes
from braze._torch.shape_envs import SymbolFacts
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.config import Config
from braze.errors import BrazeError, PackageError
from braze.frontend.exported import Prepared, prepare

__all__ = ["Case", "Served", "served_by"]

MAX_TRACES: Final = 40
"""For sizes that were declared ..."""
MAX_UNDECLARED: Final = 12
"""... and for those that were not: programs with many sizes take long to trace."""
MAX_CORNERS: Final = 64
"""Combinations of 0, 1 and more that are tried to learn whether a program runs for any."""
MAX_EXAMPLES: Final = 20_000
"""Sizes that are tried as an example of a region."""
MAX_GRAPHS: Final = 12
"""Graphs of one package: more are more than the sizes of 0 and 1 of any model that people deploy."""


@dataclass(frozen=True)
class Case:
    """A graph for some of a program's sizes."""

    prepared: Prepared
    graph: CompiledFxGraph


@dataclass(frozen=True)
class Served:
    """``cases``: what serves a program's sizes, the graph for large ones first; ``prepared``: the program as
    it was traced for those; ``least``: by symbol, the least size that one of the graphs takes, where that is
    not what ``prepared`` says; ``without``: sizes that were not declared, and that none of them takes
    although the program does, as one would write them."""

    prepared: Prepared
    cases: tuple[Case, ...]
    least: Mapping[str, int]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Region:
    """Some of the sizes: symbols that are 0 or 1, and the least that others may be."""

    fixed: Mapping[str, int]
    least: Mapping[str, int]

    def __str__(self) -> str:
        return " and ".join(f"{name} = {value}" for name, value in self.fixed.items()) or "1"

    def split(self, name: str) -> Iterator[_Region]:
        """The same sizes in two regions: the least value of a symbol, and those above."""
        others = {n: v for n, v in self.least.items() if n != name}
        yield _Region({**self.fixed, name: self.least[name]}, others)
        above = {**self.least, name: self.least[name] + 1}
        if self.fixed or any(n < 2 for n in above.values()):
            yield _Region(self.fixed, above)


def served_by(
    program: ExportedProgram, config: Config, compiled: Callable[[Prepared], CompiledFxGraph]
) -> Served:
    """The graphs that serve all sizes for which a program may be called.

    Raises `PackageError` where sizes that were declared cannot be served, and what preparing and compiling
    raise."""
    return _Cover(export.recalled(program), config, compiled).run()


class _Condition:
    """What the program assumes of its sizes, with what is known of it for some of them."""

    def __init__(self, condition: Any) -> None:
        self.condition = condition
        self.names = frozenset(s.name for s in condition.free_symbols)
        self._known: dict[tuple[tuple[str, int], ...], bool] = {}

    def fails(self, example: Mapping[str, int]) -> bool:
        """Whether it holds for none of the sizes of which some are ``example``, as far as can be seen."""
        given = tuple((name, example[name]) for name in sorted(self.names) if name in example)
        if given not in self._known:
            self._known[given] = export.surely_fails(self.condition, dict(given))
        return self._known[given]


class _Cover:
    def __init__(
        self, program: ExportedProgram, config: Config, compiled: Callable[[Prepared], CompiledFxGraph]
    ) -> None:
        self.config, self.compiled = config, compiled
        self.symbols = _small_symbols(program)
        self.facts: dict[str, SymbolFacts] = {}
        self.conditions: list[_Condition] = []
        self.checks: Callable[..., Any] | None = None
        self.program = program
        if self.symbols:
            # a copy that knows what the program does, and not what its first trace here will have added
            self.program = export.rebased(program, {})
            env = export.env_of(self.program)
            assert env is not None
            known = shape_envs.symbols_by_name(env)
            self.facts = {name: shape_envs.facts_of(env, s) for name, s in known.items()}
            names = [name for name, fact in self.facts.items() if fact.hint is not None]
            self.conditions = [_Condition(c) for c in export.conditions_on(env, names)]
            self.checks = export.checks_of(program)
        self.main = prepare(program, config)
        self.traces = 0
        self.without: list[str] = []
        self.probed: dict[tuple[tuple[str, int], ...], export.Walked | Exception] = {}

    def run(self) -> Served:
        found: list[Case] = []
        least: dict[str, int] = {}
        serves_all = False
        regions = list(self._regions())
        while regions:
            regions.sort(key=lambda region: len(region.fixed))  # those that are called first, if not all fit
            region = regions.pop(0)
            if len(found) >= MAX_GRAPHS:
                self._give_up(region, "it takes too many graphs to tell them apart")
                continue
            outcome = self._attempt(region)
            if isinstance(outcome, str):
                regions[:0] = region.split(outcome)
            elif isinstance(outcome, Case):
                for name, value in {**region.least, **region.fixed}.items():
                    least[name] = min(value, least.get(name, 2))
                if not region.fixed and outcome.prepared.text == self.main.text:
                    found.insert(0, outcome)
                    serves_all = True
                else:
                    found.append(outcome)
        if not serves_all:
            found.insert(0, Case(self.main, self.compiled(self.main)))
        return Served(self.main, tuple(found), least, tuple(self.without))

    def _regions(self) -> Iterator[_Region]:
        """All sizes but those that the program's own trace serves."""
        if self.symbols:
            yield _Region({}, dict.fromkeys(self.symbols, 1))
        zeros = [name for name, (least, _) in self.symbols.items() if least == 0]
        for position, name in enumerate(zeros):
            least = {n: max(low, 1) for n, (low, _) in self.symbols.items() if n != name}
            least.update(dict.fromkeys(zeros[position + 1 :], 0))
            yield _Region({name: 0}, least)

    def _attempt(self, region: _Region) -> Case | str | None:
        """The graph for a region; the symbol by which it has to be split; None where nobody can call it, or
        it is given up."""
        facts = self._facts(region)
        if facts is None:
            return None
        with export.sizes_as_they_come():
            looked = self._looked(region, facts)
            if looked is not True:
                return looked or None
            declared = any(self.symbols[n][1] for n in (*region.fixed, *region.least) if n in self.symbols)
            self.traces += 1
            if self.traces > (MAX_TRACES if declared else MAX_UNDECLARED):
                self._give_up(region, "it takes too many graphs to tell them apart")
                return None
            try:
                prepared = prepare(export.rebased(self.program, facts), self.config)
                if prepared.signature != self.main.signature:
                    raise PackageError("the program has other constants for these sizes")
                env = shapes.shape_env_of(prepared.inputs)
                split = self._decided(region, facts, env) or self._laid_otherwise(region, facts, prepared)
                graph = None if split else self.compiled(prepared)
                split = split or self._decided(region, facts, env)
            except Exception as error:  # whatever PyTorch's tracing raises: the program's own, among others
                open_ = [name for name, least in region.least.items() if least < 2 and name in facts]
                if open_:
                    return open_[0]
                self._give_up(region, error)
                return None
        if split is not None:
            return split
        assert graph is not None
        return Case(prepared, graph)

    # -- what can be seen without tracing it again ---------------------------------------------------------
    def _looked(self, region: _Region, facts: Mapping[str, SymbolFacts | int]) -> str | bool:
        """The symbol by which a region has to be split, or else whether one graph may serve it: False where
        the program runs for none of its sizes."""
        large = self._probed(region, {})
        if isinstance(large, Exception):
            corners = [c for c in self._corners(region) if isinstance(self._probed(region, c), export.Walked)]
            if not corners:
                self._give_up(region, large)
                return False
            return next(iter(corners[0]))
        walked = self._walked(facts)
        if isinstance(walked, export.Walked):
            split = self._decided(region, facts, walked.env)
            if split is not None:
                return split
        for corner in self._marked(region):
            if isinstance(self._probed(region, corner), Exception):
                return next(iter(self._least_corner(region, corner, walked)))
        if self._misses(region, walked):  # no size by itself is at fault: decisions depend on some
            split = self._undecided(region)
            if split is not None:
                return split
        for corner in self._marked(region):
            if self._differs(region, corner, walked):
                return next(iter(self._least_corner(region, corner, walked)))
        return True

    def _walked(
        self, facts: Mapping[str, SymbolFacts | int], checks: Callable[..., Any] | None = None
    ) -> export.Walked | Exception:
        """The program run over symbols and numbers, or what it raises."""
        try:
            return export.walked(self.program, facts, checks)
        except Exception as error:  # whatever an operator raises for arguments that it does not take
            return error

    def _probed(self, region: _Region, corner: Mapping[str, int]) -> export.Walked | Exception | None:
        """The program run over numbers: those of the region, of a corner of it, and larger ones for the
        rest; or what it raises. None where no sizes are like that."""
        facts = self._facts(_Region({**region.fixed, **corner}, self._others(region, corner)))
        if facts is None:
            return None
        sizes = _examples(facts)
        key = tuple(sizes.items())
        if key not in self.probed:
            given = {n: sizes.get(n, fact) for n, fact in facts.items()}
            self.probed[key] = self._walked(given, self.checks)
        return self.probed[key]

    def _others(self, region: _Region, corner: Mapping[str, int]) -> dict[str, int]:
        return {n: max(low, 2) for n, low in region.least.items() if n not in corner}

    def _open(self, region: _Region) -> dict[str, int]:
        """The symbols of a region that may be 0 or 1, and their least values."""
        return {name: low for name, low in region.least.items() if low < 2 and name in self.facts}

    def _marked(self, region: _Region) -> Iterator[dict[str, int]]:
        """Corners that show most: each symbol by itself, and all at once."""
        small = self._open(region)
        for name, low in small.items():
            for value in range(low, 2):
                yield {name: value}
        if len(small) > 1:
            yield small
            if not all(small.values()):
                yield dict.fromkeys(small, 1)

    def _corners(self, region: _Region) -> Iterator[dict[str, int]]:
        """All corners, where there are not too many of them, those of few symbols first."""
        small = self._open(region)
        choices = [range(low, 3) for low in small.values()]
        if math.prod(map(len, choices)) > MAX_CORNERS:
            yield from self._marked(region)
            return
        every = [
            {name: value for name, value in zip(small, values, strict=True) if value < 2}
            for values in itertools.product(*choices)
        ]
        yield from sorted(filter(None, every), key=len)

    def _differs(self, region: _Region, corner: Mapping[str, int], walked: export.Walked | Exception) -> bool:
        """Whether in a corner the program raises, or some tensor has another shape than it has in the whole
        region, as `squeeze` gives it."""
        found = self._probed(region, corner)
        if found is None or isinstance(found, Exception):
            return found is not None
        if isinstance(walked, Exception):
            return False
        facts = self._facts(_Region({**region.fixed, **corner}, self._others(region, corner)))
        sizes = _examples(facts or {})
        return found.at({}) != walked.at(sizes)

    def _misses(self, region: _Region, walked: export.Walked | Exception) -> bool:
        """Whether the program does not run over a region's symbols, or its results then lie in another way
        than they do for large sizes."""
        return isinstance(walked, Exception) or self._differs(region, {}, walked)

    def _least_corner(
        self, region: _Region, corner: dict[str, int], walked: export.Walked | Exception
    ) -> dict[str, int]:
        """The same with no more symbols than are needed for the difference."""
        for name in list(corner):
            fewer = {n: v for n, v in corner.items() if n != name}
            if fewer and self._differs(region, fewer, walked):
                corner = fewer
        return corner

    def _undecided(self, region: _Region) -> str | None:
        """A symbol that may not be 0 or 1 for the program to run over symbols; None where it is no use."""
        least = dict(region.least)
        needed: list[str] = []
        for name, low in self._open(region).items():
            facts = self._facts(_Region(region.fixed, {**least, name: 2}))
            if facts is None:
                continue
            if self._misses(_Region(region.fixed, {**least, name: 2}), self._walked(facts)):
                least[name] = 2
            else:
                least[name] = low
                needed.append(name)
        return needed[0] if needed else None

    def _facts(self, region: _Region) -> dict[str, SymbolFacts | int] | None:
        """What is known of each symbol in a region, with examples that fit each other; None if none do."""
        choices: list[list[int]] = []
        names = [name for name, fact in self.facts.items() if isinstance(fact.hint, int)]
        for name in names:
            fact = self.facts[name]
            if name in region.fixed:
                choices.append([region.fixed[name]])
                continue
            wanted = [int(fact.hint or 0), *range(2, 18), 1, 0]
            least = region.least.get(name, fact.lower)
            most = fact.upper
            fitting = [n for n in wanted if (least is None or n >= least) and (most is None or n <= most)]
            choices.append(list(dict.fromkeys(fitting)))
        example = self._example(names, choices)
        if example is None:
            return None
        found: dict[str, SymbolFacts | int] = {}
        for name, fact in self.facts.items():
            if name in region.fixed:
                found[name] = region.fixed[name]
            elif name in region.least:
                least = region.least[name]
                found[name] = replace(fact, lower=least, hint=example[name], positive=least > 0)
            elif name in example:
                found[name] = replace(fact, hint=example[name])
        return found

    def _example(self, names: Sequence[str], choices: Sequence[Sequence[int]]) -> dict[str, int] | None:
        """The first of the choices, the last name's changing fastest, that the program's conditions allow as
        far as can be seen; None where there is none, or none is found soon."""
        example: dict[str, int] = {}
        left = MAX_EXAMPLES

        def found(position: int) -> bool:
            nonlocal left
            if position == len(names):
                return not any(c.fails(example) for c in self.conditions)
            name = names[position]
            for value in choices[position]:
                left -= 1
                if left < 0:
                    break
                example[name] = value
                # those that this size completes: what fails is not tried with every size that follows
                complete = (c for c in self.conditions if name in c.names and c.names <= example.keys())
                if not any(c.fails(example) for c in complete) and found(position + 1):
                    return True
            example.pop(name, None)
            return False

        return example if found(0) else None

    def _decided(self, region: _Region, facts: Mapping[str, SymbolFacts | int], env: Any) -> str | None:
        """A symbol for whose small values a trace does not hold, though the program may; None if there is
        none."""
        if env is None:
            return None
        known = shape_envs.symbols_by_name(env)
        small = {name: low for name, low in region.least.items() if low < 2 and name in known}
        for name, low in small.items():
            least = shape_envs.facts_of(env, known[name]).lower
            if (least is None or least > low) and self._may_be(region, {name: low}):
                return name
        hints = {name: fact.hint for name, fact in facts.items() if isinstance(fact, SymbolFacts)}
        for condition in export.conditions_on(env, list(hints)):
            used: list[str] = [s.name for s in condition.free_symbols]
            choices = itertools.product(*[_values(name, small, hints) for name in used])
            examples = [dict(zip(used, values, strict=True)) for values in choices]
            # one small size alone shows which it is
            for example in sorted(examples, key=lambda e: sum(n < 2 for n in e.values())):
                chosen = [name for name in used if example[name] < 2 and name in small]
                if chosen and export.surely_fails(condition, example) and self._may_be(region, example):
                    return chosen[0]
        return None

    def _laid_otherwise(
        self, region: _Region, facts: Mapping[str, SymbolFacts | int], prepared: Prepared
    ) -> str | None:
        """A symbol of a result that does not lie as the program's trace for large sizes has it, because the
        order of strides is not known for small ones; None if there is none."""
        sizes, small = _examples(facts), self._open(region)
        here, main = export.results_of(prepared.gm), export.results_of(self.main.gm)
        results = zip(here.at(sizes)["output"], main.at(sizes)["output"], main.shapes["output"], strict=True)
        for mine, theirs, symbolic in results:
            if mine == theirs or not theirs or theirs[:1] != mine[:1]:
                continue
            for number in itertools.chain.from_iterable(symbolic):
                for symbol in getattr(number, "free_symbols", ()):
                    if symbol.name in small:
                        return str(symbol.name)
        return None

    def _may_be(self, region: _Region, values: Mapping[str, int]) -> bool:
        """Whether the program may be called with these sizes."""
        example = {**region.fixed, **values}
        return not any(c.fails(example) for c in self.conditions)

    def _give_up(self, region: _Region, why: Exception | str) -> None:
        """Raise where a region was declared, and the program itself runs for it; note one that was not."""
        if isinstance(why, Exception) and not self._runs(region):
            return
        names = self.main.names
        written = [f"{names.get(name, name)} = {value}" for name, value in region.fixed.items()]
        written += [
            f"{names.get(name, name)} = 1" for name, low in region.least.items() if low == 1 and not written
        ]
        sizes = " and ".join(written)
        if not any(self.symbols[name][1] for name in region.fixed):
            self.without += [sizes] if sizes else []
            return
        reason = why.what if isinstance(why, BrazeError) else str(why).partition("\n")[0]
        raise PackageError(
            f"this program cannot be compiled for {sizes}, which its range has: {reason}",
            hint="export it with a range that begins at 2",
        ) from (why if isinstance(why, Exception) else None)

    def _runs(self, region: _Region) -> bool:
        """Whether the operators of the program as it was exported have results for the sizes of a region."""
        found = self._probed(region, {})
        return isinstance(found, export.RaisesInside) or not isinstance(found, Exception)


def _examples(facts: Mapping[str, SymbolFacts | int]) -> dict[str, int]:
    """A value of each symbol that does not depend on data."""
    found = {name: fact if isinstance(fact, int) else fact.hint for name, fact in facts.items()}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _values(name: str, small: Mapping[str, int], hints: Mapping[str, Any]) -> list[int]:
    return [*range(small.get(name, 2), 2), int(hints[name])]


def _small_symbols(program: ExportedProgram) -> dict[str, tuple[int, bool]]:
    """Symbols that are 0 or 1 in calls that the exported program serves: their least value, and whether it
    was declared. Where nothing was, a range begins at 2 and has no end, and the program takes any size."""
    env = export.env_of(program)
    if env is None:
        return {}
    found: dict[str, tuple[int, bool]] = {}
    conditions = export.conditions_on(env, list(shape_envs.symbols_by_name(env)))
    placeholders = program.graph.find_nodes(op="placeholder")
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        value = node.meta.get("val")
        if spec.kind is not InputKind.USER_INPUT or not isinstance(value, torch.Tensor):
            continue
        for size in value.shape:
            for symbol in shapes.symbols_of(size):
                known = shape_envs.facts_of(env, symbol)
                declared = program.range_constraints.get(symbol)
                least, most = export.value_range(declared) if declared is not None else (2, None)
                if known.lower is None or max(known.lower, least) > 2 or (least == 2 and most is not None):
                    continue
                first = 0 if least == 2 else max(least, 0)
                while first < 2 and any(export.surely_fails(c, {symbol.name: first}) for c in conditions):
                    first += 1
                if first < 2:
                    found[symbol.name] = (first, least < 2)
    return found
