"""A bare process that holds an allocation and runs jobs in it; killed by whoever started it.

    python allocation_driver.py TERMS FOLDER OPTIONS PROGRAM KEY[:WALLTIME]…

Prints how each job ended, or what kept the allocation from being held. TERMS: the trap as of
`driver.py`, and `renew`: the walltime of an allocation that is renewed. OPTIONS: of the engine.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from driver import Trapped
from rig import Rig, until
from test_allocation import Held

from hpc_prefect.errors import HpcPrefectError


async def main(given: str, folder: str, options: str, program: str, *keys: str) -> dict[str, str]:
    rig = Rig(Path(folder))
    rig.options |= json.loads(options)
    trap = json.loads(given)
    renew = trap.pop("renew", 0)
    transport = Trapped(**trap)
    held = Held(rig, walltime=renew or 600, renew=bool(renew), transport=transport)
    try:
        await held.open()
    except HpcPrefectError as error:
        await held.close()  # it ends nothing of whoever holds it
        return {"error": type(error).__name__}
    jobs = {}
    for word in keys:
        if renew:  # one after another, or the time that each takes of it is not known
            await until(lambda: rig.runs() or not jobs, "the start of the first")
        key, _, walltime = word.partition(":")
        resources = {"walltime": int(walltime or 60)}
        spec = rig.spec(program=program, name=key, arguments=(key,), resources=resources)
        request = rig.request(spec, key, placing=held.allocation)
        jobs[key] = asyncio.wrap_future(held.executor.start(request).result)
    results = {key: (await job).state for key, job in jobs.items()}
    await held.on_loop(held.allocation.close())
    print(len(transport.log), "changes", file=sys.stderr)
    return results


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
