"""Where these tests' jobs run: the laptop's engine, PBS and PJM in rehearsal, a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from hpc_rehearsal.pbs import install as pbs
from hpc_rehearsal.pjm import install as pjm

_ENGINE = str(resources.files("hpc_prefect.local_batch") / "engine.py")
#: Short silences, so that a test may bear them: what takes longer is the start guard's to stop.
_PATIENCE = {"find": 3.0, "record": 10.0, "absent": 20.0, "lost": 40.0}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A scheduler to which jobs are submitted.

    Attributes:
        queue: the one for a job that has to wait: it runs one job at a time.
        submits: the words of a command that submits the script after them.
        active: words of a command that prints the ids of all jobs that wait or run.
        end: ends what is left.
        faults: the folder of a rehearsal's faults.
    """

    scheduler: str
    options: Mapping[str, Any]
    submits: tuple[str, ...]
    active: tuple[str, ...]
    end: Callable[[], None]
    environ: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""
    faults: Path | None = None
    hurry: float = 0.5
    poll_interval: float = 1.0
    patience: Mapping[str, float] = field(default_factory=lambda: _PATIENCE)

    @property
    def told(self) -> dict[str, Any]:
        """What a driver must know."""
        kept = ("scheduler", "hurry", "poll_interval")
        mappings = ("options", "environ", "patience")
        return {name: getattr(self, name) for name in kept} | {
            name: dict(getattr(self, name)) for name in mappings
        }

    def run(self, *argv: str) -> str:
        """One of the scheduler's commands, as a person would give it."""
        done = subprocess.run(
            argv, env=os.environ | self.environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done
        return done.stdout.strip()

    def fill(self, folder: Path, until: Path) -> dict[str, Any]:
        """Make jobs wait until a file is there; what a job must be given so that it does."""
        script = folder / "blocker.sh"
        script.write_text(f"#!/bin/bash\nuntil [ -e {until} ]; do sleep 0.05; done\n")
        script.chmod(0o700)
        words = [word.replace("{folder}", str(folder)) for word in self.submits]
        job_id = self.run(*words, str(script)).split()[-1]
        if self.scheduler == "slurm":
            directives = [*self.options["directives"], f"--dependency=afterany:{job_id}"]
            return {"options": {"directives": directives}}
        more = {"options": {"slots": 1}} if self.scheduler == "local" else {}
        return {"queue": self.queue, **more}


def local(folder: Path) -> Place:
    spool = str(folder / "spool")
    engine = (sys.executable, "-I", "-S", _ENGINE)
    words = ("--cpus", "1", "--out", "/dev/null", "--err", "/dev/null", "--cwd", "{folder}")
    narrow = ("--name", "blocker", "--queue", "narrow", "--slots", "1")
    active = (*engine, "jobs", "--spool", spool)

    def end() -> None:
        jobs = subprocess.run(active, capture_output=True, text=True).stdout.splitlines()
        ids = [line.split('"id":')[1].split('"')[1] for line in jobs]
        if ids:
            subprocess.run((*engine, "cancel", "--spool", spool, *ids), capture_output=True)

    return Place(
        scheduler="local",
        options={"slots": 64, "spool": spool, "kill_grace": 1.0},
        submits=(*engine, "submit", "--spool", spool, *narrow, *words),
        active=active,
        end=end,
        queue="narrow",
        hurry=0.05,
        patience={},
    )


def _empty_home(folder: Path) -> str:
    """Jobs run in login shells: a user's own profile may take seconds."""
    (folder / "home").mkdir()
    return str(folder / "home")


def in_pbs(folder: Path) -> Place:
    commands, state = folder / "bin", folder / "state"
    queues: dict[str, Any] = {"workq": {}, "narrow": {"max_run": 1}}
    pbs.install(commands, state, ncpus=64, queues=queues, home=_empty_home(folder))
    return Place(
        scheduler="pbs",
        options={},
        submits=("qsub", "-q", "narrow", "-o", "/dev/null", "-e", "/dev/null"),
        active=("qselect",),
        end=lambda: pbs.stop(state),
        environ={"PATH": f"{commands}:{os.environ['PATH']}"},
        queue="narrow",
        faults=state / "faults",
    )


def in_pjm(folder: Path) -> Place:
    commands, state = folder / "bin", folder / "state"
    groups: dict[str, Any] = {"small": {}, "narrow": {"run": 1}}
    pjm.install(commands, state, rscgrps=groups, home=_empty_home(folder))
    return Place(
        scheduler="pjm",
        options={},
        submits=("pjsub", "-L", "rscgrp=narrow", "-o", "/dev/null", "-e", "/dev/null", "-z", "jid"),
        active=("pjstat", "--choose", "jid"),
        end=lambda: pjm.stop(state),
        environ={"PATH": f"{commands}:{os.environ['PATH']}"},
        queue="narrow",
        faults=state / "faults",
    )


def in_slurm(environ: Mapping[str, str]) -> Place:
    variables = {name: value for name, value in environ.items() if os.environ.get(name) != value}
    return Place(
        scheduler="slurm",
        options={"directives": ["--exclude=n4"]},
        submits=("sbatch", "--parsable", "--output=/dev/null", "--exclude=n4"),
        active=("squeue", "--noheader", "--format=%A"),
        end=lambda: None,
        environ=variables,
        hurry=1.0,
        # Its answers come seconds late when it is busy.
        patience=_PATIENCE | {"find": 8.0},
    )
