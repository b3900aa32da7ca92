"""The `braze` command: a group of subcommands, each in its own file."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from braze import __version__
from braze.cli import cache_trust  # noqa: F401 - its commands are added to `cache`
from braze.cli.cache import cache
from braze.cli.demo import demo
from braze.cli.doctor import doctor
from braze.cli.explain import explain
from braze.cli.replay import replay
from braze.errors import BrazeError

__all__ = ["main"]


# Commands whose modules need PyTorch to be imported: by name, where they are.
_HEAVY = {"fuzz": "braze.cli.fuzz", "minify": "braze.cli.minify", "package": "braze.cli.package"}


class _Group(click.Group):
    """A group that shows a `BrazeError` as its message instead of a traceback, and loads commands that need
    PyTorch when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_HEAVY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _HEAVY:
            command: click.Command = getattr(importlib.import_module(_HEAVY[cmd_name]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrazeError as error:
            Console(stderr=True).print(Text.assemble(("braze: ", "bold red"), str(error)))
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="braze %(version)s")
def main() -> None:
    """Braze, a tensor compiler for PyTorch: torch.compile(model, backend="braze")."""


main.add_command(cache)
main.add_command(demo)
main.add_command(doctor)
main.add_command(explain)
main.add_command(replay)
