"""What `sbatch`, `squeue`, `sacct` and `scancel` print, as Slurm 22.05 does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from hpc_prefect.job.dialogue import Command, Reply
from simulation import cluster as batch
from simulation.arrays import make_array, ranges
from simulation.cluster import BatchJob, Cluster
from simulation.job_script import ScriptText
from simulation.oracles import Submissions
from simulation.submissions import submit
from simulation.world import EPOCH

if TYPE_CHECKING:
    from simulation.process import Process

#: Seconds after its end for which the queue lists a job (MinJobAge).
_MIN_JOB_AGE = 300.0
_UNREACHABLE = "Unable to contact slurm controller (connect failure)"

_QUEUE_WORDS = {batch.PENDING: "PENDING", batch.HELD: "PENDING", batch.RUNNING: "RUNNING"}
_ENDS = {
    batch.CANCELLED: "CANCELLED",
    batch.TIMEOUT: "TIMEOUT",
    batch.NODE_FAIL: "NODE_FAIL",
    batch.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    batch.PREEMPTED: "PREEMPTED",
}


class SlurmCommands:
    """A site's Slurm."""

    name = "slurm"
    options: tuple[dict[str, object], ...] = ({}, {"accounting": False}, {"requeue": "yes"})

    def __init__(self, cluster: Cluster, submissions: Submissions) -> None:
        self._cluster, self._oracles = cluster, submissions
        self._world = cluster.world

    def run(self, command: Command, process: Process, pause: Callable[[float], None]) -> Reply:
        """What a command of a process prints; `pause` is how long it takes."""
        program = command.argv[0]
        if self._cluster.has("hung"):
            pause(command.timeout)
            return Reply(None)
        if self._cluster.has("down"):
            return Reply(1, stderr=f"{program}: error: {_UNREACHABLE}\n")
        words = list(command.argv[1:])
        if program == "sbatch":
            return self._sbatch(words, process)
        reply = {
            "squeue": self._squeue,
            "sacct": self._sacct,
            "scancel": self._scancel,
        }[program](words)
        if program in ("squeue", "sacct") and self._cluster.has("garbage"):
            return Reply(0, reply.stdout[: len(reply.stdout) // 2] + "\x00garbage|")
        if program == "squeue" and reply.code == 0:
            self._oracles.asked(_option(words, "--name").split(","))
        return reply

    def _sbatch(self, words: list[str], process: Process) -> Reply:
        tag = _option(words, "--job-name")
        text = self._cluster.script_at(words[-1])
        if text is None:
            return Reply(1, stderr=f"sbatch: error: Unable to open file {words[-1]}\n")
        walltime = re.search(r"\n#SBATCH --time=(\d+)-(\d+):(\d+):(\d+)\n", text)
        assert walltime
        days, hours, minutes, seconds = map(int, walltime.groups())

        def make() -> str:
            number = self._cluster.next_number()
            seconds_in_all = ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
            if array := re.search(r"^#SBATCH --array=0-(\d+)(?:%(\d+))?$", text, re.M):
                shape = int(array[1]) + 1, int(array[2] or 0)
                script, chdir = ScriptText.read(text), _option(words, "--chdir")
                make_array(
                    self._cluster, number, str(number), lambda n: f"{number}_{n}",
                    shape, tag, script, chdir, seconds_in_all,
                )  # fmt: skip
                return str(number)
            self._cluster.make(
                number,
                str(number),
                tag,
                ScriptText.read(text),
                _option(words, "--chdir"),
                seconds_in_all,
                requeues="\n#SBATCH --requeue" in text,
            )
            return str(number)

        self._oracles.submits(tag, words[-1].rpartition("/")[0], process)
        reply = submit(
            self._cluster,
            make,
            accepted=lambda number: Reply(0, f"{number}\n"),
            refused=Reply(
                1, stderr="sbatch: error: Batch job submission failed: Invalid account\n"
            ),
            full=Reply(
                1,
                stderr="sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job"
                " submission failed: Job violates accounting/QOS policy\n",
            ),
            error=Reply(
                1,
                stderr="sbatch: error: Batch job submission failed: Socket timed out on"
                " send/recv operation\n",
            ),
        )
        if reply.code == 1 and "Socket timed out" not in reply.stderr:
            self._oracles.refused(tag)
        return reply

    # --- the queue

    def _squeue(self, words: list[str]) -> Reply:
        jobs = self._asked(words)
        if isinstance(jobs, Reply):
            return jobs
        form = _option(words, "--Format").split(",")
        fields = [part.split(":", 1) for part in form]
        rows = []
        states = _option(words, "--states")
        for values in self._queue_rows([job for job in jobs if self._in_queue(job)]):
            if states in ("all", values["State"]):
                rows.append("".join(values[name] + suffix for name, suffix in fields) + "\n")
        return Reply(0, "".join(rows))

    def _queue_rows(self, jobs: Sequence[BatchJob]) -> Iterator[dict[str, str]]:
        """Of an array what waits is one row, and what was cancelled with the whole while it did."""
        together: dict[tuple[str, str], list[BatchJob]] = {}
        for job in jobs:
            if job.array is None or job.runs:
                yield self._queue_values(job)
            elif job.open or job.array.cancelled:  # else it was cancelled alone: in no row at all
                together.setdefault((job.array.id, job.state), []).append(job)
        for (array_id, _), alike in together.items():
            numbers = ranges(each.index for each in alike)
            yield self._queue_values(alike[0]) | {"JobID": array_id, "ArrayTaskID": numbers}

    def _asked(self, words: list[str]) -> list[BatchJob] | Reply:
        jobs = self._cluster.jobs
        if asked := _option(words, "--jobs"):
            ids = asked.split(",")
            known = [jobs[each] for each in ids if each in jobs]
            for each in ids:
                known += self._elements(each)
            if len(ids) == 1 and not any(map(self._in_queue, known)):
                return Reply(1, stderr="slurm_load_jobs error: Invalid job id specified\n")
            return known
        tags = _option(words, "--name").split(",")
        return [job for job in jobs.values() if job.tag in tags]

    def _elements(self, array_id: str) -> list[BatchJob]:
        array = self._cluster.arrays.get(array_id)
        return array.elements if array else []

    def _in_queue(self, job: BatchJob) -> bool:
        old = job.ended_at and self._world.now - job.ended_at > _MIN_JOB_AGE
        return self._cluster.seen(job) and not old

    def _queue_values(self, job: BatchJob) -> dict[str, str]:
        status = (job.code & 0xFF) << 8 if job.end == batch.BY_CODE else 15
        return {
            "JobID": str(1_000_000 + 1000 * job.number + job.index) if job.array else job.id,
            "ArrayJobID": job.array.id if job.array else job.id,
            "ArrayTaskID": str(job.index) if job.array else "N/A",
            "State": self._word(job),
            "exit_code": str(status if job.state == batch.ENDED else 0),
            "SubmitTime": _time(job.submitted_at),
            "StartTime": _time(job.started_at),
            "EndTime": _time(job.ended_at),
            "BatchHost": job.node or "n/a",
            "Reason": "JobHeldUser" if job.state == batch.HELD else "None",
            "Name": job.tag,
        }

    def _word(self, job: BatchJob) -> str:
        if job.state == batch.ENDING:
            return "COMPLETING"
        if job.state == batch.ENDED:
            return _ENDS.get(job.end) or ("FAILED" if job.code else "COMPLETED")
        return _QUEUE_WORDS[job.state]

    # --- the history

    def _sacct(self, words: list[str]) -> Reply:
        if self._cluster.has("forgetful"):
            return Reply(
                1, stderr="sacct: error: slurm_persist_conn_open: failed: Connection refused\n"
            )
        mark = _option(words, "--delimiter")
        fields = _option(words, "--format").split(",")
        asked = _option(words, "--jobs").split(",")
        tags = _option(words, "--name").split(",")
        rows = []
        waited: dict[str, list[BatchJob]] = {}
        states = _option(words, "--state")
        for job in self._cluster.jobs.values():
            whole = job.array.id if job.array else job.id
            if not {job.id, whole} & {*asked} and job.tag not in tags:
                continue
            if job.array and not job.runs and job.end and not job.array.cancelled:
                continue  # of an element that was cancelled alone while it waited nothing is kept
            if states and (job.open or self._word(job) != states):
                continue
            # It lags behind the queue by a second or two.
            if self._cluster.seen(job) and self._world.now - job.submitted_at > 2.0:
                if job.array and not job.runs:
                    waited.setdefault(f"{job.array.id} {job.state}", []).append(job)
                    continue
                values = self._history_values(job)
                rows.append("".join(values[name] + mark for name in fields) + "\n")
        for alike in waited.values():
            numbers = ranges(each.index for each in alike)
            job_id = f"{alike[0].id.partition('_')[0]}_[{numbers}]"
            values = self._history_values(alike[0]) | {"JobID": job_id}
            rows.append("".join(values[name] + mark for name in fields) + "\n")
        return Reply(0, "".join(rows))

    def _history_values(self, job: BatchJob) -> dict[str, str]:
        told = job.state == batch.ENDED and self._world.now - job.ended_at > 2.0
        word = self._word(job) if told else "RUNNING" if job.started_at else "PENDING"
        return {
            "JobID": job.id,
            "State": "CANCELLED by 1000" if word == "CANCELLED" else word,
            "ExitCode": f"{job.code}:0" if told and job.end == batch.BY_CODE else "0:15",
            "Submit": _time(job.submitted_at),
            "Start": _time(job.started_at),
            "End": _time(job.ended_at),
            "NodeList": job.node or "None assigned",
            "Reason": "None",
            "JobName": job.tag,
        }

    def _scancel(self, words: Sequence[str]) -> Reply:
        for word in words:
            job = self._cluster.jobs.get(word)
            if word in self._cluster.arrays:
                self._cluster.arrays[word].cancelled = True
            for each in [job] if job is not None else self._elements(word):
                self._oracles.cancels(each)
                self._cluster.cancel(each, by="product")
        return Reply(0)


def _option(words: Sequence[str], name: str) -> str:
    start = f"{name}="
    return next((word[len(start) :] for word in words if word.startswith(start)), "")


def _time(moment: float) -> str:
    return str(int(EPOCH + moment)) if moment else "N/A"
