"""Writes a run's record during the run. The run does not wait for it, nor fail because of it."""
