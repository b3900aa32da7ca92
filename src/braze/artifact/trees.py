"""The structure of arguments and results: nested lists, dicts and other containers, and where the leaves are.

Stored as a typed tree, after the tree specs of `torch.utils._pytree`. The usual containers are known here;
other classes have to be registered with it, in the process that compiles and in the one that loads.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from braze._torch import pytrees
from braze.errors import ArtifactError, UnserializableError

__all__ = ["Flatten", "TreeNode", "Unflatten", "flattener", "from_spec", "leaf_paths", "unflattener"]

Flatten: TypeAlias = Callable[[Any], list[Any]]
Unflatten: TypeAlias = Callable[[Sequence[Any]], Any]

MAX_DEPTH: Final = 64
LEAF: Final = "leaf"
_SEQUENCES: Final[dict[str, type]] = {"list": list, "tuple": tuple, "deque": deque}
_MAPPINGS: Final[dict[str, type]] = {"dict": dict, "ordered_dict": OrderedDict}
_KINDS: Final = {
    "builtins.list": "list",
    "builtins.tuple": "tuple",
    "builtins.dict": "dict",
    "collections.deque": "deque",
    "collections.OrderedDict": "ordered_dict",
}
Key: TypeAlias = str | int | float | bool | None


class TreeNode(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A leaf, or a container of ``children``.

    ``kind``: ``leaf``, ``list``, ``tuple``, ``deque``, ``dict``, ``ordered_dict``, or the name by which a
    class is registered. ``keys``: of a mapping, in order. ``context``: a registered class's own, as JSON; a
    deque's greatest length.
    """

    kind: str = LEAF
    children: tuple[TreeNode, ...] = ()
    keys: tuple[Key, ...] = ()
    context: str | None = None

    @property
    def leaves(self) -> int:
        """How many there are."""
        return 1 if self.kind == LEAF else sum(child.leaves for child in self.children)


def from_spec(spec: Any) -> TreeNode:
    """PyTorch's `TreeSpec` as a `TreeNode`. Raises `UnserializableError` for what has no place in one."""
    return _from_document(pytrees.dump_spec(spec))


def _from_document(document: Any) -> TreeNode:
    name = document["type"]
    if name is None:
        return TreeNode()
    children = tuple(map(_from_document, document["children_spec"]))
    context = document["context"]
    kind = _KINDS.get(name)
    if kind in _MAPPINGS:
        keys = json.loads(context)
        if not all(isinstance(k, (str, int, float, bool, type(None))) for k in keys):
            raise UnserializableError(f"a dict with the keys {keys} cannot be stored")
        return TreeNode(kind, children, tuple(keys))
    if kind is not None:
        return TreeNode(kind, children, context=None if context in (None, "null") else context)
    if name == "collections.defaultdict":
        raise UnserializableError(
            "a defaultdict holds a function, which cannot be stored", hint="pass a dict"
        )
    return TreeNode(name, children, context=json.dumps(context))


def leaf_paths(tree: TreeNode, path: str) -> Iterator[str]:
    """How one would write each leaf of what stands at ``path``: ``opts['a'][0]``."""
    if tree.kind == LEAF:
        yield path
    for position, child in enumerate(tree.children):
        key = repr(tree.keys[position]) if tree.keys else str(position)
        yield from leaf_paths(child, f"{path}[{key}]")


# -- taking apart -----------------------------------------------------------------------------------------
def flattener(tree: TreeNode, what: str) -> Flatten:
    """A function from a value to its leaves, which checks that the value has this structure; ``what`` is its
    name in messages. It raises `TypeError` and `ValueError` that say where it has not.

    Raises `ArtifactError` for a tree that is none.
    """
    check(tree)
    take = _taker(tree, what)

    def flatten(value: Any) -> list[Any]:
        leaves: list[Any] = []
        take(value, leaves)
        return leaves

    return flatten


def _taker(tree: TreeNode, what: str) -> Callable[[Any, list[Any]], None]:
    if tree.kind == LEAF:
        return lambda value, leaves: leaves.append(value)
    paths = [f"{what}[{repr(tree.keys[i]) if tree.keys else i}]" for i in range(len(tree.children))]
    takers = [_taker(child, path) for child, path in zip(tree.children, paths, strict=True)]
    if tree.kind in _MAPPINGS:
        return _mapping_taker(tree, takers, what)
    if tree.kind in _SEQUENCES:
        cls: type = _SEQUENCES[tree.kind]
        expected: Any = None
        split: Callable[[Any], tuple[Sequence[Any], Any]] = lambda value: (value, None)  # noqa: E731
    else:
        one = pytrees.registered(tree.kind)
        split, expected = one.flatten, _context(tree, one)
        cls = one.cls if isinstance(one.cls, type) else expected  # of a namedtuple the context is the class

    def take(value: Any, leaves: list[Any]) -> None:
        if not isinstance(value, cls):
            raise TypeError(f"{what} has to be a {cls.__name__}, but is a {type(value).__name__}")
        children, context = split(value)
        if len(children) != len(takers) or context != expected:
            raise ValueError(f"{what} is another {cls.__name__} than the one that the program was made for")
        for taker, child in zip(takers, children, strict=True):
            taker(child, leaves)

    return take


def _mapping_taker(
    tree: TreeNode, takers: Sequence[Callable[[Any, list[Any]], None]], what: str
) -> Callable[[Any, list[Any]], None]:
    cls: type[Any] = _MAPPINGS[tree.kind]
    keys = tree.keys

    def take(value: Any, leaves: list[Any]) -> None:
        if not isinstance(value, cls):
            raise TypeError(f"{what} has to be a {cls.__name__}, but is a {type(value).__name__}")
        if len(value) != len(keys) or any(key not in value for key in keys):
            raise ValueError(f"{what} has to have the keys {list(keys)}, and has {list(value)}")
        for key, taker in zip(keys, takers, strict=True):
            taker(value[key], leaves)

    return take


# -- putting together -------------------------------------------------------------------------------------
def unflattener(tree: TreeNode) -> Unflatten:
    """A function from leaves to a value of this structure. Raises `ArtifactError` for a tree that is none."""
    check(tree)
    if tree.kind == LEAF:
        return lambda leaves: leaves[0]
    if tree.kind in ("list", "tuple") and all(child.kind == LEAF for child in tree.children):
        return _SEQUENCES[tree.kind]
    make = _maker(tree)
    return lambda leaves: make(iter(leaves))


def _maker(tree: TreeNode) -> Callable[[Iterator[Any]], Any]:
    if tree.kind == LEAF:
        return next
    makers = [_maker(child) for child in tree.children]
    if tree.kind in _MAPPINGS:
        mapping, keys = _MAPPINGS[tree.kind], tree.keys
        return lambda leaves: mapping((key, make(leaves)) for key, make in zip(keys, makers, strict=True))
    if tree.kind == "deque":
        length = None if tree.context is None else int(tree.context)
        return lambda leaves: deque([make(leaves) for make in makers], length)
    if tree.kind in _SEQUENCES:
        sequence = _SEQUENCES[tree.kind]
        return lambda leaves: sequence([make(leaves) for make in makers])
    one = pytrees.registered(tree.kind)
    context = _context(tree, one)
    return lambda leaves: one.unflatten([make(leaves) for make in makers], context)


def _context(tree: TreeNode, one: pytrees.Registered) -> Any:
    try:
        return one.load_context(json.loads(tree.context or "null"))
    except Exception as error:  # what a class makes of a stored context is its own affair
        raise ArtifactError(f"the stored context of a {tree.kind} is damaged: {error}") from error


def check(tree: TreeNode, depth: int = 0) -> None:
    """Raise `ArtifactError` unless this is a tree that `from_spec` could have made."""
    if depth > MAX_DEPTH:
        raise ArtifactError(f"a structure is nested more than {MAX_DEPTH} deep")
    keyed = tree.kind in _MAPPINGS
    if len(tree.keys) != (len(tree.children) if keyed else 0) or len(set(tree.keys)) != len(tree.keys):
        raise ArtifactError(f"a {tree.kind} has {len(tree.children)} values for the keys {list(tree.keys)}")
    if tree.kind == LEAF and (tree.children or tree.context):
        raise ArtifactError("a leaf has children")
    if tree.kind == "deque" and tree.context is not None and not tree.context.isdigit():
        raise ArtifactError("a deque has no length")
    for child in tree.children:
        check(child, depth + 1)
