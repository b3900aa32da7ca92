"""The constant tensors of a compiled graph: stored with it, or bound by name to what the caller has.

Stored ones are one safetensors file, which any tool for that format reads. Each is its storage's stretch
from the tensor's first element to its last, so that every way a tensor can lie in memory is kept as it is
(the code relies on it); sizes and strides are in the file's metadata, under ``braze``, as JSON of the types
below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias, cast

import msgspec
import torch

from braze._torch.devices import HOST, in_host_memory
from braze.dtypes import COMPLEX_PARTS, SAFETENSORS, name_dtype, read_dtype, torch_name
from braze.errors import ArtifactError, InputMismatchError, UnserializableError
from braze.runtime.spec import TensorSpec, byte_span, overlaps_itself, span

__all__ = ["BoundByName", "CompiledFxGraphConstants"]

ALIGNMENT: Final = 64
"""What the address of a constant's first byte is a multiple of after loading."""

_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]

_CARRIED: Final[Mapping[str, str]] = {
    **COMPLEX_PARTS,
    "float8_e4m3fnuz": "uint8", "float8_e5m2fnuz": "uint8", "float8_e8m0fnu": "uint8",
    "float4_e2m1fn_x2": "uint8",
}  # fmt: skip
"""dtypes that lie in the file as another one's elements: complex numbers as pairs (a last dimension of 2),
others as their bytes."""


class Stored(TensorSpec[_Size], frozen=True, tag="stored"):
    """A stored tensor."""


class BoundByName(TensorSpec[_Size], frozen=True, kw_only=True, tag="bound"):
    """A tensor that the caller has: the parameter or buffer ``path`` of a module, or that key of a
    mapping."""

    path: _Name

    @classmethod
    def of(cls, path: str, tensor: torch.Tensor) -> BoundByName:
        """The name ``path`` for tensors that lie in memory like ``tensor``."""
        return cls(tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()), path=path)


_Table: TypeAlias = dict[_Name, Stored | BoundByName]


class _Extent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a safetensors header says of one tensor; ``data_offsets`` count from the header's end."""

    dtype: str
    shape: tuple[_Size, ...]
    data_offsets: tuple[_Size, _Size]


class CompiledFxGraphConstants:
    """The constants of one graph, by the keys of its plan's `LoadConstant`.

    ``stored`` are tensors that the artefact contains, ``bound`` names of tensors that the caller provides.
    """

    def __init__(
        self,
        stored: Mapping[str, torch.Tensor] | None = None,
        bound: Mapping[str, BoundByName] | None = None,
    ) -> None:
        self.stored = dict(stored or {})
        self.bound = dict(bound or {})
        if both := self.stored.keys() & self.bound.keys():
            raise ArtifactError(f"the constant {sorted(both)[0]!r} is stored and bound by name")

    def __len__(self) -> int:
        return len(self.stored) + len(self.bound)

    def __contains__(self, key: str) -> bool:
        return key in self.stored or key in self.bound

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key, sorted."""
        return tuple(sorted([*self.stored, *self.bound]))

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensors' data."""
        return sum(byte_span(t) for t in self.stored.values())

    def bind(
        self, source: torch.nn.Module | Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Every constant as a tensor. Those bound by name share their memory with the parameter or buffer of
        ``source``, so writes to it in place are seen; without such constants there need be no source.

        Raises `InputMismatchError`: there is no tensor of that name, or it is of another dtype, size, stride
        or device than the code was made for.
        """
        found = dict(self.stored)
        if not self.bound:
            return found
        have: Mapping[str, Any]
        if isinstance(source, torch.nn.Module):
            have = {
                **dict(source.named_buffers(remove_duplicate=False)),
                **dict(source.named_parameters(remove_duplicate=False)),
            }
        else:
            have = source or {}
        for key, name in sorted(self.bound.items()):
            found[key] = _bound(name, have.get(name.path))
        return found

    def to_bytes(self) -> bytes:
        """One safetensors file. Raises `UnserializableError` for a tensor that is not plain numbers in CPU
        memory (another device, sparse, quantised, a subclass)."""
        from safetensors.torch import save  # noqa: PLC0415  loads numpy's bindings; only a compiler needs it

        table: _Table = dict(self.bound)
        data: dict[str, torch.Tensor] = {}
        seen: set[int] = set()
        for key in sorted(self.stored):
            tensor = self.stored[key]
            reason = _unstorable(tensor)
            if reason is not None or not 0 < len(key) <= 4096 or key == "__metadata__":
                raise UnserializableError(f"the constant {key!r} cannot be stored: {reason or 'its key'}")
            tensor = tensor.detach()
            table[key] = Stored(tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()))
            flat = _flat(tensor)
            home = flat.untyped_storage().data_ptr()
            data[key] = flat.clone() if home in seen else flat  # the library refuses shared memory
            seen.add(home)
        text = msgspec.json.encode({key: table[key] for key in sorted(table)}, enc_hook=name_dtype).decode()
        return bytes(save(data, {"braze": text}))

    @classmethod
    def from_bytes(
        cls, data: bytes | bytearray | memoryview, *, share: bool = False
    ) -> CompiledFxGraphConstants:
        """The constants that `to_bytes` wrote. Nothing is executed; each tensor is copied once, to an address
        that is a multiple of 64.

        share: tensors that lie at such an address in ``data`` already are not copied, and keep ``data``
            alive. Only where ``data`` can be written to (a private mapping of a file, say), since a tensor
            can.

        Raises `ArtifactError` for anything that `to_bytes` does not write.
        """
        view = memoryview(data).cast("B")
        table, extents, begin = _headers(view)
        stored: dict[str, torch.Tensor] = {}
        bound: dict[str, BoundByName] = {}
        for key, item in table.items():
            if isinstance(item, BoundByName):
                _geometry(key, item)
                bound[key] = item
            else:
                _check_extent(key, item, extents[key])
        for key, item in table.items():
            if isinstance(item, Stored):
                first, last = extents[key].data_offsets
                flat = _tensor(view[begin + first : begin + last], item.dtype, share)
                stored[key] = flat.as_strided(item.sizes, item.strides)
        return cls(stored, bound)


def _unstorable(tensor: torch.Tensor) -> str | None:
    """Why a tensor cannot be stored; None where it can."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
        return f"it is a {type(tensor).__name__}"
    if tensor.layout is not torch.strided:
        return f"its layout is {tensor.layout}"
    if not in_host_memory(tensor):
        return f"it is on {tensor.device}"
    name = torch_name(tensor.dtype)
    if name not in SAFETENSORS and name not in _CARRIED:
        return f"there is no form for a {name}"
    if tensor.is_conj() or tensor.is_neg():
        return "its values are the conjugate, or the negative, of what lies in memory"
    return None


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The stretch of memory that a tensor covers, one-dimensional, in the dtype that carries it. What lies
    between its elements becomes zero, where no two of them share their place."""
    reach = span(tensor.shape, tensor.stride())
    flat = tensor.as_strided((reach,), (1,))
    if tensor.dtype.is_complex:
        flat = torch.view_as_real(flat)
    elif torch_name(tensor.dtype) in _CARRIED:
        flat = flat.view(torch.uint8)
    if tensor.numel() < reach and not overlaps_itself(tensor.shape, tensor.stride()):
        own = torch.zeros(reach, dtype=torch.bool)
        own.as_strided(tensor.shape, tensor.stride()).fill_(True)
        flat = flat.clone()
        flat.view(torch.uint8).view(reach, -1)[~own] = 0  # some dtypes know no masks
    return flat.contiguous()


def _bound(name: BoundByName, tensor: Any) -> torch.Tensor:
    """The tensor for a name, checked."""
    if tensor is None:
        raise InputMismatchError(
            f"no parameter, buffer or tensor is named {name.path!r}",
            hint="bind the graph to the module that it was compiled from, or to a mapping with that name",
        )
    what = f"the tensor {name.path!r} is not what the code was compiled for: "
    if not isinstance(tensor, torch.Tensor):
        raise InputMismatchError(f"{what}it is a {type(tensor).__name__}")
    if found := name.difference(tensor, {}):
        property, have, want = found
        raise InputMismatchError(f"{what}{property} {torch_name(have)}, and not {torch_name(want)}")
    return tensor.detach()


def _damaged(what: str, key: str | None = None) -> ArtifactError:
    where = None if key is None else f"constant {key!r}"
    return ArtifactError(f"the artefact's constants are damaged: {what}", where=where)


def _headers(view: memoryview) -> tuple[_Table, dict[str, _Extent], int]:
    """The table of constants, the extents of the stored ones, and where their data begin. The extents tile
    the rest of the file."""
    # safetensors' own reader takes a bytes object and copies twice; its header is a length and JSON
    if len(view) < 8:
        raise _damaged(f"{len(view)} bytes are not a safetensors file")
    begin = 8 + int.from_bytes(view[:8], "little")
    if begin > len(view):
        raise _damaged(f"a header up to byte {begin} of {len(view)}")
    try:
        header = msgspec.json.decode(view[8:begin], type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(header.pop("__metadata__", b"{}"), type=dict[str, str])
        extents = {key: msgspec.json.decode(raw, type=_Extent) for key, raw in header.items()}
        table = msgspec.json.decode(metadata.get("braze", ""), type=_Table, dec_hook=read_dtype)
    except (msgspec.MsgspecError, ValueError, RecursionError, UnicodeDecodeError) as error:
        raise _damaged(str(error)) from error
    if extents.keys() != {key for key, item in table.items() if isinstance(item, Stored)}:
        raise _damaged("the tensors there are, and those that there should be, differ")
    end = 0
    for key, extent in sorted(extents.items(), key=lambda item: item[1].data_offsets):
        first, last = extent.data_offsets
        if first != end or last < first:
            raise _damaged(f"it lies at {first} to {last}, and the one before ends at {end}", key)
        end = last
    if begin + end != len(view):
        raise _damaged(f"data up to byte {begin + end} of {len(view)}")
    return table, extents, begin


def _geometry(key: str, item: Stored | BoundByName) -> int:
    """Elements that the tensor spans."""
    name = torch_name(item.dtype)
    if name not in SAFETENSORS and name not in _CARRIED:
        raise _damaged(f"there is no form for a {name}", key)
    if item.device != HOST:
        raise _damaged(f"it is on {item.device}", key)
    if len(item.sizes) != len(item.strides) or len(item.sizes) > 64:
        raise _damaged(f"{len(item.sizes)} sizes and {len(item.strides)} strides", key)
    if math.prod(max(n, 1) for n in item.sizes) >= 1 << 62:
        raise _damaged("it has more elements than can be counted", key)
    return span(item.sizes, item.strides)


def _check_extent(key: str, item: Stored, extent: _Extent) -> None:
    reach = _geometry(key, item)
    name = torch_name(item.dtype)
    carrier = _CARRIED.get(name, name)
    shape = (reach, 2) if item.dtype.is_complex else (reach,)
    if extent.dtype != SAFETENSORS[carrier] or extent.shape != shape:
        raise _damaged(f"it is {extent.dtype} {list(extent.shape)}, and not {carrier} {list(shape)}", key)
    first, last = extent.data_offsets
    nbytes = reach * item.dtype.itemsize
    if last - first != nbytes:
        raise _damaged(f"it has {last - first} bytes, and not {nbytes}", key)


def _tensor(data: memoryview, dtype: torch.dtype, share: bool) -> torch.Tensor:
    """One-dimensional, of these bytes."""
    if not len(data):
        return torch.empty(0, dtype=dtype)
    if share and not data.readonly:
        shared = torch.frombuffer(data, dtype=torch.uint8)
        if shared.data_ptr() % ALIGNMENT == 0:
            return shared.view(dtype)
    copy = torch.empty(len(data), dtype=torch.uint8)  # torch's allocator aligns to 64
    memoryview(cast(Any, copy.numpy()))[:] = data
    return copy.view(dtype)
