"""Operators by their qualified names, `aten::mm.default`, and nothing else by name."""

from __future__ import annotations

import functools
import re
from typing import Any

import torch
import torch._higher_order_ops
import torch._prims  # torch.ops.prims is empty before
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket, _higher_order_ops, _OpNamespace

__all__ = ["find_operator", "is_operator_or_packet", "overload_of", "qualified_name"]

_NAME = re.compile(
    r"(?P<space>[A-Za-z]\w*)::(?P<name>[A-Za-z_]\w*)(?:\.(?P<overload>[A-Za-z_]\w*))?", re.ASCII
)

_HIGHER_ORDER = frozenset(
    """
    associative_scan auto_functionalized auto_functionalized_v2 cond dynamo_bypassing_wrapper flex_attention
    flex_attention_backward foreach_map hints_wrapper inline_asm_elementwise invoke_quant invoke_quant_packed
    invoke_subgraph local_map_hop map_impl out_dtype print run_and_save_rng_state run_const_graph
    run_with_rng_state scan strict_mode tag_activation_checkpoint while_loop while_loop_stack_output
    with_effects wrap wrap_with_autocast wrap_with_set_grad_enabled
    """.split()
)
"""Those whose arguments say all: others look things up in tables of the process, by numbers that mean
something else in another one."""


@functools.cache
def qualified_name(target: Any) -> str | None:
    """`aten::add.Tensor`, `higher_order::cond`; None for what is not an operator, and for one that another
    process could not find, or would take for another, under its name."""
    if isinstance(target, OpOverload):
        schema = target._schema
        name = f"{schema.name}.{schema.overload_name or 'default'}"
    elif isinstance(target, HigherOrderOperator):
        name = f"higher_order::{target._name}"
    else:
        return None
    return name if find_operator(name) is target else None


def is_operator_or_packet(value: Any) -> bool:
    """Whether it is an operator of any library, or all of its overloads."""
    return isinstance(value, (OpOverload, OpOverloadPacket))


def overload_of(value: Any) -> Any:
    """The overload that somebody means by ``torch.ops.mylib.op``, an overload of it, or what
    `torch.library.custom_op` returned; None where that is no operator, or has several overloads."""
    value = getattr(value, "_opoverload", value)
    if isinstance(value, OpOverloadPacket):
        names = value._overload_names
        return getattr(value, names[0] or "default") if len(names) == 1 else None
    return value if isinstance(value, OpOverload) else None


def find_operator(qualified: str) -> Any:
    """The operator of that name; None where there is none in this process. Looks at operators only, and runs
    nothing."""
    parts = _NAME.fullmatch(qualified)
    if parts is None:
        return None
    if parts["space"] == "higher_order":
        known = parts["name"] in _HIGHER_ORDER and not parts["overload"]
        return _higher_order_ops.get(parts["name"]) if known else None
    space = getattr(torch.ops, parts["space"], None)
    if not isinstance(space, _OpNamespace):
        return None
    packet = getattr(space, parts["name"], None)
    overload = parts["overload"] or ""
    if not isinstance(packet, OpOverloadPacket) or not overload:
        return None
    if ("" if overload == "default" else overload) not in packet._overload_names:
        return None
    found = getattr(packet, overload)
    return found if isinstance(found, OpOverload) else None
