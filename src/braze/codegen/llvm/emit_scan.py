"""Scans and scatters: stages in which one loop has to run in order, inside the loop over lanes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from braze.codegen.llvm.builder import Value
from braze.codegen.llvm.emit_convert import convert
from braze.codegen.llvm.emit_reduce import ReductionEmitter
from braze.codegen.llvm.emit_scope import Lanes
from braze.codegen.llvm.reducers import Reducer, make_reducer
from braze.ops.dag import Node
from braze.ops.dtypes import compute_dtype
from braze.runtime.expr import Expr

__all__ = ["ScanEmitter"]


def _carried_dtype(node: Node) -> torch.dtype:
    """Sums and products of float32 are carried in float64, as eager does."""
    return torch.float64 if node.dtype is torch.float32 and node.attrs[0] in ("sum", "prod") else node.dtype


class ScanEmitter(ReductionEmitter):
    """Emits what runs in order."""

    def emit_ready(self, nodes: Sequence[Node], ctxs: Sequence[Lanes]) -> None:
        """Emit those of ``nodes`` whose variables are bound and whose inputs are there."""
        raise NotImplementedError

    def emit_stores(self, ctx: Lanes) -> None:
        """The stores of one copy."""
        raise NotImplementedError

    def emit_scans(self, ctxs: list[Lanes]) -> None:
        """Run along the scanned variable for one group of lanes of the others."""
        (along,) = self.plan.rloops
        scans = [n for n in self.stage.nodes if n.op == "scan"]
        slots = [(n, ctx) for n in scans for ctx in (ctxs if self.varies(n, ctxs[0]) else ctxs[:1])]
        start = []
        for node, ctx in slots:
            dtype = _carried_dtype(node)
            lanes = ctx.lanes if self.varies(node, ctx) else 1
            start += make_reducer(str(node.attrs[0]), dtype, self.extremum).identity(lanes)
        self.prepare(ctxs)
        size = self.scalar(along.size)
        zero = self.i64(0)
        with (
            self.fb.for_range(zero, size, 1, start, runs=True, label="scan") as loop,
            self.bind(along, loop.index),
        ):
            following = []
            for k, (node, ctx) in enumerate(slots):
                self.emit_ready(self.stage.nodes, ctxs)
                following.append(self._scan_step(node, ctx, loop.carried[k]))
            for ctx in ctxs:
                self.emit_ready(self.stage.nodes, [ctx])
                self.emit_stores(ctx)
            loop.set_next(*following)

    def emit_row_scan(self) -> None:
        """Run along a scanned variable that lies on lanes itself: prefixes within each vector by doubling,
        then what came before added to all lanes."""
        (along,) = self.plan.rloops
        scans = [n for n in self.stage.nodes if n.op == "scan"]
        reducers = [make_reducer(str(n.attrs[0]), _carried_dtype(n), self.extremum) for n in scans]
        carried = [reducer.identity(1)[0] for reducer in reducers]
        self.prepare_splats(along, self.plan.lanes)

        def body(ctxs: list[Lanes], values: list[Value]) -> list[Value]:
            (ctx,) = ctxs
            following = []
            for node, reducer, before in zip(scans, reducers, values, strict=True):
                self.emit_ready(self.stage.nodes, ctxs)
                following.append(self._scan_lanes(node, reducer, ctx, before))
            self.emit_ready(self.stage.nodes, ctxs)
            self.emit_stores(ctx)
            return following

        for segment in self.lane_segments(self.plan, self.i64(0), self.scalar(along.size)):
            carried = self.lane_loop(along, segment, carried, body)

    def _scan_lanes(self, node: Node, reducer: Reducer, ctx: Lanes, before: Value) -> Value:
        """Remember the scan's values in one vector; what it carries on."""
        fb = self.fb
        lanes = ctx.lanes
        identity = reducer.identity(lanes)[0]
        prefix = convert(fb, self.vector(node.args[0], ctx), node.dtype, reducer.dtype)
        if ctx.mask is not None:
            prefix = fb.select(ctx.mask, prefix, identity)
        shift = 1
        while shift < lanes:
            moved = fb.shuffle(
                identity, prefix, [lanes + k - shift if k >= shift else k for k in range(lanes)]
            )
            (prefix,) = reducer.merge(fb, [moved], [prefix])
            shift *= 2
        (value,) = reducer.merge(fb, [fb.splat(before, lanes)], [prefix])
        (carry,) = reducer.merge(fb, [before], [fb.extract(prefix, lanes - 1)])
        self.remember(ctx.values, node.id, convert(fb, value, reducer.dtype, node.dtype))
        return carry

    def _scan_step(self, node: Node, ctx: Lanes, carry: Value) -> Value:
        dtype = _carried_dtype(node)
        varies = self.varies(node, ctx)
        value = self.vector(node.args[0], ctx) if varies else self.get(node.args[0], ctx)
        value = convert(self.fb, value, node.dtype, dtype)
        (carry,) = make_reducer(str(node.attrs[0]), dtype, self.extremum).merge(self.fb, [carry], [value])
        self.remember(
            ctx.values if varies else self.values, node.id, convert(self.fb, carry, dtype, node.dtype)
        )
        return carry

    # -- adding to what is there --------------------------------------------------------------------------
    def add_to(self, buffer: str, e: Expr, value: Value, mask: Node | None, ctx: Lanes) -> None:
        """``buffer[e] += value``, lanes in order; ``value`` in the buffer's type, memory form. No other
        thread touches the same elements meanwhile."""
        fb = self.fb
        dtype = self.dtype_of(buffer)
        active = self.active(mask, ctx)
        step = self.step(e, ctx)
        if ctx.lanes == 1 or (step is not None and step.constant == 1):
            address = (
                self.address(buffer, e, step, ctx) if step is not None else self.pointers_of(buffer, e, ctx)
            )

            def add() -> None:
                self._add_at(address, value, dtype, None if ctx.lanes == 1 else active)

            if ctx.lanes == 1 and active is not None:
                with fb.if_then(active, "add"):
                    add()
            else:
                add()
            return
        pointers = self.pointers_of(buffer, e, ctx)
        for lane in range(ctx.lanes):
            item, at = fb.extract(value, lane), fb.extract(pointers, lane)
            if active is None:
                self._add_at(at, item, dtype, None)
            else:
                with fb.if_then(fb.extract(active, lane), "add"):
                    self._add_at(at, item, dtype, None)

    def _add_at(self, address: Value, value: Value, dtype: torch.dtype, active: Value | None) -> None:
        fb = self.fb
        type = value.type
        old = fb.load(address, type) if active is None else fb.masked_load(address, type, active)
        wide = compute_dtype(dtype)
        a, b = convert(fb, old, dtype, wide), convert(fb, value, dtype, wide)
        if dtype is torch.bool:
            total = fb.or_(a, b)
        else:
            total = fb.fadd(a, b) if wide.is_floating_point else fb.add(a, b)
        total = convert(fb, total, wide, dtype)
        if active is None:
            fb.store(total, address)
        else:
            fb.masked_store(total, address, active)

    def dtype_of(self, buffer: str) -> torch.dtype:
        """A buffer's element type."""
        raise NotImplementedError
