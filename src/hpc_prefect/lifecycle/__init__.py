"""Going on with runs that died, and ending their jobs."""
