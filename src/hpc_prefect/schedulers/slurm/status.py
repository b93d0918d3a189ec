"""What `squeue` and `sacct` are asked, and what their rows say.

Users write the names, and some of the reasons: they may hold a separator, or a line that looks like
a row. So each question draws a new random mark, at which the text is cut, and the fields that may
hold anything stand last in their row. So no user's text can be read as Slurm's word.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Iterator, Mapping

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation, signal_name
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.slurm.arrays import JobRow, Listed, indices

#: "JOB STATE CODES" of squeue(1) and sacct(1), of Slurm 22.05 to 26.05. A word that is not here is
#: UNKNOWN, never an end.
_STATES = {
    "PENDING": JobState.QUEUED,
    "CONFIGURING": JobState.QUEUED,
    "POWER_UP_NODE": JobState.QUEUED,
    "EXPEDITING": JobState.QUEUED,
    "REQUEUED": JobState.QUEUED,
    "REQUEUE_FED": JobState.QUEUED,
    "REQUEUE_HOLD": JobState.HELD,
    "RESV_DEL_HOLD": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SUSPENDED": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
    "COMPLETING": JobState.ENDING,
    "STAGE_OUT": JobState.ENDING,
}
_ENDS = {
    "COMPLETED": Reason.SUCCEEDED,
    "FAILED": Reason.PROGRAM_FAILED,
    "TIMEOUT": Reason.WALLTIME,
    "DEADLINE": Reason.WALLTIME,
    "OUT_OF_MEMORY": Reason.OUT_OF_MEMORY,
    "NODE_FAIL": Reason.NODE_FAILURE,
    "BOOT_FAIL": Reason.NODE_FAILURE,
    "PREEMPTED": Reason.PREEMPTED,
    "CANCELLED": Reason.CANCELLED,
}
#: What to tell a person about a state that is UNKNOWN to us.
_UNTOLD = {
    "REVOKED": "another cluster of the federation has the job: name it in slurm.cluster of the"
    " HPC profile",
}

_WAITING = (JobState.QUEUED, JobState.HELD)
_NO_HOST = ("n/a", "None assigned")

#: The ends whose exit code is the program's. For others it is what Slurm's own signal left.
_WITH_CODE = (Reason.SUCCEEDED, Reason.PROGRAM_FAILED)

#: "JOB REASON CODES": why a job waits for a person.
_HELD = re.compile(r"JobHeld(User|Admin)|JobHoldMaxRequeue|.*requeued held|ReservationDeleted")
#: … and why it would wait for ever: it asks for more than a job may ever have there.
_NEVER = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|BadConstraints|AccountNotAllowed"
    r"|QOSNotAllowed|InvalidAccount|InvalidQOS|(QOS|Assoc)Max\w*PerJob(Limit)?|QOSMin\w+"
)

#: squeue's `exit_code` and sacct's show this "signal" when the node could not start the script,
#: because its output file or its working directory is not there.
_NOT_LAUNCHED = 53

#: Slurm's own words first; a reason and a name may hold anything.
_QUEUE_FIELDS = (
    *("JobID", "ArrayJobID", "ArrayTaskID"),
    *("State", "exit_code", "SubmitTime", "StartTime", "EndTime", "BatchHost"),
    *("Reason", "Name"),
)
_QUEUE_ROW = re.compile(r"^(\d+)" + r"\|([^|\n]*)" * (len(_QUEUE_FIELDS) - 3) + r"\|", re.M | re.A)
#: The array task of a row that is about no element, or about elements that it does not name.
_NO_TASK = "N/A"
_HISTORY_FIELDS = (
    *("JobID", "State", "ExitCode", "Submit", "Start", "End", "NodeList", "Reason", "JobName"),
)

_NUMBER = re.compile(r"[0-9]{1,18}")
#: A job, an element of an array, or the elements of one that wait or were cancelled while they
#: waited. That list is not read: it is cut, and may name elements that have begun since.
_PAST_JOB = re.compile(r"([0-9]{1,18})(?:_([0-9]{1,7})|_\[.*\])?")
#: A numbered step is one that srun started; `batch` and `extern` are Slurm's own.
_STEP = re.compile(r"([0-9]{1,18}(?:_[0-9]{1,7})?)\.[0-9]+")

#: Times as seconds since 1970 instead of local times without a zone.
_SECONDS = {"SLURM_TIME_FORMAT": "%s"}
#: squeue cuts the list of an array's waiting elements after 64 characters; 0: it does not.
_UNCUT = {"SLURM_BITSTR_LEN": "0"}


def at(options: Mapping[str, object]) -> tuple[str, ...]:
    """The option that names the profile's cluster; none if the profile names no cluster."""
    cluster = options.get("cluster")
    return (f"--clusters={cluster}",) if cluster else ()


# --- the queue


def ask_queue(
    options: Mapping[str, object], which: str, *, states: str = "all"
) -> Dialogue[Listed | NoAnswer]:
    """What the queue says of jobs. A job that is not in the answer is not in the queue."""
    mark = _mark()
    ends = dict.fromkeys(("Reason", "Name"), mark)
    fields = ",".join(f"{name}:|{ends.get(name, '')}" for name in _QUEUE_FIELDS)
    form = ("--noheader", f"--states={states}", f"--Format={fields}")
    reply = yield Command(
        ("squeue", *at(options), *form, which), environment={**_SECONDS, **_UNCUT}
    )
    # One unknown id is an error; two or more are left out in silence.
    if reply.code == 1 and "Invalid job id specified" in reply.stderr:
        return Listed()
    if reply.code != 0:
        return NoAnswer(reply.said)
    if _is_cut_off(reply, f"|{mark}", marks=len(ends)):
        return NoAnswer(f"an answer of squeue is cut off: {reply.stdout[-200:]!r}")
    rows = []
    for row in _queue_rows(reply, mark):
        tasks = row["ArrayTaskID"]
        found = None if tasks == _NO_TASK else indices(tasks)
        if found is None and tasks != _NO_TASK:
            return NoAnswer(
                f"squeue lists elements {tasks!r} of array {row['ArrayJobID']}: cannot be read"
            )
        array = row["ArrayJobID"] if _NUMBER.fullmatch(row["ArrayJobID"]) else row["JobID"]
        rows.append(JobRow(array, found, _queued(row)))
    return Listed(rows)


def _mark() -> str:
    return secrets.token_hex(8)


def _is_cut_off(reply: Reply, mark: str, *, marks: int) -> bool:
    """Whether the last row is incomplete; a whole row has `marks` marks.

    The job of an incomplete row would look as if it were not listed. Other lines do not count.
    """
    parts = reply.stdout.split(mark)
    return (len(parts) - 1) % marks != 0 or "|" in parts[-1]


def _queue_rows(reply: Reply, mark: str) -> Iterator[dict[str, str]]:
    parts = reply.stdout.split(f"|{mark}")
    for begin, name in zip(parts[:-1:2], parts[1::2], strict=False):
        if row := _QUEUE_ROW.search(begin):
            values = (*row.groups(), begin[row.end() :], name)
            yield dict(zip(_QUEUE_FIELDS, values, strict=True))


def _queued(row: Mapping[str, str]) -> Observation:
    status = _number(row["exit_code"])  # as of wait(2)
    return _observation(
        (row["JobID"], row["Name"], row["State"], row["Reason"]),
        (status >> 8, status & 0x7F),
        (row["SubmitTime"], row["StartTime"], row["EndTime"], row["BatchHost"]),
    )


# --- the history


def ask_history(options: Mapping[str, object], *which: str) -> Dialogue[Listed | NoAnswer | None]:
    """What the history says of jobs; None when the site keeps none.

    Only ends count: what it lists as waiting or running lags behind the queue by a second or two.
    """
    mark = f"|{_mark()}|"
    form = ("--noheader", "--parsable", f"--delimiter={mark}")
    argv = ("sacct", *at(options), *form, f"--format={','.join(_HISTORY_FIELDS)}", *which)
    reply = yield Command(argv, environment=_SECONDS)
    if "accounting storage is disabled" in reply.stderr:
        return None
    if reply.code != 0:
        return NoAnswer(reply.said)
    if _is_cut_off(reply, mark, marks=len(_HISTORY_FIELDS)):
        return NoAnswer(f"an answer of sacct is cut off: {reply.stdout[-200:]!r}")
    found, steps = [], []
    for row in _history_rows(reply, mark):
        if _STEP.fullmatch(row["JobID"]):
            steps.append(row)
        elif job := _PAST_JOB.fullmatch(row["JobID"]):
            index = int(job[2]) if job[2] else None
            found.append(JobRow(job[1], None if index is None else ((index, index),), _past(row)))
    return Listed(_with_last_steps(found, steps))


def _with_last_steps(rows: list[JobRow], steps: list[dict[str, str]]) -> list[JobRow]:
    """The rows; OUT_OF_MEMORY is the cause of a failed job whose last failed step says so.

    The memory limit holds for each step of srun, so the job itself may show a plain exit code."""
    last_failed: dict[str, tuple[int, bool, str]] = {}
    for step in steps:
        if step["State"] != "COMPLETED":
            key = (_number(step["End"]), step["State"] == "OUT_OF_MEMORY", step["JobID"])
            job_id = step["JobID"].rpartition(".")[0]
            last_failed[job_id] = max(key, last_failed.get(job_id, key))
    for n, row in enumerate(rows):
        _, out_of_memory, step_id = last_failed.get(row.seen.id, (0, False, ""))
        if out_of_memory and row.seen.cause is Reason.PROGRAM_FAILED:
            said = f"Slurm says OUT_OF_MEMORY of its step {step_id}"
            seen = dataclasses.replace(row.seen, cause=Reason.OUT_OF_MEMORY, message=said)
            rows[n] = dataclasses.replace(row, seen=seen)
    return rows


def _history_rows(reply: Reply, mark: str) -> Iterator[dict[str, str]]:
    parts = reply.stdout.split(mark)
    width = len(_HISTORY_FIELDS)
    for start in range(0, len(parts) - width, width):
        job_id, *rest = parts[start : start + width]
        # Before the id is the end of the previous row, or other output.
        values = (job_id.rpartition("\n")[2], *rest)
        yield dict(zip(_HISTORY_FIELDS, values, strict=True))


def _past(row: Mapping[str, str]) -> Observation:
    code, _, number = row["ExitCode"].partition(":")
    return _observation(
        (row["JobID"], row["JobName"], row["State"], row["Reason"]),
        (_number(code), _number(number)),
        (row["Submit"], row["Start"], row["End"], row["NodeList"]),
    )


# --- a row in our words


def _observation(
    job: tuple[str, str, str, str], ended: tuple[int, int], when: tuple[str, str, str, str]
) -> Observation:
    job_id, tag, word, why = job
    base = word.partition(" ")[0].removesuffix("+")  # "CANCELLED by 1001"; "+" where it was cut
    reason = "" if why in ("None", "(null)") else why
    cause = _ENDS.get(base)
    state = JobState.ENDED if cause else _STATES.get(base, JobState.UNKNOWN)
    if state is JobState.QUEUED and _HELD.fullmatch(reason):
        state = JobState.HELD
    code, number = ended if cause else (0, 0)
    return Observation(
        id=job_id,
        state=state,
        word=word,
        cause=_end(cause, reason, number) if cause else _never(state, reason),
        tag=tag,
        exit_code=None if number or cause not in _WITH_CODE else code,
        signal=signal_name(number),
        message=_UNTOLD.get(base) or _message(cause, word, reason, number),
        host="" if when[3] in _NO_HOST else when[3],
        queued_at=float(_number(when[0])),
        # For a waiting job this is only when it may start.
        started_at=0.0 if state in _WAITING else float(_number(when[1])),
        ended_at=float(_number(when[2])) if cause else 0.0,
    )


def _end(cause: Reason, reason: str, number: int) -> Reason:
    if reason == "DependencyNeverSatisfied":  # with kill_invalid_depend
        return Reason.DEPENDENCY_NEVER_MET
    if cause is Reason.PROGRAM_FAILED and number == _NOT_LAUNCHED:
        return Reason.SETUP_FAILED
    if cause is Reason.PROGRAM_FAILED and _NEVER.fullmatch(reason):
        return Reason.CAN_NEVER_RUN
    return cause


def _never(state: JobState, reason: str) -> Reason | None:
    if reason == "DependencyNeverSatisfied":
        return Reason.DEPENDENCY_NEVER_MET
    waits = state is JobState.QUEUED
    return Reason.CAN_NEVER_RUN if waits and _NEVER.fullmatch(reason) else None


def _message(cause: Reason | None, word: str, reason: str, number: int) -> str:
    if cause is Reason.PROGRAM_FAILED and number == _NOT_LAUNCHED:
        return (
            f"Slurm could not start the script on the node ({word} 0:{number}): the job folder or"
            " work_dir is not there, or cannot be written"
        )
    if cause is Reason.CANCELLED:
        return word if " by " in word else ""  # by which user, as a number
    return reason


def _number(text: str) -> int:
    """0 for a text that is no number, such as `N/A`."""
    return int(text) if _NUMBER.fullmatch(text) else 0
