"""Every touch of a private PyTorch API: `torch._*`, `torch.fx.experimental`, and what has no promise of
staying where it is. Small functions with names of our own, so that a new release of torch is met in one room.

The floor is torch 2.11 to 2.15. Where a name moved between those, the function says which release moved it.
"""
