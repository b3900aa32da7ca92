"""Programs: the loops of a kernel as data, between its loop plan and what a renderer makes of it."""
