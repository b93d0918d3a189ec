"""The process that starts the jobs, delivers their output, and records how they ended."""

from __future__ import annotations

import os
import signal
import time

from hpc_rehearsal.common import indices
from hpc_rehearsal.common.daemon import FAULT_LOOK_SECONDS, BaseDaemon
from hpc_rehearsal.pbs import arrays
from hpc_rehearsal.pbs import job_record as record
from hpc_rehearsal.pbs.environment import shell_script, variables
from hpc_rehearsal.pbs.formats import seconds, size, started_text
from hpc_rehearsal.pbs.output import deliver, written_to
from hpc_rehearsal.pbs.resources import Nodes
from hpc_rehearsal.pbs.state import DONE, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

# PBS checks limits every few seconds, so a job always exceeds them by some time.
_OVERRUN_SECONDS = 1
#: By the engine's word for an end: Exit_status and the end of the comment. Other ends have the
#: script's own status. NODE_FAIL (the daemon restarts and finds the job gone) and LAUNCH_FAILED
#: (the job could not be set up) are assumed.
_ENDS = {
    "TIMEOUT": (-29, "exceeded resource walltime"),
    "OUT_OF_MEMORY": (-27, "exceeded resource mem"),
    "NODE_FAIL": (-4, "failed"),
    "LAUNCH_FAILED": (-1, "failed"),
}
_FORCED = 256 + signal.SIGKILL
_ENDED, _DELETED, _FAILED, _EXITING, _RUNNING, _QUEUED = 92, 91, 93, 51, 41, 10


class Daemon(BaseDaemon):
    QUEUE = "pbs"
    RUNNING = frozenset("R")
    BUSY = frozenset("RE")
    server: Server
    wholes: dict[int, Record]  # the arrays by their numbers, in this round of work

    def work(self, jobs: list[Record]) -> list[Record]:
        self.wholes = {job["n"]: job for job in jobs if job.get("array")}
        for job in jobs:
            if job["state"] in "RE":
                self._look(job)
        for job in jobs:
            if job["state"] in "HW":
                self._release(job)
        jobs = jobs + self._start(jobs)
        for whole in self.wholes.values():
            self._count(whole, [job for job in jobs if job.get("parent") == whole["n"]])
        return self.left(jobs)

    # Before the start

    def _release(self, job: Record) -> None:
        """Release a job whose time has come, or whose dependencies are met."""
        if job["at"] > time.time():
            self.later(job["at"])
            return
        for kind, number in job["wait"] if "u" not in job["hold"] else ():
            parent = self.server.job(number)
            if parent and parent["state"] != DONE:
                return
            good = parent is not None and parent["exit"] == 0
            if kind != "afterany" and good != (kind == "afterok"):
                # Such a job looks like a good one: substate 92, no comment, no status.
                self._over(job, _ENDED)
                return
            if parent is None and kind == "afterany":
                self._over(job, _ENDED)  # assumed
                return
        if job["hold"] == "n" or (job["wait"] and "u" not in job["hold"]):
            job.update(state="Q", substate=_QUEUED, hold="n", depend="", wait=[], at=0.0)
            job["etime"] = time.time()
            self.server.save(job)

    def _start(self, jobs: list[Record]) -> list[Record]:
        """Start every queued job that fits, in the order of ids; returns the new subjobs."""
        config, made = self.server.config, []
        nodes = Nodes(config["nodes"], config["ncpus"], size(config["mem"]) or 0)
        busy = [job for job in jobs if job["state"] in "RE"]
        for job in busy:
            nodes.take(job["placed"])
        for job in jobs:
            if job["state"] not in "QB" or "parent" in job:
                continue
            if job["late"] and self.server.fault("late"):
                self.later(time.time() + FAULT_LOOK_SECONDS)
            elif job["qtime"] + config["wait"] > time.time():
                self.later(job["qtime"] + config["wait"])
            elif job.get("array"):
                made += self._start_subjobs(job, busy, nodes)
            elif self._fits(job, busy, nodes):
                job["placed"] = nodes.place(job)
                self._run(job)
                busy.append(job)
        return made

    def _fits(self, job: Record, busy: list[Record], nodes: Nodes) -> bool:
        """Whether it can start now; if not, its comment is set to the reason."""
        name, queue = job["queue"], self.server.config["queues"][job["queue"]]
        most = queue.get("max_run")
        if not queue.get("started", True):
            comment = "Not Running: Queue not started."
        elif most is not None and sum(1 for one in busy if one["queue"] == name) >= most:
            comment = f"Not Running: User has reached queue {name} running job limit."
        else:
            comment = nodes.lacking(job)
        if comment and comment != job["comment"] and job["state"] == "Q":
            job["comment"] = comment
            self.server.save(job)
        return not comment

    def _start_subjobs(self, whole: Record, busy: list[Record], nodes: Nodes) -> list[Record]:
        """Start the subjobs that fit, in the order of their indices."""
        array, made = whole["array"], []
        at_once = array["at_once"] or arrays.alive(whole)
        at_work = sum(1 for job in busy if job.get("parent") == whole["n"])
        while (index := indices.lowest(array["waiting"])) is not None and at_work < at_once:
            # A subjob that was run before has a record. An earlier daemon may have been killed
            # before it could record that it had started the subjob.
            old = self.server.job(arrays.number(whole, index))
            if old is None or old["state"] == "Q":
                if not self._fits(whole, busy, nodes):
                    break
                job = old or arrays.subjob(whole, index)
                job["placed"] = nodes.place(job)
                self._run(job)
                busy.append(job)
                made += [job] if old is None else []
                at_work += 1
            arrays.take(whole, index)
            if whole["state"] == "Q":
                now = time.time()
                whole.update(state="B", substate=arrays.BEGUN, stime=now, mtime=now)
                whole["comment"] = f"Job Array Began at {started_text(now)}"
            self.server.save(whole)
        return made

    def _count(self, whole: Record, parts: list[Record]) -> None:
        """Count an array's subjobs by state; the array is over when none is left."""
        array, before = whole["array"], dict(whole["array"])
        left = arrays.waiting(whole)
        for name, state in (("running", "R"), ("exiting", "E")):
            array[name] = sum(1 for job in parts if job["state"] == state)
            left += array[name]
        array["expired"] = len(arrays.indices_of(whole)) - left
        if left == 0 and whole["state"] in "QB":
            substate, word = arrays.ENDS[array["worst"] or arrays.TERMINATED]
            if whole["comment"]:
                whole["comment"] += f" and {word}"
            if whole["state"] == "B":
                whole["obittime"] = time.time()
            self._over(whole, substate)
        elif array != before:
            self.server.save(whole)

    def _run(self, job: Record) -> None:
        server, now = self.server, time.time()
        comment = f"Job run at {started_text(now)} on {job['placed']['exec_vnode']}"
        job.update(state="R", substate=_RUNNING, stime=now, mtime=now, comment=comment)
        job["runs"] += 1
        server.save(job)  # before the start: so a later daemon sees that it may have started
        job["engine"] = self._submit(job)
        server.save(job)

    def _submit(self, job: Record) -> str:
        server, wanted = self.server, job["resources"]["list"]
        total = server.config["nodes"] * server.config["ncpus"]
        script = server.file(job["n"], "sh")
        with open(script, "wb") as file:
            file.write(os.fsencode(shell_script(server, job)))
        out, err = written_to(server, job)
        limits: dict[str, object] = {}
        if "walltime" in wanted:
            limits["walltime"] = (seconds(wanted["walltime"]) or 0) + _OVERRUN_SECONDS
        if "mem" in wanted and server.config["enforce_mem"]:
            limits["memory"] = size(wanted["mem"])
        options = {
            "slots": total,
            "cpus": max(1, wanted["ncpus"]),
            "kill-grace": server.config["kill_grace"],
            "out": out,
            "err": err,
            "cwd": job["home"],
            **limits,
        }
        return self.start(job, script, variables(server, job), options)

    # After the start

    def _look(self, job: Record) -> None:
        """Look after a running or exiting job."""
        server = self.server
        if job["state"] == "E":
            self._finish(job)
            return
        if not job["engine"]:  # the daemon before this one was killed while it started the job
            job["engine"] = self.in_spool(job["id"]) or self._submit(job)
            server.save(job)
        end = self.ended(job)
        if end is None:
            self._cancel(job)
            return
        if job["rerun"] and not job["deleted"]:
            self._again(job)
            return
        if (deleted := job["deleted"]) and time.time() < deleted["at"] + server.config["linger"]:
            self.later(deleted["at"] + server.config["linger"])
            return
        self._exiting(job, end)
        self._finish(job)

    def _cancel(self, job: Record) -> None:
        asked = job["deleted"] or job["rerun"]
        if asked and not asked["sent"]:
            asked["sent"] = True
            self.server.save(job)
            self.cancel(job)

    def _again(self, job: Record) -> None:
        """Put the job back into the queue, however its run has ended."""
        now = time.time()
        if "parent" in job:
            arrays.give(self.wholes[job["parent"]], job["index"])
            self.server.save(self.wholes[job["parent"]])
        job.update(state="Q", substate=_QUEUED, rerun=None, engine="", session=None)
        job.update(stime=0.0, mtime=now, etime=now, placed=None, comment="")
        self.server.save(job)
        self.later(now)

    def _exiting(self, job: Record, end: Record) -> None:
        now = time.time()
        ran = max(0.0, end["ended"] - job["stime"])
        number = signal.Signals[end["signal"]].value + 256 if end["signal"] else None
        own = end["exit_code"] if number is None else number
        status, word = _ENDS.get(end["end"], (own, "failed" if own else "finished"))
        if job["deleted"]:
            status, word = _FORCED if job["deleted"]["force"] else own, ""
        job["used"] = {
            "walltime": ran,
            "cpu": end["cpu_seconds"] or 0.0,
            "memory": end["max_rss"] or 0,
        }
        if ran < record.REPORT_SECONDS:
            job["session"] = None
        job.update(state="E", substate=_EXITING, exit=status, mtime=now, word=word, end=end["end"])
        job["delivered"] = 0.0
        self.server.save(job)

    def _finish(self, job: Record) -> None:
        """Deliver the output; a moment later the job is over."""
        server = self.server
        if not job["delivered"]:
            if server.fault("exiting"):
                self.later(time.time() + FAULT_LOOK_SECONDS)
                return
            job["stageout_kept"] = deliver(server, job)
            job["delivered"] = time.time()
            server.save(job)
        leaves = job["delivered"] + server.config["exiting"]
        if time.time() < leaves:
            self.later(leaves)
            return
        job["stageout"] = job["stageout_kept"]
        if job["word"]:
            job["comment"] = f"{job['comment']} and {job['word']}"
        substate = _DELETED if job["deleted"] else _FAILED if job["exit"] else _ENDED
        job["obittime"] = time.time()
        self._over(job, substate)

    def _over(self, job: Record, substate: int) -> None:
        now = time.time()
        job.update(state=DONE, substate=substate, mtime=now, history=now)
        if "parent" in job:
            arrays.note_end(self.wholes[job["parent"]], job)
            self.server.save(self.wholes[job["parent"]])
        self.server.save(job)
        if job["deleted"] and job["deleted"]["purge"]:
            self.server.forget(job["n"])
