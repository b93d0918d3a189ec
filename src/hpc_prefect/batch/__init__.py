"""The call itself: from its arguments to the task run, its log and what Prefect shows."""
