"""Hits of the second cache level whose results are views: where they lie, with compiled code, which returns
copies and views of other tensors where eager returns views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tests.frontend.memory_entries import real, twice


def _numbers(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(3))


def _after_writing(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.add_(1)
    return x[1:], x.view_as(x)


def _after_writing_views(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.clamp_(0, 1)
    return x.as_strided((2, 2), (1, 1)), x.relu_()


def _views(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x[1:], x[..., 1:], x.expand(2, *x.shape), x.as_strided((2, 2), (1, 1)), x * 2


def _with_base(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    t = x * 2
    return t[1:], t


def _without_base(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    t = x * 2
    return t.t()[1:], t.view(-1)[2:], t.expand(2, *t.shape), t.as_strided((2, 2), (1, 1), 3)


def _written_view(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    t = x * 2
    u = t[1:]
    u.add_(1)
    return u, t


def _pieces(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x + 1).chunk(2, 1)


def _slice_after_writing(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x.add_(1)
    return (x[1:],)


def _turned(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    t = x * 2
    return t.t(), t.view(-1)


@dataclass(frozen=True)
class Case:
    name: str
    fn: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    make: Callable[[], torch.Tensor]
    options: dict[str, Any] = field(default_factory=dict)


CASES = [
    *(
        Case(f"{fn.__name__}_{layout}", fn, make)
        for fn in (_after_writing, _after_writing_views, _views)
        for layout, make in (
            ("offset", lambda: _numbers(9)[2:]),
            ("gaps", lambda: _numbers(16)[1::2]),
            ("turned", lambda: _numbers(5, 4)[1:].t()),
        )
    ),
    *(
        Case(f"{fn.__name__}_grad", fn, lambda: _numbers(4, 4).requires_grad_())
        for fn in (_with_base, _without_base, _written_view, _pieces, _views)
    ),
    Case("dynamic_after_writing", _slice_after_writing, lambda: _numbers(9)[2:], {"dynamic": True}),
    Case("dynamic_turned", _turned, lambda: _numbers(4, 3).requires_grad_(), {"dynamic": True}),
]


def _use(case: Case) -> Callable[[Callable[..., Any]], dict[str, Any]]:
    def use(fn: Callable[..., Any]) -> dict[str, Any]:
        x = case.make()
        outputs = fn(x)
        seen: dict[str, Any] = {
            "values": [o.detach().clone() for o in outputs],
            "strides": [o.stride() for o in outputs],
            "in_input": [_place(o, x) for o in outputs],
        }
        wanted = [o for o in outputs if o.requires_grad]
        if wanted:
            sum((o * torch.arange(float(o.numel())).view(o.shape)).sum() for o in wanted).backward()
            seen["gradient"] = x.grad
            # gradients flow through one base: what is written to one of its views is seen in all of them
            with torch.no_grad():
                wanted[0].fill_(7)
        else:
            outputs[0].fill_(7)
        seen["written"] = [o.detach().clone() for o in outputs]
        seen["input"] = x.detach().clone()
        return seen

    return use


def _place(view: torch.Tensor, base: torch.Tensor) -> int | None:
    """The offset in the base's storage; None in another one."""
    shared = view.untyped_storage().data_ptr() == base.untyped_storage().data_ptr()
    return view.storage_offset() if shared else None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_views_of_a_hit_lie_where_they_should(case: Case) -> None:
    torch.compiler.reset()
    eager, missed, hit = twice(case.fn, real(), _use(case), **case.options)
    torch.testing.assert_close(missed, eager)
    torch.testing.assert_close(hit, eager)
    assert hit["strides"] == eager["strides"]
    assert hit["in_input"] == eager["in_input"]


def test_a_view_with_gaps_that_depend_on_sizes_is_not_stored() -> None:
    torch.compiler.reset()
    entries = real()
    x = torch.ones(4, 6, requires_grad=True)

    def fn(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        t = x * 2
        return t[:, 1:], t

    torch.compile(fn, backend=entries, dynamic=True)(x)[0].sum().backward()
    assert entries.stored == 0
