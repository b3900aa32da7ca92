"""The CPU's engine: object code for a processor, linked into the process."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from braze.config import Config
from braze.errors import ArtifactError
from braze.runtime import host
from braze.runtime.engine import MadeFor
from braze.runtime.linker import LinkedCode, link
from braze.runtime.plan import Plan
from braze.runtime.target import Target, current_target, host_target, making_for
from braze.runtime.workers.llvm import recompiled

__all__ = ["CPU_ENGINE", "CpuEngine", "made_for", "target_of"]

KIND = "cpu"


def made_for(target: Target) -> MadeFor:
    """A target, as an artefact says it."""
    return MadeFor(KIND, target.cpu, {"features": target.features, "lanes": str(target.lanes)})


def target_of(said: MadeFor) -> Target:
    """The target that an artefact names. Raises ``ArtifactError``."""
    traits = dict(said.traits)
    lanes = traits.pop("lanes", "")
    features = traits.pop("features", None)
    if said.kind != KIND or traits or features is None or lanes not in ("1", "2", "4", "8", "16"):
        raise ArtifactError(f"no CPU is described by {said.name!r} and {dict(said.traits)}")
    return Target(said.name, features, int(lanes))


class CpuEngine:
    """See `braze.runtime.engine.Engine`."""

    kind = KIND
    devices = ("cpu",)
    fuses = True
    source_suffix = "ll"
    listing_suffix = "s"

    def index_bits(self, extent: int) -> int:
        """64: addresses are that wide anyway."""
        return 64

    def tools(self) -> Mapping[str, str]:
        """Of the compiler."""
        return {"llvmlite": importlib.metadata.version("llvmlite")}

    def key_parts(self) -> tuple[tuple[str, str], ...]:
        """The target of the options that hold here."""
        target = current_target()
        return (
            ("target.cpu", f"{target.cpu}, {target.lanes} lanes"),
            ("target.features", target.features),
        )

    def here(self) -> MadeFor:
        """This machine's processor."""
        return made_for(host_target())

    def making_for(self, host: MadeFor) -> AbstractContextManager[None]:
        """Code for the host is code for that one."""
        return making_for(target_of(host))

    def check(self, options: Config) -> None:
        """That this machine can run what ``target_cpu`` asks for."""
        host.check_target(options)

    def demands(self, made_for: MadeFor) -> tuple[int, ...]:
        """The width of vectors, then the number of features."""
        return host.demands(target_of(made_for))

    def runs(self, made_for: MadeFor) -> bool:
        """Whether this machine's processor has all of that."""
        return host.can_run(target_of(made_for))

    def width(self, made_for: MadeFor) -> str:
        """Of its vectors."""
        return f"{target_of(made_for).lanes * 32} bits"

    def load(self, objects: Sequence[bytes], plan: Plan) -> LinkedCode:
        """Linked anew by each call."""
        return link(objects, exports=[*plan.entries, *plan.signatures])

    def adapted(self, made_for: MadeFor, sources: Sequence[tuple[bytes, int]]) -> tuple[MadeFor, list[bytes]]:
        """The same code for this processor, its vectors as wide as they were: slower than code that was
        written for it, and faster than none."""
        here, old = host_target(), target_of(made_for)
        target = Target(here.cpu, here.features, old.lanes)
        return _made_for(target), recompiled(sources, target)

    def stream(self) -> int:
        """There is none: a call returns when the work is done."""
        return 0


_made_for = made_for

CPU_ENGINE = CpuEngine()
