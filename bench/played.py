"""Arrays at a rehearsed PBS or PJM whose members are played: for numbers that no laptop can run.

    python bench/played.py pbs|pjm STATE            plays the members of every array, until killed
    python bench/played.py pjstat STATE [WORD ...]  PJM's pjstat, which knows of members that ended

The commands are the rehearsal's, and its state folder. What is left out are processes: of every
array bash runs the script's first element, and the files that this leaves are written for all
others too, each with its own id and times. So whoever waits for the array sees what a cluster of
any size would show, and the time that it takes is not that of 100,000 shells.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_rehearsal.common import indices
from hpc_rehearsal.common.commands import run
from hpc_rehearsal.pbs import arrays as pbs_arrays
from hpc_rehearsal.pbs import daemon as pbs_daemon
from hpc_rehearsal.pbs import environment as pbs_environment
from hpc_rehearsal.pbs.state import Server as PBSServer
from hpc_rehearsal.pjm import bulk
from hpc_rehearsal.pjm import daemon as pjm_daemon
from hpc_rehearsal.pjm import environment as pjm_environment
from hpc_rehearsal.pjm.pjstat import pjstat
from hpc_rehearsal.pjm.state import Server as PJMServer

Record = dict[str, Any]

#: Members that are played before the commands get their turn.
AT_ONCE = 200
SHARD = 100  # as `hpc_prefect.job.members` has it
_FOLDER = re.compile(r"^_hp_dir='(.*)'$", re.MULTILINE)
_TIME = re.compile(r"\d{10}\.\d+")


class Played:
    """The files of one array's elements, made after those of its first one."""

    def __init__(self, script: Path, environment: dict[str, str]) -> None:
        """Run the first element by bash."""
        (self.folder,) = map(Path, _FOLDER.findall(script.read_text()))
        done = subprocess.run(
            ["/bin/bash", "-p", script], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        first = self.folder / "m" / "0"
        self.id = os.readlink(first / "0.guard")
        self.record = (first / "0.record").read_text()
        self.phase = (first / "0.phase").read_text()

    def play(self, index: int, job_id: str) -> None:
        """Another element, from its start to its end."""
        at = f"{self.folder}/m/{index // SHARD}/{index}."
        os.symlink(job_id, f"{at}guard")
        for name, text in (("phase", self.phase), ("stdout", ""), ("stderr", "")):
            with open(f"{at}{name}", "w") as file:
                file.write(text)
        with open(f"{at}record", "a") as file:
            file.write(_TIME.sub(f"{time.time():.6f}", self.record.replace(self.id, job_id)))


class Players:
    """What plays the arrays of one scheduler."""

    def __init__(self) -> None:
        self._known: dict[int, Played] = {}

    def played(self, n: int, script: Path, environment: dict[str, str]) -> Played:
        """Of the array with this number; its first element has run when it is first asked for."""
        if n not in self._known:
            self._known[n] = Played(script, environment)
        return self._known[n]


class PBSDaemon(pbs_daemon.Daemon):
    """Plays subjobs, which have no records of their own."""

    players = Players()

    def work(self, jobs: list[Record]) -> list[Record]:
        self.later(time.time() + 0.2)  # it is not to end: another would be the rehearsal's own
        return super().work(jobs)

    def _start(self, jobs: list[Record]) -> list[Record]:
        for whole in (job for job in jobs if job.get("array") and job["state"] in "QB"):
            first = pbs_arrays.subjob(whole, 0)
            environment = pbs_environment.variables(self.server, first)
            script = Path(self.server.file(whole["n"], "SC"))
            played = self.players.played(whole["n"], script, environment)
            array = whole["array"]
            for index in _next(array["waiting"]):
                if index:
                    played.play(index, pbs_arrays.subjob(whole, index)["id"])
                pbs_arrays.take(whole, index)
            whole.update(state="B", substate=pbs_arrays.BEGUN, exit=0)
            array["worst"] = pbs_arrays.FINISHED
            self.later(time.time())
            break  # the others when they are looked at again
        return []


class PJMDaemon(pjm_daemon.Daemon):
    """Plays sub jobs, which have no records of their own: the whole's tells which have ended."""

    players = Players()

    def work(self, jobs: list[Record]) -> list[Record]:
        self.later(time.time() + 0.2)
        return super().work(jobs)

    def _start(self, jobs: list[Record]) -> list[Record]:
        for whole in (job for job in jobs if job.get("bulk") and job["state"] == "QUE"):
            first = bulk.part(whole, 0)
            environment = pjm_environment.variables(self.server, first)
            script = Path(self.server.file(whole["n"], "SC"))
            played = self.players.played(whole["n"], script, environment)
            for number in _next(whole["bulk"]["waiting"]):
                if number:
                    played.play(number, bulk.part_id(whole, number))
                bulk.take(whole, number)
            self.server.save(whole)
            self.later(time.time())
            break
        return []


class PJMAnswers(PJMServer):
    """What is asked for: sub jobs that do not wait have ended."""

    def shown(self, job: Record, *, expanded: bool) -> list[Record]:
        if not job.get("bulk"):
            return [job]
        waiting = job["bulk"]["waiting"]
        parts = bulk.all_parts(job, [])
        for part in parts:
            if not indices.holds(waiting, part["number"]):
                part.update(state="EXT", last="RNO", ec=0, pc=0, sn=0)
        row = bulk.shown(job, parts, self.DONE)
        return [row, *parts] if expanded else [row]


def _next(waiting: indices.Runs) -> Iterator[int]:
    """So many of those that wait, in their order."""
    numbers = (number for first, last in list(waiting) for number in range(first, last + 1))
    for number, _ in zip(numbers, range(AT_ONCE), strict=False):
        yield number


def play(name: str, state: str) -> None:
    """The life of the process that plays, in place of the rehearsal's own daemon."""
    daemon, server = {
        "pbs": (PBSDaemon, PBSServer),
        "pjm": (PJMDaemon, PJMServer),
    }[name]
    pipe = f"{state}/wake"
    os.mkfifo(pipe, 0o600)
    # As long as the pipe has a reader, a command starts no daemon of the rehearsal's.
    wake = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    print("plays", flush=True)
    daemon(server(state), wake).run()


def main(what: str, state: str, words: list[str]) -> int:
    if what == "pjstat":
        return run(lambda: pjstat(PJMAnswers(state), words))
    play(what, state)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
