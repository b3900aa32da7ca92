"""Packages: made, loaded and called. What they compute is what the exported program computes."""

from __future__ import annotations

import copy
import threading
import zipfile
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import Dim, ExportedProgram, export
from torch.export.pt2_archive import PT2ArchiveReader, is_pt2_package
from torch.utils._pytree import tree_leaves, tree_structure

import braze
from braze.artifact import package as packages
from braze.artifact.loaded import Loaded
from braze.cache.keyring import KeyRing
from braze.errors import ArtifactError, ConfigError, InputMismatchError, PackageError, SignatureError
from braze.runtime import cpu_engine, host
from braze.runtime.target import named_target

BATCH = Dim("batch", min=2, max=64)


class Net(torch.nn.Module):
    """A bit of everything: parameters, buffers that change, a constant, nested arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(6, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.full((8,), 2.0), persistent=False)
        self.shift = torch.arange(8.0)

    def forward(self, x: torch.Tensor, opts: dict[str, Any], *, factor: int = 3) -> dict[str, Any]:
        self.calls.add_(1)
        y = self.norm(self.inner(x)) * self.scale + self.shift
        y = y * opts["gain"] + opts["more"][0]
        return {"y": y.relu() * factor, "sizes": (x.shape[0], None), "flat": [y.flatten(), "word"]}


def options() -> dict[str, Any]:
    torch.manual_seed(1)
    return {"gain": torch.rand(8), "more": (torch.rand(8),)}


def exported(module: torch.nn.Module) -> ExportedProgram:
    shapes = {"x": {0: BATCH}, "opts": {"gain": None, "more": (None,)}, "factor": None}
    return export(
        module, (torch.randn(4, 6),), {"opts": options(), "factor": 3}, dynamic_shapes=shapes, strict=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().train()


@pytest.fixture(scope="module")
def path(folder: Path, net: Net) -> Path:
    return braze.aot_compile(exported(net), folder / "net.pt2")


@pytest.fixture(scope="module")
def bare(folder: Path, net: Net) -> Path:
    """Without weights, for one target."""
    return braze.aot_compile(exported(net), folder / "bare.pt2", targets=("host",), weights=False)


def agree(loaded: Loaded, module: torch.nn.Module, batch: int) -> None:
    x, opts = torch.randn(batch, 6), options()
    same(loaded(x, opts=opts, factor=3), module(x, opts, factor=3))


def same(found: Any, expected: Any) -> None:
    assert tree_structure(found) == tree_structure(expected)
    for one, other in zip(tree_leaves(found), tree_leaves(expected)):
        if isinstance(other, torch.Tensor):
            torch.testing.assert_close(one, other)
        else:
            assert one == other


# -- calls ------------------------------------------------------------------------------------------------
def test_a_package_computes_what_the_module_does_and_updates_its_buffers(path: Path, net: Net) -> None:
    loaded, twin = braze.aot_load(path), copy.deepcopy(net)
    for batch in (2, 7, 64):
        agree(loaded, twin, batch)
    assert loaded.state["calls"].item() == 3
    for name, tensor in twin.state_dict().items():
        torch.testing.assert_close(loaded.state[name], tensor)
    assert braze.aot_load(path).state["calls"].item() == 0, "calls of one copy are not seen by another"


def test_arguments_by_position_and_by_name(path: Path, net: Net) -> None:
    loaded, opts, x = braze.aot_load(path), options(), torch.randn(3, 6)
    expected = copy.deepcopy(net)(x, opts)["y"]
    for args, kwargs in (
        ((x,), {"opts": opts, "factor": 3}),
        ((), {"x": x, "opts": opts, "factor": 3}),
        ((), {"factor": 3, "opts": dict(reversed(opts.items())), "x": x}),
    ):
        torch.testing.assert_close(loaded(*args, **kwargs)["y"], expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.randn(1, 6)}, InputMismatchError, "size 0 of x has to be 2 to 64, but is 1"),
        ({"x": torch.randn(65, 6)}, InputMismatchError, "size 0 of x has to be 2 to 64, but is 65"),
        ({"x": torch.randn(4, 5)}, InputMismatchError, r"this x: its sizes are \[4, 5\], and not \[any, 6\]"),
        ({"x": torch.randn(4, 6, 1)}, InputMismatchError, "this x: it has 3 dimensions"),
        ({"x": torch.randn(4, 6).double()}, InputMismatchError, "this x: its dtype is torch.float64"),
        ({"x": [1, 2]}, InputMismatchError, "this x: it is of type list, and not a tensor"),
        ({"factor": 4}, InputMismatchError, "factor is part of the program: it has to be 3, but is 4"),
        ({"factor": 3.0}, InputMismatchError, "has to be 3, but is 3.0"),
        ({"opts": {"gain": torch.ones(8)}}, ValueError, "opts has to have the keys"),
        ({"opts": {"gain": torch.ones(8), "more": [1]}}, TypeError, r"opts\['more'\] has to be a tuple"),
        ({"opts": {"gain": torch.ones(7), "more": (torch.ones(8),)}}, InputMismatchError, r"opts\['gain'\]"),
        ({"extra": 1}, TypeError, "no argument 'extra'"),
    ],
)
def test_wrong_arguments_are_named(
    path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    good = {"x": torch.randn(4, 6), "opts": options(), "factor": 3}
    with pytest.raises(error, match=message):
        braze.aot_load(path)(**{**good, **change})


def test_missing_and_surplus_arguments(path: Path) -> None:
    loaded = braze.aot_load(path)
    with pytest.raises(TypeError, match="lacks its argument 'x'"):
        loaded(opts=options(), factor=3)
    with pytest.raises(TypeError, match="lacks its keyword argument 'factor'"):
        loaded(torch.randn(4, 6), opts=options())
    with pytest.raises(TypeError, match="takes 1 positional arguments, and was given 2"):
        loaded(torch.randn(4, 6), options(), factor=3)


def test_arguments_that_lie_otherwise_in_memory(path: Path, net: Net) -> None:
    loaded, opts = braze.aot_load(path), options()
    x = torch.randn(6, 4).t()
    same(loaded(x, opts=opts, factor=3), copy.deepcopy(net)(x, opts, factor=3))


class Writes(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2)
        return x + y


def test_arguments_that_the_program_writes_to(folder: Path) -> None:
    program = export(Writes(), (torch.randn(3, 4), torch.randn(3, 4)))
    loaded = braze.aot_load(braze.aot_compile(program, folder / "writes.pt2", targets=("host",)))
    for make in (lambda: torch.randn(3, 4), lambda: torch.randn(4, 3).t()):
        x, y = make(), torch.randn(3, 4)
        before = x.clone()
        torch.testing.assert_close(loaded(x, y), before * 2 + y)
        torch.testing.assert_close(x, before * 2)


def test_arguments_that_are_negated_lazily(folder: Path, path: Path, net: Net) -> None:
    """Their memory holds the numbers with the other sign."""
    x = torch.randn(4, 6, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    same(braze.aot_load(path)(x, opts=options(), factor=3), copy.deepcopy(net)(x, options(), factor=3))
    program = export(Writes(), (torch.randn(3, 4), torch.randn(3, 4)))
    loaded = braze.aot_load(braze.aot_compile(program, folder / "negated.pt2", targets=("host",)))
    with pytest.raises(InputMismatchError, match="writes to x, which is negated"):
        loaded(x[:3, :4], torch.randn(3, 4))


Pair = namedtuple("Pair", "left right")


class Trees(torch.nn.Module):
    def forward(self, pair: Any, items: Any, table: Any) -> Any:
        total = pair.left + pair.right + items[0] + items[1][0] + table["b"] - table["a"]
        return Pair(total, [total, {"k": (total,)}]), OrderedDict(z=total, y=None)


def test_containers_of_every_kind(folder: Path) -> None:
    torch.utils._pytree._register_namedtuple(Pair, serialized_type_name="tests.artifact.Pair")
    t = [torch.randn(3) for _ in range(6)]
    args = (Pair(t[0], t[1]), [t[2], (t[3],)], OrderedDict(a=t[4], b=t[5]))
    program = export(Trees(), args)
    loaded = braze.aot_load(braze.aot_compile(program, folder / "trees.pt2", targets=("host",)))
    found, expected = loaded(*args), Trees()(*args)
    assert type(found[0]) is Pair and type(found[1]) is OrderedDict
    same(found, expected)


def test_numbers_that_are_arguments(folder: Path) -> None:
    class Numbers(torch.nn.Module):
        def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
            return x * n + torch.arange(n, dtype=x.dtype).sum()

    program = export(Numbers(), (torch.randn(4), 5), dynamic_shapes=(None, Dim.DYNAMIC), strict=False)
    loaded = braze.aot_load(braze.aot_compile(program, folder / "numbers.pt2", targets=("host",)))
    x = torch.randn(4)
    for n in (3, 8):
        torch.testing.assert_close(loaded(x, n), Numbers()(x, n))
    with pytest.raises(InputMismatchError, match="n has to be an int"):
        loaded(x, 2.5)


def test_two_packages_and_many_threads(path: Path, bare: Path, net: Net) -> None:
    twin = copy.deepcopy(net).eval()
    one = braze.aot_load(braze.aot_compile(exported(twin), bare.with_name("eval.pt2"), targets=("host",)))
    other = braze.aot_load(bare).bind(copy.deepcopy(net))
    inputs = [torch.randn(batch, 6) for batch in range(2, 34)]
    opts = options()
    with torch.no_grad():
        expected = [twin(x, opts)["y"] for x in inputs]
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for x, y in zip(inputs, expected):
                torch.testing.assert_close(one(x, opts=opts, factor=3)["y"], y)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for x in inputs:
        other(x, opts=opts, factor=3)
    for thread in threads:
        thread.join()
    assert not problems and other.state["calls"].item() == len(inputs)


def test_modes_of_the_caller_do_not_change_the_program(path: Path, net: Net) -> None:
    loaded, twin, opts, x = braze.aot_load(path), copy.deepcopy(net), options(), torch.randn(5, 6)
    expected = twin(x, opts)["y"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loaded(x, opts=opts, factor=3)["y"], expected)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x, opts=opts, factor=3)["y"], expected)
    y = loaded(x.requires_grad_(), opts=opts, factor=3)["y"]
    assert not y.requires_grad and torch.is_grad_enabled()
    with pytest.raises(InputMismatchError):
        loaded(torch.randn(5, 7), opts=opts, factor=3)
    assert torch.is_grad_enabled()


# -- weights ----------------------------------------------------------------------------------------------
def test_weights_can_be_left_out_and_bound(bare: Path, net: Net) -> None:
    loaded = braze.aot_load(bare)
    assert set(loaded.unbound) == set(net.state_dict())
    with pytest.raises(PackageError, match="8 weights are not bound"):
        loaded(torch.randn(4, 6), opts=options(), factor=3)
    twin = copy.deepcopy(net)
    assert loaded.bind(twin.state_dict()) is loaded and not loaded.unbound
    agree(loaded, copy.deepcopy(net), 4)
    assert twin.calls.item() == 1, "a bound tensor is shared"
    assert loaded.state["inner.weight"].data_ptr() == twin.inner.weight.data_ptr()


def test_one_weight_is_swapped(path: Path, net: Net) -> None:
    loaded, twin = braze.aot_load(path), copy.deepcopy(net)
    with torch.no_grad():
        twin.inner.weight.copy_(torch.randn(8, 6))
    loaded.bind({"inner.weight": twin.inner.weight})
    agree(loaded, twin, 5)
    wide = torch.randn(6, 8).t()  # other strides: taken over as a copy
    loaded.bind({"inner.weight": wide})
    with torch.no_grad():
        twin.inner.weight.copy_(wide)
    agree(loaded, twin, 5)


def test_weights_are_described(path: Path, bare: Path) -> None:
    for loaded in (braze.aot_load(path), braze.aot_load(bare)):
        weight = loaded.weights["norm.running_mean"]
        assert (weight.kind, weight.sizes, weight.mutated, weight.persistent) == ("buffer", (8,), True, True)
        assert loaded.weights["shift"].kind == "constant" and not loaded.weights["scale"].persistent
        assert "shift" in loaded.state and "norm.running_mean" in repr(loaded.weights.keys())


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ({"inner.weight": torch.zeros(8, 7)}, InputMismatchError, "sizes"),
        ({"inner.weight": torch.zeros(8, 6).double()}, InputMismatchError, "dtype"),
        ({"inner.weight": 3}, InputMismatchError, "has to be a tensor"),
        ({"outer.weight": torch.zeros(1)}, PackageError, "no weight 'outer.weight'"),
    ],
)
def test_what_is_no_such_weight(
    path: Path, source: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        braze.aot_load(path).bind(source)
    braze.aot_load(path).bind({"outer.weight": torch.zeros(1)}, strict=False)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(11, 16)
        self.head = torch.nn.Linear(16, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids))


def test_tied_weights_are_one(folder: Path) -> None:
    module, ids = Tied(), torch.tensor([[1, 5, 3]])
    target = braze.aot_compile(export(module, (ids,)), folder / "tied.pt2", targets=("host",))
    loaded = braze.aot_load(target)
    assert len(loaded.weights) == 1 and set(loaded.state) == {"table.weight", "head.weight"}
    torch.testing.assert_close(loaded(ids), module(ids))
    new = torch.randn(11, 16)
    loaded.bind({"head.weight": new})
    torch.testing.assert_close(loaded(ids), new[ids] @ new.t())
    with pytest.raises(PackageError, match="one tensor in this program, and two here"):
        loaded.bind({"head.weight": new, "table.weight": new.clone()})


# -- the file ---------------------------------------------------------------------------------------------
def test_the_archive_is_one_of_torch_exports(path: Path) -> None:
    assert is_pt2_package(str(path))
    with PT2ArchiveReader(str(path)) as reader:
        names = reader.get_file_names()
        assert reader.archive_version() == 0
        assert b'"braze-package"' in reader.read_bytes("data/braze/model/manifest.json")
    assert {"data/weights/model.safetensors", "data/constants/model.safetensors"} <= set(names)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_extern_nodes_are_in_the_package(path: Path) -> None:
    from tests.artifact.extern_replay import rebuild

    rebuilt = rebuild(packages.open_package(path).read(packages.EXTERNS).decode())
    assert len(rebuilt) == 1 and rebuilt[0].sizes


def test_packing_twice_gives_the_same_file(folder: Path, net: Net) -> None:
    twin = copy.deepcopy(net)
    one = braze.aot_compile(exported(twin), folder / "one.pt2", targets=("generic",), weights=False)
    opened = packages.open_package(one)
    model, again = opened.model(), folder / "again.pt2"
    tensors = opened.tensors(model, verify=True)
    graph, nodes = opened.read(packages.GRAPH), opened.read(packages.EXTERNS).decode()
    packages.write_package(again, model, graph, nodes, tensors, weights=False)
    assert again.read_bytes() == one.read_bytes()


def test_what_cannot_be_packed(folder: Path, net: Net) -> None:
    with pytest.raises(PackageError, match="at least one target"):
        braze.aot_compile(exported(net), folder / "x.pt2", targets=())
    with pytest.raises(ConfigError, match="the name of a CPU, not 'x86-64-v33'"):
        braze.aot_compile(exported(net), folder / "x.pt2", targets="x86-64-v33")
    with pytest.raises(ConfigError, match="no option 'spede'"):
        braze.aot_compile(exported(net), folder / "x.pt2", options={"spede": 1})
    assert not (folder / "x.pt2").exists()
    assert not [p for p in folder.iterdir() if p.suffix == ".part"]


# -- targets ----------------------------------------------------------------------------------------------
@pytest.fixture
def without_avx512() -> Iterator[None]:
    """This machine as it would be without AVX-512."""
    real = host._host
    name, features = real()
    masked = frozenset(f for f in features if not f.startswith("avx512"))
    host._host = lambda: (name, masked)  # type: ignore[assignment]
    try:
        yield
    finally:
        host._host = real


def test_the_best_target_is_picked(path: Path) -> None:
    features = host._host()[1]
    best = "x86-64-v4" if "avx512vl" in features else "x86-64-v3"
    assert braze.aot_load(path).target == best


def test_without_avx512_the_other_target_is_picked(path: Path, net: Net, without_avx512: None) -> None:
    loaded = braze.aot_load(path)
    assert loaded.target == "x86-64-v3"
    agree(loaded, copy.deepcopy(net), 33)


def test_a_target_that_this_machine_lacks_is_compiled_for_it(
    folder: Path, net: Net, without_avx512: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_engine, "host_target", lambda: named_target("x86-64-v2"))
    target = braze.aot_compile(exported(net), folder / "v4.pt2", targets=("x86-64-v4",))
    loaded = braze.aot_load(target)
    assert loaded.target == "x86-64-v2"
    agree(loaded, copy.deepcopy(net), 33)


# -- trust ------------------------------------------------------------------------------------------------
def test_signatures(path: Path, folder: Path, net: Net) -> None:
    signed = folder / "signed.pt2"
    signed.write_bytes(path.read_bytes())
    mine, theirs = KeyRing(folder / "mine"), KeyRing(folder / "theirs")
    key = mine.generate("me")
    with pytest.raises(SignatureError, match="not signed"):
        braze.aot_load(signed, require_signature=True, keyring=mine)
    assert packages.sign_package(signed, mine).id == key.id
    agree(braze.aot_load(signed, require_signature=True, keyring=mine), copy.deepcopy(net), 3)
    agree(braze.aot_load(signed), copy.deepcopy(net), 3)
    with pytest.raises(SignatureError, match="not trusted"):
        braze.aot_load(signed, require_signature=True, keyring=theirs)
    theirs.trust(key.text)
    assert packages.open_package(signed).verify_signature(theirs).name == "me"
    theirs.generate("them")
    packages.sign_package(signed, theirs)
    assert len(packages.open_package(signed).signers) == 2
    agree(braze.aot_load(signed, require_signature=True, keyring=mine), copy.deepcopy(net), 3)


def test_a_signature_covers_the_weights_too(path: Path, folder: Path) -> None:
    ring = KeyRing(folder / "ring")
    ring.generate("me")
    signed = folder / "changed.pt2"
    signed.write_bytes(path.read_bytes())
    packages.sign_package(signed, ring)
    data = bytearray(signed.read_bytes())
    member = packages.open_package(signed).members[packages.WEIGHTS]
    data[member.offset + member.size - 3] ^= 1
    signed.write_bytes(data)
    with pytest.raises(ArtifactError, match="not what the manifest says"):
        braze.aot_load(signed, require_signature=True, keyring=ring)
    with pytest.raises(ArtifactError, match="not what the manifest says"):
        braze.aot_load(signed)
    braze.aot_load(signed, verify_weights=False)
