"""Slurm: `sbatch`, `squeue`, `sacct`, `scancel`.

Seen on Slurm 22.05 with and without accounting; what was only read in its manual is marked.

The queue (`squeue`) is asked first: it also lists jobs that ended within the last minutes, with
their exit status as it was. The history (`sacct`) is asked about what the queue no longer lists:
it lags a second or two, subtracts 128 from exit codes of 128 and more, and may be missing. It is
also asked about jobs that failed, because only it tells how their steps ended.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from hpc_prefect.job.dialogue import Command, Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import Observation, Patience
from hpc_prefect.schedulers.base import Answer, Found, NoAnswer, Submission, Ticket, Told, by_name
from hpc_prefect.schedulers.slurm import submit as sbatch
from hpc_prefect.schedulers.slurm.status import Rows, ask_history, ask_queue, at

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

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        return sbatch.environment_problems(spec, environment)

    def array_limit(self, options: Mapping[str, object]) -> int:
        return 0

    def element_id(self, array_id: str, index: int) -> str:
        return f"{array_id}[{index}]"

    def array_of(self, job_id: str) -> str:
        return job_id.partition("[")[0]

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#SBATCH {option}" for option in sbatch.directives(spec))
        return Preamble(
            directives=lines,
            id_expression='"$SLURM_JOB_ID"',
            restarts='"${SLURM_RESTART_COUNT:-0}"',
            unset=sbatch.UNSET,
        )

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        reply = yield Command(
            (
                *("sbatch", *at(spec.site.options), "--parsable", f"--job-name={ticket.tag}"),
                f"--chdir={spec.work_dir}",
                f"--output={_pattern(ticket.scheduler_out)}",
                f"--error={_pattern(ticket.scheduler_err)}",
                # A requeued job's evidence must not be that of its earlier run.
                "--open-mode=truncate",
                ticket.script,
            ),
            # While the controller has no room, sbatch tries by itself for two minutes.
            timeout=150.0,
            inherits=sbatch.INHERITS,
        )
        return sbatch.submission(reply)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        queued = yield from ask_queue(options, "--jobs=" + ",".join(ids))
        if isinstance(queued, NoAnswer):
            return queued
        answer: Answer = {**queued}
        left = [each for each in ids if each not in queued]
        failed = [each for each in ids if each in queued and _may_be_a_steps(queued[each])]
        if (left or failed) and options.get("accounting", True):
            asked = "--jobs=" + ",".join(left + failed)
            ended = yield from ask_history(options, asked)
            if isinstance(ended, NoAnswer):
                return answer | dict.fromkeys(left, ended)
            if ended is None:
                return answer
            answer |= {each: ended[each] for each in left if each in ended}
            answer |= {each: _with_steps(queued[each], ended) for each in failed}
        return answer

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        queued = yield from ask_queue(options, "--name=" + ",".join(tags))
        if isinstance(queued, NoAnswer):
            return queued
        found = by_name(tags, queued.values())
        left = [tag for tag in tags if not found[tag]]
        if left and options.get("accounting", True):
            names = "--name=" + ",".join(left)
            ended = yield from ask_history(options, names, "--starttime=now-30days")
            if isinstance(ended, NoAnswer):
                return found | dict.fromkeys(left, ended)
            found |= by_name(left, (ended or {}).values())
        return found

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        failed = None
        for job_id, tag in jobs.items():
            # With the name, because a killed controller that forgets a job gives its id again: a
            # job of another name is left alone, with exit status 0.
            reply = yield Command(("scancel", *at(options), f"--name={tag}", job_id))
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


def _may_be_a_steps(seen: Observation) -> bool:
    """Whether it failed with a code: that of a launcher, of which a step was killed, perhaps."""
    return seen.cause is Reason.PROGRAM_FAILED and bool(seen.exit_code)


def _with_steps(seen: Observation, history: Rows) -> Observation:
    """What the queue says of a job that failed, with what only the history says of its steps."""
    past = history.get(seen.id)
    if past is None or past.tag != seen.tag:
        return dataclasses.replace(seen, final=False)  # it lags behind the queue
    if past.cause is not Reason.OUT_OF_MEMORY:
        return seen
    return dataclasses.replace(seen, cause=past.cause, message=past.message)
