"""A smaller program with the same fault.

Every pass proposes programs that are simpler in one respect: fewer outputs, statements, inputs or calls,
smaller sizes, dense memory, plainer values, simpler arguments. Whatever still has the fault is taken, until
nothing is, or time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from msgspec.structs import replace

from braze.inspect.fuzz.program import (
    Argument,
    Group,
    Input,
    Name,
    Number,
    Product,
    Program,
    Size,
    Statement,
    Tensor,
)

__all__ = ["candidates", "shrink", "well_formed"]

MOST_TRIALS = 400


def shrink(
    program: Program,
    same: Callable[[Program], bool],
    *,
    enough: Callable[[], bool],
    first: Callable[[Program], Iterator[Program]] = lambda _: iter(()),
    most: int = MOST_TRIALS,
) -> Program:
    """The smallest program that was found. ``same``: whether a program has the fault; ``enough``: whether
    time is up; ``first``: simpler programs to try before the others; ``most``: trials."""
    trials = 0
    seen = {program.to_bytes()}  # as bytes, since a NaN is not equal to itself
    changed = True
    while changed:
        changed = False
        for candidate in chain(first(program), candidates(program)):
            text = candidate.to_bytes()
            if text in seen or not well_formed(candidate):
                continue
            seen.add(text)
            trials += 1
            if trials > most or enough():
                return program
            if same(candidate):
                program, changed = candidate, True
                break
    return program


def candidates(program: Program) -> Iterator[Program]:
    """Simpler programs, those first that drop most. They need not be `well_formed`."""
    yield from _fewer_outputs(program)
    yield from _fewer_statements(program)
    yield from _without_statement(program)
    yield from _fewer_inputs(program)
    yield from _fewer_calls(program)
    yield from _smaller_sizes(program)
    yield from _plainer_inputs(program)
    yield from _simpler_arguments(program)
    yield from _plainer_values(program)


def well_formed(program: Program) -> bool:
    """Whether every variable has a value when it is read, and there is something to compare."""
    known = {given.name for given in program.inputs}
    owners = {given.name for given in program.inputs if isinstance(given, Tensor)}
    if any(isinstance(g, Tensor) and g.shares is not None and g.shares not in owners for g in program.inputs):
        return False
    for statement in program.statements:
        if not known.issuperset(statement.reads()):
            return False
        known.update(statement.results)
    return bool(program.outputs) and bool(program.inputs) and known.issuperset(program.outputs)


def _fewer_outputs(program: Program) -> Iterator[Program]:
    if len(program.outputs) > 1:
        for output in program.outputs:
            yield replace(program, outputs=(output,))
        for place in range(len(program.outputs)):
            yield replace(program, outputs=program.outputs[:place] + program.outputs[place + 1 :])


def _fewer_statements(program: Program) -> Iterator[Program]:
    """Half of them at once, and each by itself with what depends on it."""
    count = len(program.statements)
    if count > 3:
        yield _kept(program, set(range(count // 2)))
        yield _kept(program, set(range(count // 2, count)))
    for place in reversed(range(count)):
        yield _kept(program, set(range(count)) - {place})


def _kept(program: Program, places: set[int]) -> Program:
    """Only some statements, and of these only what has its operands."""
    known = {given.name for given in program.inputs}
    kept = []
    for place, statement in enumerate(program.statements):
        if place in places and known.issuperset(statement.reads()):
            kept.append(statement)
            known.update(statement.results)
    outputs = tuple(name for name in program.outputs if name in known)
    if not outputs:  # what is computed last stands for what is gone
        outputs = tuple(kept[-1].results or tuple(kept[-1].reads())[:1]) if kept else ()
    return replace(program, statements=tuple(kept), outputs=outputs)


def _without_statement(program: Program) -> Iterator[Program]:
    """Operands in the place of a result."""
    for place, statement in enumerate(program.statements):
        for name in dict.fromkeys(statement.reads()):
            names = dict.fromkeys(statement.results, name)
            others = program.statements[:place] + program.statements[place + 1 :]
            statements = tuple(_renamed(other, names) for other in others)
            outputs = tuple(names.get(output, output) for output in program.outputs)
            if names:
                yield replace(program, statements=statements, outputs=outputs)


def _renamed(statement: Statement, names: dict[str, str]) -> Statement:
    return replace(statement, arguments=tuple(_with_names(a, names) for a in statement.arguments))


def _with_names(argument: Argument, names: dict[str, str]) -> Argument:
    if isinstance(argument, (Name, Size)):
        return replace(argument, name=names.get(argument.name, argument.name))
    if isinstance(argument, Product):
        factors = tuple(
            f if isinstance(f, int) else replace(f, name=names.get(f.name, f.name)) for f in argument.factors
        )
        return Product(factors)
    if isinstance(argument, Group):
        return Group(tuple(_with_names(item, names) for item in argument.items))
    return argument


def _fewer_inputs(program: Program) -> Iterator[Program]:
    used = set(program.outputs)
    for statement in program.statements:
        used.update(statement.reads())
    for given in program.inputs:
        if isinstance(given, Tensor) and given.shares is not None:
            yield _with_input(program, given, replace(given, shares=None))
    unused = [g for g in program.inputs if g.name not in used]
    if unused:
        yield replace(program, inputs=tuple(g for g in program.inputs if g.name in used))
    for given in unused:
        yield replace(program, inputs=tuple(g for g in program.inputs if g is not given))
    tensors = [g for g in program.inputs if isinstance(g, Tensor)]
    for one in tensors:
        for other in tensors:
            if one is not other and one.dtype == other.dtype and len(one.order) == len(other.order):
                names = {one.name: other.name}
                statements = tuple(_renamed(statement, names) for statement in program.statements)
                outputs = tuple(names.get(output, output) for output in program.outputs)
                inputs = tuple(g for g in program.inputs if g is not one)
                yield replace(program, inputs=inputs, statements=statements, outputs=outputs)


def _with_input(program: Program, old: Input, new: Input) -> Program:
    return replace(program, inputs=tuple(new if given is old else given for given in program.inputs))


def _fewer_calls(program: Program) -> Iterator[Program]:
    if program.mode != "static":
        calm = tuple(replace(g, requires_grad=False) if isinstance(g, Tensor) else g for g in program.inputs)
        first = _calls(replace(program, inputs=calm), (0,))
        yield replace(first, mode="static")
    if program.calls > 1:
        for call in range(program.calls):
            yield _calls(program, (call,))
        for call in range(program.calls):
            yield _calls(program, tuple(c for c in range(program.calls) if c != call))
    for given in program.inputs:
        if isinstance(given, Tensor) and given.requires_grad:
            yield _with_input(program, given, replace(given, requires_grad=False))


def _calls(program: Program, calls: tuple[int, ...]) -> Program:
    def of(given: Input) -> Input:
        if isinstance(given, Tensor):
            shapes = tuple(given.shapes[call] for call in calls)
            steps = None if given.steps is None else tuple(given.steps[call] for call in calls)
            return replace(given, shapes=shapes, steps=steps)
        return replace(given, values=tuple(given.values[call] for call in calls))

    return replace(program, inputs=tuple(of(given) for given in program.inputs))


def _smaller_sizes(program: Program) -> Iterator[Program]:
    """One size less, wherever it is a size, in each call by itself; then the same in one input alone."""
    tensors = [given for given in program.inputs if isinstance(given, Tensor)]
    for call in range(program.calls):
        for size in sorted({n for g in tensors for n in g.shapes[call] if n > 1}, reverse=True):
            for less in dict.fromkeys((1, 2, size // 2, size - 1)):
                if less < size:
                    yield _resized(program, call, size, less, None)
                    yield _said_resized(_resized(program, call, size, less, None), size, less)
        for given in tensors:
            for size in sorted({n for n in given.shapes[call] if n > 1}, reverse=True):
                for less in dict.fromkeys((1, size // 2, size - 1)):
                    yield _resized(program, call, size, less, given)
    for given in tensors:  # a dimension less
        for dim in range(len(given.order)):
            if all(shape[dim] == 1 for shape in given.shapes):
                yield _with_input(program, given, _without_dim(given, dim))


def _resized(program: Program, call: int, size: int, less: int, only: Tensor | None) -> Program:
    def of(given: Input) -> Input:
        if not isinstance(given, Tensor) or (only is not None and given is not only):
            return given
        shape = tuple(less if n == size else n for n in given.shapes[call])
        if shape == given.shapes[call]:
            return given
        return replace(given, shapes=(*given.shapes[:call], shape, *given.shapes[call + 1 :]), steps=None)

    return replace(program, inputs=tuple(of(given) for given in program.inputs))


def _said_resized(program: Program, size: int, less: int) -> Program:
    """The same where a list of sizes says it."""

    def of(argument: Argument) -> Argument:
        if isinstance(argument, Group):
            return Group(
                tuple(less if type(item) is int and item == size else item for item in argument.items)
            )
        return argument

    statements = tuple(replace(s, arguments=tuple(map(of, s.arguments))) for s in program.statements)
    return replace(program, statements=statements)


def _without_dim(given: Tensor, dim: int) -> Tensor:
    def drop(places: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place - (place > dim) for place in places if place != dim)

    return replace(
        given,
        shapes=tuple(shape[:dim] + shape[dim + 1 :] for shape in given.shapes),
        order=drop(given.order),
        gaps=given.gaps[:dim] + given.gaps[dim + 1 :],
        expanded=drop(given.expanded),
        steps=None,
    )


def _plainer_inputs(program: Program) -> Iterator[Program]:
    for given in program.inputs:
        if not isinstance(given, Tensor):
            continue
        ones = tuple(1 for _ in given.gaps)
        ordered = tuple(range(len(given.order)))
        plain = replace(given, order=ordered, gaps=ones, offset=0, expanded=(), steps=None)
        for simpler in (
            plain,
            replace(given, steps=None),
            replace(given, offset=0),
            replace(given, gaps=ones),
            replace(given, order=ordered),
            replace(given, expanded=()),
        ):
            if simpler != given:
                yield _with_input(program, given, simpler)
        if given.dtype not in ("float32", "int64", "bool"):
            dtype = "float32" if "float" in given.dtype else "int64"
            yield _with_input(program, given, replace(given, dtype=dtype))


def _simpler_arguments(program: Program) -> Iterator[Program]:
    for place, statement in enumerate(program.statements):
        for position, argument in enumerate(statement.arguments):
            for simpler in _simpler(argument):
                changed = (*statement.arguments[:position], simpler, *statement.arguments[position + 1 :])
                new = replace(statement, arguments=changed)
                yield replace(
                    program, statements=(*program.statements[:place], new, *program.statements[place + 1 :])
                )


def _simpler(argument: Argument) -> Iterator[Argument]:
    if isinstance(argument, (Size, Product)):
        yield -1
        yield 1
        yield 2
    elif isinstance(argument, Group):
        if len(argument.items) > 1:
            for place in range(len(argument.items)):
                yield Group(argument.items[:place] + argument.items[place + 1 :])
    elif isinstance(argument, bool):
        if argument:
            yield False
    elif isinstance(argument, (int, float)):
        for simple in (0, 1, 2):
            if abs(argument) > simple or argument != argument:
                yield type(argument)(simple)


def _plainer_values(program: Program) -> Iterator[Program]:
    for given in program.inputs:
        values = given.values
        if isinstance(given, Number):
            for simple in (1, 2):
                if any(type(v) is not bool and abs(v) > simple for v in values):
                    yield _with_input(
                        program, given, replace(given, values=tuple(type(v)(simple) for v in values))
                    )
            continue
        if len(values) > 1:
            for part in (
                values[:1],
                values[: len(values) // 2],
                values[len(values) // 2 :],
                values[:-1],
                values[1:],
            ):
                yield _with_input(program, given, replace(given, values=part))
        for place, value in enumerate(values[:8]):
            for simple in (0, 1, 2):
                new = type(value)(simple)
                if value != new and (value != value or abs(value) > simple or value != int(value)):
                    yield _with_input(
                        program, given, replace(given, values=(*values[:place], new, *values[place + 1 :]))
                    )
