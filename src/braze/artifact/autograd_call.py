"""From a `CallSpec` and compiled graphs to the function that `torch.compile` calls.

It does what AOTAutograd's wrappers do around compiled graphs, and needs none of AOTAutograd's tracing: a
stored spec is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from braze._torch import autograd
from braze._torch.hidden import untraced
from braze._torch.native import resolved
from braze.artifact.call_spec import (
    AliasOfInput,
    AliasOfResult,
    Backward,
    CallSpec,
    Fresh,
    Output,
    SameAsInput,
    Tangent,
    check_spec,
)
from braze.dtypes import torch_values
from braze.errors import ArtifactError

__all__ = ["Boxed", "build_call", "guarded_backward"]

Boxed: TypeAlias = Callable[[list[Any]], Sequence[Any]]
"""A compiled graph: takes its inputs in a list, which it empties."""


def build_call(spec: CallSpec, forward: Boxed, backward: Boxed | None = None) -> Callable[..., list[Any]]:
    """The function that `spec` describes: takes the inputs one by one, returns the outputs in a list.

    Results are differentiable once: a second derivative raises ``RuntimeError``, as AOTAutograd's do.

    May be called from several threads at once. Raises ``ArtifactError`` for a spec that contradicts itself,
    or one with a backward but no graph for it."""
    check_spec(spec)
    if spec.backward is None:
        return _with_epilogue(spec, _inference(spec, forward))
    if backward is None:
        raise ArtifactError("a function that is differentiable has no backward graph")
    return _with_epilogue(spec, _training(spec, spec.backward, forward, backward))


# -- running the graphs -------------------------------------------------------------------------------------
def _inference(spec: CallSpec, forward: Boxed) -> Boxed:
    run = _without_autocast(forward) if spec.autocast else forward
    grad_enabled, set_grad_enabled = autograd.grad_enabled, autograd.set_grad_enabled

    def without_grad(inputs: list[Any]) -> Sequence[Any]:
        if not grad_enabled():
            return run(inputs)
        set_grad_enabled(False)
        try:
            return run(inputs)
        finally:
            set_grad_enabled(True)

    return without_grad


def _without_autocast(run: Boxed) -> Boxed:
    disabled = autograd.without_autocast

    def call(inputs: list[Any]) -> Sequence[Any]:
        with disabled():
            return run(inputs)

    return call


def _training(spec: CallSpec, how: Backward, forward: Boxed, backward: Boxed) -> Boxed:
    function = _function(spec, how, forward, backward)
    detached = how.detached
    grad_enabled, set_grad_enabled = autograd.grad_enabled, autograd.set_grad_enabled

    def call(inputs: list[Any]) -> Sequence[Any]:
        for i in detached:
            if isinstance(inputs[i], torch.Tensor):
                inputs[i] = inputs[i].detach()
        arguments = tuple(inputs)
        inputs.clear()
        # the user may call it under `no_grad` where the function itself enables gradients
        if grad_enabled():
            return function(*arguments)
        set_grad_enabled(True)
        try:
            return function(*arguments)
        finally:
            set_grad_enabled(False)

    return call


class _Hidden:
    """A tensor that an `autograd.Function` returns and autograd shall not see."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def _function(
    spec: CallSpec, how: Backward, forward: Boxed, backward: Boxed
) -> Callable[..., tuple[Any, ...]]:
    """`apply` of an `autograd.Function` that runs the two graphs."""
    run_forward = _without_autocast(forward) if spec.autocast else forward
    run_backward = _without_autocast(backward)
    returned = spec.returned
    checked = slice(returned, returned + how.saved)
    unchecked = slice(checked.stop, checked.stop + how.unchecked)
    numbers = slice(unchecked.stop, unchecked.stop + how.numbers)
    total = numbers.stop
    first = len(spec.copied_back)
    hide_views = [first + i for i, o in enumerate(spec.outputs) if isinstance(o, Fresh) and o.hide_view]
    hidden = [first + i for i, o in enumerate(spec.outputs) if not isinstance(o, Fresh)]
    constant = [i for i, c in enumerate(spec.copied_back) if not c.requires_grad]
    constant += [
        first + i for i, o in enumerate(spec.outputs) if isinstance(o, Fresh) and not o.requires_grad
    ]
    coerce = [(t.position, _coercion(t)) for t in how.tangents]
    detached_if_view, release_saved = autograd.detached_if_view, autograd.release_saved
    leave_undefined = autograd.leave_undefined_gradients

    class CompiledFunction(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[Any, ...]:
            values = run_forward(list(inputs))
            if len(values) != total:
                raise ArtifactError(f"a compiled graph returned {len(values)} values instead of {total}")
            ctx.save_for_backward(*[detached_if_view(t) for t in values[checked]])
            ctx.unchecked = [detached_if_view(t) for t in values[unchecked]]
            ctx.numbers = values[numbers]
            results = list(values[:returned])
            for i in hide_views:
                results[i] = torch.ops.aten._unsafe_view.default(results[i], results[i].shape)
            for i in hidden:
                results[i] = _Hidden(results[i])
            ctx.mark_non_differentiable(*[r for r in map(results.__getitem__, constant) if _is_tensor(r)])
            leave_undefined(ctx)
            return tuple(results)

        @staticmethod
        @untraced  # it may be called inside a compiled frame
        def backward(ctx: Any, *gradients: Any) -> Any:
            _check_backward(how)
            if len(gradients) != returned:
                raise ArtifactError(f"{len(gradients)} gradients came back instead of {returned}")
            arguments = [*ctx.numbers, *ctx.saved_tensors, *ctx.unchecked]
            arguments += [fit(resolved(gradients[position])) for position, fit in coerce]
            del gradients

            def run() -> tuple[Any, ...]:
                release_saved(ctx)
                return tuple(run_backward(arguments))

            if autograd.grad_enabled():
                _check_connected(arguments, how.curved)
            if autograd.grad_enabled() and (how.inputs_need_grad or _any_requires_grad(arguments)):
                return _differentiable_once(run, arguments)
            return run()

    apply: Callable[..., tuple[Any, ...]] = CompiledFunction.apply
    return apply


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _any_requires_grad(values: Sequence[Any]) -> bool:
    return any(isinstance(v, torch.Tensor) and v.requires_grad for v in values)


def _check_backward(how: Backward) -> None:
    if autograd.in_transform():
        raise RuntimeError(
            "a compiled backward was called inside vmap, grad or vjp, which is not supported; "
            "put the transform inside of torch.compile"
        )
    if how.nondeterministic and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(
            "this compiled backward runs with torch.use_deterministic_algorithms(True), but its forward was "
            "compiled with torch.use_deterministic_algorithms(False)"
        )


_DOUBLE_BACKWARD = (
    "torch.compile with aot_autograd does not currently support double backward "
    "(this function was compiled by Braze)"
)


def _check_connected(arguments: Sequence[Any], curved: Sequence[int]) -> None:
    """Raises ``RuntimeError`` where a derivative of the gradients that are about to be computed would be
    taken for zero: with respect to an input that they depend on, which none of the backward graph's
    `arguments` leads to. Where they all do, the error comes when that derivative is asked for."""
    node = autograd.current_node()
    if node is None or not curved:
        return
    lost = autograd.unconnected_inputs(node, arguments)
    if set(lost) & set(curved):
        raise RuntimeError(f"create_graph=True: {_DOUBLE_BACKWARD}")


def guarded_backward(backward: Boxed, curved: Sequence[int]) -> Boxed:
    """`backward`, a compiled graph, which no autocast reaches, and which raises ``RuntimeError`` with
    ``create_graph=True`` where the derivative of its gradients would be lost. ``curved`` as in `Backward`."""
    creates_graph, autocast_enabled = autograd.creates_graph, autograd.autocast_enabled
    cast_off = _without_autocast(backward)

    def run(arguments: list[Any]) -> Sequence[Any]:
        if curved and creates_graph():
            _check_connected(arguments, curved)
        return cast_off(arguments) if autocast_enabled() else backward(arguments)

    return run


class _NotTwice(torch.autograd.Function):
    """Connects gradients to the graph of `create_graph=True`, and says no when they are differentiated."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], tuple[Any, ...]], *_: Any) -> tuple[Any, ...]:
        return run()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(_DOUBLE_BACKWARD)


def _differentiable_once(run: Callable[[], tuple[Any, ...]], arguments: Sequence[Any]) -> Any:
    # saved tensors are detached: without an input that requires gradients the results would not either
    anchor = torch.empty(0, requires_grad=True)
    return _NotTwice.apply(run, anchor, *arguments)  # type: ignore[no-untyped-call]


# -- gradients that come in ---------------------------------------------------------------------------------
def _coercion(tangent: Tangent) -> Callable[[Any], Any]:
    """Brings a gradient to the layout that the backward graph was compiled for."""
    if tangent.memory_format is not None:
        memory_format = torch_values(torch.memory_format)[tangent.memory_format]

        def to_format(gradient: Any) -> Any:
            if not isinstance(gradient, torch.Tensor) or gradient.is_contiguous(memory_format=memory_format):
                return gradient
            return gradient.contiguous(memory_format=memory_format)

        return to_format
    sizes, strides = tangent.sizes, tangent.strides
    if sizes is None or strides is None:
        return lambda gradient: gradient

    def to_strides(gradient: Any) -> Any:
        if not isinstance(gradient, torch.Tensor):
            return gradient
        if gradient.stride() == strides and gradient.shape == sizes:
            return gradient
        result = torch.empty_strided(
            sizes,
            strides,
            dtype=gradient.dtype,
            device=gradient.device,
            requires_grad=gradient.requires_grad,
        )
        with torch.no_grad():
            return result.copy_(gradient)

    return to_strides


# -- before and after the graphs ----------------------------------------------------------------------------
def _with_epilogue(spec: CallSpec, run: Boxed) -> Callable[..., list[Any]]:
    """`run`, with everything that the graph itself does not do."""
    written, dynamic, grad_mode = spec.written, spec.dynamic, spec.grad_mode
    copied = [(i, c.input, c.leaf) for i, c in enumerate(spec.copied_back)]
    first, count = len(copied), len(spec.outputs)
    aliases = [(i, o) for i, o in enumerate(spec.outputs) if not isinstance(o, Fresh)]
    needed = {i for _, i, _ in copied}
    needed |= {o.base for _, o in aliases if isinstance(o, (SameAsInput, AliasOfInput))}
    kept = tuple(sorted(needed))
    whole = not (copied or aliases or spec.returned != count or spec.backward is not None)
    if whole and not (written or dynamic or grad_mode is not None):

        def plain(*arguments: Any) -> list[Any]:
            inputs = list(arguments)
            del arguments
            return run(inputs)  # type: ignore[return-value]  # compiled inference graphs return lists

        return plain

    def call(*arguments: Any) -> list[Any]:
        inputs = list(arguments)
        del arguments
        originals = {i: inputs[i] for i in kept}
        if written:
            autograd.increment_version([inputs[i] for i in written])
        values = run(inputs)
        for i, at, leaf in copied:
            target = originals[at]
            (target.detach() if leaf and target.requires_grad else target).copy_(values[i])
        results = list(values[first : first + count])
        for i, output in aliases:
            results[i] = _alias(output, values[first + i], originals, values, first)
        for i, dims in dynamic:
            autograd.mark_dynamic(results[i], dims)
        if grad_mode is not None:
            autograd.set_grad_enabled(grad_mode)
        return results

    return call


def _alias(
    output: Output,
    value: Any,
    originals: dict[int, Any],
    values: Sequence[Any],
    first: int,
) -> Any:
    if isinstance(output, SameAsInput):
        return originals[output.base]
    if isinstance(output, AliasOfInput):
        return _view(originals[output.base], _shown(value), output)
    if isinstance(output, AliasOfResult):
        return _view(_shown(values[first + output.base]), _shown(value), output)
    return value


def _shown(value: Any) -> Any:
    return value.tensor if isinstance(value, _Hidden) else value


def _view(base: torch.Tensor, like: torch.Tensor, output: AliasOfInput | AliasOfResult) -> torch.Tensor:
    """The view of `base` for which the graph returned `like`."""
    place = output.place
    sizes: Sequence[int] | None = place.sizes
    strides: Sequence[int] | None = place.strides
    if sizes is None or strides is None:
        sizes, strides = like.size(), like.stride()
    view = base.as_strided(sizes, strides, base.storage_offset() + place.offset)
    if base.requires_grad and not output.requires_grad:
        return view.detach()
    if output.requires_grad and not base.requires_grad:
        return view.requires_grad_(True)
    return view
