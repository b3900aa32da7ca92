"""The loop-level IR: layouts, views, loops, buffers, externs."""
