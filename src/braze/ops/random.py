"""Random numbers: Philox-4x32-10, and what each random operation makes of its output.

For int64 ``seed`` and ``offset`` (one offset for each element), taken as unsigned::

    key     = (seed mod 2^32, seed div 2^32)
    counter = (offset mod 2^32, offset div 2^32, 0, 0)
    x0, x1, x2, x3 = philox(counter, key)                        ten rounds

    rand     = (x0 >> 8) * 2^-24                                 float32, in [0, 1)
    randn    = sqrt(-2 ln u1) * cos(2 pi u2)                     float32 (Box and Muller), where
               u1 = ((x0 >> 8) + 1) * 2^-24, u2 = (x1 >> 8) * 2^-24
    randint64 = low + (x0 + x1 * 2^32) mod (high - low)          unsigned remainder, int64

Source: Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import math

import torch

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
UNIT = 2.0**-24

Words = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def philox(seed: torch.Tensor, offset: torch.Tensor) -> Words:
    """The four output words, int64 tensors with values in [0, 2^32), of int64 tensors that broadcast."""
    zero = torch.zeros_like(offset)
    c0, c1, c2, c3 = offset & WORD, (offset >> 32) & WORD, zero, zero
    k0, k1 = seed & WORD, (seed >> 32) & WORD
    for _ in range(ROUNDS):
        # int64 products wrap modulo 2^64, so both halves of each are right.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & WORD) ^ c1 ^ k0, p1 & WORD, ((p0 >> 32) & WORD) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def rand(seed: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Uniform float32 in [0, 1), a multiple of 2^-24."""
    return (philox(seed, offset)[0] >> 8).to(torch.float32) * UNIT


def randn(seed: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Normal float32."""
    x0, x1, _, _ = philox(seed, offset)
    u1 = ((x0 >> 8) + 1).to(torch.float64) * UNIT
    u2 = (x1 >> 8).to(torch.float64) * UNIT
    return (torch.sqrt(-2 * torch.log(u1)) * torch.cos(2 * math.pi * u2)).to(torch.float32)


def randint64(
    seed: torch.Tensor, offset: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> torch.Tensor:
    """Uniform int64 in [low, high); ``high > low``, their difference taken as unsigned."""
    x0, x1, _, _ = philox(seed, offset)
    bits = x0 | (x1 << 32)
    span = high - low + torch.zeros_like(bits)
    bits = bits + torch.zeros_like(span)
    # torch has no unsigned remainder
    rest = bits.reshape(-1).numpy().view("uint64") % span.reshape(-1).numpy().view("uint64")
    return low + torch.from_numpy(rest.view("int64")).reshape(bits.shape)
