"""What `sbatch`, `squeue`, `sacct` and `scancel` print, as Slurm 22.05 does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpc_prefect.job.dialogue import Command, Reply
from simulation import cluster as batch
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
        walltime = re.search(r"^#SBATCH --time=(\d+)-(\d+):(\d+):(\d+)$", text, re.M)
        assert walltime
        days, hours, minutes, seconds = map(int, walltime.groups())

        def make() -> str:
            number = self._cluster.next_number()
            self._cluster.make(
                number,
                str(number),
                tag,
                ScriptText.read(text),
                _option(words, "--chdir"),
                ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds,
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
        for job in jobs:
            if self._in_queue(job):
                values = self._queue_values(job)
                rows.append("".join(values[name] + suffix for name, suffix in fields) + "\n")
        return Reply(0, "".join(rows))

    def _asked(self, words: list[str]) -> list[BatchJob] | Reply:
        jobs = self._cluster.jobs
        if asked := _option(words, "--jobs"):
            ids = asked.split(",")
            known = [jobs[each] for each in ids if each in jobs]
            if len(ids) == 1 and not any(map(self._in_queue, known)):
                return Reply(1, stderr="slurm_load_jobs error: Invalid job id specified\n")
            return known
        tags = _option(words, "--name").split(",")
        return [job for job in jobs.values() if job.tag in tags]

    def _in_queue(self, job: BatchJob) -> bool:
        old = job.ended_at and self._world.now - job.ended_at > _MIN_JOB_AGE
        return self._cluster.seen(job) and not old

    def _queue_values(self, job: BatchJob) -> dict[str, str]:
        status = (job.code & 0xFF) << 8 if job.end == batch.BY_CODE else 15
        return {
            "JobID": job.id,
            "ArrayJobID": job.id,
            "ArrayTaskID": "N/A",
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
        for job in self._cluster.jobs.values():
            if job.id not in asked and job.tag not in tags:
                continue
            # It lags behind the queue by a second or two.
            if self._cluster.seen(job) and self._world.now - job.submitted_at > 2.0:
                values = self._history_values(job)
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
            if job is not None:
                self._oracles.cancels(job)
                self._cluster.cancel(job, by="product")
        return Reply(0)


def _option(words: Sequence[str], name: str) -> str:
    start = f"{name}="
    return next((word[len(start) :] for word in words if word.startswith(start)), "")


def _time(moment: float) -> str:
    return str(int(EPOCH + moment)) if moment else "N/A"
