"""A job for Slurm, and what a real Slurm 22.05 answered (`tests/transcripts/slurm`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpc_prefect.blocks import SlurmOptions
from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.schedulers.base import Submission, Ticket
from hpc_prefect.schedulers.slurm import SlurmScheduler

from .recorded import converse

SLURM = SlurmScheduler()
FOLDER = Path(__file__).parents[1] / "transcripts" / "slurm"
TICKET = Ticket(
    tag="htag", folder="/w/f", script="/w/f/s.sh", scheduler_out="/w/f/o", scheduler_err="/w/f/e"
)
DEFAULT = SlurmOptions().model_dump(mode="json")


def recorded(name: str) -> Reply:
    found = json.loads((FOLDER / f"{name}.json").read_text())
    return Reply(found["rc"], found["stdout"], found["stderr"])


def spec(
    options: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **changes: Any
) -> JobSpec:
    """A job of 2 nodes × 4 ranks × 8 threads; options, `site` and shape with changes."""
    shape = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 8, "walltime": 5400}
    work_dir, names = changes.pop("work_dir", "/w"), changes.pop("secret_names", ())
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="slurm", options=DEFAULT | (options or {}), **(site or {})),
        resources=Resources(**shape | changes),
        work_dir=work_dir,
        secret_names=names,
    )


def submission(reply: Reply) -> Submission:
    return converse(SLURM.submit(spec(), TICKET), reply)[0]
