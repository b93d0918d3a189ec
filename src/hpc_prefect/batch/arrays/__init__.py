"""Many jobs in one call: `run_jobs_from_blocks`.

member.py     what a caller gives of each
results.py    what comes back, and the error that names what failed
prepare.py    from the call to a valid array with its identity
progress.py   what Prefect's log and page, and the record, show meanwhile
task.py       the call itself
"""
