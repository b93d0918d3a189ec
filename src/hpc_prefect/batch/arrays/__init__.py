"""Many jobs in one call: `run_jobs_from_blocks`.

member.py     what a caller gives of each
results.py    what comes back, and the error that names what failed
prepare.py    from the call to a valid array in its place of the experiment
progress.py   what Prefect's log, page and record are told meanwhile
task.py       the call itself
"""
