"""The registrations: lowerings, externs and decompositions of operators that are not PyTorch's own, and graph
passes. They may come at any time; what was compiled before one is compiled again when it is next called.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from torch.fx import GraphModule

from braze import config
from braze._torch.operators import overload_of
from braze._torch.schema import OperatorInfo, foreign_signature, operator_info
from braze.errors import ExtensionError, Refused
from braze.extensions.source import place_of_function, text_of

__all__ = [
    "Extension",
    "decomposition",
    "extern",
    "graph_pass",
    "lowering",
    "passes",
    "registered",
    "registered_decompositions",
    "texts",
    "texts_of_graph",
    "unregister",
]

F = TypeVar("F", bound=Callable[..., Any])
Kind: TypeAlias = Literal["lowering", "extern", "decomposition", "graph pass"]


@dataclass(frozen=True)
class Extension:
    """One registration. ``operator``: an `OpOverload`, None for a pass. ``whole``: a lowering takes the
    context. ``out`` and ``reason``: of an extern."""

    kind: Kind
    operator: Any = None
    function: Callable[..., Any] | None = None
    whole: bool = False
    out: Any = None
    reason: str = ""

    @property
    def name(self) -> str:
        """The function with its place, for messages."""
        return "" if self.function is None else place_of_function(self.function)

    def text(self) -> str:
        """All that code may depend on: a line. Raises `Refused`."""
        head = f"{self.kind} {self.operator} context={self.whole} out={self.out} {self.reason!a}"
        if self.function is None:
            return head
        try:
            return f"{head} {hashlib.sha256(text_of(self.function).encode()).hexdigest()}"
        except Refused as error:
            raise Refused(f"the {self.kind} {self.name} has no text: {error.reason}") from None


_lock = threading.Lock()
_of_operators: dict[tuple[Kind, Any], Extension] = {}
_passes: tuple[Extension, ...] = ()


# -- for people ---------------------------------------------------------------------------------------------
def lowering(operator: Any, /, *, context: bool = False) -> Callable[[F], F]:
    """Register the decorated function as the lowering of an operator: it becomes part of fused loops.

    ::

        @braze.lowering(torch.ops.mylib.swish)
        def swish(x, beta):
            return x * braze.ops.sigmoid(x * beta)

    The function says what one element of each result is. It gets, in the schema's order, an element of each
    tensor, broadcast to the result's sizes, and each number, as values of one type: the one to which PyTorch
    promotes them, or the result's if that is a floating type and theirs is not; half types are computed in
    float32. Tensors of booleans stay booleans beside others. What is neither (strings, lists, None, booleans)
    is passed as it is. It returns a value for each result, a tuple of them if there are several. Types and
    sizes of the results are those of the operator's fake implementation.

    Args:
        operator: of a library: ``torch.ops.mylib.swish``, one overload of it, or what
            `torch.library.custom_op` returned.
        context: the function gets the lowering's context first, and then the arguments as the compiler has
            them, and returns tensors of the compiler's. These interfaces may change with any version.

    Raises:
        ExtensionError: no such operator, one of PyTorch's, one that writes to its arguments or returns
            something else than tensors, one that has a lowering; or a function that does not take its
            arguments.
    """
    target = _target(operator, "a lowering")
    info = _functional(target, "a lowering")
    _tensors_only(info, "a lowering")

    def register(function: F) -> F:
        _check_takes(function, info, first=int(context))
        _add(Extension("lowering", target, function, whole=context))
        return function

    return register


def extern(operator: Any, /, *, out: Any = None, reason: str = "its library says so") -> None:
    """Declare that an operator is called whole by design: it is no fallback, and strict mode allows it.

    Args:
        operator: as for `lowering`. If it has a lowering as well, it is called whole where that declines.
        out: its variant that writes the result to an argument ``out``, with the same arguments besides. Then
            results that are not small are written to memory that Braze planned. It must write every
            element of a tensor with the strides that the operator's fake implementation says.
        reason: why, for `braze.explain`.

    Raises:
        ExtensionError: as for `lowering`; or ``out`` is no such variant.
    """
    target = _target(operator, "an extern")
    info = _functional(target, "an extern")
    variant = None if out is None else _target(out, "an out-variant")
    if variant is not None:
        _check_variant(info, operator_info(variant))
    _add(Extension("extern", target, out=variant, reason=reason))


def decomposition(operator: Any, /) -> Callable[[F], F]:
    """Register the decorated function, which computes what an operator does by other operators of PyTorch's,
    as its decomposition: AOTAutograd traces it in the operator's place, after it has looked for the
    operator's gradient. It must not write to its arguments. A function that returns ``NotImplemented`` leaves
    the operator whole.

    Raises:
        ExtensionError: as `lowering`.
    """
    target = _target(operator, "a decomposition")
    info = _functional(target, "a decomposition")
    _tensors_only(info, "a decomposition")

    def register(function: F) -> F:
        _check_takes(function, info, first=0)
        _add(Extension("decomposition", target, function))
        return function

    return register


def graph_pass(function: F, /) -> F:
    """Register a function that changes every graph before it is compiled.

    It gets a `torch.fx.GraphModule` of functional ATen operators, as AOTAutograd made it, each node with its
    fake tensor in ``meta["val"]``, and changes it in place, or returns another one: of a training step first
    the forward, later the backward. Passes run in the order of their registration, before Braze's own. The
    inputs, and number, types and sizes of the outputs, have to stay; what the graph computes is the pass's
    business. A pass that fails is left out, with a warning, and what it had begun is undone.

    Raises:
        ExtensionError: it is no function of one argument, or registered already.
    """
    global _passes
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError) as error:
        raise ExtensionError(f"a graph pass is a function of one graph: {error}") from None
    with _lock:
        if any(one.function is function for one in _passes):
            raise ExtensionError(f"{place_of_function(function)} is a graph pass already")
        _passes = (*_passes, Extension("graph pass", function=function))
    config.renew()
    return function


def unregister(what: Any, /) -> None:
    """Take back every registration for an operator, or a graph pass; for tests, and for a notebook's cell
    that is to run again. Does nothing where there is none."""
    global _passes
    target = overload_of(what)
    with _lock:
        _passes = tuple([one for one in _passes if one.function is not what])
        for key in [key for key in _of_operators if target is not None and key[1] is target]:
            del _of_operators[key]
    config.renew()


# -- for the compiler ---------------------------------------------------------------------------------------
def registered(kind: Kind, operator: Any) -> Extension | None:
    """What is registered for an operator."""
    return _of_operators.get((kind, operator)) if _of_operators else None


def registered_decompositions() -> list[Extension]:
    """All of them."""
    return [one for (kind, _), one in tuple(_of_operators.items()) if kind == "decomposition"]


def passes() -> tuple[Extension, ...]:
    """The graph passes, in the order in which they run."""
    return _passes


def texts(targets: Iterable[Any] | None = None) -> list[str]:
    """The text of what code depends on where a graph calls ``targets``: of their lowerings and externs. None:
    of all that is registered, passes in their order. Raises `Refused`."""
    if targets is None:
        found = sorted([one.text() for one in tuple(_of_operators.values())])
        return [*found, *[one.text() for one in _passes]]
    if not _of_operators:
        return []
    kinds: tuple[Kind, ...] = ("lowering", "extern")
    of_targets = [registered(kind, target) for target in targets for kind in kinds]
    return sorted({one.text() for one in of_targets if one is not None})


def texts_of_graph(gm: GraphModule) -> tuple[str, ...]:
    """The same for a graph and those inside of it. Raises `Refused`."""
    if not _of_operators:
        return ()
    graphs = [m for m in gm.modules() if isinstance(m, GraphModule)]
    return tuple(texts(n.target for one in graphs for n in one.graph.nodes if n.op == "call_function"))


# -- checks -------------------------------------------------------------------------------------------------
def _add(extension: Extension) -> None:
    key = extension.kind, extension.operator
    with _lock:
        if key in _of_operators:
            raise ExtensionError(
                f"{extension.operator} has {_article(extension.kind)} already",
                hint="`braze.unregister(operator)` takes it back",
            )
        _of_operators[key] = extension
    config.renew()


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _target(operator: Any, role: str) -> Any:
    """The overload that is meant. Raises ``ExtensionError``."""
    target = overload_of(operator)
    if target is None:
        overloads = getattr(operator, "overloads", None)
        if callable(overloads):
            names = ", ".join(f"{operator}.{name}" for name in overloads())
            raise ExtensionError(f"{operator} has several overloads, and {role} is for one: {names}")
        raise ExtensionError(
            f"{role} is for an operator, not for {operator!r}",
            hint="name it as torch.ops.<library>.<operator>",
        )
    if foreign_signature(target) is None:
        raise ExtensionError(f"{target} is PyTorch's own, and {role} is for operators of libraries")
    return target


def _functional(target: Any, role: str) -> OperatorInfo:
    """What is known of an operator that writes to nothing. Raises ``ExtensionError``."""
    info = operator_info(target)
    if info.mutates or info.is_view:
        what = "writes to its arguments" if info.mutates else "returns views of its arguments"
        raise ExtensionError(f"{target} {what}, so that it cannot have {role}")
    return info


def _tensors_only(info: OperatorInfo, role: str) -> None:
    others = sorted({r.type for r in info.returns} - {"Tensor"})
    if others or not info.returns:
        what = f"a {others[0]}" if others else "nothing"
        raise ExtensionError(f"{info.name} returns {what}, and {role} gives tensors")


def _check_takes(function: Any, info: OperatorInfo, first: int) -> None:
    positional = [a.name for a in info.arguments if not a.keyword_only]
    keywords = {a.name: None for a in info.arguments if a.keyword_only}
    if not callable(function):
        raise ExtensionError(f"a {type(function).__name__} is registered for {info.name}, and no function")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin that does not tell
        return
    try:
        signature.bind(*[None] * (first + len(positional)), **keywords)
    except TypeError as error:
        context = ["the context"] * first
        raise ExtensionError(
            f"{place_of_function(function)} does not take the arguments of {info.name},"
            f" {', '.join([*context, *positional, *keywords])}: {error}"
        ) from None


def _check_variant(info: OperatorInfo, variant: OperatorInfo) -> None:
    if [r.type for r in info.returns] != ["Tensor"]:
        raise ExtensionError(
            f"{info.name} returns {len(info.returns)} results; an out-variant is for one tensor"
        )
    outs = [a for a in variant.arguments if a.written]
    if [(a.name, a.type) for a in outs] != [("out", "Tensor")]:
        raise ExtensionError(f"{variant.name} is no out-variant: it has to write to one tensor called out")
    ours = [(a.name, a.type) for a in info.arguments]
    theirs = [(a.name, a.type) for a in variant.arguments if not a.written]
    if ours != theirs or (not outs[0].keyword_only and variant.arguments[-1] is not outs[0]):
        raise ExtensionError(
            f"{variant.name} is no out-variant of {info.name}: it takes"
            f" {', '.join(name for name, _ in theirs)} besides out,"
            f" and not {', '.join(name for name, _ in ours)}"
        )
