"""Runs jobs: claim, submit, poll, follow output, cancel. The only room with a clock and threads."""
