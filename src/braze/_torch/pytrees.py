"""Classes that `torch.utils._pytree` takes apart, by the names that they were registered under.

A file of its own: a part of PyTorch that nothing else here touches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from braze.errors import ArtifactError, UnserializableError

__all__ = ["Registered", "dump_spec", "registered"]

_STRUCTURES = "torch.return_types."


@dataclass(frozen=True)
class Registered:
    """How instances of a class come apart and are put together: ``flatten(value)`` gives its children and a
    context, ``unflatten(children, context)`` a value; a stored context becomes one by ``load_context``."""

    cls: Any
    flatten: Callable[[Any], tuple[Sequence[Any], Any]]
    unflatten: Callable[[Sequence[Any], Any], Any]
    load_context: Callable[[Any], Any]


def registered(name: str) -> Registered:
    """The class of that name in stored specs. Raises `ArtifactError` where nobody has registered it in this
    process."""
    structure = _structures().get(name)
    if structure is not None:
        return Registered(structure, lambda value: (tuple(value), None), lambda v, _: structure(v), _nothing)
    cls = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name)
    node = None if cls is None else pytree.SUPPORTED_NODES.get(cls)
    if cls is None or node is None:
        raise ArtifactError(
            f"an argument or result is a {name}, which nobody has registered with torch.utils._pytree",
            hint="import the library that defines it before the package is loaded",
        )
    serialized = pytree.SUPPORTED_SERIALIZED_TYPES[cls]
    load = serialized.from_dumpable_context or json.loads  # what is stored without a hook is JSON in JSON
    return Registered(cls, node.flatten_fn, node.unflatten_fn, load)


def dump_spec(spec: Any) -> Any:
    """A tree spec as the JSON document of `treespec_dumps`, decoded: lists, dicts and texts.

    Raises `UnserializableError` for a class without a name for stored specs."""
    if spec.is_leaf():
        return {"type": None}
    children = [dump_spec(child) for child in spec.children()]
    structure = f"{_STRUCTURES}{getattr(spec.type, '__name__', '')}"
    if spec.type is _structures().get(structure):
        return {"type": structure, "context": None, "children_spec": children}
    try:
        alone = pytree.TreeSpec(spec.type, spec.context, [pytree.tree_structure(0)] * len(children))
        _, document = json.loads(pytree.treespec_dumps(alone, 1))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UnserializableError(
            f"the structure of the arguments or results cannot be stored: {error}",
            hint="register the class with torch.export.register_dataclass, or with a serialized_type_name",
        ) from error
    return {**document, "children_spec": children}


def _structures() -> dict[str, Any]:
    """The classes of what operators of PyTorch's with several results return, by names of ours."""
    return {
        f"{_STRUCTURES}{name}": cls
        for name, cls in vars(torch.return_types).items()
        if isinstance(cls, type) and issubclass(cls, tuple)
    }


def _nothing(context: Any) -> None:
    """They have no context."""
