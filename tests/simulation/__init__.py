"""The product's own code in a world in memory: many lives, each replayed from its seed.

    seed -> `plan.py`  what is wanted, by whom, and what weather there is
         -> `world.py` virtual time, one thread, one queue of events, one trace
    below it: `machines.py` and `file_server.py` with `mount.py` (a process's files and commands),
    `cluster.py` with `job_script.py` (jobs on nodes) and a front end for each scheduler's dialect,
    `process.py` with `loop.py` (a process of the product), `life.py` (who wants the jobs)
    of arrays: `array_world.py` (which seeds), `array_life.py` (who wants them, what must hold),
    `arrays.py` (as a scheduler has them) and `members.py` (what an element does)
    beside it: `oracles.py` (what must hold), `coverage.py` (what must have happened)
    above it: `simulate.py` (a seed, many seeds), `shrink.py` and `story.py`, `mutations.py`

`python -m simulation --seeds 100`, from `tests/`, or `make simulate SEEDS=100`.
"""
