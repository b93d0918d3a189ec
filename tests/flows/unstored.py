"""A flow whose blocks are nowhere stored; for the tests of what becomes of its runs.

python unstored.py WORK_DIR SPOOL
"""

from __future__ import annotations

import asyncio
import sys

from prefect import flow
from prefect.types import SecretDict

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    run_job,
    run_job_from_blocks,
)

#: The first waits for the file `go`.
LINES = 'echo "$1" >> runs; while [ ! -e go ]; do sleep 0.05; done; echo "$1 $HP_KEY" > "$1.txt"'


def here(spool: str) -> HPCProfileBlock:
    return HPCProfileBlock(
        scheduler="local",
        launcher="{command}",  # ranks are not what this is about
        secret_environment=SecretDict({"HP_KEY": "secret-value-4712"}),
        executables={"sh": "/bin/sh"},
        local={"slots": 4, "spool": spool, "kill_grace": 1.0},
    )


@flow
async def unstored(work_dir: str, spool: str) -> None:
    for label, nodes in (("one", 1), ("two", 2)):
        await run_job(
            ["/bin/sh", "-c", LINES, "sh", label],
            on=here(spool),
            work_dir=work_dir,
            nodes=nodes,
            launch="single" if nodes == 1 else None,
            environment={"LABEL": label},
            expected_outputs=[f"{label}.txt"],
        )
    await run_job_from_blocks(
        command_block_name=CommandBlock(
            command_name="sh", executable_key="sh", default_args=["-c"]
        ),
        execution_profile_block_name=ExecutionProfileBlock(profile_name="s", command_name="sh"),
        hpc_profile_block_name=here(spool),
        work_dir=work_dir,
        script_filename="three",
        user_args=[LINES, "sh", "three"],
        expected_outputs=["three.txt"],
    )


if __name__ == "__main__":
    asyncio.run(unstored(sys.argv[1], sys.argv[2]))
