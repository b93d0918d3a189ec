"""The product's own code in a world in memory: many lives, each replayed from its seed.

    seed -> `ground.py`, `place.py`, `quantum_place.py`: what is wanted, by whom, in which weather
         -> `world.py` virtual time, one thread, one queue of events, one trace
    below it: `machines.py` and `file_server.py` with `mount.py` (a process's files and commands),
    `cluster.py` with `job_script.py` (jobs on nodes) and a front end for each scheduler's dialect,
    `quantum_service.py` with `quantum_client.py` (in one seed of ten, instead of a cluster),
    `process.py` with `loop.py` (a process of the product), `life.py` (who wants the jobs)
    of arrays: `array_world.py` (which seeds), `array_life.py` (who wants them, what must hold),
    `arrays.py` (as a scheduler has them) and `members.py` (what an element does)
    of held allocations: `allocation_world.py` (which seeds), `allocation_life.py` (who holds them,
    what must hold), `held.py` (as a scheduler has them), `agent.py` (what the agent does) and
    `spool_commands.py` (what is said to it), both by the commands in `shell.py`
    of arrays in these: `held_array_life.py`
    of calls that are alike: `branch_life.py` (who makes them, what must hold)
    beside it: `oracles.py`, `quantum_oracles.py` (what must hold), `coverage.py` (what must have
    happened)
    above it: `simulate.py` (a seed, many seeds), `mix.py` (which worlds these have), `parts.py` (a
    long run), `shrink.py` and `story.py`, `mutations.py`

`python -m simulation --seeds 100`, from `tests/`, or `make simulate SEEDS=100`.
"""
