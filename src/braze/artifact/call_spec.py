"""What the call around a compiled graph has to do, as data: the wrapper of an inference graph, or the
`autograd.Function` around a forward and a backward graph.

The functions that people write mutate their inputs and return views of them; compiled graphs do neither (but
for `copy_` to an input). A `CallSpec` says how the one is made from the other. `braze.artifact.autograd_call`
builds the callable. A compiled forward returns, in this order: new values of inputs (`copied_back`), the
outputs, the bases of outputs that are views of an intermediate value, the tensors saved for the backward,
and the numbers saved for it. A compiled backward takes numbers, saved tensors and tangents, and
returns a gradient, or None, for each input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

import msgspec

from braze.errors import ArtifactError

__all__ = [
    "AliasOfInput",
    "AliasOfResult",
    "Backward",
    "CallSpec",
    "CopyBack",
    "Fresh",
    "Output",
    "Place",
    "SameAsInput",
    "Tangent",
    "check_spec",
]

Position = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable; unknown fields are errors when read."""


class Fresh(_Data, frozen=True, tag="fresh"):
    """An output with a storage of its own, or no tensor. ``requires_grad``: it is differentiable.
    ``hide_view``: eager returns it as a tensor that is no view, and it may be made as one."""

    requires_grad: bool = False
    hide_view: bool = False


class SameAsInput(_Data, frozen=True, tag="input"):
    """The input itself, the same Python object."""

    base: Position


class Place(_Data, frozen=True):
    """How a view lies in its base: ``offset`` elements after the base's first one (before it, if negative),
    with these sizes and strides, in elements, or, where they are None, with those of what the graph
    returned."""

    offset: int = 0
    sizes: tuple[Count, ...] | None = None
    strides: tuple[Count, ...] | None = None


class AliasOfInput(_Data, frozen=True, tag="alias"):
    """A view of an input, made again from the caller's tensor. ``requires_grad`` is what the view shall
    say."""

    base: Position
    requires_grad: bool
    place: Place


class AliasOfResult(_Data, frozen=True, tag="result_alias"):
    """A view of a value of the graph. ``base`` counts outputs first, and then the bases."""

    base: Position
    requires_grad: bool
    place: Place


Output: TypeAlias = Fresh | SameAsInput | AliasOfInput | AliasOfResult


class CopyBack(_Data, frozen=True):
    """An input that is written to after the graph ran, through `copy_`, which autograd may record.
    ``leaf``: it was a leaf, which autograd must not see written to."""

    input: Position
    leaf: bool
    requires_grad: bool


class Tangent(_Data, frozen=True):
    """A gradient that comes into the backward. ``position`` is its place among those that autograd passes
    (one for each `copied_back`, output and base). It is brought to these sizes and strides, in elements, or,
    where they are None, to the memory format of that name; with none of these it is taken as it is."""

    position: Position
    sizes: tuple[Count, ...] | None = None
    strides: tuple[int, ...] | None = None
    memory_format: str | None = None


class Backward(_Data, frozen=True):
    """What the `autograd.Function` does besides running the graphs.

    Attributes:
        saved: tensors kept for the backward whose version is checked, as eager checks what it saves.
        unchecked: tensors kept after those, which the user's own `autograd.Function` kept by itself.
        numbers: integers kept for the backward, after the tensors.
        bases: results that only views are made of.
        tangents: in the order in which the backward graph takes them.
        detached: inputs without gradient that come from elsewhere in the graph, which autograd must not
            walk into.
        inputs_need_grad: an input required gradients; then a second derivative is an error when it is asked
            for.
        curved: inputs that the gradients depend on, by their numbers among the inputs that are tensors.
        nondeterministic: the forward was made while deterministic algorithms were not asked for.
    """

    saved: Count
    unchecked: Count
    numbers: Count
    bases: Count
    tangents: tuple[Tangent, ...]
    detached: tuple[Position, ...]
    inputs_need_grad: bool
    nondeterministic: bool
    curved: tuple[Position, ...] = ()


class CallSpec(_Data, frozen=True):
    """See the module.

    Attributes:
        inputs: how many inputs the function, and the graph, has.
        outputs: what becomes of each output of the graph.
        copied_back: inputs that get their new value after the graph ran.
        written: inputs that the graph itself writes to, of which autograd has to know.
        changed: inputs that hold other values after a call, for whatever reason.
        dynamic: output and dimensions that are symbolic, for each output that has such.
        autocast: autocast was on where the graph was traced, and is in it; it must be off where it runs.
        grad_mode: the grad mode that the function leaves behind; None where it leaves it alone.
        backward: None for an inference graph.
    """

    inputs: Count
    outputs: tuple[Output, ...]
    copied_back: tuple[CopyBack, ...] = ()
    written: tuple[Position, ...] = ()
    changed: tuple[Position, ...] = ()
    dynamic: tuple[tuple[Position, tuple[Position, ...]], ...] = ()
    autocast: bool = False
    grad_mode: bool | None = None
    backward: Backward | None = None

    @property
    def returned(self) -> int:
        """How many values the compiled forward returns that are not saved for the backward."""
        bases = 0 if self.backward is None else self.backward.bases
        return len(self.copied_back) + len(self.outputs) + bases


_FORMATS = frozenset({"contiguous_format", "channels_last", "channels_last_3d", "preserve_format"})


def check_spec(spec: CallSpec) -> None:
    """Raises ``ArtifactError`` where a position lies outside of what there is, or parts contradict each
    other."""
    bases = 0 if spec.backward is None else spec.backward.bases
    for output in spec.outputs:
        if isinstance(output, (SameAsInput, AliasOfInput)):
            _within([output.base], spec.inputs, "input")
        elif isinstance(output, AliasOfResult):
            _within([output.base], len(spec.outputs) + bases, "result")
        if isinstance(output, (AliasOfInput, AliasOfResult)):
            _check_geometry(output.place, "view")
    _within([c.input for c in spec.copied_back], spec.inputs, "input")
    _within((*spec.written, *spec.changed), spec.inputs, "input")
    _within([at for at, _ in spec.dynamic], len(spec.outputs), "output")
    if spec.backward is not None:
        _within(spec.backward.detached, spec.inputs, "input")
        _within([t.position for t in spec.backward.tangents], spec.returned, "gradient")
        for tangent in spec.backward.tangents:
            form = tangent.memory_format
            if form is not None and form not in _FORMATS:
                raise ArtifactError(f"{form!r} is not a memory format")
            _check_geometry(tangent, "gradient")


def _within(positions: Iterable[int], count: int, what: str) -> None:
    for position in positions:
        if not 0 <= position < count:
            raise ArtifactError(f"a call refers to {what} {position} of {count}")


def _check_geometry(one: Place | Tangent, what: str) -> None:
    sizes, strides = one.sizes, one.strides
    if (sizes is None) != (strides is None) or len(sizes or ()) != len(strides or ()):
        raise ArtifactError(f"a {what} does not have as many strides as sizes")
