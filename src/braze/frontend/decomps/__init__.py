"""Braze's own decompositions, by subject. Each file has a `TABLE` of operator -> function."""
