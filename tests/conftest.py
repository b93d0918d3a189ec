"""One Prefect server for all tests, and none of the user's own Prefect for any of them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from hpc_prefect.server import Server, ensure_server, free_port, stop_server

from . import apart, engines

# A shell that starts tests in the background has them, and all that they start, ignore Ctrl-C, and
# `nohup` has them ignore the end of the terminal.
for number, action in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)

ON_CI = os.environ.get("CI") == "true"

# Prefect reads its settings when it is imported, so they are made before: a home and a server
# address of this session's own, and of each process of pytest-xdist: a hundred jobs of one would
# keep the others from writing to the server's SQLite for a minute.
assert "prefect" not in sys.modules, "Prefect was imported before its settings were made"
_OURS = "HPC_PREFECT_TESTS_HOME"
if _OURS not in os.environ:
    os.environ[_OURS] = tempfile.mkdtemp(prefix="hpc-prefect-tests-")
#: What all processes of the session share: the real engines.
SHARED = Path(os.environ[_OURS])
HOME = SHARED / f"prefect-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}"
PORT = free_port()
HOME.mkdir(exist_ok=True)
for name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[name]
# Each of a thousand processes would compile this package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ |= {
    "PREFECT_HOME": str(HOME),
    "PREFECT_PROFILES_PATH": str(HOME / "profiles.toml"),
    "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    # Prefect warns at each line that a task logs outside of a flow; we test such tasks.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # SQLite lets one write at a time: on a busy machine the server may ask for patience.
    "PREFECT_CLIENT_MAX_RETRIES": "6",
    "DO_NOT_TRACK": "1",
    "XDG_DATA_HOME": str(HOME / "data"),  # where the list of runs is
}


# Machines of tests are shared: how long an example takes says nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def prefect_server() -> Server:
    """The session's Prefect server, started by the first test that asks for it."""
    return ensure_server(HOME, port=PORT)


@pytest.fixture(scope="session")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's queue of this machine lies."""
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="session")
def blocks(prefect_server: Server, spool: Path) -> None:
    """The blocks `cmd-sh`, `exec-sh` and `flows.jobs.HERE`: the job is `sh -c SCRIPT name ARGS`."""
    from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock

    from .flows.jobs import HERE

    command = CommandBlock(command_name="sh", executable_key="sh", default_args=["-c"])
    command.save("cmd-sh", overwrite=True, _sync=True)
    profile = ExecutionProfileBlock(profile_name="sh", command_name="sh", walltime="00:05:00")
    profile.save("exec-sh", overwrite=True, _sync=True)
    other = ExecutionProfileBlock(profile_name="other", command_name="other")
    other.save("exec-other", overwrite=True, _sync=True)
    _store_profile(HERE, spool, secret_environment={"HP_TOKEN": "secret-value-4711"})


@pytest.fixture
def limited(blocks: None, spool: Path) -> str:
    """The name of a profile that allows a second of walltime."""
    from .flows.jobs import HERE

    _store_profile(f"{HERE}-limited", spool, max_walltime="00:00:01")
    return f"{HERE}-limited"


def _store_profile(name: str, spool: Path, **more: Any) -> None:
    from hpc_prefect.blocks import HPCProfileBlock

    local = {"slots": 12, "spool": str(spool), "kill_grace": 1.0}
    profile = HPCProfileBlock(scheduler="local", executables={"sh": "/bin/sh"}, local=local, **more)
    profile.save(name, overwrite=True, _sync=True)


@pytest.fixture(scope="session")
def slurm() -> engines.SlurmCluster:
    """A real Slurm with accounting, started by the first test that asks for it."""
    return engines.slurm(SHARED, accounting=True)


@pytest.fixture(scope="session")
def slurm_without_accounting() -> engines.SlurmCluster:
    """A real Slurm without accounting: sacct does not answer."""
    return engines.slurm(SHARED, accounting=False)


@pytest.fixture(scope="session")
def crate_validator() -> engines.CrateValidator:
    """roc-validator, which says whether an RO-Crate keeps to its profiles."""
    return engines.crate_validator(SHARED)


@pytest.fixture(scope="session")
def mlflow() -> Path:
    """The Python of an environment with MLflow's client and this package."""
    return engines.mlflow(SHARED)


@pytest.fixture(scope="session")
def mlflow_server() -> Path:
    """The Python of an environment that can run MLflow's server."""
    return engines.mlflow_server(SHARED)


@pytest.fixture(scope="session")
def own_pids() -> tuple[str, ...]:
    """What begins a command in a PID namespace of its own."""
    return apart.own_pids()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "prefect_server" in getattr(item, "fixturenames", ()):
            item.add_marker("server")
        if item.get_closest_marker("slow") and not ON_CI:
            item.add_marker(pytest.mark.skip(reason="takes minutes: runs with CI=true"))
    # A file that takes minutes and comes last is waited for by all workers.
    long = {item.path for item in items if _takes_minutes(item)}
    size = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in long, -size[item.path], item.path))


def _takes_minutes(item: pytest.Item) -> bool:
    """One that is slow, or has a time limit of its own, longer than that of all others."""
    limit = item.get_closest_marker("timeout")
    longer = limit is not None and limit.args[0] > float(item.config.getini("timeout"))
    return longer or item.get_closest_marker("slow") is not None


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """A report with half a character, which pytest-xdist cannot send, would end the session."""
    report = yield
    return _sendable(report)


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_sendable(key): _sendable(each) for key, each in value.items()}
    return type(value)(map(_sendable, value)) if type(value) in (list, tuple) else value


def pytest_unconfigure(config: pytest.Config) -> None:
    if "prefect.logging.handlers" in sys.modules:  # what is still to be sent needs the server
        sys.modules["prefect.logging.handlers"].APILogWorker.drain_all()
    stop_server(HOME)
    if not hasattr(config, "workerinput"):  # the parent, after all of its workers
        engines.stop_all(SHARED)
        for home in SHARED.glob("prefect-*"):  # of a worker that crashed
            stop_server(home)
        shutil.rmtree(SHARED, ignore_errors=True)
