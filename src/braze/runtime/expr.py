"""Integer expressions: the closed grammar of sizes, strides, offsets and loop indices.

An :class:`Expr` is an immutable polynomial with integer coefficients over *atoms*: symbols, floor divisions,
remainders, minima and maxima. It is kept in one canonical form, so that equal expressions compare equal, hash
equal and print equal. Every symbol carries its bounds, so simplification needs no context:
``(i0*64 + r0) // 64`` is ``i0`` where ``r0`` is known to lie in ``[0, 63]``.

The printed form is Python: it parses back (:mod:`braze.runtime.expr_parser`), evaluates, and is what
generated code contains.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from math import gcd
from typing import Final, NamedTuple, Union

from braze.runtime import intervals
from braze.runtime.intervals import Bound

ExprLike = Union["Expr", int]
Monomial = tuple["Atom", ...]


class Atom:
    """An indivisible factor of a monomial. ``key`` orders and identifies it, ``text`` prints it."""

    __slots__ = ("_bounds", "_hash", "key", "text")
    key: str
    text: str

    def _init(self, key: str, text: str) -> None:
        self.key = key
        self.text = text
        self._hash = hash(key)
        self._bounds: tuple[Bound, Bound] | None = None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Atom) and self.key == other.key)

    def __repr__(self) -> str:
        return self.text

    @property
    def parts(self) -> tuple[Expr, ...]:
        """The expressions inside this atom."""
        return ()

    def rebuild(self, parts: tuple[Expr, ...]) -> Expr:
        """The simplified expression that this kind of atom makes of other ``parts``."""
        raise NotImplementedError(type(self).__name__)

    def bounds(self) -> tuple[Bound, Bound]:
        """Numeric bounds, inclusive; ``None`` where unbounded."""
        if self._bounds is None:
            self._bounds = self._compute_bounds()
        return self._bounds

    def _compute_bounds(self) -> tuple[Bound, Bound]:
        raise NotImplementedError(type(self).__name__)


class Symbol(Atom):
    """A named integer with inclusive bounds; ``upper`` may be symbolic (a loop variable of symbolic size)."""

    __slots__ = ("lower", "name", "upper")

    def __init__(self, name: str, lower: int = 0, upper: ExprLike | None = None) -> None:
        self.name = name
        self.lower = lower
        self.upper: Expr | None = None if upper is None else as_expr(upper)
        self._init(f"{name}[{lower},{'' if self.upper is None else self.upper.key}]", name)

    def rebuild(self, parts: tuple[Expr, ...]) -> Expr:
        return self.expr

    @property
    def expr(self) -> Expr:
        return Expr((((self,), 1),))

    @property
    def size(self) -> Expr:
        """For a loop variable: its extent, ``upper + 1``."""
        if self.upper is None:
            raise ValueError(f"{self.name} has no upper bound, so no extent")
        return self.upper + 1

    @property
    def has_numeric_bounds(self) -> bool:
        """Whether the upper bound is a plain number."""
        return self.upper is not None and self.upper.constant is not None

    def _compute_bounds(self) -> tuple[Bound, Bound]:
        return self.lower, None if self.upper is None else self.upper.bounds()[1]


class FloorDiv(Atom):
    """``num // den`` rounded towards minus infinity; ``den`` is positive."""

    __slots__ = ("den", "num")
    is_quotient = True

    def __init__(self, num: Expr, den: Expr) -> None:
        self.num, self.den = num, den
        self._init(f"({num.key}//{den.key})", f"({_wrap(num)}//{_wrap(den)})")

    @property
    def parts(self) -> tuple[Expr, ...]:
        return (self.num, self.den)

    def rebuild(self, parts: tuple[Expr, ...]) -> Expr:
        return floordiv(*parts)

    def _compute_bounds(self) -> tuple[Bound, Bound]:
        return intervals.quotient(self.num.bounds(), self.den.bounds())


class Mod(Atom):
    """``num % den`` with the sign of ``den`` (Python's), ``den`` positive: in ``[0, den - 1]``."""

    __slots__ = ("den", "num")

    def __init__(self, num: Expr, den: Expr) -> None:
        self.num, self.den = num, den
        self._init(f"({num.key}%{den.key})", f"({_wrap(num)}%{_wrap(den)})")

    @property
    def parts(self) -> tuple[Expr, ...]:
        return (self.num, self.den)

    def rebuild(self, parts: tuple[Expr, ...]) -> Expr:
        return mod(*parts)

    def _compute_bounds(self) -> tuple[Bound, Bound]:
        return intervals.remainder(self.num.bounds(), self.den.bounds())


class _Extremum(Atom):
    __slots__ = ("args",)
    word = ""

    def __init__(self, args: tuple[Expr, ...]) -> None:
        self.args = args
        keys, texts = ",".join([a.key for a in args]), ", ".join(map(str, args))
        self._init(f"{self.word}({keys})", f"{self.word}({texts})")

    @property
    def parts(self) -> tuple[Expr, ...]:
        return self.args


class Min(_Extremum):
    """The least of two or more expressions."""

    __slots__ = ()
    word = "min"

    def rebuild(self, parts: tuple[Expr, ...]) -> Expr:
        return minimum(*parts)

    def _compute_bounds(self) -> tuple[Bound, Bound]:
        return intervals.least([a.bounds() for a in self.args])


class Max(_Extremum):
    """The greatest of two or more expressions."""

    __slots__ = ()
    word = "max"

    def rebuild(self, parts: tuple[Expr, ...]) -> Expr:
        return maximum(*parts)

    def _compute_bounds(self) -> tuple[Bound, Bound]:
        return intervals.greatest([a.bounds() for a in self.args])


class Expr:
    """A canonical polynomial: ``terms`` is a sorted tuple of ``(monomial, non-zero coefficient)``."""

    __slots__ = ("_bounds", "_free", "_hash", "key", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        if len(terms) == 1 and terms[0][1] == 1 and len(terms[0][0]) == 1:
            self.key = terms[0][0][0].key
        else:
            self.key = "+".join([f"{c}{''.join(['*' + a.key for a in m])}" for m, c in terms]) or "0"
        # An Expr equals the int whose value it is, so it hashes like it.
        value = self.constant
        self._hash = hash(self.key) if value is None else hash(value)
        self._bounds: tuple[Bound, Bound] | None = None
        self._free: frozenset[Symbol] | None = None

    # -- identity ---------------------------------------------------------------------------------------
    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Expr):
            return self.key == other.key
        if isinstance(other, int):
            return self.constant == other
        return NotImplemented

    def __repr__(self) -> str:
        if not self.terms:
            return "0"
        out = ""
        for mono, c in self.terms:
            factors = [a.text for a in mono]
            if abs(c) != 1 or not factors:
                factors.append(str(abs(c)))
            text = "*".join(factors)
            out += ("-" if c < 0 else "") + text if not out else (" - " if c < 0 else " + ") + text
        return out

    # -- shape ------------------------------------------------------------------------------------------
    @property
    def constant(self) -> int | None:
        """The value if this is a plain integer, else ``None``."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and not self.terms[0][0]:
            return self.terms[0][1]
        return None

    @property
    def symbol(self) -> Symbol | None:
        """The symbol if this is nothing but one, else ``None``."""
        if len(self.terms) == 1:
            mono, c = self.terms[0]
            if c == 1 and len(mono) == 1 and isinstance(mono[0], Symbol):
                return mono[0]
        return None

    def atoms(self) -> Iterable[Atom]:
        for mono, _ in self.terms:
            yield from mono

    @property
    def free_symbols(self) -> frozenset[Symbol]:
        """Every symbol in the expression, also inside divisions and remainders (bounds not searched)."""
        if self._free is None:
            free: set[Symbol] = set()
            for atom in self.atoms():
                if isinstance(atom, Symbol):
                    free.add(atom)
                else:
                    for part in atom.parts:
                        free |= part.free_symbols
            self._free = frozenset(free)
        return self._free

    def bounds(self) -> tuple[Bound, Bound]:
        """Numeric bounds by interval arithmetic, inclusive; ``None`` where unbounded."""
        if self._bounds is None:
            self._bounds = intervals.linear(
                [(intervals.product([a.bounds() for a in mono]), c) for mono, c in self.terms]
            )
        return self._bounds

    @property
    def bounds_are_exact(self) -> bool:
        """Whether this is a sum of multiples of different symbols with numeric bounds, so that ``bounds`` is
        all that there is to know."""
        for mono, _ in self.terms:
            symbol = mono[0] if len(mono) == 1 else None
            if mono and not (isinstance(symbol, Symbol) and symbol.has_numeric_bounds):
                return False
        return True

    def coefficient(self, symbol: Symbol) -> tuple[Expr, Expr] | None:
        """``(c, rest)`` with ``self == c*symbol + rest``, neither containing it; ``None`` if not linear."""
        inside: list[tuple[Monomial, int]] = []
        rest: list[tuple[Monomial, int]] = []
        for mono, c in self.terms:
            if symbol in mono:
                index = mono.index(symbol)
                mono = mono[:index] + mono[index + 1 :]
                inside.append((mono, c))
            else:
                rest.append((mono, c))
            for atom in mono:
                if atom == symbol or any(symbol in p.free_symbols for p in atom.parts):
                    return None
        return _from_terms(inside), Expr(tuple(rest))

    def unknown(self, known: Container[str]) -> Unknown | None:
        """The one symbol that is not among the names in ``known``, if this is linear in it with a plain
        number as its factor; else None."""
        missing = [s for s in self.free_symbols if s.name not in known]
        parts = self.coefficient(missing[0]) if len(missing) == 1 else None
        if parts is None or not parts[0].constant:
            return None
        return Unknown(missing[0], parts[0].constant, parts[1])

    # -- arithmetic -------------------------------------------------------------------------------------
    def __add__(self, other: ExprLike) -> Expr:
        other = as_expr(other)
        if not other.terms:
            return self
        if not self.terms:
            return other
        acc = dict(self.terms)
        for mono, c in other.terms:
            acc[mono] = acc.get(mono, 0) + c
        return _canonical(acc)

    __radd__ = __add__

    def __neg__(self) -> Expr:
        return Expr(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: ExprLike) -> Expr:
        return self + (-as_expr(other))

    def __rsub__(self, other: ExprLike) -> Expr:
        return as_expr(other) + (-self)

    def __mul__(self, other: ExprLike) -> Expr:
        other = as_expr(other)
        value = other.constant
        if value is not None:
            if value == 1:
                return self
            return Expr(tuple((m, c * value) for m, c in self.terms)) if value else ZERO
        if self.constant is not None:
            return other * self.constant
        acc: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in other.terms:
                mono = tuple(sorted(m1 + m2, key=_atom_key))
                acc[mono] = acc.get(mono, 0) + c1 * c2
        return _canonical(acc)

    __rmul__ = __mul__

    def __floordiv__(self, other: ExprLike) -> Expr:
        return floordiv(self, other)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return floordiv(other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return mod(self, other)

    def __rmod__(self, other: ExprLike) -> Expr:
        return mod(other, self)

    # -- use --------------------------------------------------------------------------------------------
    def substitute(self, mapping: Mapping[Symbol, ExprLike]) -> Expr:
        """Replace symbols and simplify again. Costs nothing where no symbol of ``mapping`` occurs."""
        if not mapping or self.free_symbols.isdisjoint(mapping):
            return self
        total = ZERO
        for mono, c in self.terms:
            term = as_expr(c)
            for atom in mono:
                term = term * _substitute_atom(atom, mapping)
            total = total + term
        return total

    def evaluate(self, env: Mapping[str, int]) -> int:
        """The value, each symbol's name looked up in ``env``. Raises ``KeyError`` on a missing one."""
        total = 0
        for mono, c in self.terms:
            for atom in mono:
                c *= _evaluate_atom(atom, env)
            total += c
        return total


class Unknown(NamedTuple):
    """What an integer ``factor*symbol + rest`` says of a symbol."""

    symbol: Symbol
    factor: int
    rest: Expr


def _atom_key(atom: Atom) -> str:
    return atom.key


def _mono_order(item: tuple[Monomial, int]) -> tuple[bool, tuple[str, ...]]:
    mono = item[0]
    return not mono, tuple([a.key for a in mono])


def _wrap(e: Expr) -> str:
    simple = e.constant is not None and e.constant >= 0
    if len(e.terms) == 1 and e.terms[0][1] == 1 and len(e.terms[0][0]) == 1:
        simple = True
    return str(e) if simple else f"({e})"


def _from_terms(items: Iterable[tuple[Monomial, int]]) -> Expr:
    acc: dict[Monomial, int] = {}
    for mono, c in items:
        acc[mono] = acc.get(mono, 0) + c
    return _canonical(acc)


def _canonical(acc: dict[Monomial, int]) -> Expr:
    items = [(m, c) for m, c in acc.items() if c]
    if len(items) > 1:
        if any(isinstance(a, Mod) for m, _ in items for a in m):
            items = _join_divmod(items)
        items.sort(key=_mono_order)
    return Expr(tuple(items))


def _join_divmod(items: list[tuple[Monomial, int]]) -> list[tuple[Monomial, int]]:
    """Rewrite ``(x//d)*d*k + (x%d)*k`` as ``x*k``: what splitting an index and merging it again leaves."""
    acc = dict(items)
    for mono, c in items:
        for position, atom in enumerate(mono):
            if not isinstance(atom, Mod) or acc.get(mono) != c:
                continue
            rest = Expr(((mono[:position] + mono[position + 1 :], c),))
            wanted = rest * atom.den * Expr((((FloorDiv(atom.num, atom.den),), 1),))
            if len(wanted.terms) == 1 and acc.get(wanted.terms[0][0]) == wanted.terms[0][1]:
                del acc[mono], acc[wanted.terms[0][0]]
                for m2, c2 in (rest * atom.num).terms:
                    acc[m2] = acc.get(m2, 0) + c2
                return _join_divmod([(m, c) for m, c in acc.items() if c])
    return items


def _substitute_atom(atom: Atom, mapping: Mapping[Symbol, ExprLike]) -> Expr:
    if isinstance(atom, Symbol):
        found = mapping.get(atom)
        return atom.expr if found is None else as_expr(found)
    return atom.rebuild(tuple(p.substitute(mapping) for p in atom.parts))


def _evaluate_atom(atom: Atom, env: Mapping[str, int]) -> int:
    if isinstance(atom, Symbol):
        return env[atom.name]
    values = [p.evaluate(env) for p in atom.parts]
    if isinstance(atom, FloorDiv):
        return values[0] // values[1]
    if isinstance(atom, Mod):
        return values[0] % values[1]
    return min(values) if isinstance(atom, Min) else max(values)


@lru_cache(maxsize=2048)
def _number(value: int) -> Expr:
    return Expr((((), value),) if value else ())


ZERO, ONE = _number(0), _number(1)


def as_expr(value: ExprLike | Symbol) -> Expr:
    """An ``Expr`` from an int, a symbol or an ``Expr``."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Symbol):
        return value.expr
    return _number(int(value))


def _atom_expr(atom: Atom) -> Expr:
    return Expr((((atom,), 1),))


def known_less(a: ExprLike, b: ExprLike) -> bool:
    """Whether ``a < b`` follows from the bounds of their symbols."""
    return known_nonnegative(as_expr(b) - a - 1)


def known_positive(e: ExprLike) -> bool:
    """Whether ``e >= 1`` follows from the bounds of its symbols."""
    return known_nonnegative(as_expr(e) - 1)


def _divide_terms(num: Expr, den: Expr) -> tuple[Expr, Expr]:
    """``(q, r)`` with ``num == q*den + r``, where q takes every term that ``den`` divides exactly."""
    k = den.constant
    if k is not None:
        quotient: list[tuple[Monomial, int]] = []
        rest: list[tuple[Monomial, int]] = []
        for mono, c in num.terms:
            if c % k == 0:
                quotient.append((mono, c // k))
            elif not mono:
                quotient.append((mono, c // k))
                rest.append((mono, c % k))
            else:
                rest.append((mono, c))
        return _from_terms(quotient), Expr(tuple(rest))
    lead_mono, lead_c = max(den.terms, key=lambda t: (len(t[0]), t[1]))
    q, r = ZERO, num
    for mono, c in num.terms:
        left = list(mono)
        try:
            for atom in lead_mono:
                left.remove(atom)
        except ValueError:
            continue
        if c % lead_c:
            continue
        factor = Expr(((tuple(left), c // lead_c),))
        smaller = r - factor * den
        if len(smaller.terms) <= len(r.terms) - len(den.terms):
            q, r = q + factor, smaller
    return q, r


def floordiv(num: ExprLike, den: ExprLike) -> Expr:
    """``num // den``, simplified by the bounds of the symbols inside. ``den`` is taken to be positive."""
    num, den = as_expr(num), as_expr(den)
    k = den.constant
    if k is not None:
        if k == 0:
            raise ZeroDivisionError(f"{num} // 0")
        if k < 0:
            return floordiv(-num, -k)
        if k == 1:
            return num
        if num.constant is not None:
            return as_expr(num.constant // k)
    elif num == den:
        return ONE
    quotient, rest = _divide_terms(num, den)
    if not rest.terms or (known_nonnegative(rest) and known_less(rest, den)):
        return quotient
    if k is not None:
        shared = k
        for mono, c in rest.terms:
            if mono:
                shared = gcd(shared, c)
        if shared > 1:
            rest = Expr(tuple((m, c // shared) for m, c in rest.terms if m or c // shared))
            return quotient + floordiv(rest, k // shared)
    if len(rest.terms) == 1 and rest.terms[0][1] == 1 and len(rest.terms[0][0]) == 1:
        inner = rest.terms[0][0][0]
        if isinstance(inner, FloorDiv):
            return quotient + floordiv(inner.num, inner.den * den)
    return quotient + _atom_expr(FloorDiv(rest, den))


def mod(num: ExprLike, den: ExprLike) -> Expr:
    """``num % den`` (sign of ``den``), simplified by the bounds of the symbols inside. ``den`` is
    positive."""
    num, den = as_expr(num), as_expr(den)
    k = den.constant
    if k is not None:
        if k <= 0:
            raise ZeroDivisionError(f"{num} % {k}")
        if k == 1:
            return ZERO
        if num.constant is not None:
            return as_expr(num.constant % k)
    _, rest = _divide_terms(num, den)
    if not rest.terms or (known_nonnegative(rest) and known_less(rest, den)):
        return rest
    if k is not None:
        shared = k
        for _, c in rest.terms:
            shared = gcd(shared, c)
        if shared > 1:
            return mod(Expr(tuple((m, c // shared) for m, c in rest.terms)), k // shared) * shared
        if len(rest.terms) == 1 and rest.terms[0][1] == 1 and len(rest.terms[0][0]) == 1:
            inner = rest.terms[0][0][0]
            if isinstance(inner, Mod) and inner.den.constant is not None and inner.den.constant % k == 0:
                return mod(inner.num, den)
    return _atom_expr(Mod(rest, den))


def _extremum(args: Iterable[ExprLike], least: bool) -> Expr:
    kind: type[_Extremum] = Min if least else Max
    kept: list[Expr] = []
    flat: list[Expr] = []
    for value in args:
        e = as_expr(value)
        single = e.terms[0][0][0] if len(e.terms) == 1 and len(e.terms[0][0]) == 1 else None
        if isinstance(single, kind) and e.terms[0][1] == 1:
            flat.extend(single.args)
        else:
            flat.append(e)
    for e in flat:
        if any(known_nonnegative((e - o) if least else (o - e)) for o in kept):
            continue
        kept = [o for o in kept if not known_nonnegative((o - e) if least else (e - o))]
        kept.append(e)
    if len(kept) == 1:
        return kept[0]
    return _atom_expr(kind(tuple(sorted(kept, key=lambda e: e.key))))


def minimum(*args: ExprLike) -> Expr:
    """The least argument, simplified where the bounds decide."""
    return _extremum(args, least=True)


def maximum(*args: ExprLike) -> Expr:
    """The greatest argument, simplified where the bounds decide."""
    return _extremum(args, least=False)


def product(items: Iterable[ExprLike]) -> Expr:
    """The product of the items; 1 for none."""
    total = ONE
    for item in items:
        total = total * as_expr(item)
    return total


def known_nonnegative(e: Expr, depth: int = 8) -> bool:
    """Whether ``e >= 0`` follows from the bounds of its symbols (sound, not complete).

    Where interval arithmetic does not decide, a symbol in which ``e`` is linear is replaced by whichever end
    of its range makes ``e`` smallest; loop variables of symbolic size first, so that their sizes can cancel.
    """
    lo = e.bounds()[0]
    if lo is not None and lo >= 0:
        return True
    if depth == 0 or e.bounds_are_exact:
        return False
    for symbol in sorted(e.free_symbols, key=_elimination_order):
        split = e.coefficient(symbol)
        if split is None:
            continue
        slope, rest = split
        if known_nonnegative(slope, depth - 1):
            return known_nonnegative(rest + slope * symbol.lower, depth - 1)
        if symbol.upper is not None and known_nonnegative(-slope, depth - 1):
            return known_nonnegative(rest + slope * symbol.upper, depth - 1)
    bound = _without_quotient(e)
    if bound is not None:
        return known_nonnegative(bound, depth - 1)
    squared = _squared(e)
    for symbol in squared:
        upper = symbol.upper.constant if symbol.upper is not None else None
        if upper is not None and upper - symbol.lower < MAX_VALUES_TRIED:
            values = range(symbol.lower, upper + 1)
            return all(known_nonnegative(e.substitute({symbol: v}), depth - 1) for v in values)
    lo = _above_least(e, squared).bounds()[0]
    return lo is not None and lo >= 0


MAX_VALUES_TRIED: Final = 4
"""A symbol that has at most so many values is tried with each."""


def _squared(e: Expr) -> list[Symbol]:
    found = (a for mono, _ in e.terms for a, b in itertools.pairwise(mono) if a == b)
    return list(dict.fromkeys(a for a in found if isinstance(a, Symbol)))


def _above_least(e: Expr, symbols: Iterable[Symbol]) -> Expr:
    """``e`` with symbols as their least values and what is above: ``s*s - s`` for ``s >= 2`` becomes
    ``2 + 3*t + t*t``, in which nothing is negative."""
    return e.substitute({s: Symbol(f"{s.name} above {s.lower}").expr + s.lower for s in symbols})


def _without_quotient(e: Expr) -> Expr | None:
    """For the first quotient by a number ``k`` in ``e``, something without it that is at most ``k * e``, by
    ``n - k + 1 <= k * (n // k) <= n``; None where there is no such quotient."""
    for atoms, factor in e.terms:
        if len(atoms) == 1 and getattr(atoms[0], "is_quotient", False):
            number, divisor = atoms[0].parts
            k = divisor.constant
            if k is not None:
                rest = e - atoms[0].rebuild(atoms[0].parts) * factor
                return rest * k + (number if factor < 0 else number - (k - 1)) * factor
    return None


def _elimination_order(symbol: Symbol) -> tuple[bool, str]:
    return symbol.upper is None or symbol.has_numeric_bounds, symbol.key
