"""Compile workers: processes with torch and the whole compiler, behind a `concurrent.futures.Executor`."""
