"""What it takes to run code that a backend made: its *engine*, the half of a backend that is there when an
artefact is loaded and no compiler is.

An engine knows what its code is made for, which of it this machine can run, how to bring it into the process,
and what stands in cache keys for all of that. `braze.codegen.backend` is the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from braze.config import Config
from braze.runtime.plan import Plan

__all__ = ["Engine", "Launcher", "MadeFor"]

Launcher = Callable[..., object]
"""Runs an entry that a plan's `Launch` names; what it is given is said there."""


@dataclass(frozen=True)
class MadeFor:
    """What code was made for. ``kind``: its backend; ``name``: a name for people; ``traits``: what else the
    engine has to know of it, in words of its own."""

    kind: str
    name: str
    traits: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


class Engine(Protocol):
    """Runs the code of one kind. Called from several threads at once; it keeps no state that matters."""

    @property
    def kind(self) -> str:
        """The backend's name: what its code is tagged with in artefacts and plans."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """Types of devices whose graphs this kind of code is made for, unless the options say otherwise."""
        ...

    @property
    def fuses(self) -> bool:
        """Whether fused functions may call its code (`braze.fuser`); it runs in segments then."""
        ...

    @property
    def source_suffix(self) -> str:
        """How files are called that hold a module's source."""
        ...

    @property
    def listing_suffix(self) -> str:
        """How files are called that hold what became of a kernel's source, in words of the machine."""
        ...

    def index_bits(self, extent: int) -> int:
        """32 or 64: in how many bits the kernels of fused functions compute positions for tensors that reach
        over ``extent`` elements."""
        ...

    def tools(self) -> Mapping[str, str]:
        """Versions, by name, of the packages whose change may change the code."""
        ...

    def key_parts(self) -> tuple[tuple[str, str], ...]:
        """What stands in a cache key for what code is made for, under the options that hold here: names
        (``target.cpu``) and texts."""
        ...

    def here(self) -> MadeFor:
        """What code is made for where the options name nothing else: this machine."""
        ...

    def making_for(self, host: MadeFor) -> AbstractContextManager[None]:
        """Inside this block code is made for another machine, that machine's `here`."""
        ...

    def check(self, options: Config) -> None:
        """Raises ``ConfigError`` where the options ask for code that cannot run here."""
        ...

    def runs(self, made_for: MadeFor) -> bool:
        """Whether such code runs on this machine. Raises ``ArtifactError`` for traits that are none."""
        ...

    def demands(self, made_for: MadeFor) -> tuple[int, ...]:
        """How much of a machine such code uses: what demands more is preferred where it runs. Raises
        ``ArtifactError`` as `runs` does."""
        ...

    def width(self, made_for: MadeFor) -> str:
        """What people are told of it besides its name: the width of vectors, an architecture."""
        ...

    def load(self, objects: Sequence[bytes], plan: Plan) -> object:
        """The code, in this process, with every entry that ``plan`` has of this kind; it lives as long as
        what is returned. That has a method ``launcher(entry)``, which gives a `Launcher`, unless the plan
        runs its code by instructions of its own. Raises ``LinkError``."""
        ...

    def adapted(self, made_for: MadeFor, sources: Sequence[tuple[bytes, int]]) -> tuple[MadeFor, list[bytes]]:
        """Code for this machine out of the sources (each with its level of optimisation) of code that cannot
        run here. Raises ``WorkerError`` where there can be none."""
        ...

    def stream(self) -> int:
        """Where work goes that the caller launches now, for `BindStream`; 0 where there are no streams."""
        ...
