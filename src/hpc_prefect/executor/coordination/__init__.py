"""Coordinates a user's processes on one host: queue slots, polling, orphaned jobs."""
