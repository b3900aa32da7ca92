"""The command line: `braze demo`, `braze doctor`, `braze explain`."""
