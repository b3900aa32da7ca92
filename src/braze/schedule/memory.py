"""Memory planning: which storages share which bytes of the workspace.

Storages get *slots*. A slot is free again after the last step that touches its storage; a new storage takes
the smallest free slot that holds it without wasting more than half, or a new one. Static sizes only share
with static ones, symbolic sizes with equal ones. Slots lie one after another, aligned. Each device has a
workspace of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from braze.runtime.expr import ZERO, Expr

NOTHING: Mapping[str, str] = {}


@dataclass
class _Slot:
    size: Expr
    device: str
    free: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """``offsets``: the place of each storage in its workspace, in bytes; ``sizes``: the workspaces, by the
    type of device. ``slots``: which storages share a slot, by number, for finding conflicts."""

    offsets: dict[str, Expr]
    slots: dict[str, int]
    sizes: dict[str, Expr]

    @property
    def size(self) -> Expr:
        """Bytes of all workspaces."""
        total = ZERO
        for size in self.sizes.values():
            total = total + size
        return total

    def __str__(self) -> str:
        lines = [f"workspace of {self.size} bytes"]
        lines += [f"  {name} at {offset}" for name, offset in self.offsets.items()]
        return "\n".join(lines)


def aligned(size: Expr, alignment: int) -> Expr:
    """``size`` rounded up to a multiple of the alignment."""
    return (size + (alignment - 1)) // alignment * alignment


def plan_memory(
    births: Sequence[Sequence[str]],
    deaths: Sequence[Sequence[str]],
    sizes: Mapping[str, Expr],
    alignments: Mapping[str, int],
    devices: Mapping[str, str],
    in_place: Mapping[str, str] = NOTHING,
) -> MemoryPlan:
    """Assign slots. ``births[k]`` and ``deaths[k]``: storages first and last touched by step ``k``;
    ``sizes`` in bytes; ``devices``: where each storage lies, and ``alignments`` there. What dies in a step
    is reused from the next one on, or, by those that ``in_place`` names (with what they replace), in that
    step."""
    slots: list[_Slot] = []
    place: dict[str, int] = {}
    for born, dying in zip(births, deaths, strict=True):
        taken: set[str] = set()
        for name in born:
            device = devices[name]
            size = aligned(sizes[name], alignments[device])
            old = in_place.get(name)
            if old in dying and old in place and _Slot(size, device) == slots[place[old]]:
                place[name] = place[old]
                taken.add(old)
            else:
                place[name] = _take(slots, size, device)
        for name in dying:
            slots[place[name]].free = name not in taken
        for name in dying:  # what was taken and died in the same step
            if name in born and name not in taken:
                slots[place[name]].free = True
    offsets: list[Expr] = []
    total: dict[str, Expr] = {}
    for slot in slots:
        running = total.get(slot.device, ZERO)
        offsets.append(running)
        total[slot.device] = running + slot.size
    return MemoryPlan({n: offsets[k] for n, k in place.items()}, place, total)


def _take(slots: list[_Slot], size: Expr, device: str) -> int:
    best: int | None = None
    for k, slot in enumerate(slots):
        if not slot.free or slot.device != device:
            continue
        if slot.size == size:
            best = k
            break
        have, want = slot.size.constant, size.constant
        if have is None or want is None or have < want or have > 2 * want + 4096:
            continue
        smaller = best is None or (slots[best].size.constant or 0) > have
        best = k if smaller else best
    if best is None:
        slots.append(_Slot(size, device))
        return len(slots) - 1
    slots[best].free = False
    return best
