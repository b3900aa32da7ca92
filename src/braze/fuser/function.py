"""`braze.fuse`: a function of tensors and numbers, fused for whatever it is called with.

A call goes one of three ways. The *fast* one: the arguments are like those of the last call, which one guard
of PyTorch's tells in 0.2 us, and the launch follows in the same Python function. The *known* one: such
arguments were seen before, and a table has what to do. Else `braze.fuser.specialize` finds out.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import torch

from braze import config as configuration
from braze._torch import surroundings
from braze._torch.autograd import grad_enabled
from braze.errors import Refused
from braze.fuser.arguments import FAST, Parameters, Structure, describe, rebuild, same_containers
from braze.fuser.fallback import EMPTY, count, fall_back, on_change
from braze.fuser.guards import FreeVariables, free_variables

__all__ = ["Entry", "FusedFunction", "fuse"]

F = TypeVar("F", bound=Callable[..., Any])

Entry: TypeAlias = "tuple[Callable[..., Any], Callable[..., Any] | None]"
"""What to do for arguments of one kind, sizes and strides: a function that takes it for granted that they are
such, and one that looks; None where that would take too long."""

_MOST_ENTRIES = 1024


class FusedFunction:
    """What is behind a function that `fuse` made; it is its attribute ``fused``. ``space[FAST]`` is what the
    wrapper calls first."""

    def __init__(
        self,
        function: Callable[..., Any],
        options: Mapping[str, object] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or getattr(function, "__qualname__", repr(function)).split("<locals>.")[-1]
        self.identifier = "fused_" + "".join([c if c.isalnum() and c.isascii() else "_" for c in self.name])
        self.parameters = Parameters(function)
        self._variables: FreeVariables | None = None
        self.options: dict[str, Any] = dict(options or {})
        self._compile_key = configuration.key_reader(self.options)
        self._specializer: Any = None
        self._entries: dict[object, Entry] = {}
        self._lock = threading.Lock()
        self.space: dict[str, Any] = {FAST: self.dispatch}
        self.wrapper = self.parameters.wrapper(self.space)
        self.wrapper.fused = self  # type: ignore[attr-defined]
        surroundings.inlined_by_dynamo(self.wrapper, function)
        count("functions")
        on_change(self)

    def __repr__(self) -> str:
        return f"<braze fused function {self.name}>"

    @property
    def specializer(self) -> Any:
        """What traces and compiles it: a `Specializer`, which is loaded when it is first needed."""
        found = self._specializer
        if found is None:
            from braze.fuser.specialize import Specializer  # noqa: PLC0415

            with self._lock:
                found = self._specializer = self._specializer or Specializer(self)
        return found

    def forget(self) -> None:
        """Prepare anew for every kind of arguments. Compiled kernels stay."""
        with self._lock:
            self._entries = {}
            self.space[FAST] = self.dispatch
            if self._specializer is not None:
                self._specializer.forget()

    # -- the function itself ----------------------------------------------------------------------------
    @property
    def variables(self) -> FreeVariables:
        """What it may read besides its arguments, as it is now."""
        found = self._variables
        if found is None or not found.hold:
            found = self._variables = free_variables(self.parameters.function)
        return found

    def state(self) -> tuple[object, ...]:
        """What decides, besides the arguments, what a call runs: the thread's modes, the options that hold,
        and what the function reads elsewhere."""
        return (*surroundings.thread_state(), self._compile_key(), *self.variables.values())

    def call_flat(self, structure: Structure, flat: Sequence[Any]) -> Any:
        """Its result, by eager operators, for arguments of this structure with these tensors and numbers."""
        leaves = iter(flat)
        return self.parameters.call([rebuild(one, leaves) for one in structure])

    def trace_flat(self, structure: Structure, flat: Sequence[Any]) -> Any:
        """The same for a trace: what is done to lists and dicts that are passed is lost there, and so it is
        refused. Raises `Refused`."""
        leaves, again = iter(flat), iter(flat)
        values = [rebuild(one, leaves) for one in structure]
        result = self.parameters.call(values)
        if not same_containers(values, [rebuild(one, again) for one in structure]):
            raise Refused("it changes a list or dict that is passed to it")
        if any(result is value for value in values if isinstance(value, (list, dict))):
            raise Refused("it returns a list or dict that is passed to it")
        return result

    # -- a call -----------------------------------------------------------------------------------------
    def dispatch(self, *values: Any) -> Any:
        """A call, with the values of the parameters, that the fast way did not take."""
        takes_out = self.parameters.takes_out
        arguments, out = (values[:-1], values[-1]) if takes_out else (values, None)
        watched = surroundings.onlookers()
        if watched is not None:
            return self._eager(arguments, out, watched, quiet=True)
        leaves: list[Any] = []
        try:
            structure = self.described(arguments, leaves)
            entry = self._entry(structure, leaves) if out is None else None
        except Refused as error:
            return self._eager(arguments, out, error.reason, quiet=error.reason == EMPTY)
        if entry is None:
            return self._into(arguments, out, structure, leaves)
        run, fast = entry
        if fast is not None:
            self.space[FAST] = fast
        return run(*values)

    def _entry(self, structure: Structure, leaves: Sequence[Any]) -> Entry:
        """What to do for such arguments. Raises `Refused`."""
        entry = self._entries.get(self._key(structure, leaves))
        if entry is None:
            entry = self.specializer.entry(structure, leaves)
            with self._lock:
                if len(self._entries) >= _MOST_ENTRIES:
                    self._entries = {}
                self._entries[self._key(structure, leaves)] = entry  # it may have come to depend on numbers
        return entry

    def described(self, arguments: Sequence[Any], leaves: list[Any]) -> Structure:
        """The structure of the values of the parameters; tensors and numbers are appended to ``leaves``.
        Raises `Refused`."""
        names = self.parameters.names
        return tuple([describe(value, name, leaves) for value, name in zip(arguments, names)])

    def _eager(self, arguments: Sequence[Any], out: Any, reason: str, *, quiet: bool = False) -> Any:
        with configuration.patch(**self.options):
            call = functools.partial(self.parameters.call, arguments)
            result = fall_back(call, self.name, reason, quiet=quiet)
        return result if out is None else write_results(out, result)

    def _key(self, structure: Structure, leaves: Sequence[Any]) -> object:
        numbers = frozenset() if self._specializer is None else self._specializer.constants(structure)
        parts: list[object] = [structure, *self.state()]
        seen: dict[int, int] = {}
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                parts.append(seen.setdefault(id(leaf), position))  # a tensor twice has an entry of its own
                parts += (type(leaf), leaf.dtype, leaf.device, leaf.layout, leaf.requires_grad)
                if leaf.layout is torch.strided and not leaf.is_nested:
                    parts += (leaf.shape, leaf.stride(), leaf.is_neg(), leaf.is_conj())
            elif position in numbers:
                parts.append(leaf.hex() if isinstance(leaf, float) else leaf)
        return tuple(parts)

    def _into(self, arguments: Sequence[Any], out: Any, structure: Structure, leaves: Sequence[Any]) -> Any:
        """A call whose results are written to tensors that are given."""
        outputs: list[Any] = []
        try:
            shape = describe(out, "out", outputs)
        except Refused as error:
            raise TypeError(error.reason) from None
        if not all(isinstance(t, torch.Tensor) for t in outputs):
            raise TypeError("out has to be a tensor, or tensors as the function returns them")
        tensors = [leaf for leaf in (*leaves, *outputs) if isinstance(leaf, torch.Tensor)]
        if grad_enabled() and any(t.requires_grad for t in tensors):
            raise RuntimeError(f"{self.name}: results with out=... are not recorded by autograd")
        if self.specializer.launched_into(structure, leaves, shape, outputs):
            return out
        return write_results(out, self.dispatch(*arguments, None))


@overload
def fuse(function: F, /, *, options: Mapping[str, object] | None = None) -> F: ...
@overload
def fuse(function: None = None, /, *, options: Mapping[str, object] | None = None) -> Callable[[F], F]: ...
def fuse(function: Any = None, /, *, options: Mapping[str, object] | None = None) -> Any:
    """Make one fused function of a Python function of tensors and numbers.

    ::

        @braze.fuse
        def swiglu(x, gate):
            return torch.nn.functional.silu(gate) * x

    It may be called with tensors of every shape, type and layout, also ones that require gradients; what
    cannot be fused runs as it is, with one warning that says why. The function must depend on its arguments,
    and on numbers and strings in globals and closures, and on nothing else that changes.

    Args:
        function: takes tensors, numbers, constants (strings, dtypes, None, booleans), and lists, tuples and
            dicts of these, and returns tensors, constants, and such containers of them. Numbers are passed
            to its kernels at run time, unless a shape or a branch depends on them.
        options: names and values of `braze.config.Config`, for this function.

    Returns:
        A function with the same parameters and, unless it has one already, a keyword ``out``: tensors as it
        returns them, which get the results.

    Raises:
        TypeError: `function` has no signature.
        ConfigError: an option that there is not.
        FallbackError: in strict mode, when it is called, where it would not be fused.
    """
    configuration.resolve(options)  # a wrong option is an error here, and not in some call
    if function is None:
        return functools.partial(fuse, options=options)
    if not callable(function):
        raise TypeError(f"fuse takes a function, not a {type(function).__name__}")
    return FusedFunction(function, options).wrapper


def write_results(out: Any, result: Any) -> Any:
    """Write what a function returned to ``out``, which has the same structure, as torch's functions do: a
    tensor without elements is resized, a result is converted to the tensor's type if that loses no category.
    Returns ``out``. Raises ``TypeError`` for another structure, ``RuntimeError`` for sizes or types that do
    not fit."""
    given: list[Any] = []
    made: list[Any] = []
    try:
        same = describe(out, "out", given) == describe(result, "the result", made, numbers=False)
    except Refused as error:
        raise TypeError(error.reason) from None
    if not same:
        raise TypeError("out has to be made like what the function returns: the same tuples, lists and dicts")
    for target, value in zip(given, made, strict=True):
        if not torch.can_cast(value.dtype, target.dtype):
            raise RuntimeError(
                f"result type {value.dtype} can't be cast to the desired output type {target.dtype}"
            )
        if target.device != value.device:
            raise RuntimeError(f"out is on {target.device}, and the result on {value.device}")
        if target.shape != value.shape:
            if target.numel():
                raise RuntimeError(
                    f"out has the sizes {list(target.shape)}, and the result {list(value.shape)}"
                )
            target.resize_(value.shape)
        target.copy_(value)
    return out
