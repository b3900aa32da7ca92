"""``braze package``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import braze
from braze import config
from braze.cache.keyring import KeyRing
from braze.cli.main import main


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 300)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor, *, scale: float) -> list[torch.Tensor]:
        self.seen += 1
        return [self.linear(x).relu() * scale]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        Model(), (torch.randn(4, 3),), {"scale": 2.0}, dynamic_shapes={"x": {0: batch}, "scale": None}
    )
    path = tmp_path_factory.mktemp("cli") / "model.pt2"
    return braze.aot_compile(program, path, targets=("generic", "x86-64-v3"), weights=False)


def run(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(a) for a in args], env={"COLUMNS": "140"})
    return done.exit_code, done.output


def test_show(made: Path) -> None:
    code, text = run("package", "show", made)
    assert code == 0
    for expected in (
        "made by braze",
        "2 <= s",
        "result[0]",
        "constant   2.0",
        "part of the program",
        "x86-64-v3",
        "256 bits",
        "aten.addmm.default",
        "4.80 kB",
        "bound after loading",
        "not signed",
    ):
        assert expected in text, expected
    assert "linear.weight" not in text
    code, text = run("package", "show", made, "-w")
    assert code == 0 and "linear.weight" in text and "[300, 3]" in text and "written to" in text


def test_show_as_json(made: Path) -> None:
    code, text = run("package", "show", made, "--json")
    found = json.loads(text)
    assert code == 0 and found["targets"] == ["x86-64", "x86-64-v3"] and not found["weights_inside"]
    assert [a["name"] for a in found["arguments"]] == ["x", "scale"]
    assert found["ranges"][0]["lower"] == 2 and found["ranges"][0]["upper"] == 64


def test_sign_and_verify(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "signed.pt2"
    path.write_bytes(made.read_bytes())
    with config.patch(keyring_dir=str(tmp_path / "ring")):
        code, text = run("package", "verify", path)
        assert code == 1 and "not signed" in text
        KeyRing().generate("me")
        for command in (("package", "sign"), ("cache", "sign")):
            code, text = run(*command, path)
            assert code == 0 and "signed" in text and "me" in text, text
        assert run("package", "verify", path)[0] == 0
        assert run("cache", "sign", "--check", path)[0] == 0
        assert "signed by me" in run("package", "show", path)[1]
        braze.aot_load(path, require_signature=True)
    with config.patch(keyring_dir=str(tmp_path / "another")):
        code, text = run("package", "verify", path)
        assert code == 1 and "not trusted" in text


def test_what_is_no_package(tmp_path: Path) -> None:
    path = tmp_path / "nothing.pt2"
    path.write_bytes(b"PK nothing")
    code, text = run("package", "show", path)
    assert code == 1 and "this is not a package, or a damaged one" in text
    assert run("package", "show", tmp_path / "absent")[0] == 2
