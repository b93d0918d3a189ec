"""A task that is kept once, in a plain script: python lone_once.py WHO [WORK_DIR]"""

from __future__ import annotations

import sys

from prefect import task

from hpc_prefect import ONCE

who = sys.argv[1]


@task(cache_policy=ONCE)
def prepare(x: int, work_dir: str | None = None) -> str:
    return f"made by {who}"


print("RESULT", prepare(4711, *sys.argv[2:]))
