"""docs/options.md has the table that `braze.config` makes."""

from __future__ import annotations

from braze import config
from braze.frontend.backend import MODES
from tests.source_tree import ROOT

PAGE = ROOT / "docs" / "options.md"


def table() -> str:
    """What the page says of every option. To bring the page up to date, put this in the place of its own."""
    lines = [
        "| option | variable | value | default | again | what it does |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for option in config.options():
        default = "by cores" if option.name == "llvm_workers" else repr(option.default).replace("'", "")
        again = "yes" if option.recompiles else ""
        values = option.expected.replace("|", "\\|")
        lines.append(f"| `{option.name}` | `{option.env}` | {values} | {default} | {again} | {option.doc} |")
    return "\n".join(lines)


def test_the_table_is_that_of_the_options() -> None:
    assert table() in PAGE.read_text("utf-8"), f"docs/options.md needs this table:\n{table()}"


def test_the_modes_are_those_that_there_are() -> None:
    text = PAGE.read_text("utf-8")
    for mode, changes in MODES.items():
        said = ", ".join(f"`{name}={value!r}`" for name, value in changes.items()) or "nothing"
        assert f"| `{mode}` | {said} |" in text
