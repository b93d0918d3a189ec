"""A job for Slurm, and what a real Slurm 22.05 answered (`tests/transcripts/slurm`)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hpc_prefect.blocks import SlurmOptions
from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import Submission, Ticket
from hpc_prefect.schedulers.slurm.scheduler import SlurmScheduler

T = TypeVar("T")
SLURM = SlurmScheduler()
FOLDER = Path(__file__).parents[1] / "transcripts" / "slurm"
TICKET = Ticket(
    tag="htag", folder="/w/f", script="/w/f/s.sh", scheduler_out="/w/f/o", scheduler_err="/w/f/e"
)
#: Stands in replies where the mark is that the question drew.
MARK = "<mark>"
_DRAWN = re.compile(r"(?:Reason:\||--delimiter=\|)([0-9a-f]{16})")
#: Words of the manual, and some that it does not have, with the state and the cause of an end.
STATES = {
    "POWER_UP_NODE": (JobState.QUEUED, None),
    "EXPEDITING": (JobState.QUEUED, None),
    "BOOT_FAIL": (JobState.ENDED, Reason.NODE_FAILURE),
    "CANCELLED": (JobState.ENDED, Reason.CANCELLED),
    "CANCELLED+": (JobState.ENDED, Reason.CANCELLED),
    "CANCELLED by 1001": (JobState.ENDED, Reason.CANCELLED),
    "COMPLETED": (JobState.ENDED, Reason.SUCCEEDED),
    "CONFIGURING": (JobState.QUEUED, None),
    "COMPLETING": (JobState.ENDING, None),
    "DEADLINE": (JobState.ENDED, Reason.WALLTIME),
    "FAILED": (JobState.ENDED, Reason.PROGRAM_FAILED),
    "NODE_FAIL": (JobState.ENDED, Reason.NODE_FAILURE),
    "OUT_OF_MEMORY": (JobState.ENDED, Reason.OUT_OF_MEMORY),
    "PENDING": (JobState.QUEUED, None),
    "PREEMPTED": (JobState.ENDED, Reason.PREEMPTED),
    "RUNNING": (JobState.RUNNING, None),
    "RESV_DEL_HOLD": (JobState.HELD, None),
    "REQUEUE_FED": (JobState.QUEUED, None),
    "REQUEUE_HOLD": (JobState.HELD, None),
    "REQUEUED": (JobState.QUEUED, None),
    "RESIZING": (JobState.RUNNING, None),
    "REVOKED": (JobState.UNKNOWN, None),  # another cluster of a federation has it
    "SIGNALING": (JobState.RUNNING, None),
    "SPECIAL_EXIT": (JobState.HELD, None),
    "STAGE_OUT": (JobState.ENDING, None),
    "STOPPED": (JobState.SUSPENDED, None),
    "SUSPENDED": (JobState.SUSPENDED, None),
    "TIMEOUT": (JobState.ENDED, Reason.WALLTIME),
    "HIBERNATING": (JobState.UNKNOWN, None),
    "FAILED_NOT": (JobState.UNKNOWN, None),
    "": (JobState.UNKNOWN, None),
}
DEFAULT = SlurmOptions().model_dump(mode="json")


def recorded(name: str) -> Reply:
    found = json.loads((FOLDER / f"{name}.json").read_text())
    return Reply(found["rc"], found["stdout"], found["stderr"])


def mark_of(words: Sequence[str]) -> str:
    """The mark that a question drew; empty when it is none that draws one."""
    drawn = _DRAWN.search(" ".join(words))
    return drawn[1] if drawn else ""


def unmarked(words: Sequence[str]) -> list[str]:
    """A question with the same word for whatever mark it drew."""
    mark = mark_of(words)
    return [word.replace(mark, MARK) if mark else word for word in words]


def with_mark(command: Command, reply: Reply) -> Reply:
    """The reply as a question with that mark gets it."""
    mark = mark_of(command.argv)
    return replace(reply, stdout=reply.stdout.replace(MARK, mark)) if mark else reply


def converse(dialogue: Dialogue[T], *replies: Reply) -> tuple[T, list[str]]:
    """The dialogue's result and the commands it ran; every reply must be asked for."""
    command: Command = next(dialogue)
    commands = [" ".join(unmarked(command.argv))]
    for left, reply in enumerate(replies, start=1):
        try:
            command = dialogue.send(with_mark(command, reply))
            commands.append(" ".join(unmarked(command.argv)))
        except StopIteration as stop:
            assert left == len(replies), f"{len(replies) - left} replies were not asked for"
            return stop.value, commands
    raise AssertionError(f"the dialogue wants a reply to {commands[-1]}")


def spec(
    options: dict[str, Any] | None = None, site: dict[str, Any] | None = None, **changes: Any
) -> JobSpec:
    """A job of 2 nodes × 4 ranks × 8 threads; options, `site` and shape with changes."""
    shape = {"num_nodes": 2, "ranks_per_node": 4, "threads_per_rank": 8, "walltime": 5400}
    work_dir, names = changes.pop("work_dir", "/w"), changes.pop("secret_names", ())
    array = changes.pop("array", None)
    return JobSpec(
        name="n",
        command_name="c",
        executable=Executable(path="/bin/true"),
        site=Site(scheduler="slurm", options=DEFAULT | (options or {}), **(site or {})),
        resources=Resources(**shape | changes),
        work_dir=work_dir,
        secret_names=names,
        array=array,
        has_members=array is not None,
    )


def submission(reply: Reply) -> Submission:
    return converse(SLURM.submit(spec(), TICKET), reply)[0]


ALONE = {"accounting": False}


def row(**changes: str) -> str:
    """A row of the queue about a running job, with changes."""
    fields = {
        "JobID": "7", "ArrayJobID": changes.get("JobID", "7"), "ArrayTaskID": "N/A",
        "State": "RUNNING", "exit_code": "0", "SubmitTime": "100",
        "StartTime": "110", "EndTime": "410", "BatchHost": "n1", "Reason": "None", "Name": "htag",
    }  # fmt: skip
    *plain, why, name = (fields | changes).values()
    return "|".join([*plain, why]) + f"|{MARK}{name}|{MARK}\n"


def past(**changes: str) -> str:
    """A row of the history about a job that succeeded, with changes."""
    fields = {
        "JobID": "7", "State": "COMPLETED", "ExitCode": "0:0", "Submit": "100",
        "Start": "110", "End": "120", "NodeList": "n1", "Reason": "None", "JobName": "htag",
    }  # fmt: skip
    return "".join(f"{value}|{MARK}|" for value in (fields | changes).values()) + "\n"


def in_queue(**changes: str) -> Observation:
    answer, _ = converse(SLURM.observe(["7"], ALONE), Reply(0, row(**changes)))
    return answer["7"]  # type: ignore[index, return-value]


def in_history(**changes: str) -> Observation:
    gone = recorded("squeue_one_unknown")
    answer, _ = converse(SLURM.observe(["7"], {}), gone, Reply(0, past(**changes)))
    return answer["7"]  # type: ignore[index, return-value]


def asked_and_answered(name: str) -> tuple[list[str], Reply]:
    """The ids that a recorded question of ours was about, and its answer with our mark."""
    argv = json.loads((FOLDER / f"{name}.json").read_text())["argv"]
    reply = recorded(name)
    ids = argv[-1].removeprefix("--jobs=").split(",")
    return ids, Reply(reply.code, reply.stdout.replace(mark_of(argv), MARK))
