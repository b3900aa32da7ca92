"""The model of the demo, as figures: known to the parent without importing torch."""

from __future__ import annotations

from typing import Final

__all__ = ["BATCH", "BERT", "SEQUENCE", "describe"]

BATCH: Final = 4
SEQUENCE: Final = 128
BERT: Final[dict[str, int]] = {
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}


def describe() -> str:
    """One line for people."""
    return (
        f"BERT: {BERT['num_hidden_layers']} layers of width {BERT['hidden_size']}, random weights, "
        f"{BATCH} x {SEQUENCE} tokens, float32"
    )
