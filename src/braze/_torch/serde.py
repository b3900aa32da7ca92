"""Calls of operators in the schema that `torch.export` stores its graphs in (`torch._export.serde.schema`).

What is made here are that schema's own dataclasses, so that it is PyTorch that says which fields there are.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

from braze._torch.native import find_operator
from braze.errors import UnserializableError

__all__ = [
    "Outputs",
    "SizeName",
    "TensorName",
    "document",
    "extern_node",
    "graph",
    "graph_call_node",
    "sym_int",
    "tensor_meta",
]


@dataclasses.dataclass(frozen=True)
class TensorName:
    """A tensor of the graph, as an argument."""

    name: str


@dataclasses.dataclass(frozen=True)
class SizeName:
    """An integer of the graph that is known only at run time, as an argument."""

    name: str


Outputs: TypeAlias = "str | tuple[Outputs, ...] | None"
"""The names of a call's results, in the structure of what it returns; None for no tensor."""


def _schema() -> Any:
    from torch._export.serde import schema  # noqa: PLC0415  whoever only loads code need not know it

    return schema


def extern_node(
    name: str,
    target: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    outputs: Outputs,
    where: str | None,
) -> Any:
    """An ``ExternKernelNode``: one call of an operator.

    Args:
        name: of the call; need not be unique.
        target: the operator's qualified name: ``aten::mm.out``.
        args, kwargs: plain values, `TensorName`, `SizeName`, and tuples of these for lists. What is missing
            becomes the schema's default, so every argument is named and has its schema's type.
        outputs: names for what it returns.
        where: the user's line.

    Raises `UnserializableError` for an operator that does not exist, and a value that its schema, or the
    stored one, has no place for.
    """
    schema = _schema()
    operator: Any = _operator(target)
    inputs = []
    for position, argument in enumerate(operator._schema.arguments):
        keyword = bool(argument.kwarg_only)
        if argument.name in kwargs:
            value = kwargs[argument.name]
        elif position < len(args) and not keyword:
            value = args[position]
        elif argument.has_default_value():
            value = argument.default_value
        else:
            raise UnserializableError(f"a call of {target} lacks its argument {argument.name!r}")
        kind = schema.ArgumentKind.KEYWORD if keyword else schema.ArgumentKind.POSITIONAL
        try:
            encoded = _argument(value, argument.real_type, argument.N)
        except UnserializableError as error:
            raise UnserializableError(f"argument {argument.name!r} of {target}: {error.what}") from None
        inputs.append(schema.NamedArgument(name=argument.name, arg=encoded, kind=kind))
    node = schema.Node(
        target=f"torch.ops.{operator}",
        inputs=inputs,
        outputs=_outputs(operator, outputs),
        metadata={"stack_trace": where} if where else {},
    )
    return schema.ExternKernelNode(name=name, node=node)


def graph_call_node(
    name: str, target: str, arguments: Sequence[Any], outputs: Outputs, where: str | None
) -> Any:
    """An ``ExternKernelNode``: one call of an operator that takes graphs, and has no schema.

    Args:
        name, outputs, where: as in `extern_node`.
        target: the operator's qualified name: ``higher_order::cond``.
        arguments: one by one what is passed, lists taken apart: graphs of `graph`, `TensorName`, `SizeName`,
            and numbers.

    Raises `UnserializableError` for another argument.
    """
    schema = _schema()
    inputs = []
    for value in arguments:
        is_graph = isinstance(value, schema.GraphArgument)
        encoded = {"as_graph": value} if is_graph else _scalar(value, "number")
        inputs.append(schema.NamedArgument(name="", arg=schema.Argument.create(**encoded)))
    single = isinstance(outputs, str)
    node = schema.Node(
        target=f"torch.ops.{target.replace('::', '.')}",
        inputs=inputs,
        outputs=[_output(one, None) for one in ((outputs,) if single else outputs or ())],
        metadata={"stack_trace": where} if where else {},
        is_hop_single_tensor_return=single,
    )
    return schema.ExternKernelNode(name=name, node=node)


def graph(
    name: str,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    nodes: Sequence[Any],
    tensor_values: Mapping[str, Any],
    sym_int_values: Mapping[str, Any],
    single: bool,
) -> Any:
    """A ``GraphArgument``: a graph of which ``nodes`` (of `extern_node`) are the calls of operators. Inputs
    and outputs are `TensorName`, `SizeName`, numbers and None; ``single``: it returns one value, no tuple."""
    schema = _schema()

    def encoded(values: Sequence[Any]) -> list[Any]:
        fields = ({"as_none": True} if v is None else _scalar(v, "number") for v in values)
        return [schema.Argument.create(**field) for field in fields]

    whole = schema.Graph(
        inputs=encoded(inputs),
        outputs=encoded(outputs),
        nodes=[one.node for one in nodes],
        tensor_values=dict(tensor_values),
        sym_int_values=dict(sym_int_values),
        sym_bool_values={},
        is_single_tensor_return=single,
    )
    return schema.GraphArgument(name=name, graph=whole)


def _operator(target: str) -> Any:
    try:
        return find_operator(target)
    except AttributeError as error:
        raise UnserializableError(f"this PyTorch has no operator {target}") from error


# -- arguments --------------------------------------------------------------------------------------------
def _argument(value: Any, kind: Any, length: int | None) -> Any:
    """A value as an ``Argument`` of the type that the operator's schema gives it. ``length``: how many
    numbers a list has that may be written as one."""
    schema = _schema()
    if isinstance(kind, torch.OptionalType):
        if value is None:
            return schema.Argument.create(as_none=True)
        return _argument(value, kind.getElementType(), length)
    if isinstance(kind, torch.ListType):
        values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * (length or 1)
        return _list(values, kind.getElementType())
    if value is None:
        return schema.Argument.create(as_none=True)
    return schema.Argument.create(**_scalar(value, str(kind)))


def _scalar(value: Any, kind: str) -> dict[str, Any]:
    """The one field of an ``Argument`` for a single value of the schema's type ``kind``."""
    schema = _schema()
    if isinstance(value, TensorName):
        return {"as_tensor": schema.TensorArgument(name=value.name)}
    if isinstance(value, SizeName):
        return {"as_sym_int": schema.SymIntArgument.create(as_name=value.name)}
    if kind == "ScalarType":
        return {"as_scalar_type": _scalar_type(value)}
    if kind == "Layout":
        return {"as_layout": _by_number(value, _LAYOUTS, schema.Layout)}
    if kind == "MemoryFormat":
        return {"as_memory_format": _by_number(value, _MEMORY_FORMATS, schema.MemoryFormat)}
    if kind == "Device":
        device = torch.device(value)
        return {"as_device": schema.Device(type=device.type, index=device.index)}
    if kind == "str":
        return {"as_string": str(value)}
    if kind in ("number", "Tensor", "complex"):  # a number in a tensor's place takes part as a number
        return _number(value)
    if kind in _NUMBERS and isinstance(value, (bool, int, float)):
        field, number = _NUMBERS[kind]
        return {field: number(value)}
    raise UnserializableError(f"{value!r} has no place in a {kind}")


_NUMBERS: Mapping[str, tuple[str, type]] = {
    "bool": ("as_bool", bool),
    "int": ("as_int", int),
    "float": ("as_float", float),
}


def _number(value: Any) -> dict[str, Any]:
    if isinstance(value, complex):
        return {"as_complex": _schema().ComplexValue(real=value.real, imag=value.imag)}
    if type(value) in (bool, int, float):
        return {f"as_{type(value).__name__}": value}
    raise UnserializableError(f"{value!r} is not a number")


def _list(values: tuple[Any, ...], kind: Any) -> Any:
    """A list as an ``Argument``, by the type of its elements."""
    schema = _schema()
    tensor, optional = schema.TensorArgument, schema.OptionalTensorArgument
    of = str(kind)
    if of == "Optional[number]":
        of = "number"
    if of == "Tensor":
        return schema.Argument.create(as_tensors=[tensor(name=_tensor_name(v)) for v in values])
    if of == "Optional[Tensor]":
        wrapped = [
            optional.create(as_none=True)
            if v is None
            else optional.create(as_tensor=tensor(name=_tensor_name(v)))
            for v in values
        ]
        return schema.Argument.create(as_optional_tensors=wrapped)
    if of == "str":
        return schema.Argument.create(as_strings=[str(v) for v in values])
    if of == "number":
        of = "int" if all(type(v) is int for v in values) else "float"
    if of == "int" and any(isinstance(v, SizeName) for v in values):
        named = schema.SymIntArgument
        mixed = [
            named.create(as_name=v.name) if isinstance(v, SizeName) else named.create(as_int=int(v))
            for v in values
        ]
        return schema.Argument.create(as_sym_ints=mixed)
    if of in _NUMBERS and all(isinstance(v, (bool, int, float)) for v in values):
        field, number = _NUMBERS[of]
        return schema.Argument.create(**{f"{field}s": [number(v) for v in values]})
    raise UnserializableError(f"{values!r} has no place in a list of {of}")


def _tensor_name(value: Any) -> str:
    if not isinstance(value, TensorName):
        raise UnserializableError(f"{value!r} is not a tensor")
    return value.name


# Numbers of c10's enumerations, which is how a schema's defaults give them (c10/core/ScalarType.h, Layout.h,
# MemoryFormat.h).
_SCALAR_TYPES: Mapping[int, torch.dtype] = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    8: torch.complex32,
    9: torch.complex64,
    10: torch.complex128,
    11: torch.bool,
    15: torch.bfloat16,
}
_LAYOUTS: Mapping[Any, str] = {
    0: "Strided",
    torch.strided: "Strided",
    torch.sparse_coo: "SparseCoo",
    torch.sparse_csr: "SparseCsr",
    torch.sparse_csc: "SparseCsc",
    torch.sparse_bsr: "SparseBsr",
    torch.sparse_bsc: "SparseBsc",
}
_MEMORY_FORMATS: Mapping[Any, str] = {
    0: "ContiguousFormat",
    1: "PreserveFormat",
    2: "ChannelsLast",
    3: "ChannelsLast3d",
    torch.contiguous_format: "ContiguousFormat",
    torch.preserve_format: "PreserveFormat",
    torch.channels_last: "ChannelsLast",
    torch.channels_last_3d: "ChannelsLast3d",
}
_DTYPE_NAMES: Mapping[torch.dtype, str] = {
    torch.uint8: "BYTE",
    torch.int8: "CHAR",
    torch.int16: "SHORT",
    torch.int32: "INT",
    torch.int64: "LONG",
    torch.float16: "HALF",
    torch.float32: "FLOAT",
    torch.float64: "DOUBLE",
    torch.complex32: "COMPLEXHALF",
    torch.complex64: "COMPLEXFLOAT",
    torch.complex128: "COMPLEXDOUBLE",
    torch.bool: "BOOL",
    torch.bfloat16: "BFLOAT16",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.float8_e4m3fn: "FLOAT8E4M3FN",
    torch.float8_e5m2: "FLOAT8E5M2",
    torch.float8_e4m3fnuz: "FLOAT8E4M3FNUZ",
    torch.float8_e5m2fnuz: "FLOAT8E5M2FNUZ",
    torch.float8_e8m0fnu: "FLOAT8E8M0FNU",
}


def _scalar_type(value: Any) -> Any:
    dtype = value if isinstance(value, torch.dtype) else _SCALAR_TYPES.get(value)
    name = _DTYPE_NAMES.get(dtype) if dtype is not None else None
    if name is None:
        raise UnserializableError(f"{value!r} is not a dtype that the schema knows")
    return _schema().ScalarType[name]


def _by_number(value: Any, names: Mapping[Any, str], enumeration: Any) -> Any:
    if value not in names:
        raise UnserializableError(f"the schema has no {value!r}")
    return enumeration[names[value]]


# -- results ----------------------------------------------------------------------------------------------
def _outputs(operator: Any, outputs: Outputs) -> list[Any]:
    """One ``Argument`` for each result of the operator's schema."""
    returns = operator._schema.returns
    if not returns:
        return []
    each: Sequence[Any] = (outputs,) if len(returns) == 1 else _as_tuple(operator, outputs, len(returns))
    return [_output(name, result.real_type) for name, result in zip(each, returns, strict=True)]


def _as_tuple(operator: Any, outputs: Outputs, count: int) -> Sequence[Any]:
    if outputs is None:
        return (None,) * count
    if isinstance(outputs, str) or len(outputs) != count:
        raise UnserializableError(f"{operator} returns {count} values, and not {outputs!r}")
    return outputs


def _output(names: Any, kind: Any) -> Any:
    schema = _schema()
    if names is None:
        return schema.Argument.create(as_none=True)
    if isinstance(names, tuple):
        if not isinstance(kind, torch.ListType):
            raise UnserializableError(f"{names!r} are the results of what returns one {kind}")
        tensors = [schema.TensorArgument(name=n) for n in names if n is not None]
        return schema.Argument.create(as_tensors=tensors)
    return schema.Argument.create(as_tensor=schema.TensorArgument(name=names))


# -- what stands beside the calls -------------------------------------------------------------------------
def sym_int(value: int | str, hint: int | None = None) -> Any:
    """A ``SymInt``: a number, or an expression as ``sympy.srepr`` writes it with its value in an example."""
    schema = _schema()
    if isinstance(value, int):
        return schema.SymInt.create(as_int=value)
    example = None if hint is None else schema.SymExprHint.create(as_int=hint)
    return schema.SymInt.create(as_expr=schema.SymExpr(expr_str=value, hint=example))


def tensor_meta(dtype: torch.dtype, sizes: Sequence[Any], strides: Sequence[Any], device: str) -> Any:
    """A ``TensorMeta``; sizes and strides (in elements) as `sym_int` makes them. The tensor begins where its
    storage does."""
    schema = _schema()
    where = torch.device(device)
    return schema.TensorMeta(
        dtype=_scalar_type(dtype),
        sizes=list(sizes),
        requires_grad=False,
        device=schema.Device(type=where.type, index=where.index),
        strides=list(strides),
        storage_offset=sym_int(0),
        layout=schema.Layout.Strided,
    )


def document(
    nodes: Sequence[Any],
    tensor_values: Mapping[str, Any],
    sym_int_values: Mapping[str, Any],
    ranges: Mapping[str, tuple[int | None, int | None]],
) -> str:
    """``ExternKernelNodes`` as JSON, with more members that PyTorch's reader of those does not mind:
    ``tensor_values`` and ``sym_int_values`` by name, as a ``Graph`` of the schema has them, and by symbol its
    least and greatest value as ``range_constraints``, as an ``ExportedProgram`` has them."""
    schema = _schema()
    constraints = {
        name: schema.RangeConstraint(min_val=low, max_val=high) for name, (low, high) in ranges.items()
    }
    whole = {
        **_plain(schema.ExternKernelNodes(nodes=list(nodes))),
        "tensor_values": _plain(dict(tensor_values)),
        "sym_int_values": _plain(dict(sym_int_values)),
        "range_constraints": _plain(constraints),
        "schema_version": list(schema.SCHEMA_VERSION),
    }
    return json.dumps(whole, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    """The schema's dataclasses as JSON: a union is its one field, an enumeration its number; floats that JSON
    lacks are strings, as `torch.export` writes them."""
    schema = _schema()
    if isinstance(value, schema._Union):
        return {value.type: _plain(value.value)}
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
