"""The scalar vocabulary, loop bodies as data, and the reference interpreter."""
