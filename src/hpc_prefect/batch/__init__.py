"""The calls that run batch jobs: from their arguments to the task run, its log and its pages."""
