"""Jobs for PJM's dialect, and answers of its commands."""

from __future__ import annotations

from typing import Any

from hpc_prefect.blocks import PJMOptions
from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.schedulers.base import Ticket
from hpc_prefect.schedulers.pjm.scheduler import PJMScheduler

from .test_pjstat import HEADER, row

PJM = PJMScheduler()
TAG = "hq7k2m9x1abcdef"
TICKET = Ticket(
    tag=TAG, folder="/w/f", script="/w/f/s.sh", scheduler_out="/w/f/o", scheduler_err="/w/f/e"
)
DEFAULT = PJMOptions().model_dump(mode="json")
ASK = "-v --choose jid,jnam,jmdl,st,lst,ec,pc,sn,ermsg --filter"
NONE = Reply(0, HEADER)
DOWN = Reply(1, "", "[ERR.] PJM 0290 pjstat PJM daemon is not present.\n")
SECRETS = (
    "pjm.requeue is 'yes', but the job has secrets: a job reads its secrets once,"
    " so a requeued one would have none; choose 'no', or use retries"
)
PLAIN = ": a name or value for the scheduler has no blanks, quotes or other special characters"


def spec(
    options: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **changes: Any
) -> JobSpec:
    """An MPI job of 2 nodes × 4 ranks × 12 threads; `site` and shape with changes."""
    shape = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 12, "walltime": 5400}
    work_dir = changes.pop("work_dir", "/w")
    names = changes.pop("secret_names", ())
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="pjm", options=DEFAULT | (options or {}), **(site or {})),
        resources=Resources(**{"launch": "mpi"} | shape | changes),
        work_dir=work_dir,
        secret_names=names,
    )


#: What every job has that the profile does not allow to be started again.
ONCE = "--norestart"


def directives(*given: Any, **changes: Any) -> list[str]:
    """All but `ONCE`."""
    lines = PJM.preamble(spec(*given, **changes), TICKET).directives
    return [line.removeprefix("#PJM ") for line in lines if line != f"#PJM {ONCE}"]


def table(*rows: tuple[str, ...]) -> Reply:
    return Reply(0, HEADER + "".join(row(*each) for each in rows))


def listed(job_id: str, word: str, name: str = TAG[:10], codes: str = "0 0 0") -> tuple[str, ...]:
    return (job_id, name, word, "QUE", *codes.split(), "-")
