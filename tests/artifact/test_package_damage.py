"""Damaged and forged packages: refused with a typed error before any code of theirs is linked."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import braze
from braze.artifact import package as packages
from braze.artifact.archive import read_archive, write_archive
from braze.errors import ArtifactError, BrazeError
from braze.runtime import cpu_engine, linker


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.count += 1
        return {"y": torch.tanh(self.linear(x))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("damage") / "small.pt2"
    batch = torch.export.Dim("batch", min=2, max=9)
    program = torch.export.export(Small(), (torch.randn(2, 3),), dynamic_shapes=({0: batch},))
    braze.aot_compile(program, path, targets=("host",))
    return path.read_bytes()


@pytest.fixture
def no_linking(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("code of a damaged package reached the linker")

    assert cpu_engine.link is linker.link
    monkeypatch.setattr(cpu_engine, "link", link)


def refused(tmp_path: Path, data: bytes) -> BrazeError:
    path = tmp_path / "bad.pt2"
    path.write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        braze.aot_load(path)
    return caught.value


def test_every_cut_and_every_kind_of_flip_is_seen(whole: bytes, tmp_path: Path, no_linking: None) -> None:
    chance = random.Random(7)
    for _ in range(400):
        data = bytearray(whole)
        if chance.random() < 0.25:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.choice((1, 1, 1, 8))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if bytes(data) != whole:
            refused(tmp_path, bytes(data))


def test_every_bit_of_the_structure_counts(whole: bytes) -> None:
    """All bits that are not the contents of members."""
    members = read_archive(memoryview(whole)).values()
    content = bytearray(len(whole))
    for member in members:
        content[member.offset : member.offset + member.size] = b"\1" * member.size
    structure = [at for at, inside in enumerate(content) if not inside]
    assert len(structure) > 1000
    for at in structure:
        data = bytearray(whole)
        data[at] ^= 1 << (at % 8)
        with pytest.raises(ArtifactError):
            read_archive(memoryview(bytes(data)))


def rewritten(whole: bytes, change: Callable[[dict[str, bytes]], None], *, sums: bool = True) -> bytes:
    """The package with its members changed; ``sums``: and a manifest that fits."""
    view = memoryview(whole)
    members = {n: bytes(view[m.offset : m.offset + m.size]) for n, m in read_archive(view).items()}
    change(members)
    if sums:
        manifest = json.loads(members[packages.MANIFEST])
        manifest["members"] = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in members.items()
            if name != packages.MANIFEST
        }
        members[packages.MANIFEST] = json.dumps(manifest).encode()
    file = io.BytesIO()
    write_archive(file, {name: [data] for name, data in members.items()})
    return file.getvalue()


def replace(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        assert old in members[name], (name, old)
        members[name] = members[name].replace(old, new)

    return change


def delete(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.__delitem__(name)


def model(edit: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        document = json.loads(members[packages.MODEL])
        edit(document)
        members[packages.MODEL] = json.dumps(document).encode()

    return change


def deep(members: dict[str, bytes]) -> None:
    tree = b'{"kind": "list", "children": [' * 3000 + b"{}" + b"]}" * 3000
    text = json.dumps({**json.loads(members[packages.MODEL]), "parameters": None}).encode()
    keys = b'{"names": [], "keywords": {"kind": "dict"}, "results": {}, "arguments": ' + tree + b"}"
    members[packages.MODEL] = text.replace(b"null", keys, 1)


FORGED: dict[str, Callable[[dict[str, bytes]], None]] = {
    "no graph": delete(packages.GRAPH),
    "no model": delete(packages.MODEL),
    "no constants": lambda m: m.update({packages.MODEL: m[packages.MODEL].replace(b"buffer", b"constant")}),
    "another format": replace(f"{packages.ROOT}archive_format", b"pt2", b"pt3"),
    "graph of zeros": lambda m: m.update({packages.GRAPH: bytes(1000)}),
    "graph cut": lambda m: m.update({packages.GRAPH: m[packages.GRAPH][:-64]}),
    "weights cut": lambda m: m.update({packages.WEIGHTS: m[packages.WEIGHTS][:-4]}),
    "weights longer": lambda m: m.update({packages.WEIGHTS: m[packages.WEIGHTS] + bytes(4)}),
    "weights of a huge header": lambda m: m.update(
        {packages.WEIGHTS: struct.pack("<Q", 1 << 60) + m[packages.WEIGHTS][8:]}
    ),
    "weights of other sizes": replace(packages.WEIGHTS, b"[4,3]", b"[3,4]"),
    "weights of another type": replace(packages.WEIGHTS, b'"F32"', b'"I32"'),
    "weights of other names": replace(packages.WEIGHTS, b"linear.bias", b"linear.byas"),
    "model that is no JSON": lambda m: m.update({packages.MODEL: b"\xff{"}),
    "unknown field": model(lambda d: d.update(more=1)),
    "unknown dtype": model(lambda d: d["weights"][0].update(dtype="float33")),
    "dtype that is not a dtype": model(lambda d: d["weights"][0].update(dtype="load")),
    "negative size": model(lambda d: d["weights"][0].update(sizes=[-4, 3])),
    "weight of another type": model(lambda d: d["weights"][0].update(dtype="int32")),
    "weight of other sizes": model(lambda d: d["weights"][0].update(sizes=[2, 6])),
    "two weights of one name": model(lambda d: d["weights"].append(copy.deepcopy(d["weights"][0]))),
    "slot without a weight": model(lambda d: d["slots"][0].update(weight="nobody")),
    "slot from nowhere": model(lambda d: d["slots"][0].pop("weight")),
    "slot of argument 7": model(lambda d: d["slots"][-1].update(given=7)),
    "slots missing": model(lambda d: d["slots"].pop()),
    "alias of nobody": model(lambda d: d["aliases"].update(a="b")),
    "alias of a name": model(lambda d: d["aliases"].update({"linear.weight": "linear.bias"})),
    "more results": model(lambda d: d["parameters"]["results"]["children"].append({})),
    "keys without values": model(lambda d: d["parameters"]["results"]["keys"].append("z")),
    "leaf with children": model(lambda d: d["parameters"]["arguments"]["children"][0].update(children=[{}])),
    "arguments that are no tuple": model(lambda d: d["parameters"]["arguments"].update(kind="list")),
    "unknown class": model(lambda d: d["parameters"]["arguments"]["children"][0].update(kind="os.x")),
    "more names": model(lambda d: d["parameters"]["names"].append("y")),
    "nested 3000 deep": deep,
    "written without saying so": model(lambda d: [w.pop("mutated", None) for w in d["weights"]]),
    "manifest of version 9": replace(packages.MANIFEST, b'"version": 1', b'"version": 9'),
    "manifest of another format": replace(packages.MANIFEST, b"braze-package", b"braze-packet"),
    "manifest that is none": lambda m: m.update({packages.MANIFEST: b"[]"}),
}


@pytest.mark.parametrize("what", FORGED)
def test_forged_members_with_the_right_checksums(
    what: str, whole: bytes, tmp_path: Path, no_linking: None
) -> None:
    refused(tmp_path, rewritten(whole, FORGED[what], sums="manifest" not in what))


def test_a_member_more_or_less_than_the_manifest_says(whole: bytes, tmp_path: Path) -> None:
    more = rewritten(whole, lambda m: m.update({"package/extra/note": b"hello"}), sums=False)
    assert "in both" in refused(tmp_path, more).what
    assert "in both" in refused(tmp_path, rewritten(whole, delete(packages.EXTERNS), sums=False)).what


def test_other_zip_files_are_no_packages(whole: bytes, tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr("package/archive_format", "pt2")
        refused(tmp_path, file.getvalue())
    file = io.BytesIO()
    write_archive(file, {"package/archive_format": [b"pt2"]})
    assert "not a package of Braze's" in refused(tmp_path, file.getvalue()).what
    for data in (b"", b"PK", b"\x7fELF" + bytes(100), bytes(4096), whole + b"\0", b"\0" + whole):
        refused(tmp_path, data)


BAD_NAMES = (
    "../x",
    "/etc/passwd",
    "a//b",
    "a/../b",
    "a/./b",
    "",
    "a\0b",
    "a\\b",
    "C:\\x",
    "ä",
    "a b",
    "x" * 600,
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_climb_are_neither_written_nor_read(name: str) -> None:
    with pytest.raises(ArtifactError, match="not a name for a file"):
        write_archive(io.BytesIO(), {name: [b"x"]})
    file = io.BytesIO()
    good = "n" * len(name.encode())
    if 0 < len(good) <= 512:
        write_archive(file, {good: [b"x"]})
        data = file.getvalue().replace(good.encode(), name.encode())
        with pytest.raises(ArtifactError):
            read_archive(memoryview(data))


def test_members_that_are_there_twice() -> None:
    file = io.BytesIO()
    write_archive(file, {"one/a": [b"x"], "one/b": [b"y"]})
    with pytest.raises(ArtifactError, match="twice"):
        read_archive(memoryview(file.getvalue().replace(b"one/b", b"one/a")))


def test_members_that_claim_more_than_there_is() -> None:
    file = io.BytesIO()
    write_archive(file, {"a": [b"content"]})
    data = file.getvalue()
    for claim in (8, 1 << 20, 0xFFFFFFFE, 0xFFFFFFFF):
        forged = data.replace(struct.pack("<I", 7), struct.pack("<I", claim))
        with pytest.raises(ArtifactError):
            read_archive(memoryview(forged))
    count = data[:-14] + struct.pack("<HH", 65535, 65535) + data[-10:]
    with pytest.raises(ArtifactError):
        read_archive(memoryview(count))


def test_the_archive_round_trips_and_is_aligned() -> None:
    contents = {"a": b"", "b/c": bytes(range(200)), "b/d.bin": b"z" * 64, "e": b"end"}
    file = io.BytesIO()
    placed = write_archive(file, {name: [data[:5], data[5:]] for name, data in contents.items()})
    data = file.getvalue()
    found = read_archive(memoryview(data))
    assert list(found.values()) == placed
    for name, member in found.items():
        assert member.offset % 64 == 0 and member.crc == zlib.crc32(contents[name])
        assert data[member.offset : member.offset + member.size] == contents[name]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None and archive.namelist() == list(contents)
    assert read_archive(memoryview(b"PK\5\6" + bytes(18))) == {}
