"""Ways to compile a graph: `FxCompile` says what one must do, each file beside it is one way."""
