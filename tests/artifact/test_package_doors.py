"""What `aot_compile`, `aot_load` and `bind` say to what they are not for."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram, export

import braze
from braze.errors import ArtifactError, BrazeError, ConfigError, InputMismatchError, PackageError


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    return export(Model(), (torch.randn(2, 4),))


@pytest.fixture(scope="module")
def package(program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return braze.aot_compile(program, tmp_path_factory.mktemp("doors") / "model.pt2", targets="host")


@pytest.fixture
def never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with an argument is said before anything is compiled."""

    def compiled(*args: Any) -> None:
        raise AssertionError("it was compiled")

    monkeypatch.setattr("braze.frontend.aot_compile.served_by", compiled)


NO_PROGRAMS: dict[str, Callable[[ExportedProgram], Any]] = {
    "a module": lambda program: Model(),
    "a module, uncalled": lambda program: Model,
    "its graph": lambda program: program.graph_module,
    "its module": lambda program: program.module(),
    "a function": lambda program: torch.relu,
    "a path": lambda program: Path("model.pt2"),
    "nothing": lambda program: None,
    "a number": lambda program: 3,
    "a state dict": lambda program: program.state_dict,
}


@pytest.mark.parametrize("what", NO_PROGRAMS)
def test_what_is_no_program(program: ExportedProgram, tmp_path: Path, what: str) -> None:
    with pytest.raises(TypeError, match=r"torch\.export"):
        braze.aot_compile(NO_PROGRAMS[what](program), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("never_compiled")
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"targets": ("sm_80",)}, ConfigError, "the name of a CPU, not 'sm_80'"),
        ({"targets": ("x86-64-v3", "x86_64-v4")}, ConfigError, "the name of a CPU, not 'x86_64-v4'"),
        ({"targets": "HOST"}, ConfigError, "the name of a CPU, not 'HOST'"),
        ({"targets": ()}, PackageError, "at least one target"),
        ({"targets": None}, TypeError, "names of CPUs"),
        ({"targets": 3}, TypeError, "names of CPUs"),
        ({"targets": {"host": 1}}, TypeError, "names of CPUs"),
        ({"targets": ("host", 3)}, TypeError, "the name of a CPU"),
        ({"path": None}, TypeError, "the name of a file"),
        ({"path": b"model.pt2"}, TypeError, "the name of a file"),
        ({"path": io.BytesIO()}, TypeError, "the name of a file"),
        ({"path": ""}, ValueError, "the name of a file"),
        ({"path": "."}, IsADirectoryError, "a package is a file"),
        ({"path": "nowhere/at/all.pt2"}, FileNotFoundError, "is not there"),
        ({"weights": "no"}, TypeError, "weights has to be True or False"),
        ({"options": "strict"}, TypeError, "names with values"),
        ({"options": [("strict", True)]}, TypeError, "names with values"),
        ({"options": {3: True}}, TypeError, "names with values"),
        ({"options": {"stric": True}}, ConfigError, "no option 'stric'"),
        ({"options": {"strict": "yes"}}, ConfigError, "'strict' must be True or False"),
        ({"options": {"target_cpu": "haswell"}}, ConfigError, "target_cpu has no meaning"),
    ],
)
def test_arguments_of_a_wrong_kind(
    program: ExportedProgram,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=text):
        braze.aot_compile(program, **{"path": "model.pt2", **arguments})


def test_a_target_as_text_is_one(package: Path, program: ExportedProgram, tmp_path: Path) -> None:
    path = braze.aot_compile(program, str(tmp_path / "model.pt2"), targets="generic")
    assert path == tmp_path / "model.pt2"
    x = torch.randn(2, 4)
    torch.testing.assert_close(braze.aot_load(path)(x), braze.aot_load(package)(x))


def _again(package: Path, path: Path) -> None:
    with zipfile.ZipFile(package) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in whole.namelist():
            file.writestr(name, whole.read(name))


def _zip(package: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("read.me", "no model")


def _half(package: Path, path: Path) -> None:
    content = package.read_bytes()
    path.write_bytes(content[: len(content) // 2])


FILES: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "an exported program": (
        lambda package, path: torch.export.save(export(Model(), (torch.randn(2, 4),)), path),
        r"this is a torch\.export archive",
    ),
    "weights": (lambda package, path: torch.save(Model().state_dict(), path), r"a file of torch\.save"),
    "a pickle": (
        lambda package, path: torch.save(Model().state_dict(), path, _use_new_zipfile_serialization=False),
        "a pickle",
    ),
    "a script": (lambda package, path: torch.jit.save(torch.jit.script(Model()), path), "TorchScript"),
    "a zip archive": (_zip, "a zip archive, and not a package"),
    "text": (lambda package, path: path.write_text("hello"), "not a zip archive"),
    "nothing": (lambda package, path: path.write_bytes(b""), "the file is empty"),
    "a library": (lambda package, path: path.write_bytes(b"\x7fELF" + bytes(60)), "a shared library"),
    "half of it": (_half, "the end of the file is missing"),
    "all but the end": (
        lambda package, path: path.write_bytes(package.read_bytes()[:-7]),
        "the end of the file is missing",
    ),
    "written by another tool": (_again, "not a package, or a damaged one"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_no_packages(package: Path, tmp_path: Path, what: str) -> None:
    make, text = FILES[what]
    make(package, tmp_path / "file.pt2")
    with pytest.raises(ArtifactError, match=text) as caught:
        braze.aot_load(tmp_path / "file.pt2")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"path": None}, TypeError, "the name of a file"),
        ({"path": io.BytesIO(b"PK")}, TypeError, "the name of a file"),
        ({"path": b"PK\x03\x04"}, TypeError, "the name of a file"),
        ({"path": "PK\x03\x04\0"}, ValueError, "a zero byte"),
        ({"path": "."}, IsADirectoryError, "a package is a file"),
        ({"path": "nowhere.pt2"}, FileNotFoundError, "nowhere.pt2"),
        ({"require_signature": "ada"}, TypeError, "require_signature has to be True or False"),
        ({"verify_weights": None}, TypeError, "verify_weights has to be True or False"),
        ({"keyring": 3}, TypeError, "keyring has to be"),
    ],
)
def test_loading_with_arguments_of_a_wrong_kind(
    package: Path, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        braze.aot_load(**{"path": package, **arguments})


SOURCES: dict[str, tuple[Any, type[Exception], str]] = {
    "shape": (
        {"linear.weight": torch.zeros(3, 4)},
        InputMismatchError,
        r"the sizes \(4, 4\), not \(3, 4\)",
    ),
    "dtype": ({"linear.bias": torch.zeros(4).double()}, InputMismatchError, "have the dtype torch.float32"),
    "device": (
        {"linear.bias": torch.zeros(4, device="meta")},
        InputMismatchError,
        "device cpu, not meta",
    ),
    "layout": ({"linear.weight": torch.eye(4).to_sparse()}, InputMismatchError, "the layout torch.strided"),
    "array": (
        {"linear.bias": torch.zeros(4).numpy()},
        InputMismatchError,
        "is of type ndarray",
    ),
    "name": ({"linear.wieght": torch.zeros(4, 4)}, PackageError, "no weight 'linear.wieght'"),
    "number as a name": ({3: torch.zeros(4)}, PackageError, "no weight 3"),
    "another module": (torch.nn.Conv2d(3, 3, 3), PackageError, "Conv2d has no weight of the model's"),
    "a tensor": (torch.zeros(4), TypeError, "a state dict or a module"),
    "a list": ([torch.zeros(4)], TypeError, "a state dict or a module"),
    "nothing": (None, TypeError, "a state dict or a module"),
}


@pytest.mark.parametrize("what", SOURCES)
def test_weights_that_do_not_fit(package: Path, what: str) -> None:
    source, error, text = SOURCES[what]
    loaded = braze.aot_load(package)
    before: Mapping[str, torch.Tensor] = dict(loaded.state)
    with pytest.raises(error, match=text) as caught:
        loaded.bind(source)
    if isinstance(caught.value, BrazeError):
        assert caught.value.hint and not re.search("torch.compile", caught.value.hint)
    assert all(loaded.state[name] is tensor for name, tensor in before.items())
