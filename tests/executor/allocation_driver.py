"""A bare process that holds an allocation and runs jobs in it; killed by whoever started it.

    python allocation_driver.py TRAP FOLDER PROGRAM KEY…

Prints how each job ended, or what kept the allocation from being held. TRAP: as of `driver.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from driver import Trapped
from rig import Rig
from test_allocation import Held

from hpc_prefect.errors import HpcPrefectError


async def main(trap: str, folder: str, program: str, *keys: str) -> dict[str, str]:
    rig = Rig(Path(folder))
    transport = Trapped(**json.loads(trap))
    held = Held(rig, transport=transport)
    try:
        await held.open()
    except HpcPrefectError as error:
        await held.close()  # it ends nothing of whoever holds it
        return {"error": type(error).__name__}
    jobs = {}
    for key in keys:
        spec = rig.spec(program=program, name=key, arguments=(key,), resources={"walltime": 60})
        request = rig.request(spec, key, placing=held.allocation)
        jobs[key] = asyncio.wrap_future(held.executor.start(request).result)
    results = {key: (await job).state for key, job in jobs.items()}
    await held.on_loop(held.allocation.close())
    print(len(transport.log), "changes", file=sys.stderr)
    return results


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
