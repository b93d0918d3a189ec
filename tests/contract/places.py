"""The places at which the contract is held: each a scheduler with what its profile must say."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from hpc_rehearsal.pbs import install as pbs
from hpc_rehearsal.pjm import install as pjm

from ..engines import SlurmCluster

#: Each process of pytest-xdist has its own blocks on the one Prefect server.
WORKER = sha256(f"contract {os.environ.get('PYTEST_XDIST_WORKER', '')}".encode()).hexdigest()[:6]

#: Variants that every scheduler has, because the script alone makes the end.
_EVERYWHERE: dict[str, dict[str, Any]] = {
    "": {},
    "executable missing": {"executables": {"sh": {"path": "/no/such/sh", "setup": ["true"]}}},
    "set-up fails": {"setup": ["(exit 9) || exit"]},
    "module missing": {"modules": ["no-such-module"]},
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A scheduler to which jobs can be submitted.

    Attributes:
        profile: fields of the HPC profile.
        special: changes to the profile that provoke an end, by name.
        environ: what the scheduler's commands need in the environment.
        shortest_walltime: the shortest limit that is kept.
        lacks: what this place cannot do, and why: the only skips.
    """

    #: The variants that a scheduler of this kind has beside those that every one has.
    KNOWN: ClassVar[frozenset[str]] = frozenset()

    name: str
    profile: Mapping[str, Any]
    special: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    shortest_walltime: str = "00:01:00"
    lacks: Mapping[str, str] = field(default_factory=dict)
    #: The name of a folder of which a shell, or the scheduler, would make something else.
    work_dir: str = "it's a $(work) dir %j"
    #: Fields of the execution profile that a variant needs here beside its own.
    executions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def has(cls, variant: str) -> bool:
        """Whether jobs of this kind of scheduler can meet the end that the variant provokes."""
        return variant in _EVERYWHERE or variant in cls.KNOWN

    @property
    def variants(self) -> dict[str, Mapping[str, Any]]:
        found = {**_EVERYWHERE, **self.special}
        return {name: changes for name, changes in found.items() if name not in self.lacks}

    def with_variant(self, variant: str) -> dict[str, Any]:
        """The profile's fields; options of a scheduler are laid over its own, one by one."""
        fields = {"executables": {"sh": "/bin/sh"}, **self.profile}
        for name, value in self.variants[variant].items():
            both = isinstance(value, Mapping) and isinstance(fields.get(name), Mapping)
            fields[name] = {**fields[name], **value} if both else value
        return fields

    def block(self, variant: str = "") -> str:
        """The name of the HPC profile block of a variant."""
        # Not near the names in the tests of what is told about a name that is not there.
        return f"{self.name}-{variant or 'plain'}-{WORKER}".replace(" ", "-")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This process's environment is that of the place inside."""
        before = dict(os.environ)
        os.environ.update(self.environ)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def run(self, *argv: str) -> str:
        """One of the scheduler's commands, as a person would give it."""
        done = subprocess.run(
            argv, env=os.environ | self.environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (argv, done)
        return done.stdout

    def cancel(self, job_id: str) -> None:
        """End a job with the scheduler's own command."""
        raise NotImplementedError

    def active(self) -> set[str]:
        """The ids of all jobs that wait or run."""
        raise NotImplementedError

    def let_go(self, job_id: str) -> None:
        """Release a job that requeued itself, where it is held then."""

    def failing_node(self) -> contextlib.AbstractContextManager[None]:
        """Inside, no other test takes the node that `fail_node` takes."""
        return contextlib.nullcontext()


_ENGINE = str(resources.files("hpc_prefect.local_batch") / "engine.py")


class Local(Place):
    """The laptop's engine, with a spool of its own, and a queue in it that is always full."""

    KNOWN = frozenset({"memory", "waits"})

    @classmethod
    def at(cls, folder: Path) -> Local:
        options = {"slots": 64, "spool": str(folder / "spool"), "kill_grace": 1.0}
        place = cls(
            name="local",
            profile={"scheduler": "local", "local": options},
            special={"memory": {}, "waits": {"queue_cpu": "full", "local": {"slots": 1}}},
            shortest_walltime="00:00:20",
        )
        blocker = folder / "blocker.sh"
        blocker.write_text("#!/bin/sh\nexec sleep 1000\n")
        place._engine(
            *("submit", "--name", "blocker", "--queue", "full", "--slots", "1", "--cpus", "1"),
            *("--out", "/dev/null", "--err", "/dev/null", "--cwd", str(folder), str(blocker)),
        )
        return place

    def _engine(self, verb: str, *words: str) -> str:
        spool = self.profile["local"]["spool"]
        return self.run(sys.executable, "-I", "-S", _ENGINE, verb, "--spool", spool, *words)

    def cancel(self, job_id: str) -> None:
        self._engine("cancel", job_id)

    def active(self) -> set[str]:
        return {json.loads(line)["id"] for line in self._engine("jobs").split("\n") if line}

    def close(self) -> None:
        """End what is left."""
        if left := self.active():
            self._engine("cancel", *left)


@dataclass(frozen=True, kw_only=True)
class Slurm(Place):
    """A real Slurm. Of its four nodes the last one is for what takes a node away."""

    KNOWN = frozenset(
        {
            *("memory", "rejected", "never", "dependency", "held", "waits"),
            *("node failure", "preempted", "requeued", "requeues itself"),
        }
    )

    cluster: SlurmCluster

    @classmethod
    def of(cls, cluster: SlurmCluster, name: str, *, accounting: bool) -> Slurm:
        options = {"directives": ["--exclude=n4"], "accounting": accounting}
        on_n4 = {"directives": ["--nodelist=n4"]}
        failing = cluster.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=exit 1").stdout
        special = {
            "memory": {},
            "rejected": {"queue_cpu": "nosuch"},
            "never": {"queue_cpu": "short"},
            "dependency": {"slurm": {"directives": [f"--dependency=afterok:{failing.strip()}"]}},
            "held": {"slurm": {"directives": ["--begin=now+1hour"]}},
            "waits": {"slurm": {"directives": ["--begin=now+1hour"]}},
            "node failure": {"slurm": on_n4 | {"requeue": "no"}},
            "preempted": {"queue_cpu": "preemptible", "slurm": {"directives": ["--nodelist=n3"]}},
            "requeued": {"slurm": {"requeue": "yes"}},
            "requeues itself": {
                "slurm": {"requeue": "yes"},
                "environment": {"AGAIN": "scontrol requeue $SLURM_JOB_ID"},
            },
        }
        return cls(
            name=name,
            cluster=cluster,
            profile={"scheduler": "slurm", "slurm": options, "poll_interval": 3.0},
            special=special,
            environ=cluster.environment,
        )

    def cancel(self, job_id: str) -> None:
        self.run("scancel", job_id)

    def active(self) -> set[str]:
        return set(self.run("squeue", "--noheader", "--format=%A").split())

    def hold(self, job_id: str) -> None:
        self.run("scontrol", "hold", job_id)

    def fail_node(self, job_id: str) -> None:
        self.cluster.node("n4", "down")
        self.cluster.node("n4", "resume")  # the cluster is whole for whoever asks for it

    @contextlib.contextmanager
    def failing_node(self) -> Iterator[None]:
        # All processes of a session share the cluster.
        with (self.cluster.dir / "failing-node.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def preempt(self, job_id: str) -> None:
        """A job with precedence that wants the whole node."""
        self.run(
            *("sbatch", "--partition=normal", "--nodelist=n3", "--exclusive", "--mem=0"),
            *("--output=/dev/null", "--time=1", "--wrap=sleep 1"),
        )

    def requeue(self, job_id: str) -> None:
        self.run("scontrol", "requeue", job_id)


class Rehearsed(Place):
    """A scheduler of the package's own, whose commands are bound to a state folder."""

    @property
    def state(self) -> Path:
        return Path(self.environ["PATH"].partition(":")[0]).with_name("state")


class PBS(Rehearsed):
    """The rehearsal PBS: the answers of a recorded one, about real processes."""

    KNOWN = frozenset(
        {"memory", "rejected", "never", "dependency", "held", "waits", "requeues itself"}
    )

    @classmethod
    def at(cls, folder: Path, name: str, **options: Any) -> PBS:
        """`options`: of the profile's `pbs`; with a table for status the site's own `qstat`."""
        commands, state = folder / "bin", folder / "state"
        table = options.get("status_dialect") == "table"
        site = "table" if table else "openpbs"
        # Jobs run in login shells; the account's own profile may take a minute.
        home = str(folder)
        pbs.install(commands, state, ncpus=64, qstat=site, operator=True, home=home)  # type: ignore[arg-type]
        environ = {"PATH": f"{commands}:{os.environ['PATH']}"}
        later = (datetime.now() + timedelta(hours=1)).strftime("%Y%m%d%H%M")  # noqa: DTZ005
        waits = {"pbs": {"directives": [f"-a {later}"]}}
        failing = folder / "failing.sh"
        failing.write_text("exit 1\n")
        argv = (str(commands / "qsub"), "-o", "/dev/null", "-e", "/dev/null", str(failing))
        failed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        return cls(
            name=name,
            profile={"scheduler": "pbs", "pbs": options, "poll_interval": 2.0},
            special={
                "memory": {},
                "rejected": {"queue_cpu": "nosuch"},
                "never": {},
                "dependency": {"pbs": {"directives": [f"-W depend=afterok:{failed}"]}},
                "requeues itself": {
                    "pbs": {"requeue": "yes"},
                    # A login profile may set PATH anew.
                    "environment": {"AGAIN": f"{commands}/qrerun $PBS_JOBID"},
                },
                "held": waits,
                "waits": waits,
            },
            executions={"never": {"threads_per_rank": 1000}},
            environ=environ,
            shortest_walltime="00:00:20",
        )

    def cancel(self, job_id: str) -> None:
        self.run("qdel", job_id)

    def hold(self, job_id: str) -> None:
        self.run("qhold", job_id)

    def active(self) -> set[str]:
        return set(self.run("qselect").split())

    def close(self) -> None:
        """End what is left."""
        pbs.stop(self.state)


class PJM(Rehearsed):
    """The rehearsal PJM: the answers of the manuals and of Fugaku, about real processes."""

    KNOWN = frozenset(
        {
            *("memory", "rejected", "held", "waits", "node failure", "requeued", "preempted"),
            "requeues itself",
        }
    )

    @classmethod
    def at(cls, folder: Path, name: str, **options: Any) -> PJM:
        """`options`: of the profile's `pjm`."""
        commands, state = folder / "bin", folder / "state"
        # A group for jobs that yield to those of the other.
        groups: dict[str, Any] = {"small": {}, "spot": {"yields": True}}
        pjm.install(commands, state, rscgrps=groups, home=str(folder))
        later = (datetime.now() + timedelta(hours=1)).strftime("%Y%m%d%H%M")  # noqa: DTZ005
        waits = {"pjm": {"directives": [f"--at {later}"]}}
        return cls(
            name=name,
            profile={"scheduler": "pjm", "pjm": options, "poll_interval": 2.0},
            special={
                "memory": {},
                "rejected": {"queue_cpu": "nosuch"},
                "held": waits,
                "waits": waits,
                "node failure": {"pjm": {"requeue": "no"}},
                "requeued": {"pjm": {"requeue": "yes"}},
                "requeues itself": {
                    "pjm": {"requeue": "yes"},
                    "environment": {"AGAIN": "pjhold $PJM_JOBID"},
                },
                "preempted": {"queue_cpu": "spot", "launcher": "env {command}"},
            },
            executions={"preempted": {"num_nodes": 300, "launch": "mpi"}},  # of 384
            environ={"PATH": f"{commands}:{os.environ['PATH']}"},
            shortest_walltime="00:00:20",
            work_dir="it's a $(work) dir",  # PJM would replace %j
        )

    def cancel(self, job_id: str) -> None:
        self.run("pjdel", job_id)

    def hold(self, job_id: str) -> None:
        self.run("pjhold", job_id)

    def fail_node(self, job_id: str) -> None:
        """As if its node was lost: first what looks after the job is killed, then the job."""
        record = json.loads((self.state / "jobs" / f"{job_id}.json").read_text())
        job = self.state / "spool" / "jobs" / record["engine"].partition(".")[0]
        script = json.loads((job / "start.json").read_text())["process"]
        for who in ((job / "supervisor").read_text(), script):
            os.kill(int(who.split()[1]), signal.SIGKILL)

    def requeue(self, job_id: str) -> None:
        self.fail_node(job_id)

    def let_go(self, job_id: str) -> None:
        end = time.monotonic() + 120
        while "HLD" not in self.run("pjstat", "--choose", "st", "--filter", f"jid={job_id}"):
            assert time.monotonic() < end, "it is not held"
            time.sleep(0.1)
        self.run("pjrls", job_id)

    def preempt(self, job_id: str) -> None:
        """A job with precedence that wants nodes of it."""
        script = self.state.with_name("preemptor.sh")
        script.write_text("sleep 1\n")
        files = ("-o", "/dev/null", "-e", "/dev/null")
        self.run("pjsub", "-L", "rscgrp=small,node=200,elapse=60", *files, str(script))

    def active(self) -> set[str]:
        rows = self.run("pjstat", "--choose", "jid").split("\n")[1:]
        return {row.strip() for row in rows if row}

    def close(self) -> None:
        """End what is left."""
        pjm.stop(self.state)
