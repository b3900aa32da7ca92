"""What of the thread's and the process's state decides how a function of operators behaves: who else sees its
calls, and the modes that change what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

__all__ = [
    "FORWARD_MODE",
    "FunctionWatch",
    "acts_on_elements",
    "function_modes",
    "inlined_by_dynamo",
    "is_pointwise",
    "onlookers",
    "thread_state",
]

function_modes: Callable[[], int] = torch._C._len_torch_function_stack
"""How many modes see the calls of torch's functions in this thread (`torch.device` as a context is one)."""

FORWARD_MODE = forward_ad
"""Its attribute `_current_level` is negative where nobody differentiates forwards in this process."""

_POINTWISE_METHODS = frozenset(
    """
    to float double half bfloat16 int long short char byte bool type type_as clone detach
    masked_fill where dtype device is_floating_point is_complex is_cuda zeros_like ones_like
    full_like clip clamp_min clamp_max true_divide floor_divide square positive negative absolute
    result_type promote_types hardswish hardsigmoid softsign tanhshrink logsigmoid relu6 mish hardtanh
    """.split()
)
"""Functions that act on each element by itself, and whose schema (if they have one) does not say so, and
attributes that say nothing of sizes."""
_STATEFUL = frozenset(
    """
    requires_grad requires_grad_ detach_ is_leaf grad grad_fn _version output_nr retain_grad register_hook
    backward is_inference storage_offset data_ptr storage untyped_storage set_ data resize_ _base is_shared
    """.split()
)
_ALSO_REDUCTIONS = frozenset({"max", "min"})
_REFLECTED = {"radd": "add", "rsub": "sub", "rmul": "mul", "rdiv": "div", "rtruediv": "div", "rpow": "pow"}
_OPERATORS = {
    "truediv": "div", "floordiv": "floor_divide", "rfloordiv": "floor_divide", "mod": "remainder",
    "rmod": "remainder", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "rand": "bitwise_and", "ror": "bitwise_or", "rxor": "bitwise_xor", "invert": "bitwise_not",
    "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip


def onlookers() -> str | None:
    """Who else sees operators that are called in this thread, so that they must really be called; None where
    nobody does."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "it is called inside a torch.func transform"
    if torch._C._len_torch_dispatch_stack() or function_modes():
        return "it is called inside a mode that sees each operator"
    if forward_ad._current_level >= 0:
        return "it is called inside forward-mode differentiation"
    if torch._C._get_tracing_state() is not None:
        return "it is called inside torch.jit.trace"
    return None


def thread_state() -> tuple[object, ...]:
    """The modes on which the results of a function, or their being recorded by autograd, depend."""
    autocast = torch.is_autocast_enabled("cpu")
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_autocast_dtype("cpu") if autocast else None,
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
    )


def inlined_by_dynamo(wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Have Dynamo, where it meets ``wrapper`` or is given it, trace ``function`` in its place."""
    wrapper._torchdynamo_inline = function  # type: ignore[attr-defined]
    wrapper._torchdynamo_orig_callable = function  # type: ignore[attr-defined]
    wrapper._torchdynamo_wrapper_id = id(wrapper)  # type: ignore[attr-defined]


def is_pointwise(operator: object) -> bool:
    """Whether an operator's schema says that it acts on each element by itself."""
    return isinstance(operator, OpOverload) and torch.Tag.pointwise in operator.tags


class FunctionWatch(TorchFunctionMode):
    """While entered, notes which of torch's functions are called.

    Attributes:
        others: the names of those that do not act on each element by itself, or that read sizes.
        stateful: the names of those that a trace cannot stand for: they read or change what autograd or the
            allocator knows of a tensor, or write to one by ``out=``.
        exact_numbers: what is computed with numbers is not what Python would compute, were they known: they
            are divided or raised to a power (Python raises where symbolic numbers give infinity), or added
            with ``alpha`` (which traces forget).
    """

    def __init__(self, is_number: Callable[[str], bool]) -> None:
        """``is_number``: whether a symbol, by its name, is that of a number and not that of a size."""
        super().__init__()
        self._is_number = lambda symbol: is_number(str(symbol))
        self.others: set[str] = set()
        self.stateful: set[str] = set()
        self.exact_numbers = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if name in _STATEFUL:
            self.stateful.add(name)
        elif kwargs.get("out") is not None:
            self.stateful.add(f"{name} with out=")
        elif not acts_on_elements(func, name) or kwargs.get("memory_format") is not None:
            self.others.add(name)
        numbers = [v for v in (*args, *kwargs.values()) if isinstance(v, (torch.SymFloat, torch.SymInt))]
        given = [n.node.expr for n in numbers if any(map(self._is_number, n.node.expr.free_symbols))]
        if given and ("alpha" in kwargs or not all(map(_is_polynomial, given))):
            self.exact_numbers = True
        return func(*args, **kwargs)


def _is_polynomial(expression: Any) -> bool:
    """Whether a number is made of others by sums and products alone."""
    if expression.is_Symbol or expression.is_Number:
        return True
    return (expression.is_Add or expression.is_Mul) and all(map(_is_polynomial, expression.args))


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    if name == "__get__":  # an attribute: `Tensor.shape.__get__`
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name)


def acts_on_elements(func: Any, name: str) -> bool:
    """Whether a function of torch's, or a method of tensors by its name alone, acts on each element by
    itself."""
    if isinstance(func, OpOverload):
        return is_pointwise(func)
    plain = name.strip("_")
    plain = _REFLECTED.get(plain, _OPERATORS.get(plain, plain)) if name.startswith("__") else plain
    if plain in _POINTWISE_METHODS:
        return True
    packet = getattr(torch.ops.aten, plain, None)
    if packet is None or plain in _ALSO_REDUCTIONS:
        return False
    return any(is_pointwise(getattr(packet, o)) for o in packet.overloads())
