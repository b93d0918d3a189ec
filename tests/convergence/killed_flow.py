"""A flow with a loop that ends itself with SIGKILL in the middle of an iteration.

python killed_flow.py WORK_DIR KILL_AT      KILL_AT 0: never; prints how the loop ended
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from prefect import flow

from hpc_prefect.convergence import Iteration, StopRule, converge


@flow(name="converge-killed", log_prints=False)
async def killed(work_dir: str) -> None:
    async def step(state: list[float], it: Iteration) -> list[float]:
        drawn = it.rng.random(2)
        if it.number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return [float(x) for x in drawn * state[0]]

    result = await converge(
        step,
        [1.0, 1.0],
        measure=lambda state: state[0] + state[1],
        work_dir=work_dir,
        stop=StopRule(max_iterations=4),
        seed=3,
    )
    values = [float(str(row["value"])).hex() for row in result.history]
    print(json.dumps({"resumed_at": result.resumed_at, "values": values}))


if __name__ == "__main__":
    asyncio.run(killed(sys.argv[1]))
