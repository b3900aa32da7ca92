"""ATen operators to IR, one file for each family."""
