"""What inputs are called: any name that a graph may give them is one among names of ours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import braze
from braze._torch.shapes import shape_env_of
from braze.compile.fx_compile import CompileRequest
from braze.compile.pipeline import compile_graph
from braze.config import Config
from braze.frontend.decompositions import decompositions

OURS = """
    buf0 buf1 buf2 buf3 buf4 buf5 const0 const3 op0 op1 in0 in1 input0 input1 input3 out0 unused0 unused1
    workspace scratch scratch0
    threads s0 s1 s77 u0 zuf0 n0 i0 i1 r0 x0 k0 buf0_0 buf0_1 buf3_0 buf1_item_0 buf1_item1 buf0_number a a_0
    a_1 a_item a_number
""".split()
WORDS = (
    "int max min str locals entry body ptr self args inputs torch call result i32 true größe ﬁ _x __x".split()
)


def several(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Views of inputs for operators, intermediate values, results of operators, scratch memory."""
    mm, sort = torch.ops.aten.mm.default, torch.ops.aten.sort.default
    scaled = mm(a.t() * 2, c[:, 1:])
    return (
        mm(a.t(), c).exp() + 1,
        scaled.cumsum(0),
        mm(a.t(), b),
        sort(b[1:].reshape(-1))[0],
        (a * 3).sum(),
        b.view(-1)[2:] * 1,
    )


def examples() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(6, 5), torch.randn(6, 7), torch.randn(6, 9)]


def compiled_with(names: Sequence[str], mode: str) -> list[torch.Tensor]:
    """What the compiled graph gives whose three tensors have these names."""
    inputs = examples()
    gm = make_fx(several, decompositions(Config()), tracing_mode=mode)(*inputs)
    placeholders = gm.graph.find_nodes(op="placeholder")
    tensors = [node for node in placeholders if isinstance(node.meta["val"], torch.Tensor)]
    for node, name in zip(tensors, names, strict=True):
        node.name = name
    env = shape_env_of(node.meta["val"] for node in placeholders)
    outputs = len(gm.graph.output_node().args[0])  # type: ignore[arg-type]
    request = CompileRequest(gm, env, frozenset(), outputs, Config(strict=True), "inference", 0)
    return list(compile_graph(request).run(inputs))


@pytest.mark.parametrize("mode", ["fake", "symbolic"])
@pytest.mark.parametrize("start", range(0, len(OURS) + len(WORDS), 12))
def test_names_of_inputs_and_of_ours_do_not_meet(start: int, mode: str) -> None:
    expected = several(*examples())
    names = (OURS + WORDS)[start : start + 12]
    for k in range(0, len(names), 3):
        three = (names[k : k + 3] + ["p", "q"])[:3]
        for order in (three, three[::-1]):
            torch.testing.assert_close(tuple(compiled_with(order, mode)), expected)


def test_a_saved_tensor_that_is_called_like_a_view() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a, b = x / y, y / x
        return ((a @ b.t()) * (b @ a.t()) / (x @ y.t())).sum()

    def gradients(function: object) -> list[torch.Tensor]:
        torch.manual_seed(0)
        x, y = (torch.rand(3, 4).add(1).requires_grad_() for _ in range(2))
        function(x, y).backward()  # type: ignore[operator]
        assert x.grad is not None and y.grad is not None
        return [x.grad, y.grad]

    strict = torch.compile(f, backend="braze", options={"strict": True})
    torch.testing.assert_close(gradients(strict), gradients(f))


@pytest.mark.parametrize("names", ["s0 buf0 workspace", "unused1 x x_0", "in0 max s77", "input2 input0 b"])
def test_packages_of_functions_whose_arguments_have_such_names(
    names: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    arguments = ", ".join(names.split())
    scope: dict[str, object] = {"several": several, "torch": torch}
    source = f"class Net(torch.nn.Module):\n    def forward(self, {arguments}):\n"
    exec(source + f"        return several({arguments})\n", scope)
    net = scope["Net"]()  # type: ignore[operator]
    program = torch.export.export(net, tuple(examples()))
    path = tmp_path_factory.mktemp("package") / "net.pt2"
    braze.aot_compile(program, path, targets=("host",))
    torch.testing.assert_close(tuple(braze.aot_load(path)(*examples())), several(*examples()))
