"""A run's record: the facts about one execution of a flow, beside its results."""
