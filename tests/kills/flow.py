"""A flow of three jobs, of which two are the same in all, in a process that may be killed.

    python flow.py FOLDER PROFILE TRAP        prints what the programs wrote, as JSON

TRAP: the fault of a transport, see `faults.py`; or {"file": path}, or {"result": true}: killed with
the result of the first job in hand, before Prefect has it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from faults import Faulty, die
from prefect import flow, task

from hpc_prefect import run_job_from_blocks
from hpc_prefect.executor import service

LABELS = ["one", "two", "two"]


@task(persist_result=True)
async def step(folder: str, profile: str, label: str) -> str:
    result = await run_job_from_blocks(
        command_block_name="cmd-kills",
        execution_profile_block_name="exec-kills",
        hpc_profile_block_name=profile,
        work_dir=folder,
        script_filename=label,
        user_args=[label],
    )
    if "result" in TRAP:  # no argument: that would make it another task
        die()
    return Path(result.stdout_path).read_text()


@flow(name="killed")
async def killed(folder: str, profile: str) -> list[str]:
    return list(await asyncio.gather(*(step(folder, profile, label) for label in LABELS)))


def die_with(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
    die()


if __name__ == "__main__":
    TRAP: dict[str, Any] = json.loads(sys.argv[3])
    if "file" in TRAP:
        threading.Thread(target=die_with, args=[Path(TRAP["file"])], daemon=True).start()
    elif "step" in TRAP:
        service.executor(Faulty(**TRAP))
    print("TEXTS " + json.dumps(asyncio.run(killed(sys.argv[1], sys.argv[2]))))
