"""Loading a package, and calling what was in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from braze.artifact.model_info import Given, Model, Range, Weight
from braze.artifact.package import open_package
from braze.artifact.recompile import for_this_machine
from braze.artifact.schema import GraphInfo, Input, NumberInput, TensorInput
from braze.artifact.trees import flattener, leaf_paths, unflattener
from braze.cache.keyring import KeyRing
from braze.errors import ArtifactError, InputMismatchError, PackageError
from braze.runtime.call_checks import describe_difference
from braze.runtime.expr import Expr
from braze.runtime.plan import CheckTensor

__all__ = ["Loaded", "aot_load"]


def aot_load(
    path: str | os.PathLike[str],
    *,
    require_signature: bool = False,
    keyring: KeyRing | None = None,
    verify_weights: bool = True,
) -> Loaded:
    """Load a package that `braze.aot_compile` made. **Loading a package runs its native code**: load what you
    would run as a program.

    Args:
        path: the ``.pt2`` file. It has to stay as it is while the model is in use; replacing it is fine.
        require_signature: refuse a package that is not signed with a key that this user trusts.
        keyring: the keys that count; None takes the user's key ring.
        verify_weights: read all weights now and check them against their checksum. Without, they are mapped
            and read as they are used. (Everything else is always checked, before any code is linked.)

    Returns the model: a function with the signature of the exported program.

    Raises:
        ArtifactError: the file is no package, is damaged, or was made by another version.
        SignatureError: a signature is required, and there is none by a trusted key.
        WorkerError: no code in it runs on this machine, and none could be made of its LLVM IR.
        LinkError: it calls an operator that this PyTorch does not have.
        OSError: the file cannot be read.
    """
    package = open_package(path)
    if require_signature:
        package.verify_signature(keyring if keyring is not None else KeyRing())
    model = package.model()
    graph = for_this_machine(package.graph(trusted=True))
    tensors = package.tensors(model, verify=verify_weights and not require_signature)
    _check_fit(model, graph.info)
    loaded = Loaded(os.fspath(path), model, graph.info, graph.variant().info.cpu)
    loaded.adopt(tensors)
    graph.post_compile()
    loaded.run = graph.run
    return loaded


def _check_fit(model: Model, info: GraphInfo) -> None:
    """That the description is one of this graph."""
    if len(model.slots) != len(info.inputs):
        raise ArtifactError(f"the model has {len(model.slots)} inputs, and its graph {len(info.inputs)}")
    results = model.parameters.results.leaves
    if results != len(info.outputs):
        raise ArtifactError(f"the model has {results} results, and its graph {len(info.outputs)}")
    kinds = {weight.name: weight for weight in model.weights}
    for slot, item in zip(model.slots, info.inputs, strict=True):
        if slot.weight is not None and isinstance(item, TensorInput):
            weight = kinds[slot.weight]
            if weight.dtype is not item.dtype or weight.sizes != tuple(e.constant for e in item.sizes):
                raise ArtifactError(f"the weight {slot.weight!r} is not what the graph takes")
            if item.mutated and not weight.mutated:
                raise ArtifactError(f"the graph writes to {slot.weight!r}, and the model does not say so")


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

    def __init__(self, path: str, model: Model, info: GraphInfo, target: str) -> None:
        self.path = path
        self.target = target
        self.weights: Mapping[str, Weight] = MappingProxyType({w.name: w for w in model.weights})
        self.ranges: tuple[Range, ...] = model.ranges
        self.run: Any = None
        self._model = model
        self._info = info
        self._signature = _Signature(model)
        self._checks = _Checks(model, info, self._signature.paths)
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
        self._missing: tuple[str, ...] = tuple(self.weights)

    def __repr__(self) -> str:
        names = ", ".join(self._signature.paths)
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
        self.adopt({name: _fitting(self.weights[name], tensor) for name, tensor in chosen.items()})
        return self

    def adopt(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Use tensors of the right dtype and sizes as weights."""
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
        inputs = self._inputs.copy()
        for position, leaf in self._given:
            inputs[position] = leaves[leaf]
        with torch.no_grad():
            try:
                results = self.run(inputs)
            except InputMismatchError as error:
                results = self._again(leaves, error)
        return self._unflatten(results)

    def _again(self, leaves: list[Any], error: InputMismatchError) -> Sequence[Any]:
        """Call once more with tensors that lie in memory as the code expects; raise what is wrong where that
        is not all."""
        fixed, written = self._checks.laid_out(leaves, error)
        inputs = self._inputs.copy()
        for position, leaf in self._given:
            inputs[position] = fixed[leaf]
        results: Sequence[Any] = self.run(inputs)
        for leaf in written:
            leaves[leaf].copy_(fixed[leaf])
        return results


class _Signature:
    """From positional and keyword arguments to leaves."""

    def __init__(self, model: Model) -> None:
        parameters = model.parameters
        self.names = parameters.names
        self.count = len(parameters.arguments.children)
        self.keywords = parameters.keywords.keys
        names = [*self.names, *(f"argument {k}" for k in range(len(self.names), self.count))]
        each = [*zip(names, parameters.arguments.children, strict=True)]
        each += [*zip(map(str, self.keywords), parameters.keywords.children, strict=True)]
        self.paths = [path for name, tree in each for path in leaf_paths(tree, name)]
        self._flat = all(tree.kind == "leaf" for _, tree in each)
        self._flatten = [flattener(tree, name) for name, tree in each]

    def leaves(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The leaves of a call's arguments, in order."""
        if len(args) == self.count and not kwargs and not self.keywords:
            values = list(args)
        else:
            values = self._values(args, kwargs)
        if self._flat:
            return values
        return [leaf for flatten, value in zip(self._flatten, values, strict=True) for leaf in flatten(value)]

    def _values(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        if len(args) > self.count:
            raise TypeError(f"the model takes {self.count} positional arguments, and was given {len(args)}")
        left = dict(kwargs)
        values = list(args)
        for position in range(len(args), self.count):
            name = self.names[position] if position < len(self.names) else f"argument {position}"
            if name not in left:
                raise TypeError(f"the model misses its argument {name!r}")
            values.append(left.pop(name))
        for key in self.keywords:
            if key not in left:
                raise TypeError(f"the model misses its keyword argument {key!r}")
            values.append(left.pop(str(key)))
        if left:
            raise TypeError(f"the model has no argument {sorted(left)[0]!r}, or it is given twice")
        return values


class _Checks:
    """What the arguments have to be, beyond what the graph checks by itself; and what is wrong with them."""

    def __init__(self, model: Model, info: GraphInfo, paths: Sequence[str]) -> None:
        self.info = info
        self.paths = paths
        self.items: dict[int, Input] = {
            slot.given: item
            for slot, item in zip(model.slots, info.inputs, strict=True)
            if slot.given is not None
        }
        self.constants = [(leaf, g) for leaf, g in enumerate(model.given) if g.kind == "constant"]
        self.numbers = [leaf for leaf, g in enumerate(model.given) if g.kind == "number"]
        self.bounds = list(_bounds(self.items, model.ranges))

    def run(self, leaves: Sequence[Any]) -> None:
        """Raise `InputMismatchError` for a constant that is another, a number that is none, and a size that
        is out of its range."""
        for leaf, given in self.constants:
            value = leaves[leaf]
            if value is not given.value and (type(value) is not type(given.value) or value != given.value):
                raise self._constant(leaf, given, value)
        for leaf in self.numbers:
            if type(leaves[leaf]) is not int:
                raise InputMismatchError(f"{self.paths[leaf]} has to be an int, and is {leaves[leaf]!r}")
        for leaf, dim, lower, upper in self.bounds:
            value = leaves[leaf]
            try:
                size = value if dim is None else value.shape[dim]
            except (AttributeError, IndexError):
                continue  # the graph's own check says what it is
            if size < lower or (upper is not None and size > upper):
                raise self._range(leaf, dim, size, lower, upper)
        if self.info.guards:
            self._guards(leaves)

    def _constant(self, leaf: int, given: Given, value: Any) -> InputMismatchError:
        return InputMismatchError(
            f"{self.paths[leaf]} is part of the program: it has to be {given.value!r}, and is {value!r}",
            hint="export the program anew for another value, or with a tensor there",
        )

    def _range(
        self, leaf: int, dim: int | None, size: int, lower: int, upper: int | None
    ) -> InputMismatchError:
        what = self.paths[leaf] if dim is None else f"size {dim} of {self.paths[leaf]}"
        wanted = (
            f"at least {lower}" if upper is None else f"{lower}" if lower == upper else f"{lower} to {upper}"
        )
        return InputMismatchError(
            f"{what} has to be {wanted}, and is {size}", hint="export the program with another range for it"
        )

    def _symbols(self, leaves: Sequence[Any]) -> dict[str, int]:
        """The values of the size symbols in a call."""
        found: dict[str, int] = {}
        for leaf, dim, e in _places(self.items):
            value = leaves[leaf]
            if dim is None:
                found.setdefault(_symbol(e), value)
            elif isinstance(value, torch.Tensor) and dim < value.dim():
                found.setdefault(_symbol(e), value.shape[dim])
        return found

    def _guards(self, leaves: Sequence[Any]) -> None:
        sizes = self._symbols(leaves)
        for guard in self.info.guards:
            if all(s.name in sizes for s in guard.free_symbols) and not guard.evaluate(sizes):
                raise InputMismatchError(
                    f"the package was made for sizes with {guard}",
                    hint="export the program for these sizes, and compile that",
                )

    def laid_out(self, leaves: Sequence[Any], error: InputMismatchError) -> tuple[list[Any], list[int]]:
        """The leaves with tensors copied whose strides alone are others than the code's, and which of those
        the program writes to. Raises `InputMismatchError`, by the arguments' names, for other differences."""
        sizes = self._symbols(leaves)
        fixed = list(leaves)
        written: list[int] = []
        changed = False
        for leaf, item in self.items.items():
            if not isinstance(item, TensorInput):
                continue
            loose = CheckTensor(item.name, item.dtype, item.sizes, (None,) * len(item.strides), item.device)
            difference = _difference(loose, leaves[leaf], sizes)
            if difference is not None:
                raise InputMismatchError(
                    f"the package was not made for this {self.paths[leaf]}: {difference}",
                    hint="sizes that may differ from call to call are declared when a program is exported",
                ) from error
            strides = tuple(e.evaluate(sizes) for e in item.strides)
            tensor = leaves[leaf]
            if tensor.stride() != strides:
                changed = True
                fixed[leaf] = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
                if item.mutated:
                    written.append(leaf)
        if not changed:
            raise error
        return fixed, written


def _places(items: Mapping[int, Input]) -> Iterable[tuple[int, int | None, Expr]]:
    """Where each size symbol can be read: a leaf, and a dimension of it (None: the leaf is the number)."""
    for leaf, item in items.items():
        if isinstance(item, NumberInput) and item.expression.symbol is not None:
            yield leaf, None, item.expression
        elif isinstance(item, TensorInput):
            for dim, e in enumerate(item.sizes):
                if e.symbol is not None:
                    yield leaf, dim, e


def _symbol(e: Expr) -> str:
    assert e.symbol is not None
    return e.symbol.name


def _bounds(
    items: Mapping[int, Input], ranges: Sequence[Range]
) -> Iterable[tuple[int, int | None, int, int | None]]:
    """Leaf, dimension, least and greatest value: of the export's ranges, and of what the code relies on."""
    declared = {r.symbol: r for r in ranges}
    for leaf, dim, e in _places(items):
        lower, upper = e.bounds()
        known = declared.get(_symbol(e))
        lower = max(lower or 0, known.lower if known else 0)
        if known is not None and known.upper is not None:
            upper = known.upper if upper is None else min(upper, known.upper)
        yield leaf, dim, lower, upper


def _difference(check: CheckTensor, tensor: Any, sizes: Mapping[str, int]) -> str | None:
    try:
        return describe_difference(check, tensor, sizes)
    except KeyError:  # a size that was to be read from what is no such tensor
        return None


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
    return tensor.detach()


def _laid_out(weight: Weight, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the strides that the code expects: itself, or a copy."""
    pairs = zip(weight.sizes, tensor.stride(), weight.strides, strict=True)
    if not tensor.numel() or all(n == 1 or have == want for n, have, want in pairs):
        return tensor
    with torch.no_grad():
        return torch.empty_strided(weight.sizes, weight.strides, dtype=tensor.dtype).copy_(tensor)
