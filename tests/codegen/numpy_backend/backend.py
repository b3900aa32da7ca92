"""The backend and its engine. The object code is the source itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from braze.artifact.compiled_graph import Module
from braze.codegen.backend import Job, KernelCall, KernelFailure, Loops
from braze.config import Config
from braze.errors import ArtifactError, CodegenError, LinkError
from braze.ops.kernel import Kernel
from braze.runtime.checks import Check
from braze.runtime.engine import Launcher, MadeFor
from braze.runtime.plan import ErrorEntry, Plan
from braze.schedule.limits import Limits
from tests.codegen.numpy_backend import support
from tests.codegen.numpy_backend.render import render

KIND = "numpy"
DEVICE = "npy"
STREAM = 7

LAUNCHED: list[str] = []
"""The entries that were launched in this process."""


class Loaded:
    """The functions of some source."""

    def __init__(self, objects: Sequence[bytes], plan: Plan) -> None:
        self._names: dict[str, Any] = {"np": np, **vars(support)}
        for text in objects:
            exec(compile(text.decode(), f"<{KIND}>", "exec"), self._names)
        for entry in plan.launched(KIND):
            if entry not in self._names:
                raise LinkError(f"the numpy source defines no {entry!r}")

    def launcher(self, entry: str) -> Launcher:
        function = self._names[entry]

        def launch(*args: Any) -> None:
            assert args[-1] in (None, STREAM)
            LAUNCHED.append(entry)
            with np.errstate(all="ignore"):
                function(*args)

        return launch


class NumpyEngine:
    kind = KIND
    devices = (DEVICE,)
    fuses = False
    source_suffix = "py"
    listing_suffix = "dis"

    def index_bits(self, extent: int) -> int:
        return 64

    def tools(self) -> Mapping[str, str]:
        return {"numpy": np.__version__}

    def key_parts(self) -> tuple[tuple[str, str], ...]:
        return (("target.numpy", "any"),)

    def here(self) -> MadeFor:
        return MadeFor(KIND, "numpy", {"level": "1"})

    @contextmanager
    def making_for(self, host: MadeFor) -> Iterator[None]:
        self.runs(host)
        yield

    def check(self, options: Config) -> None:
        return

    def runs(self, made_for: MadeFor) -> bool:
        if made_for.traits.keys() != {"level"}:
            raise ArtifactError(f"no numpy is described by {dict(made_for.traits)}")
        return made_for.traits["level"] == "1"

    def demands(self, made_for: MadeFor) -> tuple[int, ...]:
        return (int(made_for.traits["level"]),)

    def width(self, made_for: MadeFor) -> str:
        return "arrays"

    def load(self, objects: Sequence[bytes], plan: Plan) -> Loaded:
        return Loaded(objects, plan)

    def adapted(self, made_for: MadeFor, sources: Sequence[tuple[bytes, int]]) -> tuple[MadeFor, list[bytes]]:
        return self.here(), [text for text, _ in sources]

    def stream(self) -> int:
        return STREAM


@dataclass(frozen=True)
class Report:
    kernel: Kernel
    symbol: str
    code: str

    @property
    def loop_plan(self) -> object:
        return f"arrays for each of {[str(v.size) for v in self.kernel.outer]}"

    def program(self) -> None:
        return None

    def memory(self, values: Sequence[int]) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """A launch has the buffers of its kernel in order, then its sizes."""
        buffers = [b.name for b in self.kernel.buffers if b.role != "local"]
        sizes = [s.name for s in self.kernel.sizes]
        return (
            dict(zip(buffers, values, strict=False)),
            dict(zip(sizes, values[len(buffers) :], strict=False)),
        )

    def loops(self) -> Loops:
        return Loops("array", "-")

    def assembly(self) -> str:
        raise CodegenError("numpy has no assembly")


@dataclass(frozen=True)
class Made:
    calls: tuple[tuple[KernelCall, ...], ...]
    errors: tuple[ErrorEntry, ...]
    reports: tuple[Report, ...]
    made_for: MadeFor
    opt_level: int

    @property
    def files(self) -> Mapping[str, str]:
        return {"all.py": "\n".join(report.code for report in self.reports)}

    def modules(self) -> tuple[Module, ...]:
        return tuple(Module(r.code.encode(), r.code.encode(), self.opt_level) for r in self.reports)


class NumpyBackend:
    kind = KIND
    engine = NumpyEngine()

    def limits(self) -> Limits:
        return Limits(
            buffers=16,
            stores=8,
            shared_elements=0,
            small_work=1 << 40,
            rows=1,
            local_bytes=1 << 30,
            alignment=16,
        )

    def generate(self, job: Job) -> Made:
        calls, reports, errors = [], [], []
        for segment in job.segments:
            own = []
            for item in segment.kernels:
                kernel = item.kernel
                entry = f"k{len(reports)}"
                try:
                    made = render(kernel, entry, job.first_error + len(errors))
                except Exception as error:
                    raise KernelFailure(kernel, error) from error
                for check in made.checks:
                    errors.append(ErrorEntry(job.first_error + len(errors), Check.decode(check)))
                outside = [b.name for b in kernel.buffers if b.role != "local"]
                local = [kernel.buffer(name) for name in made.local]
                own.append(
                    KernelCall(
                        kernel,
                        entry,
                        (*outside, *range(len(local))),
                        tuple(s.expr for s in kernel.sizes),
                        tuple(b.numel * b.dtype.itemsize for b in local),
                        tuple(v.size for v in kernel.outer),
                        streamed=kernel.device == DEVICE,
                        checked=bool(made.checks),
                    )
                )
                reports.append(Report(kernel, entry, made.text))
            calls.append(tuple(own))
        level = job.config.llvm_opt_level
        return Made(tuple(calls), tuple(errors), tuple(reports), self.engine.here(), level)

    def warm(self) -> None:
        return

    def quick(self, config: Config) -> Config | None:
        return None

    def improved(self, made_for: MadeFor, modules: Sequence[Module], config: Config) -> tuple[Module, ...]:
        return tuple(Module(m.object, m.ir, 3) for m in modules)

    def peak(self, threads: int) -> float | None:
        return None


NUMPY = NumpyBackend()
