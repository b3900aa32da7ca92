"""Dependencies, fusion, loop order, memory planning, segments."""
