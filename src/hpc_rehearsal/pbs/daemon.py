"""The process that starts the jobs, delivers their output at their end and says how they ended."""

from __future__ import annotations

import os
import signal
import time

from hpc_rehearsal.common.daemon import FAULT_LOOK_SECONDS, BaseDaemon
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

# Real limits are looked at every few seconds, so a job always uses more than it may.
_OVERRUN_SECONDS = 1
#: The engine's word for an end: Exit_status and what the comment then says. For those without a
#: number the script's own end gives it. NODE_FAIL and LAUNCH_FAILED are assumed: a daemon that
#: starts anew and finds the job gone, a job that could not be set up.
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

    def work(self, jobs: list[Record]) -> list[Record]:
        for job in jobs:
            if job["state"] in "RE":
                self._look(job)
        for job in jobs:
            if job["state"] in "HW":
                self._release(job)
        self._start(jobs)
        return self.left(jobs)

    # Before the start

    def _release(self, job: Record) -> None:
        """Let a job go whose time has come or whose parents have ended as it wants."""
        if job["at"] > time.time():
            self.later(job["at"])
            return
        for kind, number in job["wait"] if "u" not in job["hold"] else ():
            parent = self.server.job(number)
            if parent and parent["state"] != DONE:
                return
            good = parent is not None and parent["exit"] == 0
            if kind != "afterany" and good != (kind == "afterok"):
                # Nothing tells such a job from a good one: substate 92, no comment, no status.
                self._over(job, _ENDED)
                return
            if parent is None and kind == "afterany":
                self._over(job, _ENDED)  # assumed
                return
        if job["hold"] == "n" or (job["wait"] and "u" not in job["hold"]):
            job.update(state="Q", substate=_QUEUED, hold="n", depend="", wait=[], at=0.0)
            job["etime"] = time.time()
            self.server.save(job)

    def _start(self, jobs: list[Record]) -> None:
        """Every queued job that fits, in the order of their ids; a comment for each other."""
        config, queues = self.server.config, self.server.config["queues"]
        nodes = Nodes(config["nodes"], config["ncpus"], size(config["mem"]) or 0)
        busy = [job for job in jobs if job["state"] in "RE"]
        for job in busy:
            nodes.take(job["placed"])
        for job in jobs:
            if job["state"] != "Q":
                continue
            if job["late"] and self.server.fault("late"):
                self.later(time.time() + FAULT_LOOK_SECONDS)
                continue
            if job["qtime"] + config["wait"] > time.time():
                self.later(job["qtime"] + config["wait"])
                continue
            name, queue = job["queue"], queues[job["queue"]]
            most = queue.get("max_run")
            if not queue.get("started", True):
                comment = "Not Running: Queue not started."
            elif most is not None and sum(1 for one in busy if one["queue"] == name) >= most:
                comment = f"Not Running: User has reached queue {name} running job limit."
            else:
                comment = nodes.lacking(job)
            if not comment:
                job["placed"] = nodes.place(job)
                self._run(job)
                busy.append(job)
            elif comment != job["comment"]:
                job["comment"] = comment
                self.server.save(job)

    def _run(self, job: Record) -> None:
        server, now = self.server, time.time()
        comment = f"Job run at {started_text(now)} on {job['placed']['exec_vnode']}"
        job.update(state="R", substate=_RUNNING, stime=now, mtime=now, comment=comment)
        job["runs"] += 1
        server.save(job)  # before the start: a daemon after this one sees that it may have happened
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
        """A running job, or one whose end is being worked on."""
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
        """Back into the queue, whatever the run that has ended was."""
        now = time.time()
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
        self.server.save(job)
        if job["deleted"] and job["deleted"]["purge"]:
            self.server.forget(job["n"])
