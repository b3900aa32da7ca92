"""A model out of a package: calling it, and its weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from braze._torch.autograd import grad_enabled, set_grad_enabled, without_autocast
from braze._torch.devices import HOST
from braze.artifact.call_arguments import CallSignature, Checks, argument_paths
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.model_info import Model, Weight
from braze.artifact.output_code import BoxedCall
from braze.artifact.trees import unflattener
from braze.errors import InputMismatchError, PackageError
from braze.runtime.plan import SymbolRange
from braze.runtime.spec import restrided

__all__ = ["Loaded"]

_NAMED = 12
"""How many names a message lists."""


class Loaded:
    """A model out of a package. Called like the exported program: same positional and keyword arguments, same
    results, no gradients. It may be called from several threads at once, unless the model has buffers that a
    call writes to.

    Attributes:
        path: of the package.
        target: what the code in use was made for; a CPU by LLVM's name.
        weights: the model's parameters, buffers and constants by name; see `state` for the tensors.
        ranges: of the sizes that may differ from call to call.
    """

    def __init__(
        self, path: str, model: Model, graphs: Sequence[CompiledFxGraph], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Links the code of ``graphs``, last of all; a call takes the first of them that fits its sizes.
        ``tensors`` are those weights that are there, of the right dtype and sizes."""
        self.path = path
        self.target = graphs[0].variant().info.target
        self.weights: Mapping[str, Weight] = MappingProxyType({w.name: w for w in model.weights})
        self.ranges: tuple[SymbolRange, ...] = model.ranges
        self._model = model
        self._paths = argument_paths(model.parameters)
        self._signature = CallSignature(model.parameters)
        every = [Checks(model, g.info, g.variant().info.plan, self._paths) for g in graphs]
        self._checks = every[0]
        self._writes = bool(self._checks.written or self._checks.weights_written)
        self._unflatten = unflattener(model.parameters.results)
        self._given = [
            (position, slot.given) for position, slot in enumerate(model.slots) if slot.given is not None
        ]
        self._positions: dict[str, list[int]] = {name: [] for name in self.weights}
        for position, slot in enumerate(model.slots):
            if slot.weight is not None:
                self._positions[slot.weight].append(position)
        self._tensors: dict[str, torch.Tensor] = {}
        self._inputs: list[Any] = [None] * len(model.slots)
        self._missing: tuple[str, ...] = ()
        self._adopt(tensors)
        for graph in graphs:
            graph.post_compile()
        self._run = graphs[0].run
        self._others = [(checks, graph.run) for checks, graph in zip(every[1:], graphs[1:], strict=True)]

    def __repr__(self) -> str:
        names = ", ".join(self._paths)
        return f"<braze package {self.path}: model({names}) for {self.target}, {len(self.weights)} weights>"

    # -- weights ----------------------------------------------------------------------------------------
    @property
    def unbound(self) -> tuple[str, ...]:
        """The names of weights that a call still needs."""
        return self._missing

    @property
    def state(self) -> Mapping[str, torch.Tensor]:
        """The tensors in use by name, those of weights under their other names too. Writing to one in place
        changes what the next call computes with."""
        aliases = {a: self._tensors[n] for a, n in self._model.aliases.items() if n in self._tensors}
        return MappingProxyType({**self._tensors, **aliases})

    def bind(self, source: Mapping[str, torch.Tensor] | torch.nn.Module, *, strict: bool = True) -> Loaded:
        """Use these tensors as weights from the next call on: all of them, or one that is swapped for
        another. A call that is under way goes on with those that it began with.

        A tensor is shared, not copied, unless it lies in memory otherwise than the program was compiled for.

        Args:
            source: tensors by name, or a module with parameters and buffers of these names.
            strict: names that the model does not have are an error.

        Returns this model.

        Raises `PackageError` for an unknown name, for a module that has none of the names, and for two
        tensors for what is one in the program; `InputMismatchError` for another dtype, size or device than
        the program's; `TypeError` for what is neither a module nor tensors by name.
        """
        if isinstance(source, torch.nn.Module):
            module, strict = type(source).__name__, False
            source = {
                **dict(source.named_buffers(remove_duplicate=False)),
                **dict(source.named_parameters(remove_duplicate=False)),
            }
            if self.weights and not any(self._model.aliases.get(n, n) in self.weights for n in source):
                raise PackageError(
                    f"the module {module} has no weight of the model's", hint=f"its names are {self._names()}"
                )
        elif not isinstance(source, Mapping):
            raise TypeError(
                f"bind takes a state dict or a module, and was given a value of type {type(source).__name__}:"
                " for one tensor write {'its name': tensor}"
            )
        chosen: dict[str, torch.Tensor] = {}
        unknown = []
        for given, tensor in source.items():
            name = self._model.aliases.get(given, given)
            if name not in self.weights:
                unknown.append(given)
            elif name in chosen and not _same_memory(chosen[name], tensor):
                raise PackageError(f"{given} and {name} are one tensor in this program, and two here")
            else:
                chosen[name] = tensor
        if unknown and strict:
            name = sorted(unknown, key=str)[0]
            near = difflib.get_close_matches(str(name), [*self.weights, *self._model.aliases], n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise PackageError(
                f"the model has no weight {name!r}",
                hint=f"{meant}its names are {self._names()}; strict=False leaves others out",
            )
        self._adopt({name: _fitting(self.weights[name], tensor) for name, tensor in chosen.items()})
        return self

    def _names(self) -> str:
        names = list(self.weights)
        return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")

    def _adopt(self, tensors: Mapping[str, torch.Tensor]) -> None:
        current = {**self._tensors, **{n: _laid_out(self.weights[n], t) for n, t in tensors.items()}}
        inputs = list(self._inputs)
        for name in tensors:
            for position in self._positions[name]:
                inputs[position] = current[name]
        self._tensors, self._inputs = current, inputs  # a call takes the whole list at once
        self._missing = tuple(name for name, at in self._positions.items() if at and name not in current)

    # -- calls ------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model. Raises `InputMismatchError` for arguments that it was not made for, `TypeError` and
        `ValueError` for others than the signature's, `PackageError` while weights are not bound, and what the
        program raises."""
        if self._missing:
            raise PackageError(
                f"{len(self._missing)} weights are not bound, {self._missing[0]!r} the first of them",
                hint="pass a state dict or a module to bind()",
            )
        leaves = self._signature.leaves(args, kwargs)
        checks, run = self._checks, self._run
        checks.run(leaves)
        checks.resolve(leaves)
        if self._others and checks.too_small(leaves):
            checks, run = self._chosen(leaves)
        if torch.is_autocast_enabled(HOST):
            with without_autocast():  # the program's own types are what its code was made for
                return self._call(leaves, checks, run)
        return self._call(leaves, checks, run)

    def _chosen(self, leaves: Sequence[Any]) -> tuple[Checks, BoxedCall]:
        """The graph for a call's sizes; the first where they fit none: its message is the one to read."""
        for checks, run in [(self._checks, self._run), *self._others]:
            if checks.sizes.fit(leaves):
                return checks, run
        return self._checks, self._run

    def _call(self, leaves: list[Any], checks: Checks, run: BoxedCall) -> Any:
        inputs = self._gathered(leaves)
        if self._writes:
            self._checks.keep_apart(leaves, inputs)
        gradients = grad_enabled()
        if gradients:
            set_grad_enabled(False)
        try:
            try:
                results = run(inputs)
            except InputMismatchError as error:
                results = self._again(leaves, checks, run, error)
        finally:
            if gradients:
                set_grad_enabled(True)
        return self._unflatten(results)

    def _gathered(self, leaves: Sequence[Any]) -> list[Any]:
        """The inputs of the graph."""
        inputs = self._inputs.copy()
        for position, leaf in self._given:
            inputs[position] = leaves[leaf]
        return inputs

    def _again(
        self, leaves: list[Any], checks: Checks, run: BoxedCall, error: InputMismatchError
    ) -> Sequence[Any]:
        """Call once more: the graph that is for such sizes, with tensors that lie in memory as the code
        expects. Raise what is wrong where that is not all."""
        if self._others and not checks.sizes.fit(leaves):
            other, run_other = self._chosen(leaves)
            if other is not checks:
                try:
                    return run_other(self._gathered(leaves))
                except InputMismatchError as mismatch:
                    checks, run, error = other, run_other, mismatch
        fixed, written = checks.laid_out(leaves, error)
        results: Sequence[Any] = run(self._gathered(fixed))
        for leaf in written:
            leaves[leaf].copy_(fixed[leaf])
        return results


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a is b or (a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride())


def _fitting(weight: Weight, tensor: Any) -> torch.Tensor:
    """A tensor that somebody wants to use as this weight. Raises `InputMismatchError`."""
    if not isinstance(tensor, torch.Tensor):
        raise InputMismatchError(
            f"the weight {weight.name!r} has to be a tensor, but is of type {type(tensor).__name__}",
            hint="pass tensors by name, as a state dict has them",
        )
    what, have, want = weight.difference(tensor, {}) or ("nothing", None, None)
    if what not in ("strides", "nothing"):
        raise InputMismatchError(
            f"the weight {weight.name!r} has to have the {what} {want}, not {have}",
            hint="bind weights of the exported program's kind, or export and compile the other model",
        )
    if weight.mutated and what == "strides":
        raise InputMismatchError(
            f"the model writes to {weight.name!r}, so it has to have the strides {weight.strides}",
            hint="pass a copy that lies so: `tensor.contiguous()`, mostly",
        )
    return tensor.detach().resolve_conj().resolve_neg()


def _laid_out(weight: Weight, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the strides that the code expects: itself, or a copy."""
    with torch.no_grad():
        return restrided(tensor, weight.strides)
