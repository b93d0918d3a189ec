"""What `qsub`, `qstat`, `qselect` and `qdel` print, as OpenPBS 23.06 does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hpc_prefect.job.dialogue import Command, Reply
from simulation import cluster as batch
from simulation.arrays import BatchArray, make_array, ranges, wholes
from simulation.cluster import BatchJob, Cluster
from simulation.job_script import ScriptText
from simulation.oracles import Submissions
from simulation.submissions import submit
from simulation.world import EPOCH

if TYPE_CHECKING:
    from simulation.process import Process

_SERVER = "pbs"
_UNKNOWN, _FINISHED = 153, 35
_LETTERS = {batch.PENDING: "Q", batch.HELD: "H", batch.RUNNING: "R", batch.ENDING: "E"}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class PBSCommands:
    """A site's PBS."""

    name = "pbs"
    options: tuple[dict[str, object], ...] = ({}, {"history_flag": "none"}, {"requeue": "yes"})

    def __init__(self, cluster: Cluster, submissions: Submissions) -> None:
        self._cluster, self._oracles = cluster, submissions
        self._world = cluster.world
        cluster.gives_ids_again = cluster.starts_again = cluster.tells_preemption = False

    def run(self, command: Command, process: Process, pause: Callable[[float], None]) -> Reply:
        """What a command of a process prints; `pause` is how long it takes."""
        program = command.argv[0]
        if program == "id":
            return Reply(0, "user\n")
        if self._cluster.has("hung"):
            pause(command.timeout)
            return Reply(None)
        if self._cluster.has("down"):
            said = (
                f"Connection refused\n{program}: cannot connect to server {_SERVER} (errno=111)\n"
            )
            return Reply(111, stderr=said)
        words = list(command.argv[1:])
        if program == "qsub":
            return self._qsub(words, process)
        reply = {"qstat": self._qstat, "qselect": self._qselect, "qdel": self._qdel}[program](words)
        if program == "qstat" and self._cluster.has("garbage"):
            return Reply(0, reply.stdout[: len(reply.stdout) // 2] + "\x00garbage")
        if program == "qselect" and reply.code == 0:
            self._oracles.asked([words[-1]])
        if "-u" in words:  # the user's list has all names
            self._oracles.asked_all()
        return reply

    def _qsub(self, words: list[str], process: Process) -> Reply:
        tag = words[words.index("-N") + 1]
        text = self._cluster.script_at(words[-1])
        if text is None:
            return Reply(1, stderr="qsub: script file:: No such file or directory\n")
        walltime = re.search(r"\n#PBS -l walltime=(\d+):(\d+):(\d+)\n", text)
        assert walltime
        hours, minutes, seconds = map(int, walltime.groups())

        def make() -> str:
            number = self._cluster.next_number()
            in_all = (hours * 60 + minutes) * 60.0 + seconds
            if array := re.search(r"\n#PBS -J 0-(\d+)(?:%(\d+))?\n", text):
                shape = int(array[1]) + 1, int(array[2] or 0)
                whole = make_array(
                    self._cluster, number, f"{number}[].{_SERVER}",
                    lambda n: f"{number}[{n}].{_SERVER}",
                    shape, tag, ScriptText.read(text), "/", in_all, requeues=True,
                )  # fmt: skip
                return whole.id
            self._cluster.make(
                number,
                job_id := f"{number}.{_SERVER}",
                tag,
                ScriptText.read(text),
                "/",
                in_all,
                requeues="\n#PBS -r y" in text,
            )
            return job_id

        self._oracles.submits(tag, words[-1].rpartition("/")[0], process)
        reply = submit(
            self._cluster,
            make,
            accepted=lambda job_id: Reply(0, f"{job_id}\n"),
            refused=Reply(32, stderr="qsub: the site's hook does not like it\n"),
            full=Reply(38, stderr="qsub: would exceed queue generic's per-user limit\n"),
            error=Reply(162, stderr="qsub: Communication failure.\n"),
        )
        if reply.code in (32, 38):
            self._oracles.refused(tag)
        return reply

    # --- questions

    def _seen(self, job: BatchJob, words: list[str]) -> bool:
        """Listed, with what has ended where the history is asked."""
        history = "-x" in words and not self._cluster.has("forgetful")
        is_open = (
            bool(job.array.open) if job.array else job.open
        )  # with it, subjobs that have ended
        return self._cluster.seen(job) and (is_open or history)

    def _records(self, ids: list[str], words: list[str]) -> dict[str, dict[str, str]]:
        """Those of jobs, arrays as wholes and subjobs that are listed."""
        found = {}
        for each in ids:
            if (array := self._cluster.arrays.get(each)) is not None:
                if self._seen(array.elements[0], words):
                    found[each] = self._whole(array)
            elif (job := self._cluster.jobs.get(each)) is not None and self._seen(job, words):
                found[each] = self._record(job)
        return found

    def _whole(self, array: BatchArray) -> dict[str, str]:
        waiting = [each.index for each in array.open if each.state == batch.PENDING]
        held = [each.index for each in array.open if each.state == batch.HELD]
        begun = any(each.runs for each in array.elements)
        state = "B" if begun else "H" if held else "Q"
        return {
            "Job_Name": array.tag,
            "Job_Owner": f"user@{_SERVER}",
            "job_state": state if array.open else "F",
            "queue": "q",
            "ctime": _time(array.submitted_at),
            "array": "True",
            "array_indices_submitted": f"0-{len(array.elements) - 1}",
            "array_indices_remaining": ranges([*waiting, *held]) or "-",
            "Exit_status": "0",
        }

    def _qstat(self, words: list[str]) -> Reply:
        if "-u" in words:
            return self._table_of_user(words)
        ids = [word for word in words if word[0].isdecimal()]
        there = self._records(ids, words)
        missing = [each for each in ids if each not in there]
        # With -E only the last one that is not there is told of.
        said = f"qstat: Unknown Job Id {missing[-1]}\n" if missing else ""
        code = _UNKNOWN if missing and missing[-1] == ids[-1] else 0
        if "json" in words:
            document = {"timestamp": 0, "pbs_version": "23.06.06", "pbs_server": _SERVER}
            if there:
                document["Jobs"] = there
            return Reply(code, json.dumps(document), said)
        if "-f" in words:
            return Reply(code, "".join(_text(each, there[each]) for each in there), said)
        rows = [
            f"{each:17}{record['Job_Name']:17}user              00:00:00 {record['job_state']} q\n"
            for each, record in there.items()
        ]
        head = "Job id            Name             User              Time Use S Queue\n"
        dashes = "----------------  ---------------- ----------------  -------- - -----\n"
        return Reply(code, head + dashes + "".join(rows) if rows else "", said)

    def _letter(self, job: BatchJob) -> str:
        if job.array and not job.open:
            return "X" if job.array.open else "F"
        return _LETTERS.get(job.state, "F")

    def _record(self, job: BatchJob) -> dict[str, str]:
        if job.array and not job.runs:  # that of the whole, but for its own state
            return self._whole(job.array) | {"job_state": self._letter(job)}
        record = {
            "Job_Name": job.tag,
            "Job_Owner": f"user@{_SERVER}",
            "job_state": self._letter(job),
            "queue": "q",
            "ctime": _time(job.submitted_at),
        }
        if job.array:
            count = str(job.restarts + 1)
            record |= {"array_id": job.array.id, "array_index": str(job.index), "run_count": count}
        if job.state == batch.HELD:
            record["Hold_Types"] = "u"
        if job.started_at:
            record |= {"stime": _time(job.started_at), "exec_host": f"{job.node}/0"}
        if not job.open:
            record |= {"obittime": _time(job.ended_at), **self._end(job)}
        return record

    def _end(self, job: BatchJob) -> dict[str, str]:
        if job.end == batch.CANCELLED:
            return {
                "substate": "91",
                "comment": "Job was deleted and terminated",
                "Exit_status": "271",
            }
        if job.end == batch.TIMEOUT:
            return {"substate": "93", "Exit_status": "-29"}
        if job.end == batch.NODE_FAIL:
            return {"substate": "93"}
        return {"substate": "92", "Exit_status": str(job.code)}

    def _table_of_user(self, words: list[str]) -> Reply:
        head = f"{'Job ID':30} {'Username':15} {'Queue':15} {'Jobname':15}\n"
        dashes = f"{'-' * 30} {'-' * 15} {'-' * 15} {'-' * 15}\n"
        tags = {
            job.array.id if job.array else job.id: job.tag
            for job in self._cluster.jobs.values()
            if self._seen(job, words)
        }
        rows = [f"{each:30} {'user':15} {'q':15} {tag:15}\n" for each, tag in tags.items()]
        return Reply(0, head + dashes + "".join(rows) if rows else "")

    def _qselect(self, words: list[str]) -> Reply:
        tag = words[-1]
        jobs = [job for job in self._cluster.jobs.values() if job.tag == tag]
        seen = wholes(job for job in jobs if self._seen(job, words))
        return Reply(0, "".join(f"{each}\n" for each in seen))

    def _qdel(self, words: list[str]) -> Reply:
        said, code = "", 0
        for word in words:
            if (array := self._cluster.arrays.get(word)) and array.open:
                for each in array.open:
                    self._oracles.cancels(each)
                    self._cluster.cancel(each, by="product")
                continue
            job = self._cluster.jobs.get(word) or (array.elements[0] if array else None)
            if job is None or job.forgotten:
                said, code = said + f"qdel: Unknown Job Id {word}\n", _UNKNOWN
            elif not job.open:
                said, code = said + f"qdel: Job has finished {word}\n", _FINISHED
            else:
                self._oracles.cancels(job)
                self._cluster.cancel(job, by="product")
        return Reply(code, stderr=said)


def _text(job_id: str, record: dict[str, str]) -> str:
    lines = [f"    {name} = {value}\n" for name, value in record.items()]
    return f"Job Id: {job_id}\n{''.join(lines)}\n"


def _time(moment: float) -> str:
    when = datetime.fromtimestamp(int(EPOCH + moment), UTC)
    return f"Mon {_MONTHS[when.month - 1]} {when.day:2} {when:%H:%M:%S} {when.year}"
