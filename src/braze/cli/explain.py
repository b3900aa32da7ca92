"""``braze explain``: what becomes of a function, as tables, or one kernel's code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

import braze
from braze.dtypes import SHORT_NAMES, dtype_named
from braze.errors import BrazeError

if TYPE_CHECKING:  # loading it loads torch, which `braze --help` does without
    from braze.inspect.explanation import Kernel

__all__ = ["explain", "parse_input", "resolve"]

_SHORT = {short: name for name, short in SHORT_NAMES.items()}
_TENSOR = re.compile(r"(\w+)\[([\d,\s]*)\]")


@click.command()
@click.argument("target", metavar="MODULE:FUNCTION")
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="VALUE", help="An argument, such as f32[64,128] or 0.5."
)
@click.option("--grad", is_flag=True, help="Floating-point inputs require gradients.")
@click.option("--kernel", "name", metavar="NAME", help="Show one kernel only: its name, or its place from 1.")
@click.option(
    "--show",
    type=click.Choice(["ir", "plan", "program", "code", "asm"]),
    default="ir",
    help="With --kernel: bodies, loop plan, program, the text that Braze wrote, or assembly.",
)
def explain(target: str, inputs: tuple[str, ...], grad: bool, name: str | None, show: str) -> None:
    """Compile a function, run it, and show what it became and where its time goes.

    MODULE is importable, or the path of a Python file. Inputs are tensors of random numbers, or Python
    literals:

        braze explain torch.nn.functional:gelu -i f32[1024,1024]

    A function of your own that takes no arguments and does what you want to know about needs no inputs.
    """
    function = resolve(target)
    arguments = [parse_input(text, grad=grad) for text in inputs]
    console = Console()
    with console.status("compiles and measures"):
        report = braze.explain(function, *arguments)
    if name is None:
        console.print(report)
        return
    kernel = _kernel(report.kernels, name)
    text = {
        "ir": lambda: kernel.ir,
        "plan": lambda: kernel.loop_plan,
        "program": lambda: kernel.program,
        "code": lambda: kernel.code,
        "asm": kernel.asm,
    }[show]()
    console.print(Text(text), soft_wrap=True)


def resolve(target: str) -> Callable[..., Any]:
    """The callable that ``MODULE:NAME`` or ``FILE.py:NAME`` means; NAME may have dots.

    Raises `BrazeError`."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise BrazeError(f"{target!r} names no function", hint="write MODULE:FUNCTION or FILE.py:FUNCTION")
    found: Any = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise BrazeError(f"there is no {name!r} in {place}") from None
    if not callable(found):
        raise BrazeError(f"{target} is a {type(found).__name__}, and cannot be called")
    function: Callable[..., Any] = found
    return function


def _load_module(name: str) -> Any:
    sys.path.insert(0, "")  # as ``python -m`` does: modules of the current folder
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BrazeError(f"cannot import {name}: {error}") from error
    finally:
        sys.path.remove("")


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BrazeError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


def parse_input(text: str, *, grad: bool = False) -> Any:
    """``f32[64,128]``: a tensor of random numbers, integers being from 0 to 9; anything else is a Python
    literal. Raises `BrazeError`."""
    torch = importlib.import_module("torch")  # heavy: loaded when there is something to make with it
    match = _TENSOR.fullmatch(text.strip())
    if match is None:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise BrazeError(
                f"{text!r} is not an input", hint="write a tensor as f32[64,128], or a Python literal"
            ) from None
    if match[1] not in _SHORT:
        raise BrazeError(f"{match[1]!r} is not a type of elements", hint="one of " + ", ".join(_SHORT))
    dtype = dtype_named(_SHORT[match[1]])
    sizes = [int(size) for size in match[2].split(",") if size.strip()]
    if dtype.is_floating_point:
        return torch.randn(sizes).to(dtype).requires_grad_(grad)
    return torch.randint(0, 2 if dtype is torch.bool else 10, sizes).to(dtype)


def _kernel(kernels: tuple[Kernel, ...], name: str) -> Kernel:
    if name.isdigit() and 0 < int(name) <= len(kernels):
        return kernels[int(name) - 1]
    for kernel in kernels:
        if name in kernel.names:
            return kernel
    names = ", ".join(kernel.name for kernel in kernels) or "there are none"
    raise BrazeError(f"there is no kernel {name!r}", hint=f"the kernels: {names}")
