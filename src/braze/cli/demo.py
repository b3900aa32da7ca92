"""``braze demo``: a transformer through eager PyTorch, Braze and TorchInductor, each in a fresh process.

A file of its own: each command has one.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from braze.cli import demo_model, demo_view
from braze.cli.demo_measure import Measured, has_cpp_compiler, measure
from braze.errors import BrazeError

__all__ = ["demo"]


@click.command()
@click.option(
    "--inductor/--no-inductor",
    default=None,
    help="Compare with TorchInductor too; left open: where a C++ compiler is found.",
)
def demo(inductor: bool | None) -> None:
    """Compile a small BERT and show what was gained.

    Each way of running the model gets a fresh process with empty caches. "First call" is everything from
    torch.compile to the first result; "a call" is the median of calls measured in turns.
    """
    if importlib.util.find_spec("transformers") is None:
        raise BrazeError("the demo needs transformers", hint='pip install "braze[demo]"')
    console = Console()
    rows = [Measured("eager", "eager PyTorch"), Measured("braze", "braze")]
    if inductor or (inductor is None and has_cpp_compiler()):
        rows.append(Measured("inductor", "TorchInductor"))
    started = time.monotonic()
    console.print(demo_view.heading(demo_model.describe()))
    with tempfile.TemporaryDirectory(prefix="braze-demo-") as name:
        if console.is_terminal:
            with Live(
                get_renderable=lambda: demo_view.comparison(rows),
                console=console,
                refresh_per_second=8,
                transient=True,
            ):
                report = measure(rows, Path(name), lambda _: None)
        else:
            report = measure(rows, Path(name), lambda text: console.print(f"  {text}", style="dim"))
    console.print(demo_view.comparison(rows))
    for measured in rows:
        if measured.failed is not None:
            console.print(demo_view.failure(measured.label, measured.failed))
    if report is not None:
        console.print(demo_view.kernels(report))
    console.print(demo_view.closing(rows, time.monotonic() - started))
    if any(measured.failed is not None for measured in rows if measured.way != "inductor"):
        sys.exit(1)
