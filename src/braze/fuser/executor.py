"""Running an elementwise graph on arguments: their common shape, the kernel for their kind, outputs with the
strides that eager would give, and the launch.

For arguments of new sizes and strides all of this is worked out once and *prepared*; what a call does then is
in `braze.fuser.kernel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from braze.errors import CodegenError
from braze.fuser.accounts import counts
from braze.fuser.arg_spec import ArgSpec, Operand, iteration, pattern
from braze.fuser.codegen import GENERATORS
from braze.fuser.elementwise import Elementwise, Made, Result
from braze.fuser.generated import Generated
from braze.fuser.kernel import Prepared
from braze.fuser.kernel_cache import KernelSpec, spec_for
from braze.fuser.strides import Geometry, Ints

__all__ = ["GraphRunner", "described", "prepare", "result_text"]

_MOST_PREPARED = 4096


def prepare(
    spec: KernelSpec,
    tensors: Sequence[tuple[torch.dtype, Geometry] | None],
    *,
    device: str = "cpu",
    layouts: Sequence[Geometry] | None = None,
) -> Prepared | str:
    """Prepare a launch of a graph, compiling its kernel if need be; or say why there can be none.

    tensors: dtype, sizes and strides of each input, None for a number.
    layouts: sizes and strides of the outputs, where they are given and not to be made.

    Raises ``ValueError`` where the shapes have nothing in common."""
    graph = spec.graph
    known = graph.layouts([None if t is None else t[1] for t in tensors])
    chosen = known if layouts is None else tuple(layouts)
    if any(0 in sizes for sizes, _ in known):
        counts.add("empty")
        return Prepared(chosen, None, None)
    shape = graph.shape(known)
    operands: list[Geometry] = []
    dtypes: list[torch.dtype] = []
    for one in tensors:
        if one is not None:
            dtypes.append(one[0])
            operands.append(one[1])
    operands += chosen
    loops = iteration(shape, operands, _leader(shape, chosen))
    patterns = [pattern(strides, len(own)) for strides, (own, _) in zip(loops.strides, operands)]
    ins = iter([Operand(d, p) for d, p in zip(dtypes, patterns)])
    arg_spec = ArgSpec(
        device,
        len(loops.sizes),
        tuple([next(ins) if kind == "tensor" else kind for kind in graph.kinds]),
        tuple([Operand(d, p) for d, p in zip(graph.dtypes, patterns[len(dtypes) :], strict=True)]),
        GENERATORS[device].index_bits(max([_extent(g) for g in operands], default=0)),
    )
    kernel = spec.kernel(arg_spec)
    if isinstance(kernel, str):
        return kernel
    binding = kernel.bind(loops)
    if binding is None:
        return f"its kernel was compiled for other sizes: {kernel.code.guards[0]}"
    counts.add("bound")
    return Prepared(chosen, kernel, binding)


def _leader(shape: Ints, layouts: Sequence[Geometry]) -> Ints:
    """The strides, along ``shape``, of the output that is most of it: the loops run in its order."""
    best = max(layouts, key=lambda g: sum(n != 1 for n in g[0]))
    lead = len(shape) - len(best[0])
    largest = max(best[1], default=1)
    return (largest + 1,) * lead + best[1]


def _extent(geometry: Geometry) -> int:
    """Elements from the first to the last."""
    return 1 + sum([(n - 1) * step for n, step in zip(*geometry)])


Key: TypeAlias = tuple[object, ...]


class GraphRunner:
    """Runs an elementwise function on lists of arguments, as a part of one that autograd sees. May be called
    from several threads at once."""

    def __init__(self, function: Elementwise) -> None:
        self._function = function
        self._spec = spec_for(function.graph)
        self._prepared: dict[Key, Callable[..., list[Any]]] = {}

    def __call__(self, values: list[Any]) -> list[Any]:
        """The results for these inputs; the list is emptied. Raises ``CodegenError`` where there is no kernel
        for them."""
        key = tuple(
            [(v.dtype, v.shape, v.stride()) if isinstance(v, torch.Tensor) else type(v) for v in values]
        )
        run = self._prepared.get(key)
        if run is None:
            run = self._prepare(values)
            if len(self._prepared) >= _MOST_PREPARED:
                self._prepared.clear()
            self._prepared[key] = run
        results = run(*values)
        values.clear()
        return results

    def _prepare(self, values: Sequence[Any]) -> Callable[..., list[Any]]:
        function = self._function
        prepared = prepare(self._spec, [described(values[p]) for p in function.inputs])
        if isinstance(prepared, str):
            raise CodegenError(prepared)
        names = [f"in{k}" for k in range(len(values))]
        text = Generated(f"run_{function.graph.key}", names)
        made = text.results(prepared, function.graph.dtypes, [names[p] for p in function.inputs])
        text.line(f"return [{', '.join([result_text(r, made, names) for r in function.results])}]")
        return text.function()


def described(value: Any) -> tuple[torch.dtype, Geometry] | None:
    """A tensor's type, sizes and strides; None for a number."""
    if isinstance(value, torch.Tensor):
        return value.dtype, (tuple(value.shape), value.stride())
    return None


def result_text(result: Result, made: Sequence[str], inputs: Sequence[str]) -> str:
    """The expression for a result, from those for what the kernel made and for the function's inputs."""
    if isinstance(result, Made):
        return made[result.number]
    return "None" if result is None else inputs[result.position]
