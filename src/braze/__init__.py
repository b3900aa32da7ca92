"""Braze: a tensor compiler for PyTorch.

Installed is enough: ``torch.compile(model, backend="braze")`` finds it without an import. What this package
exports beyond that is loaded when it is first used, so that ``import braze`` costs a few milliseconds.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0.dev0"
