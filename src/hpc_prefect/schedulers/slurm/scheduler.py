"""Slurm: `sbatch`, `squeue`, `sacct`, `scancel`.

Seen on Slurm 22.05 with and without accounting; what was only read in its manual is marked.

The queue (`squeue`) is asked first: it also lists jobs that ended within the last minutes, with
their exit status as it was. The history (`sacct`) is asked about what the queue no longer lists:
it lags a second or two, subtracts 128 from exit codes of 128 and more, and may be missing. It is
also asked about jobs that failed, because only it tells how their steps ended.

An array as a whole is asked about in the queue, where its waiting elements are one row. The history
has two rows for each element, so it is asked about a whole only when the queue no longer lists it:
then the array has ended, and nobody asks again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from hpc_prefect.job.dialogue import Command, Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import JobState, Observation, Patience
from hpc_prefect.schedulers.base import Answer, Found, NoAnswer, Submission, Ticket, Told, by_name
from hpc_prefect.schedulers.slurm import submit as sbatch
from hpc_prefect.schedulers.slurm.arrays import MAX_ARRAY_SIZE, array_of, element_id
from hpc_prefect.schedulers.slurm.status import ask_history, ask_queue, at

_OUTPUT = (
    (re.compile(r"DUE TO TIME LIMIT"), Reason.WALLTIME),
    (re.compile(r"DUE TO PREEMPTION"), Reason.PREEMPTED),
    (re.compile(r"DUE TO NODE FAILURE"), Reason.NODE_FAILURE),
    (
        re.compile(r"Exceeded (job|step) memory limit|oom.kill|Out Of Memory|out-of-memory", re.I),
        Reason.OUT_OF_MEMORY,
    ),
)
#: Only lines of Slurm itself count: a program may write anything else.
_OWN_LINE = re.compile(r"(slurmstepd|srun|slurmd)\S*: error: ")
#: How far back to look in the history, where sacct by default would not look so far.
_A_MONTH = "--starttime=now-30days"


class SlurmScheduler:
    """`Scheduler` for Slurm."""

    name = "slurm"
    runs_here = False
    patience = Patience(record=30.0)
    ids_per_question = 500
    searchable = True
    throttles_arrays = True
    hurry = 2.0

    def problems(self, spec: JobSpec) -> list[str]:
        return sbatch.problems(spec)

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        return sbatch.environment_problems(spec, environment)

    def array_limit(self, options: Mapping[str, object]) -> int:
        # The highest number is MaxArraySize - 1, the lowest 0: so there are MaxArraySize.
        limit = options.get("max_array_size", MAX_ARRAY_SIZE)
        return limit if isinstance(limit, int) else 0

    def element_id(self, array_id: str, index: int) -> str:
        return element_id(array_id, index)

    def array_of(self, element_id: str) -> str:
        return element_id.rpartition("_")[0]

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        lines = tuple(f"#SBATCH {option}" for option in sbatch.directives(spec))
        id_expression, index = '"$SLURM_JOB_ID"', ""
        if spec.array:
            id_expression = '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'
            index = '"$SLURM_ARRAY_TASK_ID"'
        return Preamble(
            directives=lines,
            id_expression=id_expression,
            restarts='"${SLURM_RESTART_COUNT:-0}"',
            index=index,
            unset=sbatch.UNSET,
        )

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        reply = yield Command(
            (
                *("sbatch", *at(spec.site.options), "--parsable", f"--job-name={ticket.tag}"),
                f"--chdir={spec.work_dir}",
                f"--output={_pattern(ticket.scheduler_out)}",
                f"--error={_pattern(ticket.scheduler_err)}",
                # A requeued job's evidence must not be that of its earlier run. The elements of an
                # array are never requeued, and share the files.
                f"--open-mode={'append' if spec.array else 'truncate'}",
                ticket.script,
            ),
            # While the controller has no room, sbatch itself tries again for two minutes.
            timeout=150.0,
            inherits=sbatch.INHERITS,
        )
        return sbatch.submission(reply)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        listed = yield from ask_queue(options, _jobs(ids))
        if isinstance(listed, NoAnswer):
            return listed
        queued = listed.of(ids)
        answer: Answer = {**queued}
        left = [each for each in ids if each not in queued]
        failed = [each for each in ids if each in queued and _may_be_a_steps(queued[each])]
        if (left or failed) and options.get("accounting", True):
            history = yield from ask_history(options, _jobs(left + failed))
            if isinstance(history, NoAnswer):
                return answer | dict.fromkeys(left, history)
            if history is not None:
                past = history.of(left + failed)
                answer |= {each: past[each] for each in left if _has_ended(past.get(each))}
                answer |= {each: _with_steps(queued[each], past.get(each)) for each in failed}
        gone = [each for each in left if each not in answer and array_of(each)]
        return answer | (yield from _cancelled_unbegun(gone, options))

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        listed = yield from ask_queue(options, "--name=" + ",".join(tags))
        if isinstance(listed, NoAnswer):
            return listed
        found = by_name(tags, listed.jobs())
        left = [tag for tag in tags if not found[tag]]
        if left and options.get("accounting", True):
            names = "--name=" + ",".join(left)
            history = yield from ask_history(options, names, _A_MONTH)
            if isinstance(history, NoAnswer):
                return found | dict.fromkeys(left, history)
            found |= by_name(left, history.ended().jobs() if history else ())
        return found

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        # Names are compared too: a killed controller that forgets a job gives its id again. Not by
        # scancel's own --name: for a waiting element, Slurm 22.05 then ends all waiting elements of
        # the array; for a whole array, it spares an element that begins at that moment.
        listed = yield from ask_queue(options, _jobs(list(jobs)))
        if isinstance(listed, NoAnswer):
            return listed
        seen = listed.of(jobs)
        there = [each for each in seen if seen[each].tag == jobs[each]]
        if not there:
            return None
        # scancel ignores jobs that have ended.
        reply = yield Command(("scancel", *at(options), *there))
        return None if reply.code == 0 else NoAnswer(reply.said)

    def read_output(self, text: str) -> Told | None:
        for line in reversed(text.splitlines()):
            if _OWN_LINE.match(line):
                for pattern, reason in _OUTPUT:
                    if pattern.search(line):
                        return Told(reason, line.strip())
        return None


def _pattern(path: str) -> str:
    """A path for `--output`: `%` is doubled, because sbatch would replace `%j` and the like."""
    return path.replace("%", "%%")


def _jobs(ids: Sequence[str]) -> str:
    """The option that names jobs.

    Elements of an array that is itself in `ids` are left out: squeue lists them with the whole. If
    they were named beside it, squeue would show no other waiting element.
    """
    wholes = set(ids)
    return "--jobs=" + ",".join(each for each in ids if array_of(each) not in wholes)


def _has_ended(seen: Observation | None) -> bool:
    return seen is not None and seen.state is JobState.ENDED


def _cancelled_unbegun(
    ids: Sequence[str], options: Mapping[str, object]
) -> Dialogue[dict[str, Observation | NoAnswer]]:
    """Observations of elements that are listed nowhere, by the row of their array's rest.

    An element that has begun has a row. If an array was cancelled, an element without a row was
    cancelled with it before it began. Only rows of cancelled jobs are asked for: there are few.
    """
    arrays = list(dict.fromkeys(map(array_of, ids)))
    found: dict[str, Observation | NoAnswer] = {}
    if not arrays:
        return found
    listed = yield from ask_queue(options, _jobs(arrays), states="CANCELLED")
    if isinstance(listed, NoAnswer):
        return dict.fromkeys(ids, listed)
    rests = {each: listed.cancelled_rest(each) for each in arrays}
    untold = [each for each in arrays if rests[each] is None]
    if untold and options.get("accounting", True):
        # No --starttime: with it, --state=CANCELLED means "was cancelled at that time".
        form = ("--allocations", "--state=CANCELLED")
        history = yield from ask_history(options, *form, _jobs(untold))
        if isinstance(history, NoAnswer):
            found |= {each: history for each in ids if array_of(each) in untold}
        elif history is not None:
            rests |= {each: history.cancelled_rest(each) for each in untold}
    for each in ids:
        if rest := rests[array_of(each)]:
            found[each] = dataclasses.replace(rest, id=each, started_at=0.0)
    return found


def _may_be_a_steps(seen: Observation) -> bool:
    """Whether it failed with an exit code. This may be the launcher's, after a step was killed."""
    return seen.cause is Reason.PROGRAM_FAILED and bool(seen.exit_code)


def _with_steps(seen: Observation, past: Observation | None) -> Observation:
    """The queue's word on a failed job, with what only the history knows: how its steps ended."""
    if past is None or not _has_ended(past) or past.tag != seen.tag:
        return dataclasses.replace(seen, final=False)  # it lags behind the queue
    if past.cause is not Reason.OUT_OF_MEMORY:
        return seen
    return dataclasses.replace(seen, cause=past.cause, message=past.message)
