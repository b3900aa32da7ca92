"""Graphs of every sort, printed, read back, lowered and run; `RoundTrip` holds what has to be the same."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from braze.compile.text.constants import as_stored, with_strides
from tests.compile.text.checks import RoundTrip, data_dependent, texts_of
from tests.models import zoo


def joined(fn: Any, *args: Any, **keywords: Any) -> str:
    return "\n".join(t.text for t in texts_of(fn, *args, **keywords))


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [("dlrm", False), ("mlp-train", True), ("convnet-train", False)],
)
def test_models(name: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    model = zoo.find(name)
    module, inputs = model.make("test")
    trip = RoundTrip()
    zoo.run(model, trip.optimize(module, dynamic=dynamic), inputs)
    assert trip.texts and not trip.unserializable and not trip.failed
    assert (" = integer(" in trip.texts[0].text) == dynamic


def test_outputs_whose_strides_were_promised() -> None:
    layers = torch.nn.Sequential(*(torch.nn.Conv2d(8, 8, 3) for _ in range(4)))
    with torch.no_grad():
        text = joined(layers, torch.randn(2, 8, 16, 16))
    assert "\npromised_strides(output0=[512, 64, 8, 1])\n" in text


def test_symbols_ranges_hints_and_conditions() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] % 2 == 0)
        return x.view(x.shape[0] // 2, 2, -1) + x.shape[1]

    (printed,) = texts_of(fn, torch.ones(8, 5), dynamic=True)
    lines = printed.text.splitlines()
    assert sum(" = integer(least=2, hint=8)" in line for line in lines) == 1
    assert any(line.startswith("assume(") and line.endswith(" % 2 == 0)") for line in lines)
    assert any("py.floordiv(arg0_1, 2)" in line for line in lines)


def test_sizes_that_depend_on_data() -> None:
    def fn(x: torch.Tensor, n: torch.Tensor) -> Any:
        size = n.item()
        torch._check(size > 2)
        return x.nonzero() + 1, torch.zeros(size), x.sum().item() * 0.5 + size

    with data_dependent():
        text = joined(fn, torch.eye(4), torch.tensor(5))
    assert re.search(r"^u\d = integer\(least=3\)$", text, re.MULTILINE)
    assert re.search(r"^zuf0 = real\(\)$", text, re.MULTILINE)


def test_control_flow() -> None:
    def fn(x: torch.Tensor) -> Any:
        def body(i: torch.Tensor, y: torch.Tensor) -> Any:
            return i + 1, torch.cond(y.sum() > 0, lambda y: y.sin(), lambda y: y * 2, (y,))

        return torch._higher_order_ops.while_loop(lambda i, y: i < 3, body, (torch.tensor(0), x))

    text = joined(fn, torch.randn(3, 4), dynamic=True)
    assert "\n    def while_loop_body_graph_0(" in text and "\n        def true_graph_0(" in text
    assert "higher_order.while_loop(while_loop_cond_graph_0, while_loop_body_graph_0" in text
    assert "\n    _tensor_constant0: i64[()] = constant('sha256:" in text


def test_regions_that_are_compiled_once() -> None:
    @torch.compiler.nested_compile_region
    def inner(x: torch.Tensor) -> torch.Tensor:
        return x.sin() + 1

    text = joined(lambda x: inner(inner(x)), torch.randn(4))
    assert "higher_order.invoke_subgraph(" in text


def test_autocast() -> None:
    layer = torch.nn.Linear(4, 8)

    def fn(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.softmax(layer(x), -1).sum()

    text = joined(fn, torch.randn(2, 4), dynamic=True)
    assert "dtype=bf16" in text and "aten.addmm.default(" in text


def test_operators_with_effects_and_with_writes() -> None:
    with torch.library._scoped_library("braze_text_test", "FRAGMENT") as library:
        library.define("grow(Tensor(a!) x, float by) -> ()")
        library.impl("grow", lambda x, by: [None, x.add_(by)][0], "CPU")
        library.impl("grow", lambda x, by: None, "Meta")

        def fn(x: torch.Tensor) -> torch.Tensor:
            torch.ops.braze_text_test.grow(x[1:], 1.5)
            torch.ops.aten._print("seen")
            return x + 1

        text = joined(fn, torch.ones(4, 3), dynamic=True)
    assert "auto_functionalized_v2(braze_text_test.grow.default, by=1.5" in text
    assert "higher_order.with_effects(None, aten._print.default, 'seen')" in text


def test_arithmetic_on_sizes() -> None:
    def fn(x: torch.Tensor) -> Any:
        rows, columns = x.shape
        scale = rows**-0.5 + columns / 3
        chosen = torch.where(torch.tensor(rows > 4), x, -x)
        return x * scale, x.reshape(-1, columns * 2), min(rows, columns), rows**2, chosen, x[..., 1:, None]

    text = joined(fn, torch.randn(8, 6), dynamic=True)
    assert "float(" in text


def test_random_numbers() -> None:
    text = joined(lambda x: F.dropout(x, 0.3) + torch.rand_like(x), torch.randn(4, 5))
    assert "braze.seeds(2)" in text and "braze.rand(seeds, 1, [4, 5])" in text


def test_writes_to_inputs_and_to_buffers() -> None:
    def fn(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        x[1:].mul_(2)
        x.index_put_((i,), torch.tensor(3.0), accumulate=True)
        return x.sum()

    text = joined(fn, torch.ones(4, 3), torch.tensor([0, 2]))
    assert "aten.copy_.default(arg0_1" in text
    joined(torch.nn.BatchNorm2d(3), torch.randn(2, 3, 4, 4))


def test_inputs_that_share_memory_or_start_inside_it() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    text = joined(lambda a, b: b.sum() + a, base[1:], base[:, 2:])
    words = " ".join(text.split())
    assert "arg0_1: f32[4, 4] & strides(6, 1) & offset(2), " in words
    assert "arg1_1: f32[3, 6] & offset(6) & shares(arg0_1)" in words


def test_transposed_and_channels_last_inputs() -> None:
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    text = joined(lambda x, y: (F.conv2d(x, torch.ones(1, 3, 2, 2)), y.t() * 2), x, torch.randn(2, 3))
    assert "f32[2, 3, 4, 4] & strides(48, 1, 12, 3)" in text


def test_numbers_that_are_special() -> None:
    def fn(x: torch.Tensor) -> Any:
        return (
            torch.where(x > 0, x, -0.0),
            torch.full_like(x, math.nan),
            x.clamp(-math.inf, 1e-300),
            torch.full([2], complex(0.0, -0.0)),
            x * 1e22,
        )

    text = joined(fn, torch.randn(3))
    for number in ("-0.0", "nan", "-inf", "1e-300", "complex(0.0, -0.0)", "1e+22"):
        assert number in text


def test_operators_of_a_library_with_all_sorts_of_arguments() -> None:
    with torch.library._scoped_library("braze_text_test", "FRAGMENT") as library:
        library.define(
            "mix(Tensor x, int[] a, float? b, str s, ScalarType t, Device d, bool[2] f) -> Tensor[]"
        )

        def mix(
            x: torch.Tensor, a: Any, b: Any, s: str, t: torch.dtype, d: Any, f: Any
        ) -> list[torch.Tensor]:
            return [x.to(t) * len(s) + sum(a) + (b or 0.0), x.clone()]

        library.impl("mix", mix, "CompositeExplicitAutograd")

        def fn(x: torch.Tensor) -> Any:
            device = torch.device("cpu")
            text = 'a "quote"\n\\ and \u2028 \u00fc'
            return torch.ops.braze_text_test.mix(x, [1, -2], None, text, torch.float64, device, [True, False])

        text = joined(fn, torch.randn(3))
    call = next(line for line in text.splitlines() if "= braze_text_test.mix" in line)
    assert r"""[1, -2], None, 'a "quote"\n\\ and \u2028 \xfc', f64, device('cpu'), [True, False])""" in call
    assert "[f64[3], f32[3]]" in call


def test_constants_keep_their_strides() -> None:
    table = torch.arange(6.0).reshape(2, 3).t()
    row = torch.tensor([1.0, 2.0]).expand(3, 2)
    (printed,) = texts_of(lambda x: x + torch.tensor([[1, 2], [3, 4]]) * 2, torch.randn(2, 2))
    assert list(printed.constants) == ["_tensor_constant0"]
    for constant in (table, row, torch.zeros(0, 3), torch.tensor(1 + 2j)):
        again = with_strides(as_stored(constant), constant.stride())
        assert again.stride() == constant.stride() and torch.equal(again, constant)


def test_every_line_of_source_is_kept() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x.exp()  # a comment: with "quotes" and # signs
        return y.sum()

    text = joined(fn, torch.randn(3))
    assert 'y = x.exp()  # a comment: with "quotes" and # signs' in text


SAMPLED = 24
"""Every so many-th operator of PyTorch's database; `tests.compile.text_sweep` does all of them."""


def test_operators_of_the_database() -> None:
    from torch.testing._internal.common_methods_invocations import op_db

    names = itertools.islice((op for op in op_db if torch.float32 in op.dtypes), 5, None, SAMPLED)
    seen = 0
    for op in names:
        sample = next(iter(op.sample_inputs("cpu", torch.float32, requires_grad=False)))

        def call(op: Callable[..., Any] = op.op, sample: Any = sample) -> Any:
            return op(sample.input, *sample.args, **sample.kwargs)

        try:
            torch.manual_seed(0)
            call()
        except Exception:  # eager itself has no result for this sample
            continue
        torch._dynamo.reset()
        trip = RoundTrip()
        with data_dependent():
            trip.optimize(call)()
        assert not trip.unserializable, (op.name, trip.unserializable)
        assert not trip.failed, (op.name, trip.failed)
        seen += len(trip.requests)
    assert seen >= 15
