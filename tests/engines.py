"""Real batch systems and other people's programs for tests: made once a session by whoever asks
first, stopped at its end.

They run only where they are wanted: on CI, where one that does not start fails its tests, and
where HPC_PREFECT_ENGINES names them (slurm, chromium, roc-validator, mlflow, mlflow-server).
Anywhere else their tests are skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
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


#: Programs that cannot share an environment with us, because of the versions that they need.
ROC_VALIDATOR = "roc-validator==0.13.0"
MLFLOW_CLIENT = "mlflow-skinny==3.17.2"
MLFLOW_SERVER = "mlflow==3.17.2"

#: By these names it is found; `.ci/run` installs it.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

SOURCE = Path(__file__).parents[1] / "src"
VALIDATING = Path(__file__).with_name("records") / "validating.py"


@dataclass(frozen=True)
class CrateValidator:
    """roc-validator, in its own environment.

    Attributes:
        python: that environment's.
        cache: of what it would fetch.
    """

    python: Path
    cache: Path

    def faults(
        self, *crates: Path, profile: str = "provenance-run-crate"
    ) -> dict[Path, dict[str, list[str]]]:
        """What does not hold in crates, by severity: REQUIRED, RECOMMENDED."""
        (package,) = find_spec("rocrate").submodule_search_locations  # type: ignore[union-attr]
        context = Path(package) / "data" / "ro-crate.jsonld"
        argv = [self.python, VALIDATING, profile, context, self.cache, *crates]
        done = subprocess.run(
            list(map(os.fspath, argv)), capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert done.returncode == 0, done.stderr
        (line,) = [each for each in done.stdout.splitlines() if each.startswith("{")]
        return {Path(crate): found for crate, found in json.loads(line).items()}


def crate_validator(home: Path) -> CrateValidator:
    """roc-validator; skips or fails the test that cannot have it."""
    python = environment(home, "roc-validator", ROC_VALIDATOR)
    return CrateValidator(python, home / f"contexts-{os.getpid()}")


def mlflow(home: Path) -> Path:
    """The Python of an environment that has MLflow's client, and us."""
    return environment(home, "mlflow", MLFLOW_CLIENT, with_us=True)


def mlflow_server(home: Path) -> Path:
    """The Python of an environment with all of MLflow: 850 MB, so only where it is named.

    A server is its client's affair; what we tell that client is tested everywhere.
    """
    if "mlflow-server" not in _named():
        pytest.skip("takes 850 MB: set HPC_PREFECT_ENGINES=mlflow-server")
    return environment(home, "mlflow-server", MLFLOW_SERVER)


def chromium() -> Path:
    """A Chromium of this machine; skips or fails the test that cannot have it."""
    if not wanted("chromium"):
        pytest.skip("needs Chromium: set HPC_PREFECT_ENGINES=chromium")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.fail("no Chromium on PATH; on Debian: apt-get install chromium", pytrace=False)
    return Path(found)


def environment(home: Path, engine: str, requirement: str, *, with_us: bool = False) -> Path:
    """The Python of a virtual environment of its own, made once a session.

    Any number of processes may ask at once: one makes it, the others wait for that.

    Args:
        with_us: have it find this package's source.
    """
    if not wanted(engine):
        pytest.skip(f"needs {requirement}: set HPC_PREFECT_ENGINES={engine}")
    folder = home / f"venv-{engine}"
    python, ready = folder / "bin" / "python", folder / "ready"
    with _Lock(home / f"venv-{engine}.lock"):
        if not ready.exists():
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            for argv in ([sys.executable, "-m", "venv", "--clear", folder], [*pip, requirement]):
                _make(engine, list(map(os.fspath, argv)))
            (packages,) = folder.glob("lib/python3*/site-packages")
            if with_us:
                (packages / "_hpc_prefect.pth").write_text(f"{SOURCE}\n")
            ready.touch()
    return python


class _Lock:
    """Held by one process at a time; waiting for it has an end."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    pytest.fail(f"{self._file.name} was held for too long", pytrace=False)
                time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _make(engine: str, argv: list[str]) -> None:
    try:
        subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or error)[-2000:]
        pytest.fail(f"{engine} could not be installed: {said}", pytrace=False)


def wanted(engine: str) -> bool:
    return os.environ.get("CI") == "true" or engine in _named()


def _named() -> list[str]:
    return os.environ.get("HPC_PREFECT_ENGINES", "").replace(",", " ").split()


def stop_all(home: Path) -> None:
    """Stop what tests have started below their home."""
    for record in home.glob("slurm*/cluster.json"):
        slurm_tool("down", "--purge", record.parent)
