"""A flow of a process of its own, to be killed: python once.py WORK_DIR BLOCK [HOW_MANY]"""

import asyncio
import sys

from circuits import bell
from prefect import flow

from hpc_prefect import campaign
from hpc_prefect.quantum import sample


@flow
async def experiment(work_dir: str, block: str) -> None:
    with campaign("once"):
        result = await sample(
            [bell()],
            quantum_backend_block_name=block,
            work_dir=work_dir,
            options={"shots": 100, "seed": 1},
        )
    print("counts", sum(result[0].data.meas.get_counts().values()), flush=True)


@flow
async def several(work_dir: str, block: str, how_many: int) -> None:
    samplings = (
        sample(
            [bell()],
            quantum_backend_block_name=block,
            work_dir=work_dir,
            options={"shots": 100, "seed": seed},
        )
        for seed in range(how_many)
    )
    await asyncio.gather(*samplings)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        asyncio.run(several(*sys.argv[1:3], int(sys.argv[3])))
    else:
        asyncio.run(experiment(*sys.argv[1:]))
