"""The only clock and concurrency: claim, submit, poll, follow output, cancel. Knows no Prefect."""
