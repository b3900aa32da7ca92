"""Python code for arguments of one kind: looking whether they are such, and the launch or the call.

Where they are not, the miss is tried on what was seen with the same shapes lately, each of which looks as
closely, before the table of all entries is asked: that takes 1 us more, and not 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from braze import config
from braze._torch import native, surroundings
from braze._torch.autograd import grad_enabled
from braze._torch.devices import HOST
from braze.fuser.arguments import Structure, conditions, describe, literal
from braze.fuser.entries import Entry, Subject
from braze.fuser.executor import Prepared, write_call
from braze.fuser.generated import Generated
from braze.fuser.memory import overlap
from braze.fuser.signature import FAST
from braze.fuser.tracing import Traced

__all__ = ["EntryCode", "Recent"]

_MOST_RECENT: Final = 1024


class Recent:
    """Entries for arguments of one structure by the shapes of their tensors. ``again`` takes the values of
    the parameters, and calls the entry for their shapes, or ``dispatch``; the entry's fast function becomes
    the one that ``space[FAST]`` holds, which the wrapper calls first."""

    def __init__(
        self,
        subject: Subject,
        structure: Structure,
        tensors: Sequence[int],
        dispatch: Callable[..., Any],
        space: dict[str, Any],
    ) -> None:
        self.dispatch = dispatch
        self._by_shapes: dict[tuple[torch.Size, ...], tuple[Callable[..., Any], Callable[..., Any]]] = {}
        names = _parameters(subject)
        text = Generated(f"again_{_identifier(subject.name)}", names)
        paths: list[str] = []
        for one, name in zip(structure, names):
            list(conditions(one, name, _Constants(text), paths))
        text.constant("_known", self._by_shapes.get)
        text.constant("_dispatch", dispatch)
        text.constant("_space", space)
        text.constant("_fast", FAST)
        text.line("try:")
        text.line(f"    _entry = _known(({', '.join([f'{paths[k]}.shape' for k in tensors])},))")
        text.line(
            "except (AttributeError, IndexError, KeyError, RuntimeError, TypeError):  # another structure"
        )
        text.line("    _entry = None")
        text.line("if _entry is None:")
        text.line(f"    return _dispatch({', '.join(names)})")
        text.line("_checked, _space[_fast] = _entry")
        text.line(f"return _checked({', '.join(names)})")
        self.again = text.function()

    def add(self, leaves: Sequence[Any], checked: Callable[..., Any], fast: Callable[..., Any]) -> None:
        """Remember an entry for the shapes of these tensors: two functions that differ in what they call
        where arguments are of another kind, ``dispatch`` or ``again``."""
        if len(self._by_shapes) >= _MOST_RECENT:
            self._by_shapes.clear()
        shapes = tuple([leaf.shape for leaf in leaves if isinstance(leaf, torch.Tensor)])
        self._by_shapes[shapes] = checked, fast

    def clear(self) -> None:
        """Forget all of them."""
        self._by_shapes.clear()


class EntryCode:
    """Writes the functions of one entry. ``sizes``: the values that the trace's call takes first;
    ``numbers``: the positions of numbers that are part of the code."""

    def __init__(
        self,
        subject: Subject,
        structure: Structure,
        leaves: Sequence[Any],
        traced: Traced,
        prepared: Prepared | None,
        sizes: Sequence[int],
        numbers: frozenset[int],
    ) -> None:
        self.subject = subject
        self.structure = structure
        self.leaves = leaves
        self.traced = traced
        self.prepared = prepared
        self.sizes = sizes
        self.numbers = numbers

    def entry(self, recent: Recent) -> Entry:
        """The entry; it is known to ``recent`` from now on."""
        if self.traced.writes:
            # what writes to its arguments has to look, each time, whether they overlap
            return Entry(self._function("run", None), None)
        fast = self._function("fast", recent.again)
        recent.add(self.leaves, self._function("checked", recent.dispatch), fast)
        return Entry(self._function("run", None), fast)

    def _function(self, kind: str, miss: Callable[..., Any] | None) -> Callable[..., Any]:
        """A function of the parameters. ``miss`` is called where the arguments are of another kind; None:
        they are taken to be of this one."""
        names = _parameters(self.subject)
        text = Generated(f"{kind}_{_identifier(self.subject.name)}", names)
        constant = _Constants(text)
        paths: list[str] = []
        tests = [t for s, n in zip(self.structure, names) for t in conditions(s, n, constant, paths)]
        indent = ""
        if miss is not None:
            tests += self._further_tests(text, paths)
            text.line(f"if {' and '.join(tests)}:")
            indent = "    "
        results = self._results(text, paths, indent)
        shown = iter([results[p] for p in self.traced.places])
        text.line(f"{indent}return {literal(self.traced.results, shown, constant)}")
        if miss is not None:
            text.constant("_miss", miss)
            text.line(f"return _miss({', '.join(names)})")
        return text.function()

    def _results(self, text: Generated, paths: Sequence[str], indent: str) -> list[str]:
        """Statements that compute the results; the expressions for them."""
        traced = self.traced
        values = [*map(str, self.sizes), *[paths[p] for p in traced.live]]
        if self.prepared is not None:
            return write_call(text, self.prepared, values, indent)
        text.constant("_call", self._call())
        text.line(f"{indent}_results = _call({', '.join(values)})")
        return [f"_results[{k}]" for k in range(max(traced.places, default=-1) + 1)]

    def _call(self) -> Callable[..., Sequence[Any]]:
        """The callable of the trace. Where it writes to arguments that overlap, it is not what was traced,
        and the function is run as it is."""
        call, places = self.traced.call, self.traced.places
        assert call is not None
        if not self.traced.writes:
            return call
        first, count = len(self.sizes), len(self.leaves)
        fixed = {p: leaf for p, leaf in enumerate(self.leaves) if p not in self.traced.live}
        subject, structure = self.subject, self.structure  # and not the leaves: those are somebody's tensors

        def careful(*values: Any) -> Sequence[Any]:
            tensors = [v for v in values[first:] if isinstance(v, torch.Tensor)]
            apart = not any(overlap([t], tensors[k + 1 :]) for k, t in enumerate(tensors))
            if apart and not any(map(native.overlaps_itself, tensors)):
                return call(*values)
            given = iter(values[first:])
            flat = [fixed[p] if p in fixed else next(given) for p in range(count)]
            found: list[Any] = []
            describe(subject.call_flat(structure, flat), "the result", found, numbers=False)
            return [found[places.index(k)] for k in range(max(places, default=-1) + 1)]

        return careful

    def _further_tests(self, text: Generated, paths: Sequence[str]) -> list[str]:
        """Conditions beyond those of the arguments' structure: the tensors' guard, numbers that are part of
        the code, modes, and what the function reads besides its arguments."""
        leaves = self.leaves
        tensors = [k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        first = {id(leaves[k]): k for k in reversed(tensors)}
        apart = [k for k in tensors if first[id(leaves[k])] == k]
        text.constant("_like", native.same_tensors([leaves[k] for k in apart]))
        text.constant("_modes", surroundings.function_modes)
        text.constant("_forward_mode", surroundings.FORWARD_MODE)
        text.constant("_default_dtype", torch.get_default_dtype)
        default = text.constant("_known_dtype", torch.get_default_dtype())
        # PyTorch's guard takes no tensor twice
        tests = [f"{paths[k]} is {paths[first[id(leaves[k])]]}" for k in tensors if k not in apart]
        # nor a nested one: asked for its sizes, it would end the process
        tests += [f"not {paths[k]}.is_nested" for k in apart]
        tests += [f"_like({', '.join([paths[k] for k in apart])})", "not _modes()"]
        if torch.is_autocast_enabled(HOST):
            text.constant("_autocast_dtype", torch.get_autocast_dtype)
            text.constant("_known_autocast", torch.get_autocast_dtype(HOST))
            tests.append(f"_autocast_dtype({HOST!r}) is _known_autocast")
        text.constant("_options", config.watch(self.subject.options).checker())
        tests += ["_forward_mode._current_level < 0", "_options()"]
        tests.append(f"_default_dtype() is {default}")
        if any(leaves[k].requires_grad for k in tensors):
            text.constant("_grad", grad_enabled)
            tests.append("_grad()" if grad_enabled() else "not _grad()")
        for position in sorted(self.numbers):
            leaf = leaves[position]
            if isinstance(leaf, float):
                tests.append(f"{paths[position]}.hex() == {leaf.hex()!r}")
            else:
                tests.append(f"{paths[position]} == {leaf}")
        for k, place in enumerate(self.subject.surroundings.places):
            text.constant(f"_read{k}", place.read)
            text.constant(f"_was{k}", place.read())
            tests.append(f"_read{k}() is _was{k}")
        if self.subject.signature.takes_out:
            tests.append(f"{_parameters(self.subject)[-1]} is None")
        return tests


def _parameters(subject: Subject) -> list[str]:
    """The parameters' names in generated code: people's own names may mean something else there."""
    return [f"p{k}_{name}" for k, name in enumerate(subject.signature.names)]


class _Constants:
    """Names for objects in a function that is being written; one for each object."""

    def __init__(self, text: Generated) -> None:
        self._text = text
        self._names: dict[int, str] = {}

    def __call__(self, value: Any) -> str:
        if id(value) not in self._names:
            self._names[id(value)] = self._text.constant(f"_c{len(self._names)}", value)
        return self._names[id(value)]


def _identifier(name: str) -> str:
    return "".join([c if c.isalnum() and c.isascii() else "_" for c in name])
