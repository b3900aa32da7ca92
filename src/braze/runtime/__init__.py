"""Running compiled graphs: expressions, linking, launch plans, threads, memory."""
