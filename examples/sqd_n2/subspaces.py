"""The subspaces of an iteration, diagonalized: by one MPI job, or an array with a job for each.

Either way each is solved by one rank with the same numbers in the same order, so the energies are
the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import numpy as np
from chemistry import Molecule
from exchange import ask, read_answer
from recovery import Estimate

from hpc_prefect import Member, allocation, run_job_from_blocks, run_jobs_from_blocks


def nodes(hpc_profile: str, folder: Path, *, hold: bool) -> AbstractAsyncContextManager[object]:
    """With `hold` the loop inside waits in the queue once, and not once an iteration."""
    if not hold:
        return nullcontext()
    return allocation(
        execution_profile_block_name="exec-diag-held",
        hpc_profile_block_name=hpc_profile,
        work_dir=folder,
    )


async def diagonalize(
    folder: Path,
    label: str,
    molecule: Molecule,
    batches: Sequence[np.ndarray],
    *,
    threshold: float,
    hpc_profile: str,
    array: bool,
) -> Estimate:
    """The best of the batches; with `array` each is a job."""
    blocks = {
        "command_block_name": "cmd-diag",
        "execution_profile_block_name": "exec-diag-mpi",
        "hpc_profile_block_name": hpc_profile,
    }
    if not array:
        question, answer = ask(folder, label, molecule, batches, threshold=threshold)
        await run_job_from_blocks(
            **blocks,
            work_dir=folder,
            script_filename=f"diag-{label}",
            user_args=[question, answer],
            inputs=[question],
            expected_outputs=[answer],
        )
        return read_answer(folder / answer)
    files = [
        ask(folder, f"{label}-{i}", molecule, [batch], threshold=threshold)
        for i, batch in enumerate(batches)
    ]
    await run_jobs_from_blocks(
        **blocks,
        work_dir=folder,
        script_filename=f"diag-{label}",
        members=[
            Member(user_args=[question, answer], inputs=[question], expected_outputs=[answer])
            for question, answer in files
        ],
        execution_profile_overrides={"ranks_per_node": 1},
    )
    answers = [read_answer(folder / answer) for _, answer in files]
    return min(answers, key=lambda answer: answer.energy)  # of equal ones the first
