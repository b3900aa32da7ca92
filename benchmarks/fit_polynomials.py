"""Fit the polynomials of Braze's vector math and write ``vecmath/coefficients.py``.

Each entry of ``FITS`` states the function that is approximated, on which interval, with which weight, and the
precision of its coefficients. The fit is the Remez exchange on a dense Chebyshev grid in 40 digits (mpmath).
Coefficients are rounded one after another from the lowest order on, each time refitting those that are left:
the rounding of one is made up for by the next.

    python -m benchmarks.fit_polynomials            # all, writes the file
    python -m benchmarks.fit_polynomials ERF_SMALL  # one, prints it
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp
import numpy as np

TARGET = Path(__file__).parents[1] / "src/braze/codegen/llvm/vecmath/coefficients.py"

Function = Callable[["mp.mpf"], "mp.mpf"]


@dataclass(frozen=True)
class Fit:
    """``function`` on [low, high] as a polynomial p; the error counted is weight * (function - p)."""

    about: str
    function: Function
    low: float
    high: float
    degree: int
    bits: int
    weight: Function = lambda _x: mp.mpf(1)
    fixed: tuple[float, ...] = ()


def rounded(value: mp.mpf, bits: int) -> mp.mpf:
    """``value`` rounded to float32 (24 bits) or float64 (53 bits)."""
    if bits == 24:
        return mp.mpf(struct.unpack("<f", struct.pack("<f", float(value)))[0])
    return mp.mpf(float(value))


def remez(
    xs: Sequence[mp.mpf], ys: Sequence[mp.mpf], ws: Sequence[mp.mpf], powers: Sequence[int]
) -> list[mp.mpf]:
    """Coefficients of x**powers that minimise max |w (y - p)| over the points (discrete exchange)."""
    count = len(powers) + 1
    step = (len(xs) - 1) / (count - 1)
    nodes = [round(i * step) for i in range(count)]
    table = [[x**k for k in powers] for x in xs]
    coefficients: list[mp.mpf] = []
    for _ in range(40):
        a = mp.matrix(count, count)
        b = mp.matrix(count, 1)
        for row, i in enumerate(nodes):
            for col in range(count - 1):
                a[row, col] = table[i][col]
            a[row, count - 1] = (-1) ** row / ws[i]
            b[row] = ys[i]
        solution = mp.lu_solve(a, b)
        coefficients = [solution[k] for k in range(count - 1)]
        errors = [w * (y - mp.fdot(row, coefficients)) for w, y, row in zip(ws, ys, table, strict=True)]
        extrema: list[int] = []
        for i, error in enumerate(errors):
            if extrema and (errors[extrema[-1]] > 0) == (error > 0):
                if abs(error) > abs(errors[extrema[-1]]):
                    extrema[-1] = i
            else:
                extrema.append(i)
        while len(extrema) > count:
            extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
        if len(extrema) < count or extrema == nodes:
            break
        nodes = extrema
    return coefficients


def lawson(
    xs: Sequence[mp.mpf], ys: Sequence[mp.mpf], ws: Sequence[mp.mpf], powers: Sequence[int]
) -> list[mp.mpf]:
    """As :func:`remez`, by iteratively reweighted least squares in float64.

    Enough for float32 coefficients, and sound where the exchange is not: when low powers are fixed already,
    the rest all vanish at zero and form no Haar system on an interval around it.
    """
    x, y, w = (np.array([float(v) for v in values]) for values in (xs, ys, ws))
    matrix = x[:, None] ** np.array(powers)
    share = np.full(len(x), 1 / len(x))
    best, found = np.inf, np.zeros(len(powers))
    for _ in range(60):
        scale = np.sqrt(share) * w
        solution = np.linalg.lstsq(matrix * scale[:, None], y * scale, rcond=None)[0]
        error = np.abs(w * (y - matrix @ solution))
        if error.max() < best:
            best, found = error.max(), solution
        share = share * error
        share /= share.sum()
    return [mp.mpf(float(c)) for c in found]


def fit(spec: Fit) -> tuple[list[mp.mpf], mp.mpf]:
    """Rounded coefficients, lowest order first, and the largest weighted error on the grid."""
    points = 60 * (spec.degree + 2)
    middle, half = (mp.mpf(spec.low) + mp.mpf(spec.high)) / 2, (mp.mpf(spec.high) - mp.mpf(spec.low)) / 2
    xs = [middle - half * mp.cos(mp.pi * (i + mp.mpf(1) / 2) / points) for i in range(points)]
    ys = [spec.function(x) for x in xs]
    ws = [spec.weight(x) for x in xs]
    done: list[mp.mpf] = [rounded(mp.mpf(c), spec.bits) for c in spec.fixed]
    rest = [y - mp.polyval(done[::-1], x) if done else y for x, y in zip(xs, ys, strict=True)]
    while len(done) <= spec.degree:
        powers = list(range(len(done), spec.degree + 1))
        found = (lawson if spec.bits == 24 else remez)(xs, rest, ws, powers)
        if spec.bits == 53 and len(done) >= 3:
            done.extend(rounded(c, 53) for c in found)
            break
        done.append(rounded(found[0], spec.bits))
        k = len(done) - 1
        rest = [r - done[k] * x**k for r, x in zip(rest, xs, strict=True)]
    errors = [abs(w * (y - mp.polyval(done[::-1], x))) for x, y, w in zip(xs, ys, ws, strict=True)]
    return done, max(errors)


def series(direct: Function, terms: Callable[[int], mp.mpf], near: float = 0.05) -> Function:
    """``direct``, but the power series sum of terms(k) x**k near zero, where ``direct`` would cancel."""

    def function(x: mp.mpf) -> mp.mpf:
        if abs(x) < near:
            return mp.fsum(terms(k) * x**k for k in range(45))
        return direct(x)

    return function


EXP_TAIL = series(lambda r: (mp.exp(r) - 1 - r) / r**2, lambda k: 1 / mp.factorial(k + 2))
EXP2_TAIL = series(lambda r: (mp.mpf(2) ** r - 1) / r, lambda k: mp.log(2) ** (k + 1) / mp.factorial(k + 1))
LOG_TAIL = series(lambda f: (mp.log1p(f) - f) / f**2, lambda k: -(mp.mpf(-1) ** k) / (k + 2))
SIN_TAIL = series(
    lambda z: (mp.sin(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3,
    lambda k: -(mp.mpf(-1) ** k) / mp.factorial(2 * k + 3),
)
COS_TAIL = series(
    lambda z: (mp.cos(mp.sqrt(z)) - 1) / z, lambda k: -(mp.mpf(-1) ** k) / mp.factorial(2 * k + 2)
)
COS_TAIL2 = series(
    lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, lambda k: mp.mpf(-1) ** k / mp.factorial(2 * k + 4)
)
SINH_TAIL = series(
    lambda z: (mp.sinh(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3, lambda k: 1 / mp.factorial(2 * k + 3)
)
ATAN_TAIL = series(
    lambda z: (mp.atan(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3, lambda k: -(mp.mpf(-1) ** k) / (2 * k + 3)
)
ATANH_TAIL = series(
    lambda z: (mp.atanh(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3, lambda k: mp.mpf(1) / (2 * k + 3)
)
ASIN_TAIL = series(
    lambda z: (mp.asin(mp.sqrt(z)) - mp.sqrt(z)) / mp.sqrt(z) ** 3,
    lambda k: mp.binomial(2 * k + 2, k + 1) / (mp.mpf(4) ** (k + 1) * (2 * k + 3)),
)
ERF_RATIO = series(
    lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z),
    lambda k: 2 / mp.sqrt(mp.pi) * mp.mpf(-1) ** k / (mp.factorial(k) * (2 * k + 1)),
)
LN2_HALF = 0.34660
SQRT_HALF, SQRT2 = 0.70710, 1.41422


def erfcx_mapped(shift: float) -> Function:
    """exp(t^2) erfc(t) times (t + shift), as a function of u = (t - shift) / (t + shift)."""

    def function(u: mp.mpf) -> mp.mpf:
        t = shift * (1 + u) / (1 - u)
        return mp.exp(t * t) * mp.erfc(t) * (t + shift)

    return function


def erfinv_near(w: mp.mpf) -> mp.mpf:
    """erfinv(x) / x as a function of w = -log(1 - x^2) - 2.5."""
    w = w + mp.mpf(2.5)
    if w < mp.mpf("1e-12"):
        return mp.sqrt(mp.pi) / 2
    x = mp.sqrt(-mp.expm1(-w))
    return mp.erfinv(x) / x


def erfinv_far(v: mp.mpf) -> mp.mpf:
    """erfinv(x) / x as a function of v = sqrt(-log(1 - x^2)) - 3."""
    w = (v + 3) ** 2
    x = mp.sqrt(-mp.expm1(-w))
    return mp.erfinv(x) / x


FITS: dict[str, Fit] = {
    "EXP_F32": Fit(
        "(exp(r) - 1 - r) / r^2, |r| <= ln(2)/2",
        EXP_TAIL,
        -LN2_HALF,
        LN2_HALF,
        4,
        24,
        lambda r: r * r / mp.exp(r),
    ),
    "EXPM1_F32": Fit(
        "(exp(r) - 1 - r) / r^2, |r| <= ln(2)/2", EXP_TAIL, -LN2_HALF, LN2_HALF, 5, 24, lambda r: r * r
    ),
    "EXP2_F32": Fit(
        "(2^r - 1) / r, |r| <= 1/2", EXP2_TAIL, -0.50001, 0.50001, 5, 24, lambda r: r / mp.mpf(2) ** r
    ),
    "LOG_F32": Fit(
        "(log(1 + f) - f) / f^2, sqrt(1/2) <= 1 + f <= sqrt(2)",
        LOG_TAIL,
        SQRT_HALF - 1,
        SQRT2 - 1,
        8,
        24,
        lambda f: f * f / mp.log1p(f),
        (-0.5,),
    ),
    "RECIPROCAL_F32": Fit(
        "-1 / (1 + f), sqrt(1/2) <= 1 + f <= sqrt(2)",
        lambda f: -1 / (1 + f),
        SQRT_HALF - 1,
        SQRT2 - 1,
        2,
        24,
    ),
    "ERF_SMALL_F32": Fit(
        "erf(x) / x - 1, in x^2, |x| <= 1",
        lambda z: ERF_RATIO(z) - 1,
        0.0,
        1.0,
        6,
        24,
        lambda z: 1 / ERF_RATIO(z),
    ),
    "ERF_LARGE_F32": Fit(
        "log2(erfc(1 + u)), 0 <= u <= 3",
        lambda u: mp.log(mp.erfc(1 + u), 2),
        0.0,
        3.0,
        6,
        24,
        lambda u: mp.erfc(1 + u),
    ),
    "EXP_LITE": Fit(
        "(exp(r) - 1 - r) / r^2, |r| <= ln(2)/2", EXP_TAIL, -LN2_HALF, LN2_HALF, 6, 53, lambda r: r * r
    ),
    "LOG_LITE": Fit(
        "(log(1 + f) - f) / f^2, sqrt(1/2) <= 1 + f <= sqrt(2)",
        LOG_TAIL,
        SQRT_HALF - 1,
        SQRT2 - 1,
        11,
        53,
        lambda f: f * f / mp.log1p(f),
    ),
    "SIN_LITE": Fit("(sin(r) - r) / r^3, in r^2, |r| <= pi/4", SIN_TAIL, 0.0, 0.6169, 3, 53, lambda z: z),
    "COS_LITE": Fit("(cos(r) - 1) / r^2, in r^2, |r| <= pi/4", COS_TAIL, 0.0, 0.6169, 4, 53, lambda z: z),
    "ATAN_LITE": Fit("(atan(t) - t) / t^3, in t^2, |t| <= 1", ATAN_TAIL, 0.0, 1.0, 10, 53, lambda z: z),
    "ASIN_LITE": Fit("(asin(x) - x) / x^3, in x^2, |x| <= 1/2", ASIN_TAIL, 0.0, 0.25, 7, 53, lambda z: z),
    "SINH_LITE": Fit("(sinh(x) - x) / x^3, in x^2, |x| <= 1", SINH_TAIL, 0.0, 1.0, 4, 53, lambda z: z),
    "ERFCX_LITE": Fit(
        "exp(t^2) erfc(t) (t + 2), in (t - 2) / (t + 2), 0 <= t <= 10.2",
        erfcx_mapped(2.0),
        -1.0,
        0.673,
        12,
        53,
        lambda u: 1 / erfcx_mapped(2.0)(u),
    ),
    "ERFINV_NEAR": Fit("erfinv(x) / x, in w - 2.5, w = -log(1 - x^2) <= 5", erfinv_near, -2.5, 2.51, 15, 53),
    "ERFINV_FAR": Fit("erfinv(x) / x, in sqrt(w) - 3, 5 <= w <= 17", erfinv_far, -0.77, 1.13, 14, 53),
    "ERFINV_TAIL": Fit(
        "erfinv(x) / x, in sqrt(w) - 5, 16 <= w <= 38", lambda v: erfinv_far(v + 2), -1.01, 1.17, 12, 53
    ),
    "EXP_F64": Fit(
        "(exp(r) - 1 - r) / r^2, |r| <= ln(2)/2",
        EXP_TAIL,
        -LN2_HALF,
        LN2_HALF,
        10,
        53,
        lambda r: r * r,
        (0.5,),
    ),
    "ATANH_F64": Fit(
        "(atanh(s) - s) / s^3, in s^2, |s| <= 3 - sqrt(8)", ATANH_TAIL, 0.0, 0.0295, 7, 53, lambda z: z
    ),
    "SIN_F64": Fit("(sin(r) - r) / r^3, in r^2, |r| <= pi/4", SIN_TAIL, 0.0, 0.6169, 5, 53, lambda z: z),
    "COS_F64": Fit(
        "(cos(r) - 1 + r^2 / 2) / r^4, in r^2, |r| <= pi/4", COS_TAIL2, 0.0, 0.6169, 5, 53, lambda z: z * z
    ),
    "ERF_SMALL_F64": Fit(
        "erf(x) / x - 1, in x^2, |x| <= 1",
        lambda z: ERF_RATIO(z) - 1,
        0.0,
        1.0,
        13,
        53,
        lambda z: 1 / ERF_RATIO(z),
    ),
    "ERFCX_F64": Fit(
        "exp(t^2) erfc(t) (t + 2), in (t - 2) / (t + 2), 1 <= t <= 6",
        erfcx_mapped(2.0),
        -0.34,
        0.5,
        17,
        53,
        lambda u: 1 / erfcx_mapped(2.0)(u),
    ),
}


def main(names: Sequence[str]) -> None:
    """Fit the named polynomials (all of them when none is named) and print or write them."""
    mp.mp.dps = 40
    lines = [
        '"""Coefficients of the vector math polynomials, lowest order first.',
        "",
        "Written by ``benchmarks/fit_polynomials.py``: change the fits there, not here. The error is the",
        "largest weighted error of the rounded coefficients, as a power of two.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
    ]
    for name in names or FITS:
        spec = FITS[name]
        coefficients, error = fit(spec)
        print(f"{name:16} degree {spec.degree:2}  error 2^{float(mp.log(error, 2)):.1f}")
        lines.append(f"# {spec.about}: 2^{float(mp.log(error, 2)):.1f}")
        lines.append(f"{name} = (")
        lines.extend(f"    {float(c)!r}," for c in coefficients)
        lines.extend([")", ""])
    if names:
        print("\n".join(lines[8:]))
    else:
        TARGET.write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
