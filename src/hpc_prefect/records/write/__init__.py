"""Writing a run's record while it goes. Nobody waits for it, and nothing fails for it."""
