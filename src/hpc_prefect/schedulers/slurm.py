"""Slurm: `sbatch`, `squeue`, `sacct`, `scancel`.

Seen on Slurm 22.05 with and without accounting; what was only read in its manual is marked.

The queue (`squeue`) is asked first: it also lists jobs that ended within the last minutes, with
their exit status as it was. The history (`sacct`) is asked about what the queue no longer lists:
it lags a second or two, subtracts 128 from exit codes of 128 and more, and may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import JobState, Observation, Patience, signal_name
from hpc_prefect.schedulers import sbatch
from hpc_prefect.schedulers.base import (
    Answer,
    Found,
    NoAnswer,
    Submission,
    Ticket,
    Told,
    by_name,
)

#: "JOB STATE CODES" of squeue(1) and sacct(1). A word that is not here is UNKNOWN, never an end.
_STATES = {
    "PENDING": JobState.QUEUED,
    "CONFIGURING": JobState.QUEUED,
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

_WAITING = (JobState.QUEUED, JobState.HELD)
_NO_HOST = ("n/a", "None assigned")

#: For other ends Slurm shows whatever its own signal left.
_WITH_CODE = (Reason.SUCCEEDED, Reason.PROGRAM_FAILED)

#: "JOB REASON CODES": why a job waits for a person.
_HELD = re.compile(r"JobHeld(User|Admin)|JobHoldMaxRequeue|.*requeued held|ReservationDeleted")
#: … and why it would wait for ever: what it asks for is more than one job may ever have there.
_NEVER = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|PartitionConfig|BadConstraints|AccountNotAllowed"
    r"|QOSNotAllowed|InvalidAccount|InvalidQOS|(QOS|Assoc)Max\w*PerJob(Limit)?|QOSMin\w+"
)

#: squeue's `exit_code` and sacct's show this "signal" when the node could not start the script,
#: because its output file or its working directory is not there.
_NOT_LAUNCHED = 53

_QUEUE_FIELDS = (
    *("JobID", "Name", "State", "exit_code", "SubmitTime", "StartTime", "EndTime", "BatchHost"),
    "Reason",  # last, because it may hold anything
)
_HISTORY_FIELDS = "JobID,JobName,State,ExitCode,Submit,Start,End,NodeList,Reason"

_NUMBER = re.compile(r"[0-9]{1,18}")

#: Times as seconds since 1970 instead of local times without a zone.
_SECONDS = {"SLURM_TIME_FORMAT": "%s"}

_OUTPUT = (
    (re.compile(r"DUE TO TIME LIMIT"), Reason.WALLTIME),
    (re.compile(r"DUE TO PREEMPTION"), Reason.PREEMPTED),
    (re.compile(r"DUE TO NODE FAILURE"), Reason.NODE_FAILURE),
    (
        re.compile(r"Exceeded (job|step) memory limit|oom.kill|Out Of Memory|out-of-memory", re.I),
        Reason.OUT_OF_MEMORY,
    ),
)
#: Only Slurm's own lines: a program may write what it likes.
_OWN_LINE = re.compile(r"(slurmstepd|srun|slurmd)\S*: error: ")


class SlurmScheduler:
    """`Scheduler` for Slurm."""

    name = "slurm"
    runs_here = False
    patience = Patience(record=30.0)
    ids_per_question = 500
    hurry = 2.0

    def problems(self, spec: JobSpec) -> list[str]:
        return sbatch.problems(spec)

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#SBATCH {option}" for option in sbatch.directives(spec))
        return Preamble(
            directives=lines,
            id_expression='"$SLURM_JOB_ID"',
            restarts='"${SLURM_RESTART_COUNT:-0}"',
        )

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        reply = yield Command(
            (
                *("sbatch", "--parsable", f"--job-name={ticket.tag}"),
                f"--chdir={spec.work_dir}",
                f"--output={_pattern(ticket.scheduler_out)}",
                f"--error={_pattern(ticket.scheduler_err)}",
                # A requeued job's evidence must not be that of its earlier run.
                "--open-mode=truncate",
                ticket.script,
            ),
            # While the controller has no room, sbatch tries by itself for two minutes.
            timeout=150.0,
        )
        return sbatch.submission(reply)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        queued = _read_queue((yield _squeue("--jobs=" + ",".join(ids))))
        if isinstance(queued, NoAnswer):
            return queued
        answer: Answer = {**queued}
        left = [each for each in ids if each not in answer]
        if left and options.get("accounting", True):
            ended = _read_history((yield _sacct("--jobs=" + ",".join(left))))
            if isinstance(ended, NoAnswer):
                return answer | dict.fromkeys(left, ended)
            answer |= ended
        return answer

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        queued = _read_queue((yield _squeue("--name=" + ",".join(tags))))
        if isinstance(queued, NoAnswer):
            return queued
        found = by_name(tags, queued.values())
        left = [tag for tag in tags if not found[tag]]
        if left and options.get("accounting", True):
            names = "--name=" + ",".join(left)
            ended = _read_history((yield _sacct(names, "--starttime=now-30days")))
            if isinstance(ended, NoAnswer):
                return found | dict.fromkeys(left, ended)
            found |= by_name(left, ended.values())
        return found

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        failed = None
        for job_id, tag in jobs.items():
            # With the name, because a killed controller that forgets a job gives its id again: a
            # job of another name is left alone, with exit status 0.
            reply = yield Command(("scancel", f"--name={tag}", job_id))
            # What it says of a job that has ended or is not known. Without a name it is silent.
            if reply.code != 0 and "Invalid job id specified" not in reply.stderr:
                failed = NoAnswer(reply.said)
        return failed

    def read_output(self, text: str) -> Told | None:
        for line in reversed(text.splitlines()):
            if _OWN_LINE.match(line):
                for pattern, reason in _OUTPUT:
                    if pattern.search(line):
                        return Told(reason, line.strip())
        return None


def _pattern(path: str) -> str:
    """A path for `--output`, in which `%j` and its like would be replaced."""
    return path.replace("%", "%%")


def _squeue(which: str) -> Command:
    fields = ",".join(f"{name}:|" for name in _QUEUE_FIELDS)
    argv = ("squeue", "--noheader", "--states=all", f"--Format={fields}", which)
    return Command(argv, environment=_SECONDS)


def _read_queue(reply: Reply) -> dict[str, Observation] | NoAnswer:
    # One unknown id is an error; two or more are left out in silence.
    if reply.code == 1 and "Invalid job id specified" in reply.stderr:
        return {}
    if reply.code != 0:
        return NoAnswer(reply.said)
    found = {}
    for line in reply.stdout.splitlines():
        parts = line.strip().removesuffix("|").split("|", len(_QUEUE_FIELDS) - 1)
        if len(parts) == len(_QUEUE_FIELDS):
            seen = _queue_row(dict(zip(_QUEUE_FIELDS, parts, strict=True)))
            found[seen.id] = seen
    return found


def _queue_row(row: Mapping[str, str]) -> Observation:
    status = _number(row["exit_code"])  # as of wait(2)
    return _observation(
        (row["JobID"], row["Name"], row["State"], row["Reason"]),
        (status >> 8, status & 0x7F),
        (row["SubmitTime"], row["StartTime"], row["EndTime"], row["BatchHost"]),
    )


def _sacct(*which: str) -> Command:
    fixed = ("sacct", "--allocations", "--noheader", "--parsable2", f"--format={_HISTORY_FIELDS}")
    return Command((*fixed, *which), environment=_SECONDS)


def _read_history(reply: Reply) -> dict[str, Observation] | NoAnswer:
    """The ends that the history knows.

    What it lists as waiting or running is left out: it was asked because the queue no longer lists
    the job, and the queue is never behind.
    """
    if "accounting storage is disabled" in reply.stderr:
        return {}
    if reply.code != 0:
        return NoAnswer(reply.said)
    names = _HISTORY_FIELDS.split(",")
    found = {}
    for line in reply.stdout.splitlines():
        parts = line.split("|", len(names) - 1)
        if len(parts) == len(names):
            seen = _history_row(dict(zip(names, parts, strict=True)))
            if seen.state is JobState.ENDED:
                found[seen.id] = seen
    return found


def _history_row(row: Mapping[str, str]) -> Observation:
    code, _, number = row["ExitCode"].partition(":")
    return _observation(
        (row["JobID"], row["JobName"], row["State"], row["Reason"]),
        (_number(code), _number(number)),
        (row["Submit"], row["Start"], row["End"], row["NodeList"]),
    )


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
        message=_message(cause, word, reason, number),
        host="" if when[3] in _NO_HOST else when[3],
        queued_at=float(_number(when[0])),
        # Of a job that waits it is only when it may start.
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
    """0 for what is none, such as `N/A`."""
    return int(text) if _NUMBER.fullmatch(text) else 0
