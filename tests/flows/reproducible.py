"""A flow that the tests reproduce: jobs, samplings, a loop that draws its seed, long parameters.

python reproducible.py WORK_DIR SCALE
"""

from __future__ import annotations

import asyncio
import os
import sys
from hashlib import sha256
from typing import Any

from prefect import flow, task
from pydantic import SecretStr

from hpc_prefect import (
    Iteration,
    converge,
    record_measures,
    run_job_from_blocks,
    sample,
)

HERE = "hpc-" + sha256(os.environ.get("PYTEST_XDIST_WORKER", "one").encode()).hexdigest()[:8]
SUM = 'echo "$1 $HP_GREETING ${HP_TOKEN:+known}" > "result-$1.txt"; echo "$1" >> ran'


async def measured(work_dir: str, label: str) -> None:
    await run_job_from_blocks(
        command_block_name="cmd-again",
        execution_profile_block_name="exec-sh",
        hpc_profile_block_name=f"{HERE}-again",
        work_dir=work_dir,
        script_filename=label,
        user_args=[SUM, "sh", label],
        expected_outputs=[f"result-{label}.txt"],
    )


@task
async def in_a_task(work_dir: str, label: str) -> None:
    await measured(work_dir, label)


@flow
async def again(
    work_dir: str, angles: list[float], scale: float = 1.0, key: SecretStr | None = None
) -> float:
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    result = await sample(
        [circuit],
        quantum_backend_block_name="sim-again",
        variable_name="sampler-again",
        work_dir=work_dir,
    )
    counts = result[0].data.meas.get_counts()

    async def step(state: float, iteration: Iteration) -> float:
        await in_a_task(work_dir, f"step-{iteration.number}")
        factor = float(iteration.parameters["factor"])
        return state * factor + scale * float(iteration.rng.random())

    def measure(state: float) -> dict[str, Any]:
        return {"energy": -state}

    found = await converge(
        step,
        sum(angles),
        measure=measure,
        work_dir=work_dir,
        stop_variable_name="loop-again",
    )
    record_measures(counts=counts.get("00", 0), total=sum(angles))
    return float(found.state)


if __name__ == "__main__":
    asyncio.run(again(sys.argv[1], [i / 7 for i in range(300)], float(sys.argv[2])))
