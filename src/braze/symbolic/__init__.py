"""Symbolic sizes and index algebra."""
