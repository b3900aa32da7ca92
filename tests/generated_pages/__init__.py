"""Pages of the documentation that the code writes: ``python dev.py pages`` brings them up to date."""
