"""A flow of one array, in a process that may be killed.

python array_flow.py FOLDER PROFILE MEMBERS        prints how each member ended, as JSON
"""

from __future__ import annotations

import asyncio
import json
import sys

from prefect import flow

from hpc_prefect import Member, run_jobs_from_blocks


@flow(name="killed-array")
async def killed_array(folder: str, profile: str, count: int) -> list[dict[str, str]]:
    results = await run_jobs_from_blocks(
        command_block_name="cmd-kills",
        execution_profile_block_name="exec-kills",
        hpc_profile_block_name=profile,
        work_dir=folder,
        script_filename="many",
        members=[Member(user_args=[n]) for n in range(count)],
        on_failure="return",
    )
    return [
        {"state": str(each.state), "folder": each.folder, "stdout": each.stdout_path}
        for each in results
    ]


if __name__ == "__main__":
    ended = asyncio.run(killed_array(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    print("ENDED " + json.dumps(ended))
