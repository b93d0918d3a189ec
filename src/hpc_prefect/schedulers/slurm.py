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
from hpc_prefect.schedulers.base import (
    Accepted,
    Answer,
    NoAnswer,
    Refused,
    Submission,
    Ticket,
    Told,
    Unclear,
)
from hpc_prefect.schedulers.directives import line_problems, refused_options, value_problems

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

#: Times as seconds since 1970 instead of local times without a zone.
_SECONDS = {"SLURM_TIME_FORMAT": "%s"}

#: What the controller answers when it has looked at a job and does not take it (slurm_errno.c).
#: Anything else may have been said by the connection, while the job exists.
_REFUSAL = re.compile(
    r"Invalid|Requested|Required|More (processors|nodes)|Too many|Unsupported|Incompatible|Missing"
    r"|Job (violates|dependency|size|script|cannot)|Memory|Node count|Task count|No partition"
    r"|Access/permission denied|User's group|Unspecified error|Reservation|Expired|Licenses"
    r"|Pathname|Batch job script|Unable to allocate|Duplicate|Feature|Only one|Burst buffer"
)
_SUBMISSION_FAILED = re.compile(r"Batch job submission failed: (.*)")
#: QOSMaxSubmitJobPerUserLimit, AssocGrpSubmitJobsLimit …: too many jobs wait, not a wrong job.
_FULL = re.compile(r"\w*SubmitJobs?\w*Limit")

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

_REFUSED_DIRECTIVES = {
    **dict.fromkeys(("-J", "--job-name"), "the job's name is how it is found again"),
    **dict.fromkeys(
        ("-o", "--output", "-e", "--error", "--open-mode"), "output goes to the job folder"
    ),
    **dict.fromkeys(("-D", "--chdir"), "the program runs in work_dir"),
    **dict.fromkeys(("-a", "--array"), "one call is one job"),
    **dict.fromkeys(("-M", "--clusters"), "the other commands would ask another cluster"),
    **dict.fromkeys(("-W", "--wait"), "the flow waits by itself"),
    **dict.fromkeys(("-t", "--time"), "set walltime in the execution profile"),
    **dict.fromkeys(("-N", "--nodes"), "set num_nodes in the execution profile"),
    **dict.fromkeys(("-A", "--account"), "set project_cpu or project_gpu"),
    **dict.fromkeys(("-p", "--partition"), "set queue_cpu or queue_gpu"),
    **dict.fromkeys(("--mem", "--mem-per-cpu"), "set memory_per_node in the execution profile"),
    **dict.fromkeys(("--requeue", "--no-requeue"), "set slurm.requeue"),
    "--wrap": "the script is ours",
    "--test-only": "the job would not be submitted",
    "--parsable": "it is given",
}


class SlurmScheduler:
    """`Scheduler` for Slurm."""

    name = "slurm"
    runs_here = False
    patience = Patience(record=30.0)
    ids_per_question = 500
    hurry = 2.0

    def problems(self, spec: JobSpec) -> list[str]:
        options = spec.site.options
        named = {
            "queue": spec.site.queue,
            "project": spec.site.project,
            **{f"slurm.{name}": options.get(name, "") for name in ("qos", "reservation")},
            **{f"slurm.{name}": options.get(name, "") for name in ("constraint", "gpu_type")},
        }
        found = [text for what, value in named.items() for text in value_problems(what, value)]
        for name in options.get("qpu", ()):
            found += value_problems("slurm.qpu", name)
        lines = options.get("directives", ())
        for line in lines:
            found += line_problems("slurm.directives", line)
        found += refused_options(
            "slurm.directives", lines, _REFUSED_DIRECTIVES, letters="JoeDaMWtNAp"
        )
        if options.get("requeue") == "yes" and spec.secret_names:
            found.append(
                "slurm.requeue is 'yes', but the profile has a secret_environment: a job reads its"
                " secrets once, so a requeued one would have none; choose 'no', or use retries"
            )
        return found

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#SBATCH {option}" for option in _directives(spec))
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
            timeout=120.0,
        )
        return _submission(reply)

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
        self, tag: str, options: Mapping[str, object]
    ) -> Dialogue[dict[str, Observation] | NoAnswer]:
        found = _read_queue((yield _squeue(f"--name={tag}")))
        if isinstance(found, NoAnswer) or found or not options.get("accounting", True):
            return found
        return _read_history((yield _sacct(f"--name={tag}", "--starttime=now-30days")))

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


def _directives(spec: JobSpec) -> list[str]:
    shape, site, options = spec.resources, spec.site, spec.site.options
    found = [
        f"--nodes={shape.num_nodes}",
        f"--ntasks-per-node={shape.ranks_per_node}",
        f"--cpus-per-task={shape.threads_per_rank}",
        f"--time={_walltime(shape.walltime)}",
    ]
    if shape.memory_per_node:
        found.append(f"--mem={-(-shape.memory_per_node // 1024**2)}M")
    if shape.gpus_per_node:
        kind = f"{options['gpu_type']}:" if options.get("gpu_type") else ""
        gres = options.get("gpu_option") == "gres"
        wanted = f"{kind}{shape.gpus_per_node}"
        found.append(f"--gres=gpu:{wanted}" if gres else f"--gpus-per-node={wanted}")
    if site.queue:
        found.append(f"--partition={site.queue}")
    if site.project:
        found.append(f"--account={site.project}")
    for name in ("qos", "reservation", "constraint"):
        if options.get(name):
            found.append(f"--{name}={options[name]}")
    if options.get("exclusive"):
        found.append("--exclusive")
    if options.get("qpu"):
        found.append(f"--qpu={','.join(options['qpu'])}")
    # The script reads its secrets once, so a second start of it would have none.
    requeue = "no" if spec.secret_names else options.get("requeue", "site")
    if requeue != "site":
        found.append("--requeue" if requeue == "yes" else "--no-requeue")
    return [*found, *options.get("directives", ())]


def _walltime(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return f"{days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"


def _pattern(path: str) -> str:
    """A path for `--output`, in which `%j` and its like would be replaced."""
    return path.replace("%", "%%")


def _submission(reply: Reply) -> Submission:
    job_id = reply.stdout.strip().partition(";")[0]  # "ID;CLUSTER" where there are several
    if reply.code == 0 and job_id.isdecimal():
        return Accepted(job_id)
    if reply.code in (1, 255) and not job_id and _is_refusal(reply.stderr):
        return Refused(_without_prefix(reply.stderr), full=bool(_FULL.search(reply.stderr)))
    return Unclear(reply.said)


def _is_refusal(stderr: str) -> bool:
    """Whether the job does not exist, for sure."""
    failed = _SUBMISSION_FAILED.search(stderr)
    if failed:
        return _REFUSAL.match(failed[1]) is not None
    # Before anything was sent: options or script are not as they must be.
    return stderr.startswith("sbatch: ") and "fatal" not in stderr and "contact" not in stderr


def _without_prefix(stderr: str) -> str:
    return "\n".join(line.removeprefix("sbatch: error: ") for line in stderr.strip().splitlines())


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
    status = int(row["exit_code"]) if row["exit_code"].isdecimal() else 0  # as of wait(2)
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
    ended = (
        int(code) if code.isdecimal() else 0,
        int(number) if number.isdecimal() else 0,
    )
    return _observation(
        (row["JobID"], row["JobName"], row["State"], row["Reason"]),
        ended,
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
        host=when[3],
        queued_at=_time(when[0]),
        started_at=_time(when[1]),
        ended_at=_time(when[2]) if cause else 0.0,
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


def _time(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
