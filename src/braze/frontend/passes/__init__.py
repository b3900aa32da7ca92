"""Graph passes: each file one rewrite of a functional ATen graph; `run(gm)` says whether it changed it."""
