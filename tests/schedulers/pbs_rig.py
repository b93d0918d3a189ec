"""Jobs for PBS's dialect, and answers of a site's own table."""

from __future__ import annotations

from typing import Any

from hpc_prefect.blocks import PBSOptions
from hpc_prefect.job.dialogue import Reply
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.schedulers.base import Ticket
from hpc_prefect.schedulers.pbs.scheduler import PBSScheduler

PBS = PBSScheduler()
TICKET = Ticket(
    tag="htag", folder="/w/f", script="/w/f/s.sh", scheduler_out="/w/f/o", scheduler_err="/w/f/e"
)
DEFAULT = PBSOptions().model_dump(mode="json")
TABLE = {"status_dialect": "table", "history_flag": "-H"}
EMPTY_QUEUE = Reply(0, "Stop time: never\n\nNo unfinished job found. \n")
NOT_THERE = Reply(0, "Stop time: never\n\nNo finished job found.\n")
EMPTY_HISTORY = Reply(0, "Stop time: never\n\nNo matching job found. \n")


def spec(
    options: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **changes: Any
) -> JobSpec:
    """A job of 2 nodes × 4 ranks × 8 threads; `site` and shape with changes."""
    shape = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 8, "walltime": 5400}
    work_dir = changes.pop("work_dir", "/w")
    names = changes.pop("secret_names", ())
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="pbs", options=DEFAULT | (options or {}), **(site or {})),
        resources=Resources(**shape | changes),
        work_dir=work_dir,
        secret_names=names,
    )


#: What every job has that the profile does not allow to be started again.
ONCE = "#PBS -r n"


def directives(*given: Any, **changes: Any) -> list[str]:
    """All but `ONCE`."""
    lines = PBS.preamble(spec(*given, **changes), TICKET).directives
    return [line for line in lines if line != ONCE]


def table(*rows: str) -> Reply:
    head = "JOB_ID JOB_NAME STATUS PROJECT QUEUE START_DATE"
    return Reply(0, "\n".join(["", head, *rows, ""]))


def letters(**rows: str) -> Reply:
    """The table of `qstat ID...`: letters by the jobs' numbers (`_68="R"`)."""
    head = (
        "Job id            Name             User              Time Use S Queue\n"
        "----------------  ---------------- ----------------  -------- - -----\n"
    )
    cells = ((f"{number[1:]}.opbs", letter) for number, letter in rows.items())
    return Reply(
        0,
        head
        + "".join(
            f"{job_id:17} {'htag':16} {'hpcuser':17} {0:>8} {letter} workq\n"
            for job_id, letter in cells
        ),
    )
