"""The process that takes the jobs from state to state, up to their end."""

from __future__ import annotations

import os
import shutil
import signal
import time

from hpc_prefect.local_batch import process
from hpc_rehearsal.common import indices
from hpc_rehearsal.common.daemon import FAULT_LOOK_SECONDS, BaseDaemon, number
from hpc_rehearsal.pjm import bulk, statistics
from hpc_rehearsal.pjm import exit_codes as ends
from hpc_rehearsal.pjm.environment import obstacle, shell_script, variables
from hpc_rehearsal.pjm.state import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

# If the daemon is killed, the engine ends a job so many seconds after its limit.
_ENGINE_LATER_SECONDS = 5.0
_PJDEL = 1
_NO_NODES = "INSUFF NODE"


class Daemon(BaseDaemon):
    QUEUE = "pjm"
    RUNNING = frozenset({"RUN"})
    BUSY = frozenset({"RNA", "RUN", "RNO"})
    server: Server
    wholes: list[Record]  # the bulk jobs, in this round of work

    def work(self, jobs: list[Record]) -> list[Record]:
        self.wholes = [job for job in jobs if job.get("bulk")]
        for job in jobs:
            if job["state"] == "RUN":
                self._look(job)
            if job["state"] == "RNO":
                self._finish(job)
        for job in jobs:
            if job["state"] in ("ACC", "QUE", "RNA", "HLD", "ERR"):
                self._wait(job)
        jobs = jobs + self._start(jobs)
        for whole in self.wholes:
            self._look_at_whole(whole, [job for job in jobs if job.get("parent") == whole["n"]])
        return self.left(jobs)

    def _goes(self, job: Record, state: str, **more: Any) -> None:
        job.update(last=job["state"], state=state, **more)
        self.server.save(job)

    # Before the start

    def _wait(self, job: Record) -> None:
        """Carry out requests for a job that does not run, and take it from ACC to QUE."""
        late = job["late"] and self.server.fault("late")
        if (deleted := job["deleted"]) and not (job.get("bulk") and job["state"] == "QUE"):
            when = deleted["at"] + self.server.config["linger"]
            if time.time() < when:
                self.later(when)
                return
            # Assumed: a rejected one has the code of pjdel too.
            state = "RJT" if job["state"] == "ACC" else "CCL"
            job.update(pc=_PJDEL, reason=deleted["reason"] or "-", over=time.time())
            self._goes(job, state)
        elif late:
            self.later(time.time() + FAULT_LOOK_SECONDS)
        elif job["held"] and job["state"] in ("ACC", "QUE", "RNA"):
            self._hold(job)
        elif job["state"] == "ACC":
            self._goes(job, "QUE")

    def _hold(self, job: Record) -> None:
        self._goes(job, "HLD", pc=4, reason=job["held"]["reason"] or "-", held=None, begun=0.0)

    def _start(self, jobs: list[Record]) -> list[Record]:
        """Give nodes to every queued job if there are enough, in the order of their ids.

        Returns the new sub jobs.
        """
        server, now, made = self.server, time.time(), []
        busy = [job for job in jobs if job["state"] in self.BUSY]
        free = server.config["nodes"] - sum(job["nodes"] for job in busy)
        for job in jobs:
            if job["state"] != "QUE" or job["deleted"]:
                continue
            if (ready := max(job["at"], job["accepted"] + server.config["wait"])) > now:
                self.later(ready)
                continue
            if server.fault("error"):
                self._goes(job, "ERR", reason="INTERNAL ERROR")
                continue
            while one := self._next(job):
                if reason := self._obstacle(job, busy, free):
                    self._waits_for(job, reason)
                    if reason == _NO_NODES:
                        self._make_room(job, busy, free)
                    break
                free -= one["nodes"]
                busy.append(one)
                self._goes(one, "RNA", begun=now, reason="")
                if one is job:
                    break
                made.append(one)
                bulk.take(job, one["number"])
                server.save(job)
        for job in busy:
            if job["state"] == "RNA":
                ready = job["begun"] + server.config["acquire"]
                if time.time() < ready:
                    self.later(ready)
                else:
                    self._run(job)
        return made

    def _next(self, job: Record) -> Record | None:
        """The job itself, or the waiting sub job with the lowest number of a bulk job."""
        if not job.get("bulk"):
            return job
        while (number := indices.lowest(job["bulk"]["waiting"])) is not None:
            one = bulk.part(job, number)
            if self.server.job(one["n"]) is None:
                return one
            # An earlier daemon was killed after it had started this sub job.
            bulk.take(job, number)
            self.server.save(job)
        return None

    def _obstacle(self, job: Record, busy: list[Record], free: int) -> str:
        """Why it cannot start now."""
        limits = self.server.config["rscgrps"][job["rscgrp"]]
        running = sum(1 for one in busy if one["rscgrp"] == job["rscgrp"])
        if not limits.get("started", True):
            return "RSCGRP STOP"
        if running >= limits.get("run", running + 1):
            return "RUNLIMIT EXCEED"
        return _NO_NODES if job["nodes"] > free else ""

    def _look_at_whole(self, whole: Record, parts: list[Record]) -> None:
        """End a bulk job when none of its sub jobs is left. If it is deleted, delete them all."""
        if whole["state"] != "QUE":
            return
        left = [job for job in parts if job["state"] not in self.server.DONE]
        if deleted := whole["deleted"]:
            bulk.drop_all(whole)
            self.server.save(whole)
            for job in left:
                if not job["deleted"]:
                    job["deleted"] = {**deleted, "sent": False}
                    self.server.save(job)
                    self.later(time.time())  # look again at once
        if not left and not whole["bulk"]["waiting"]:
            now = time.time()
            # Assumed: it was cancelled only as a whole.
            self._goes(whole, "CCL" if deleted else "EXT", ended=now, over=now, reason="-")

    def _make_room(self, job: Record, busy: list[Record], free: int) -> None:
        """Stop jobs of groups that yield, the newest first, if this one can start then."""
        groups = self.server.config["rscgrps"]
        if groups[job["rscgrp"]].get("yields"):
            return
        leaving = [one for one in busy if one["taken"] or one["deleted"] or one["state"] == "RNO"]
        free += sum(one["nodes"] for one in leaving)
        victims = []
        for one in reversed(busy):
            if free >= job["nodes"]:
                break
            yields = groups[one["rscgrp"]].get("yields")
            if yields and one["state"] == "RUN" and one not in leaving:
                victims.append(one)
                free += one["nodes"]
        if free >= job["nodes"]:
            for one in victims:
                self._take(one, ends.ANOTHER)

    def _take(self, job: Record, why: int) -> None:
        """Take a job's nodes away."""
        if not job["taken"] and not job["deleted"]:
            job["taken"] = {"at": time.time(), "sent": False, "why": why}
            self.server.save(job)
            self.later(time.time())  # look again at once

    def _waits_for(self, job: Record, reason: str) -> None:
        if job["reason"] != reason:
            job["reason"] = reason
            self.server.save(job)

    def _run(self, job: Record) -> None:
        if what := obstacle(self.server, job):
            self._run_out(job, ends.of_obstacle(job, what))
            return
        # Saved before the start: so a later daemon sees that it may have started.
        self._goes(job, "RUN", begun=time.time())
        job["engine"] = self._submit(job)
        self.server.save(job)

    def _name(self, job: Record) -> str:
        """The job's name in the engine, which is new for each start."""
        return f"{job['id']}.{job['retries']}"

    def _submit(self, job: Record) -> str:
        server, config = self.server, self.server.config
        script = server.file(job["n"], "sh")
        with open(script, "wb") as file:
            file.write(os.fsencode(shell_script(server, job)))
        options: dict[str, object] = {
            "name": self._name(job),
            "slots": max(config["nodes"], job["nodes"]),
            "cpus": job["nodes"],
            # Assumed: pjdel kills at once.
            "kill-grace": 0.0,
            "walltime": job["elapse"] + config["kill_grace"] + _ENGINE_LATER_SECONDS,
            "out": job["out"],
            "err": job["out"] if job["join"] else job["err"],
            "cwd": job["work"],
        }
        if job["memory"] and config["enforce_mem"]:
            options["memory"] = job["memory"]
        return self.start(job, script, variables(server, job), options)

    # After the start

    def _look(self, job: Record) -> None:
        server = self.server
        if not job["engine"]:  # the daemon before this one was killed while it started the job
            job["engine"] = self.in_spool(self._name(job)) or self._submit(job)
            server.save(job)
        end = self.ended(job)
        if not job["taken"] and server.fault("deadline"):
            self._take(job, ends.DEADLINE)
        asked = job["deleted"] or job["held"] or job["taken"]
        if end is None:
            if not asked:
                self._limit(job)
            elif not asked["sent"]:
                asked["sent"] = True
                server.save(job)
                self.cancel(job)
            return
        if asked and time.time() < (leaves := asked["at"] + server.config["linger"]):
            self.later(leaves)
            return
        job.update(memory_used=end["max_rss"], cpu=end["cpu_seconds"], ended=end["ended"])
        self._run_out(job, ends.of_run(job, end, oom_killer=server.config["oom_killer"]))

    def _limit(self, job: Record) -> None:
        """At the limit send SIGXCPU to all processes of the job, and SIGKILL if they stay."""
        limit = job["begun"] + job["elapse"]
        kill = limit + self.server.config["kill_grace"]
        now = time.time()
        if now < limit:
            self.later(limit)
        elif not job["limit"]:
            job["limit"] = True
            self.server.save(job)
            self._signal(job, signal.SIGXCPU)
            self.later(kill)
        elif now < kill:
            self.later(kill)
        else:
            self._signal(job, signal.SIGKILL)
            self.later(now + FAULT_LOOK_SECONDS)  # until the engine has seen it

    def _signal(self, job: Record, which: int) -> None:
        who = self.server.spool.supervisor(number(job))
        if who and process.alive(who):
            for one in process.tree(int(who.split()[1])):
                process.send(one, which)

    def _run_out(self, job: Record, end: Record) -> None:
        job["end"] = end
        job["ended"] = job["ended"] or time.time()
        job["told"] = 0.0
        job["state"] = "RNE"  # so that LST names the state between RUN and RNO
        self._goes(job, "RNO")
        self._finish(job)

    def _finish(self, job: Record) -> None:
        """Write the output and statistics of the end; later the job leaves the queue, or waits
        again."""
        server, end = self.server, job["end"]
        if server.fault("runout"):
            self.later(time.time() + FAULT_LOOK_SECONDS)
            return
        if not job["told"]:
            job["told"] = time.time()
            _say_why(job)
            over = {**job, **end, "last": "RNO", "over": job["told"]}
            if job["stats"] and end["state"] in server.DONE:
                statistics.write(over)
            server.save(job)
        leaves = job["told"] + server.config["runout"]
        if time.time() < leaves:
            self.later(leaves)
            return
        shutil.rmtree(server.path("tmp", job["id"]), ignore_errors=True)
        codes = {name: end[name] for name in ("ec", "pc", "sn", "reason")}
        if end["state"] in server.DONE:
            self._goes(job, end["state"], over=time.time(), **codes)
            return
        if end["state"] == "QUE":
            codes = {"ec": 0, "pc": 0, "sn": 0, "reason": ""}
        again = dict.fromkeys(("engine", "session", "limit", "held", "taken"))
        retries = job["retries"] + 1
        self._goes(job, end["state"], begun=0.0, ended=0.0, retries=retries, **again, **codes)


def _say_why(job: Record) -> None:
    """Append PJM's line about an end that was not the job's own; not if the job's folder or file
    is missing."""
    if job["end"]["message"]:
        try:
            with open(job["out"] if job["join"] else job["err"], "a") as file:
                file.write(job["end"]["message"])
        except OSError:
            pass
