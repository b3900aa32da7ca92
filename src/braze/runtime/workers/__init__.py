"""Worker processes: one protocol, one way to start and end them, one pool that looks after them."""
