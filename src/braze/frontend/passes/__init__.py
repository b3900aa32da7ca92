"""Graph passes: each file one rewrite of a functional ATen graph, `run(gm) -> bool` (did it change anything)."""
