"""Weights as one safetensors file that is mapped and used where it lies.

The format is the library's (``safetensors``): eight bytes of length, a JSON header, the data. Written here
because of what the library leaves open: the header is padded and tensors are ordered so that those whose size
is a multiple of 64 bytes, which is nearly all, begin at one. Read here because the library's reader of bytes
copies them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

import msgspec
import torch
from msgspec import Struct

from braze._torch.devices import in_host_memory
from braze.artifact.archive import Buffer
from braze.dtypes import COMPLEX_PARTS, SAFETENSORS, dtype_named, torch_name
from braze.errors import ArtifactError, UnserializableError

__all__ = ["pack_weights", "unpack_weights"]

ALIGNMENT: Final = 64
COPIED: Final = 1 << 20
"""Misaligned tensors of fewer bytes are copied to an aligned place when they are read."""

_Natural = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[_Natural, ...]
    data_offsets: tuple[_Natural, _Natural]


def pack_weights(tensors: Mapping[str, torch.Tensor]) -> list[Buffer]:
    """The file, in pieces: views of the tensors where they are contiguous. Strides are not kept.

    Raises `UnserializableError` for a tensor that is not plain numbers in CPU memory.
    """
    header: dict[str, Any] = {}
    parts: list[Buffer] = []
    at = 0
    flat = {name: _flat(name, tensor) for name, tensor in tensors.items()}
    for name in sorted(flat, key=lambda n: (flat[n].nbytes % ALIGNMENT > 0, -flat[n].element_size(), n)):
        carrier = flat[name]
        header[name] = {
            "dtype": SAFETENSORS[torch_name(carrier.dtype)],
            "shape": list(carrier.shape),
            "data_offsets": [at, at + carrier.nbytes],
        }
        at += carrier.nbytes
        parts.append(_bytes(carrier))
    text = msgspec.json.encode(header)
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return [len(text).to_bytes(8, "little") + text, *parts]


def _flat(name: str, tensor: torch.Tensor) -> torch.Tensor:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    if not plain or tensor.layout is not torch.strided or not in_host_memory(tensor) or tensor.is_quantized:
        kind = f"{type(tensor).__name__} of layout {tensor.layout} on {tensor.device}"
        raise UnserializableError(f"the weight {name!r} cannot be stored: it is a {kind}")
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    dtype = torch_name(tensor.dtype)
    if dtype in COMPLEX_PARTS:
        return torch.view_as_real(tensor)
    if dtype not in SAFETENSORS:
        raise UnserializableError(f"the weight {name!r} cannot be stored: safetensors knows no {dtype}")
    return tensor


def _bytes(tensor: torch.Tensor) -> memoryview:
    if not tensor.numel():
        return memoryview(b"")
    return memoryview(cast(Any, tensor.reshape(-1).view(torch.uint8).numpy())).cast("B")


def unpack_weights(data: memoryview, dtypes: Mapping[str, torch.dtype]) -> dict[str, torch.Tensor]:
    """The tensors of a file, contiguous, which share the memory of ``data`` (it has to be writable).

    ``dtypes``: what is expected to be there. Raises `ArtifactError` for anything that `pack_weights` would
    not have written for tensors of these names and types.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or begin > len(data):
        raise _damaged(f"{len(data)} bytes are not a safetensors file")
    try:
        entries = msgspec.json.decode(data[8:begin], type=dict[str, _Entry])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(str(error)) from error
    if entries.keys() != dtypes.keys():
        raise _damaged("the tensors there are, and those that there should be, differ")
    end = 0
    found: dict[str, torch.Tensor] = {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        first, last = entry.data_offsets
        wanted = dtypes[name]
        parts = COMPLEX_PARTS.get(torch_name(wanted))
        carrier = wanted if parts is None else dtype_named(parts)
        if (
            entry.dtype != SAFETENSORS.get(torch_name(carrier))
            or math.prod(entry.shape) * carrier.itemsize != last - first
        ):
            raise _damaged(f"it is {entry.dtype} {list(entry.shape)} in {last - first} bytes", name)
        if first != end or (carrier is not wanted and entry.shape[-1:] != (2,)):
            raise _damaged(f"it lies at byte {first}, and the one before ends at {end}", name)
        if begin + last > len(data):
            raise _damaged(f"it ends at byte {begin + last} of {len(data)}", name)
        end = last
        found[name] = _tensor(data[begin + first : begin + last], carrier, entry.shape)
        if carrier is not wanted:
            found[name] = torch.view_as_complex(found[name])
    if begin + end != len(data):
        raise _damaged(f"data up to byte {begin + end} of {len(data)}")
    return found


def _tensor(data: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if not len(data):
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(data, dtype=torch.uint8)
    begin = flat.data_ptr()
    if begin % dtype.itemsize or (begin % ALIGNMENT and len(data) < COPIED):
        flat = flat.clone()
    return flat.view(dtype).view(shape)


def _damaged(what: str, name: str | None = None) -> ArtifactError:
    where = None if name is None else f"weight {name!r}"
    return ArtifactError(f"the package's weights are damaged: {what}", where=where)
