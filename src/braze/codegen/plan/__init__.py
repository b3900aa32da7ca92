"""Schedules to launch plans."""
