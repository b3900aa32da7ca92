"""What a compilation leaves behind for people who look into it: a folder for each graph, lines in the log.

``BRAZE_DEBUG=<folder>`` (option ``debug_dir``) asks for the folders. ``TORCH_LOGS=braze`` asks for a line
about each graph, and ``TORCH_LOGS=+braze`` for a folder too, a temporary one if no other is named. Files are
written as the compilation goes, so that one that fails leaves everything up to there::

    graph0_inference/
      fx_graph.py       the ATen graph that came in
      ir.txt            what lowering made of it
      schedule.txt      fused kernels in order, and the memory plan
      refusals.txt      what was not fused with what, and why
      plan.txt          the launch plan
      call.py           the Python function made of the plan, where it was made
      fallbacks.txt     what eager PyTorch runs, and why
      summary.txt       counts, and the seconds of each phase
      kernels/NAME.*    bodies (txt), loop plan, program, and, on a CPU, LLVM IR (ll) and assembly (s)
      driver.ll         on a CPU, the segments, which call the kernels
      error.txt         only where the compilation failed
"""

from __future__ import annotations

import logging
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from torch.fx import GraphModule

from braze.compile.fx_compile import CompileRequest
from braze.compile.report import GraphReport
from braze.errors import BrazeError
from braze.ops.kernel import Kernel
from braze.runtime.callgen import source_of
from braze.runtime.engines import engine
from braze.words import count, phases

if TYPE_CHECKING:  # whoever only reads files need not load the compiler
    from braze.codegen.backends import Code

__all__ = ["DebugFolder", "log_compiled", "new_folder", "summary", "temporary"]

_log = logging.getLogger("braze")


class DebugFolder:
    """The folder of one graph. Where nobody asked for one, or files cannot be written, ``path`` is None and
    every method does nothing."""

    def __init__(self, name: str, directory: str | None) -> None:
        self.path: Path | None = None
        self._code: Code | None = None
        if directory is not None:
            try:
                self.path = new_folder(Path(directory).expanduser(), name)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """The graph is worth more than what is to be seen of it."""
        _log.warning("files about a graph cannot be written: %s", error)
        self.path = None

    @classmethod
    def of(cls, request: CompileRequest) -> DebugFolder:
        """The folder that the options, or the log's level, ask for; with the graph that came in."""
        directory = request.config.debug_dir
        # The logger's own level: somebody who sets the root's to DEBUG has not asked for files.
        if directory is None and 0 < _log.level <= logging.DEBUG:
            directory = temporary()
        folder = cls(request.name, directory)
        if folder.path is not None:
            folder.write("fx_graph.py", _readable(request.gm))
        return folder

    def write(self, name: str, content: object) -> None:
        """Write the printed form of something to a file."""
        if self.path is not None:
            target = self.path / name
            text = str(content)
            try:
                target.parent.mkdir(exist_ok=True)
                target.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
            except OSError as error:
                self._give_up(error)

    def write_lines(self, name: str, lines: Iterable[object], none: str) -> None:
        """Write one thing on each line; ``none`` where there are none."""
        if self.path is not None:
            self.write(name, "\n".join(map(str, lines)) or none)

    def write_kernels(self, code: Code) -> None:
        """The kernels up to their backend's text, before that is compiled."""
        if self.path is not None:
            for kind, part in code.parts.items():
                suffix = engine(kind).source_suffix
                for report in part.reports:
                    name = report.kernel.name
                    self.write(f"kernels/{name}.txt", _with_sources(report.kernel))
                    self.write(f"kernels/{name}.plan", report.loop_plan)
                    self.write(f"kernels/{name}.program", report.program() or "")
                    self.write(f"kernels/{name}.{suffix}", report.code)
                for file, text in part.files.items():
                    self.write(file, text)
            self._code = code

    def finish(self, report: GraphReport) -> None:
        """What is known once the graph is compiled."""
        if self.path is None:
            return
        self.write_lines("refusals.txt", report.schedule.refusals, "everything was fused that could be")
        self.write_lines("fallbacks.txt", report.fallbacks, "nothing runs as eager PyTorch")
        if report.call is not None:
            self.write("call.py", source_of(report.call))
        for kind, part in self._code.parts.items() if self._code is not None else ():
            for kernel in part.reports:
                try:
                    text = kernel.assembly()
                except BrazeError as error:
                    text = f"# {error}"
                self.write(f"kernels/{kernel.kernel.name}.{engine(kind).listing_suffix}", text)
        self.write("summary.txt", summary(report))

    def fail(self, error: BaseException) -> None:
        """The compilation ended here."""
        if self.path is not None:
            self.write("error.txt", "".join(traceback.format_exception(error)))


def summary(report: GraphReport) -> str:
    """Counts and seconds, on two lines."""
    segments = len(report.schedule.steps)
    counts = [
        count(len(report.kernels), "kernel"),
        count(len(report.externs), "extern"),
        count(len(report.fallbacks), "fallback"),
        count(len(report.schedule.refusals), "refusal"),
    ]
    total = sum(report.seconds.values())
    return (
        f"{report.name}: {', '.join(counts)} in {count(segments, 'step')}; "
        f"workspace {report.schedule.memory.size} bytes\n"
        f"  compiled in {1e3 * total:.0f} ms ({phases(report.seconds)})"
    )


def log_compiled(report: GraphReport, folder: DebugFolder) -> None:
    """Lines in the log for a compiled graph."""
    if _log.isEnabledFor(logging.INFO):
        where = "" if folder.path is None else f"\n  written to {folder.path}"
        _log.info("%s%s", summary(report), where)


def _readable(gm: GraphModule) -> str:
    """The graph as Python, each line under the user's line that it comes from."""
    return str(gm.print_readable(print_output=False, include_stride=True))


def _with_sources(kernel: Kernel) -> str:
    lines: Sequence[str] = [f"# {source}" for source in kernel.sources]
    return "\n".join([*lines, str(kernel)])


def new_folder(directory: Path, name: str) -> Path:
    """A folder of that name, numbered where a run before this one left one: nothing is ever overwritten."""
    directory.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = directory / (name if number == 1 else f"{name}.{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


@lru_cache(maxsize=1)
def temporary() -> str:
    """This process's folder for what somebody wants to see and named no folder for."""
    return tempfile.mkdtemp(prefix="braze-debug-")
