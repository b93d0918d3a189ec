"""The laptop's batch system as its users have it: commands, text and real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hpc_prefect.local_batch

ENGINE = Path(hpc_prefect.local_batch.__file__).with_name("engine.py")
PATIENCE = 200.0


def until(predicate, what="the condition"):
    """Wait for what must come true; how long it takes is not judged."""
    end = time.monotonic() + PATIENCE
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.01)
    return value


def process_of(who):
    """The pid in a record of the spool, if that process lives."""
    boot, pid, start = who.split()[:3]
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(pid) if fields[19] == start and fields[0] not in "ZX" and boot else None


class Engine:
    """The commands on one spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.defaults = {
            "--spool": self.spool,
            "--name": "job",
            "--queue": "q",
            "--slots": 2,
            "--cpus": 1,
            "--out": folder / "out",
            "--err": folder / "err",
            "--cwd": folder,
            "--kill-grace": 5,
        }

    def command(self, verb, *words):
        return [sys.executable, "-I", "-S", str(ENGINE), verb, *map(os.fspath, words)]

    def run(self, verb, *words):
        return subprocess.run(
            self.command(verb, *words), capture_output=True, text=True, timeout=PATIENCE
        )

    def ok(self, verb, *words):
        done = self.run(verb, *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def script(self, text, name="script.sh"):
        path = self.folder / name
        path.write_text(text if text.startswith("#!") else "#!/bin/bash\n" + text)
        return path

    def options(self, **changes):
        named = {"--" + key.replace("_", "-"): value for key, value in changes.items()}
        merged = {**self.defaults, **named}
        return [str(word) for pair in merged.items() for word in pair]

    def submit(self, text, **changes):
        return self.ok("submit", *self.options(**changes), self.script(text)).strip()

    def jobs(self, *ids):
        return [
            json.loads(line) for line in self.ok("jobs", "--spool", self.spool, *ids).splitlines()
        ]

    def job(self, job):
        (record,) = self.jobs(job)
        return record

    def cancel(self, *ids):
        return self.ok("cancel", "--spool", self.spool, *ids).splitlines()

    def ended(self, job):
        return until(
            lambda: record if (record := self.job(job))["state"] == "ENDED" else None, "its end"
        )

    def running(self, job):
        return until(lambda: self.job(job)["state"] == "RUNNING", "its start")

    def records(self, job):
        return self.spool / "jobs" / job.partition(".")[0]

    def supervisor(self, job):
        return process_of((self.records(job) / "supervisor").read_text())

    def kill_supervisor(self, job):
        pid = self.supervisor(job)
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.supervisor(job) is None, "the supervisor's death")

    def mark(self, name):
        return self.folder / name

    def pid_in(self, name):
        """The pid that a job has written into a file of this name."""
        return int(until(lambda: (m := self.mark(name)).exists() and m.read_text().strip()))

    def emptied(self):
        """Wait until no job has a place in a queue: a moment after the end of the last one."""
        until(lambda: not list((self.spool / "queues").glob("*/*")), "empty queues")

    def stop_everything(self):
        """Kill supervisors first, so that nothing is started any more, then all their scripts."""
        for file in self.spool.glob("jobs/*/supervisor"):
            if pid := process_of(file.read_text()):
                os.kill(pid, signal.SIGKILL)
        spool = b"\0HPC_LOCAL_SPOOL=" + os.fsencode(self.spool) + b"\0"
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if spool in b"\0" + (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
