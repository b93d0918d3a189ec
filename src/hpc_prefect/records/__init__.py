"""The run's record: what is left of one execution of a flow, beside its results."""
