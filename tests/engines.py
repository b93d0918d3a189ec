"""Real batch systems for tests: started once a session by whoever asks first, stopped at its end.

They run only where they are wanted: on CI, where one that does not start fails its tests, and
where HPC_PREFECT_ENGINES names them. Anywhere else their tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SLURM_TOOL = Path(__file__).parents[1] / "tools" / "slurm_cluster.py"
PATIENCE_SECONDS = 280  # a first start installs packages; pytest-timeout ends the test at 300


@dataclass(frozen=True)
class SlurmCluster:
    """A cluster that is up.

    Attributes:
        dir: everything of it, with its logs in `log`.
        conf: its slurm.conf.
        environment: for its client commands: the tests' own without Slurm's variables of another
            cluster or job, and with its own.
    """

    dir: Path
    conf: Path
    environment: dict[str, str]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A client's command."""
        return subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )

    def signal(self, daemon: str, name: str) -> None:
        """Send STOP, CONT or KILL to `slurmctld` or `slurmdbd`; a killed one is gone after it."""
        slurm_tool("signal", self.dir, daemon, name)

    def start(self, daemon: str) -> None:
        """Start `slurmctld` or `slurmdbd` again; it answers after it."""
        slurm_tool("start", self.dir, daemon)

    def node(self, name: str, state: str) -> None:
        """Take a node from its jobs (`down`), or give it back (`resume`)."""
        slurm_tool("node", self.dir, name, state)


def slurm(home: Path, *, accounting: bool) -> SlurmCluster:
    """This session's cluster of the kind; skips or fails the test that cannot have it.

    The one with accounting holds jobs to their memory by cgroup where the machine can, the other
    one always by Slurm's own polling: the two ways in which an excess shows.
    """
    require_slurm()
    folder = home / ("slurm" if accounting else "slurm-light")
    # Any number of processes may ask at once: the tool starts each daemon once.
    slurm_up(folder, *([] if accounting else ["--no-accounting", "--no-cgroup"]))
    return slurm_cluster(folder)


def require_slurm() -> None:
    """Skip the test where nobody wants a real Slurm."""
    if not wanted("slurm"):
        pytest.skip("needs a real Slurm: set HPC_PREFECT_ENGINES=slurm as root")


def slurm_up(folder: Path, *options: str) -> None:
    try:
        slurm_tool("up", *options, folder)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.fail(f"Slurm did not start: {error.stderr or error}", pytrace=False)


def slurm_cluster(folder: Path) -> SlurmCluster:
    """The cluster in this folder."""
    lines = slurm_tool("env", folder).splitlines()
    own = dict(line.split("=", 1) for line in lines)
    foreign = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "OMPI_", "PMIX_")
    rest = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return SlurmCluster(folder, Path(own["SLURM_CONF"]), {**rest, **own})


def slurm_tool(*words: str | Path) -> str:
    """What the tool prints; CalledProcessError with its sentence in stderr when it fails."""
    return subprocess.run(
        [sys.executable, str(SLURM_TOOL), *map(os.fspath, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    ).stdout


def wanted(engine: str) -> bool:
    named = os.environ.get("HPC_PREFECT_ENGINES", "").replace(",", " ").split()
    return os.environ.get("CI") == "true" or engine in named


def stop_all(home: Path) -> None:
    """Stop what tests have started below their home."""
    for record in home.glob("slurm*/cluster.json"):
        slurm_tool("down", "--purge", record.parent)
