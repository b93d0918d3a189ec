"""The rehearsals as their users have them: commands on PATH, text and real processes."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType

from hpc_rehearsal.pbs import install as pbs_install
from hpc_rehearsal.pjm import install as pjm_install

PATIENCE = 120.0
RECORDED = Path(__file__).parents[1] / "transcripts" / "openpbs"
QUEUES = {
    "workq": {},
    "regular-c": {},
    "debug-c": {},
    "limited-c": {"max_queued": 2, "max_run": 1},
    "small-c": {"resources_max": {"ncpus": 4, "walltime": "00:10:00"}},
    "stopped-c": {"started": False},
    "disabled-c": {"enabled": False},
    "inter-c": {"route_destinations": "debug-c"},
    "acl-c": {"acl_groups": ["gz99"]},
}
ME = pwd.getpwuid(os.getuid()).pw_name


def until(predicate, what="the condition", patience=PATIENCE):
    """Wait for what must come true; how long it takes is not judged."""
    end = time.monotonic() + patience
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.02)
    return value


class Rehearsal:
    """The commands on one state folder.

    Attributes:
        module: installs and stops them.
        defaults: what is installed if a test does not say otherwise.
    """

    module: ModuleType
    defaults: Mapping[str, object]

    def __init__(self, folder: Path, **options) -> None:
        self.bin, self.state = folder / "bin", folder / "state"
        self.work, self.home = folder / "work", folder / "home"
        for path in (self.work, self.home):
            path.mkdir(parents=True)
        self.options = {"home": str(self.home), "shell": "/bin/bash", **self.defaults, **options}
        self.install()

    def install(self, **changes):
        self.module.install(self.bin, self.state, **{**self.options, **changes})

    def change(self, **changes):
        """Other options for the jobs that are there: a daemon reads them when it begins."""
        self.install(**changes)
        self.kill_daemon()
        self.submit("true")

    def environment(self, **more):
        return {
            "HOME": "/home/hpcuser",
            "LANG": "C.UTF-8",
            "LOGNAME": "hpcuser",
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "SHELL": "/bin/bash",
            **more,
        }

    def run(self, *words, given=b"", timeout=PATIENCE, **more):
        """Exit status, standard output and standard error, as text."""
        done = subprocess.run(
            words,
            cwd=self.work,
            env=self.environment(**more),
            input=given,
            capture_output=True,
            timeout=timeout,
        )
        out, err = (raw.decode(errors="surrogateescape") for raw in (done.stdout, done.stderr))
        return done.returncode, out, err

    @contextmanager
    def hanging(self, *words):
        """While a command hangs. At the end it is killed."""
        none = subprocess.DEVNULL
        process = subprocess.Popen(
            words, cwd=self.work, env=self.environment(), stdin=none, stdout=none, stderr=none
        )
        try:
            yield
            assert process.poll() is None, "it has ended"
        finally:
            process.kill()
            process.wait()

    def shell(self, line, **more):
        return self.run("bash", "-c", line, **more)

    def ok(self, *words, **more):
        code, out, err = self.run(*words, **more)
        assert (code, err) == (0, "")
        return out

    def script(self, text, name="job.sh"):
        path = self.work / name
        path.write_text(text if text.startswith("#!") else "#!/bin/bash\n" + text)
        path.chmod(0o755)
        return str(path)

    def fault(self, name, *, on=True):
        path = self.state / "faults" / name
        path.touch() if on else path.unlink(missing_ok=True)

    def mark(self, name):
        return self.work / name

    def process_of_a_job(self):
        """The first process of the only job, and the one that looks after it."""
        (start,) = until(lambda: list(self.state.glob("spool/jobs/*/start.json")))
        (file,) = self.state.glob("spool/jobs/*/supervisor")
        whos = (json.loads(start.read_text())["process"], file.read_text())
        return tuple(int(who.split()[1]) for who in whos)

    def stop(self):
        self.module.stop(self.state, patience=PATIENCE)
        # A daemon that is gone closes its pipe: nothing of the test is left behind.
        until(lambda: not self.has_daemon(), "the end of the daemon")

    def has_daemon(self):
        try:
            os.close(os.open(self.state / "wake", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    def kill_daemon(self):
        for folder in os.listdir("/proc"):
            if folder.isdecimal() and _reads(folder, self.state / "wake"):
                os.kill(int(folder), signal.SIGKILL)
        until(lambda: not self.has_daemon())


def _reads(pid, path):
    try:
        return any(
            os.readlink(f"/proc/{pid}/fd/{fd}") == str(path) for fd in os.listdir(f"/proc/{pid}/fd")
        )
    except OSError:
        return False


class Pbs(Rehearsal):
    module = pbs_install
    defaults = MappingProxyType({"queues": QUEUES, "groups": ["gz00"], "exiting": 0.02})

    def submit(self, text, *options, **more):
        return self.ok("qsub", *options, self.script(text), **more).strip()

    def job(self, job):
        """Its record as JSON, or None."""
        out = self.run("qstat", "-x", "-f", "-F", "json", job)[1]
        return json.loads(out).get("Jobs", {}).get(job)

    def reaches(self, job, state):
        return until(
            lambda: seen if (seen := self.job(job)) and seen["job_state"] == state else None,
            f"{job} in state {state}",
        )

    def runs(self, job):
        """Wait until it runs, unless it is over."""
        until(lambda: (seen := self.job(job)) is None or seen["job_state"] in "REF", "its start")

    def ended(self, job):
        return self.reaches(job, "F")


class Pjm(Rehearsal):
    module = pjm_install
    defaults = MappingProxyType(
        {
            "groups": ["rccs-aot"],
            "rscgrps": {
                "small": {"node": (1, 384), "elapse": (1, 259200), "elapse_default": 900},
                "int": {"elapse": (1, 14400), "run": 1, "accept": 2},
                "large": {"node": (385, 12288)},
                "off": {"enabled": False},
                "gated": {"gate": "Q09 Computing resources shortage occurred.[group]"},
            },
            "kill_grace": 60.0,  # a job on a busy machine is slow to hear its signal
            "linger": 0.1,
            "gap": 0.05,
        }
    )

    def submit(self, text, *options, **more):
        return self.ok("pjsub", "-z", "jid", *options, self.script(text), **more).strip()

    def row(self, job, *history):
        """Its cells by the heads of their columns, or None."""
        table = self.ok("pjstat", *history, "-v", job).split("\n")
        return cells(table[0], table[1]) if table[1] else None

    def reaches(self, job, state):
        return until(
            lambda: seen if (seen := self.row(job)) and seen["ST"] == state else None,
            f"{job} in state {state}",
        )

    def ended(self, job):
        return until(lambda: self.row(job, "-H"), f"{job} in the history")

    def end(self, job):
        seen = self.ended(job)
        return tuple(seen[name] for name in ("ST", "EC", "PC", "SN"))


def cells(head, row):
    """Of a table whose columns are as wide as their heads' distances."""
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    ends = [*starts[1:], None]
    return {head[a:b].strip(): row[a:b].strip() for a, b in zip(starts, ends, strict=True)}


# What differs between two runs of the same thing


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


def normal(text, pbs):
    """The text without what is of one run only: times, places, people, amounts, task numbers."""
    for here, there in (
        (str(pbs.bin), "/opt/pbs/bin:/opt/pbs/sbin"),
        (str(pbs.work), "/gpfs/gz00/jobs"),
        (str(pbs.home), "/home/hpcuser"),
        (str(pbs.state / "jobs"), "/var/spool/pbs/mom_priv/jobs"),
    ):
        # Unwrapped first: how long a path is decides where a line is cut.
        text = (
            text.replace("\n\t", "").replace(here, there)
            if text[:1] != "{"
            else text.replace(here, there)
        )
    text = re.sub(rf"\b{ME}\b( *)", _padded, text)
    text = re.sub(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", "WHEN", text)
    text = re.sub(r"\w{3} \w{3} \d\d at \d\d:\d\d", "WHEN", text)
    text = re.sub(r'(timestamp(?:":\t| = ))\d+', r"\1STAMP", text)
    text = re.sub(r"-a \d{12}", "-a WHEN", text)
    text = re.sub(r"opbs/\d+", "opbs/0", text)
    text = re.sub(r"(\b(?:mem|vmem)(?:\":\t\"| = ))\d+kb", r"\g<1>0kb", text)
    text = re.sub(r"(resources_used\.\w+ = )\d\d:\d\d:\d\d", r"\g<1>00:00:00", text)
    text = re.sub(r"(\"(?:walltime|cput)\":\t\")\d\d:\d\d:\d\d(?=\"\n|\",\n\t+\"mem)", r"\1T", text)
    text = re.sub(r'(\s+)"?session_id"?[^\n]*', "", text)
    text = re.sub(r"(cpupercent(?:\":\t| = ))\d+", r"\g<1>0", text)
    # In a table: the session, and the time that is over for a running job.
    text = re.sub(r"( {4,}|\* +)\d+( {3}\d+ {1,3}\d+ )", _session, text)
    text = re.sub(r" R 00:00\n", " R   -- \n", text)
    pieces = re.split(r'(?=^(?:Job Id: |\t\t"\d+\.))', text, flags=re.M)
    return "".join(_unreported(piece) if _runs(piece) else piece for piece in pieces)


def _padded(match):
    cell = len(ME + match[1])
    return "hpcuser".ljust(cell) if len(match[1]) > 1 else "hpcuser" + match[1]


def _session(match):
    before, after = match[0][: match.start(2) - match.start()], match[2]
    digits = len(before) - len(before.rstrip("0123456789"))
    return before[: len(before) - digits] + "-- ".rjust(digits) + after


def _runs(piece):
    return re.search(r"job_state(?: = |\":\t\")R", piece)


def _unreported(piece):
    """Without what a daemon reports of a running job after some seconds."""
    piece = re.sub(r"    (?:resources_used\.\w+|jobdir) = [^\n]*\n", "", piece)
    piece = re.sub(r'\t+"resources_used":\t\{[^}]*\},\n|\t+"jobdir":[^\n]*\n', "", piece)
    return re.sub(r'(substate(?: = |":\t))42', r"\g<1>41", piece)
