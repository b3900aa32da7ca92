"""Compiled functions whose sizes and positions come out of data, on tensors beside forbidden memory: what
eager refuses is refused, and no byte outside of the tensors is touched. Run as a module, in a process of its
own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo import config as dynamo_config

from tests.guard_pages import PLACES, guarded


def first(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    length = n.item()
    torch._check(length >= 0)
    torch._check(length <= x.shape[0])
    return x[:length] * 2


def rest(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    begin = n.item()
    torch._check(begin >= 0)
    torch._check(begin < x.shape[0])
    return x[begin:] * 2


def one(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    return x[n.item()] * 2


def window(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    begin = n.item()
    torch._check(begin >= 0)
    return x.narrow(0, begin, 2) + 1


def parts(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    length = n.item()
    torch._check(length >= 0)
    torch._check(length <= x.shape[0])
    left, right = x.split([length, x.shape[0] - length])
    return left.sum() + right


def promised(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    length = n.item()
    torch._check(length == x.shape[0])
    return x.new_ones(length) * x


def found(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    places = (x > n).nonzero()[:, 0]
    torch._check(places.shape[0] == x.shape[0])
    return places + x


FUNCTIONS: tuple[Callable[..., torch.Tensor], ...] = (first, rest, one, window, parts, promised, found)
NUMBERS = (0, 1, 3, 5, 6, 7, 8, -1, -6, -7, -1000, 1000, 1 << 20, 1 << 45)


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except (RuntimeError, IndexError) as error:
        return error


def main() -> int:
    dynamo_config.capture_scalar_outputs = True
    dynamo_config.capture_dynamic_output_shape_ops = True
    agreed = refused = 0
    for function in FUNCTIONS:
        for dynamic in (False, True):
            torch.compiler.reset()
            compiled = torch.compile(
                function,
                backend="braze",
                fullgraph=True,
                dynamic=dynamic,
                options={"strict": function is not found},
            )
            compiled(torch.arange(1.0, 7.0), torch.tensor(6 if function is promised else 0))
            for number in NUMBERS:
                x, n = torch.arange(1.0, 7.0), torch.tensor(number)
                expected = outcome(function, x, n)
                for place in PLACES:
                    got = outcome(compiled, guarded(x, place), guarded(n, place))
                    what = f"{function.__name__} {number} {place}: {expected!r} and {got!r}"
                    assert isinstance(got, Exception) == isinstance(expected, Exception), what
                    if isinstance(got, Exception):
                        refused += 1
                    else:
                        torch.testing.assert_close(got, expected, msg=what)
                        agreed += 1
    print(f"{agreed} agree, {refused} refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
