"""A model out of a package: calling it, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from braze._torch.autograd import grad_enabled, set_grad_enabled, without_autocast
from braze.artifact.call_arguments import Checks, Signature, argument_paths
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.artifact.model_info import Model, Range, Weight
from braze.artifact.trees import unflattener
from braze.errors import InputMismatchError, PackageError

__all__ = ["Loaded"]


class Loaded:
    """A model out of a package. Called like the exported program: same positional and keyword arguments, same
    results, no gradients. It may be called from several threads at once, unless the model has buffers that a
    call writes to.

    Attributes:
        path: of the package.
        target: the CPU that the code in use was made for, by LLVM's name.
        weights: the model's parameters, buffers and constants by name; see `state` for the tensors.
        ranges: of the sizes that may differ from call to call.
    """

    def __init__(
        self, path: str, model: Model, graph: CompiledFxGraph, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Links the code of ``graph``, last of all. ``tensors`` are those weights that are there, of the
        right dtype and sizes."""
        self.path = path
        self.target = graph.variant().info.cpu
        self.weights: Mapping[str, Weight] = MappingProxyType({w.name: w for w in model.weights})
        self.ranges: tuple[Range, ...] = model.ranges
        self._model = model
        self._paths = argument_paths(model.parameters)
        self._signature = Signature(model.parameters)
        self._checks = Checks(model, graph.info, graph.variant().info.plan, self._paths)
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
        graph.post_compile()
        self._run = graph.run

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

        Raises `PackageError` for an unknown name, and for two tensors for what is one in the program;
        `InputMismatchError` for another dtype, size or device than the program's.
        """
        if isinstance(source, torch.nn.Module):
            source = {
                **dict(source.named_buffers(remove_duplicate=False)),
                **dict(source.named_parameters(remove_duplicate=False)),
            }
            strict = False
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
            raise PackageError(
                f"the model has no weight {sorted(unknown)[0]!r}", hint="strict=False leaves such names out"
            )
        self._adopt({name: _fitting(self.weights[name], tensor) for name, tensor in chosen.items()})
        return self

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
        self._checks.run(leaves)
        self._checks.resolve(leaves)
        inputs = self._inputs.copy()
        for position, leaf in self._given:
            inputs[position] = leaves[leaf]
        if self._writes:
            self._checks.keep_apart(leaves, inputs)
        if torch.is_autocast_enabled("cpu"):
            with without_autocast():  # the program's own types are what its code was made for
                return self._call(leaves, inputs)
        return self._call(leaves, inputs)

    def _call(self, leaves: list[Any], inputs: list[Any]) -> Any:
        gradients = grad_enabled()
        if gradients:
            set_grad_enabled(False)
        try:
            results = self._run(inputs)
        except InputMismatchError as error:
            results = self._again(leaves, error)
        finally:
            if gradients:
                set_grad_enabled(True)
        return self._unflatten(results)

    def _again(self, leaves: list[Any], error: InputMismatchError) -> Sequence[Any]:
        """Call once more with tensors that lie in memory as the code expects; raise what is wrong where that
        is not all."""
        fixed, written = self._checks.laid_out(leaves, error)
        inputs = self._inputs.copy()
        for position, leaf in self._given:
            inputs[position] = fixed[leaf]
        results: Sequence[Any] = self._run(inputs)
        for leaf in written:
            leaves[leaf].copy_(fixed[leaf])
        return results


def _same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a is b or (a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride())


def _fitting(weight: Weight, tensor: Any) -> torch.Tensor:
    """A tensor that somebody wants to use as this weight. Raises `InputMismatchError`."""
    if not isinstance(tensor, torch.Tensor):
        raise InputMismatchError(f"the weight {weight.name!r} has to be a tensor")
    for what, have, want in (
        ("device", tensor.device.type, "cpu"),
        ("layout", tensor.layout, torch.strided),
        ("dtype", tensor.dtype, weight.dtype),
        ("sizes", tuple(tensor.shape), weight.sizes),
    ):
        if have != want:
            raise InputMismatchError(f"the weight {weight.name!r} has to have the {what} {want}, not {have}")
    if weight.mutated and _laid_out(weight, tensor) is not tensor:
        raise InputMismatchError(
            f"the model writes to {weight.name!r}, so it has to have the strides {weight.strides}"
        )
    return tensor.detach().resolve_conj().resolve_neg()


def _laid_out(weight: Weight, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the strides that the code expects: itself, or a copy."""
    pairs = zip(weight.sizes, tensor.stride(), weight.strides, strict=True)
    if not tensor.numel() or all(n == 1 or have == want for n, have, want in pairs):
        return tensor
    with torch.no_grad():
        return torch.empty_strided(weight.sizes, weight.strides, dtype=tensor.dtype).copy_(tensor)
