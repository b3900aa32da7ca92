"""Names of PyTorch's own functions, as Dynamo's graphs call them: what a name stands for is a matter of
PyTorch's version alone. A function that somebody else wrote has no such name."""

from __future__ import annotations

import sys
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, WrapperDescriptorType
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket

__all__ = ["is_own_method", "name_of"]

_ROOT = str(Path(torch.__file__).parent) + "/"
_NAMESPACES = frozenset({"aten", "prims", "prim"})
_MODULES = frozenset({"_operator", "operator", "builtins", "math", "torch"})

# Higher-order operators whose bodies are graphs that Dynamo traced, and stand in the key themselves.
_HIGHER_ORDER = frozenset(
    {
        "autograd_function_apply",
        "cond",
        "tag_activation_checkpoint",
        "wrap",
        "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    }
)

_names: dict[Any, str] = {}


def name_of(target: Any) -> str | None:
    """The qualified name of a function, type or operator of PyTorch's, Python's `operator`, `math` or
    builtins; None for what is none of these. Distinct things have distinct names."""
    try:
        found = _names.get(target)
    except TypeError:  # not hashable
        return None
    if found is None:
        found = _find(target)
        if found is not None:
            _names[target] = found
    return found


def is_own_method(name: str) -> bool:
    """Whether a tensor's method of that name is PyTorch's, and not one that somebody gave to all tensors.
    True where tensors have no such method: it is one of numbers, then."""
    method = getattr(torch.Tensor, name, None)
    return not isinstance(method, FunctionType) or method.__code__.co_filename.startswith(_ROOT)


def _find(target: Any) -> str | None:
    if isinstance(target, OpOverload):
        return f"torch.ops.{target}" if target.namespace in _NAMESPACES else None
    if isinstance(target, OpOverloadPacket):
        name = target._qualified_op_name
        return f"torch.ops.{name}" if name.split("::")[0] in _NAMESPACES else None
    if isinstance(target, HigherOrderOperator):
        name = str(target)
        return f"torch.ops.higher_order.{name}" if name in _HIGHER_ORDER else None
    if isinstance(target, (MethodDescriptorType, WrapperDescriptorType)):
        return _method(target)
    if isinstance(target, FunctionType):
        # somebody may have put a function of their own in PyTorch's place
        return _in_module(target) if target.__code__.co_filename.startswith(_ROOT) else None
    if isinstance(target, (BuiltinFunctionType, type)):
        return _in_module(target)
    return None


def _method(target: Any) -> str | None:
    owner, name = target.__objclass__, target.__name__
    known = owner in torch.Tensor.__mro__ or owner.__module__ == "builtins"
    if not known or vars(owner).get(name) is not target:
        return None
    return f"{owner.__module__}.{owner.__qualname__}.{name}"


def _in_module(target: Any) -> str | None:
    name, qualified = getattr(target, "__name__", ""), getattr(target, "__qualname__", "")
    module_name = getattr(target, "__module__", None) or "torch"
    module = sys.modules.get(module_name)
    if module is None or not (module_name in _MODULES or module_name.startswith("torch.")):
        return None
    for candidate in (qualified, name):
        if _resolve(module, candidate) is target:
            return f"{module_name}.{candidate}"
    # made by another function, and known in the module by a name that it does not have itself
    names = sorted(key for key, value in vars(module).items() if value is target)
    return f"{module_name}.{names[0]}" if names else None


def _resolve(module: Any, qualified: str) -> Any:
    found = module
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found
