"""What a compile leaves behind: callable, and in time storable."""
