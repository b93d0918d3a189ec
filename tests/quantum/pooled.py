"""A flow that samples in a pool's processes: python pooled.py WORK_DIR BLOCK"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from circuits import bell
from prefect import flow

from hpc_prefect import scope
from hpc_prefect.errors import BudgetExceeded
from hpc_prefect.quantum import sample_sync

FORK = multiprocessing.get_context("fork")
BOTH = FORK.Barrier(2)


def told(work_dir: str, block: str, shots: int) -> str:
    place = {"quantum_backend_block_name": block, "work_dir": work_dir}
    try:
        sample_sync([bell()], options={"shots": shots, "seed": 1}, **place)
    except BudgetExceeded:
        return "refused"
    return "bought"


def run(work_dir: str, block: str, number: int) -> list[str]:
    """A job that costs too much, so that the budget was looked at; then one at the same time."""
    with scope(str(number)):
        first = told(work_dir, block, 90_000)
        BOTH.wait(120)
        return [first, told(work_dir, block, 100)]


@flow
def both(work_dir: str, block: str) -> list[str]:
    with ProcessPoolExecutor(2, mp_context=FORK) as pool:
        runs = [pool.submit(run, work_dir, block, number) for number in (1, 2)]
        return [word for each in runs for word in each.result()]


if __name__ == "__main__":
    print("told", *both(*sys.argv[1:]))
