"""Buffers: tensors that have, or will have, memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from braze._torch.devices import is_host
from braze.ir.loops import Loops
from braze.ops.dag import Dag
from braze.ops.dtypes import short_name
from braze.ops.kernel import Stage
from braze.runtime.expr import ZERO
from braze.runtime.spec import Layout, listed


@dataclass(frozen=True)
class Origin:
    """Where an IR object comes from: ATen operator, name of the graph's node, the user's line."""

    operator: str
    node: str
    source: str = ""

    def __str__(self) -> str:
        return self.operator + (f" at {self.source}" if self.source else "")


@dataclass(eq=False)
class Buffer:
    """A named tensor in memory. ``home``: the buffer in whose memory it lies, as a piece of it, or all of it
    written in place; None where it has its own."""

    name: str
    layout: Layout
    home: str | None = field(default=None, kw_only=True)

    @property
    def storage(self) -> str:
        """The buffer whose memory it lies in, which may be itself."""
        return self.home or self.name

    @property
    def dtype(self) -> torch.dtype:
        return self.layout.dtype

    def __str__(self) -> str:
        inside = "" if self.home is None else f" in {self.home}"
        return f"{self.name}: {layout_text(self.layout)}{inside}"


def layout_text(layout: Layout) -> str:
    """``f32[2, s0]``, with strides and an offset where these are not as always."""
    text = f"{short_name(layout.dtype)}[{listed(layout.sizes)}]"
    if not layout.is_contiguous:
        text += f" strides ({listed(layout.strides)})"
    if layout.offset != ZERO:
        text += f" + {layout.offset}"
    return text if is_host(layout.device) else f"{text} on {layout.device}"


@dataclass(eq=False)
class InputBuffer(Buffer):
    """An input of the graph; ``static`` if it is a parameter or buffer, the same storage at every call."""

    static: bool = False


@dataclass(eq=False)
class ConstantBuffer(Buffer):
    """A tensor that the graph holds itself."""

    value: torch.Tensor | None = None


@dataclass(eq=False)
class Operation:
    """Something that runs, in order. ``origins``: the graph nodes it stands for."""

    name: str
    origins: list[Origin] = field(default_factory=list, kw_only=True)

    @property
    def outputs(self) -> list[Buffer]:
        """The buffers that it makes or writes."""
        raise NotImplementedError

    def reads(self) -> set[str]:
        """Storages that it reads."""
        raise NotImplementedError

    def writes(self) -> set[str]:
        """Storages that it writes."""
        return {b.storage for b in self.outputs}


@dataclass(eq=False)
class ComputedBuffer(Operation):
    """A buffer filled by loops."""

    buffer: Buffer
    data: Loops
    dag: Dag = field(repr=False)
    _stage: Stage | None = field(default=None, init=False, repr=False)

    @property
    def outputs(self) -> list[Buffer]:
        return [self.buffer]

    @property
    def stage(self) -> Stage:
        """The loops that fill the buffer, storing into its storage."""
        if self._stage is None:
            self._stage = self.data.stage(self.dag, self.buffer.storage, self.buffer.layout.index)
        return self._stage

    def reads(self) -> set[str]:
        names = {n.buffer for n in self.stage.loads}
        if any(s.mode != "set" for s in self.stage.stores):
            names.add(self.buffer.storage)
        return names

    def __str__(self) -> str:
        head = f"{self.buffer} = {self.data.kind}"
        if self.origins:
            head += "  # " + "; ".join(dict.fromkeys(map(str, self.origins)))
        return head + "\n" + "\n".join("  " + line for line in str(self.stage).splitlines())
