"""Dead code: nodes that nobody reads and that do nothing else.

A file of its own: each pass has one.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from braze._torch.schema import Effect, effects_of, is_operator
from braze.frontend.passes.effects import is_pure
from braze.ir import prims

__all__ = ["run"]


def run(gm: GraphModule, *, every_draw: bool = False) -> bool:
    """Erase unread nodes, last first, so that one sweep finds chains of them. ``every_draw``: those that draw
    random numbers stay, as later ones depend on them."""
    changed = False
    for node in reversed(list(gm.graph.nodes)):
        if not node.users and _is_removable(node, every_draw):
            gm.graph.erase_node(node)
            changed = True
    return changed


def _is_removable(node: Node, every_draw: bool) -> bool:
    if node.op == "get_attr":
        return True
    if node.op != "call_function":
        return False
    if is_pure(node) or node.target in prims.METAS:
        return True
    kept = Effect.KEPT | Effect.DRAW if every_draw else Effect.KEPT
    return is_operator(node.target) and not effects_of(node.target) & kept
