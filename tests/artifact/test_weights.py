"""Weights as a safetensors file: read by the library, mapped by us."""

from __future__ import annotations

import mmap
import struct

import pytest
import torch
from safetensors.torch import load

from braze.artifact.weights import pack_weights, unpack_weights
from braze.errors import ArtifactError, UnserializableError

TENSORS = {
    "f32": torch.randn(5, 7),
    "big": torch.randn(64, 64),
    "bf16": torch.randn(64, 3).to(torch.bfloat16),
    "f8": torch.randn(4, 4).to(torch.float8_e5m2),
    "complex": torch.randn(3, dtype=torch.complex64),
    "conj": torch.randn(2, 2, dtype=torch.complex128).conj(),
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 4),
    "turned": torch.randn(16, 32).t(),
    "expanded": torch.randn(3, 1).expand(3, 4),
    "bool": torch.tensor([True, False, True]),
    "parameter": torch.nn.Parameter(torch.randn(8)),
}


def packed(tensors: dict[str, torch.Tensor]) -> bytearray:
    return bytearray(b"".join(bytes(part) for part in pack_weights(tensors)))


def test_what_is_packed_comes_back() -> None:
    data = packed(TENSORS)
    found = unpack_weights(memoryview(data), {name: t.dtype for name, t in TENSORS.items()})
    for name, tensor in TENSORS.items():
        assert found[name].dtype is tensor.dtype and found[name].shape == tensor.shape
        assert found[name].is_contiguous()
        assert torch.equal(found[name].to(torch.complex128), tensor.detach().to(torch.complex128)), name


def test_the_library_reads_it() -> None:
    plain = {name: t for name, t in TENSORS.items() if not t.is_complex()}
    found = load(bytes(packed(plain)))
    assert found.keys() == plain.keys()
    for name, tensor in plain.items():
        assert torch.equal(found[name].float(), tensor.detach().float()), name


def test_large_tensors_are_mapped_at_aligned_places() -> None:
    content = packed(TENSORS)
    data = mmap.mmap(-1, len(content))
    data[:] = bytes(content)
    begin = torch.frombuffer(memoryview(data), dtype=torch.uint8).data_ptr()
    found = unpack_weights(memoryview(data), {name: t.dtype for name, t in TENSORS.items()})
    (length,) = struct.unpack_from("<Q", data)
    assert (8 + length) % 64 == 0
    offset = found["big"].data_ptr() - begin
    assert 0 <= offset < len(data) and offset % 64 == 0
    found["big"].zero_()
    assert not any(data[offset : offset + 64]), "they share the memory"


@pytest.mark.parametrize(
    ("tensor", "complaint"),
    [
        (torch.empty(2, device="meta"), "on meta"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8), "cannot be stored"),
    ],
)
def test_what_cannot_be_stored(tensor: torch.Tensor, complaint: str) -> None:
    with pytest.raises(UnserializableError, match=complaint):
        pack_weights({"w": tensor})


def test_every_cut_is_seen() -> None:
    data = packed({"a": torch.randn(3), "b": torch.randn(2)})
    dtypes = {"a": torch.float32, "b": torch.float32}
    for end in range(len(data)):
        with pytest.raises(ArtifactError):
            unpack_weights(memoryview(data[:end]), dtypes)
    for wrong in ({"a": torch.float32}, {**dtypes, "c": torch.int8}, {"a": torch.int32, "b": torch.float32}):
        with pytest.raises(ArtifactError):
            unpack_weights(memoryview(data), wrong)
