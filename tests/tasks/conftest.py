"""Blocks for jobs of /bin/sh on this machine, in a queue of the session's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.server import Server

from .jobs import HERE


@pytest.fixture(scope="session")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="session")
def blocks(prefect_server: Server, spool: Path) -> None:
    """`cmd-sh`, `exec-sh`, `HERE`: the job is `sh -c SCRIPT name ARGS`."""
    command = CommandBlock(command_name="sh", executable_key="sh", default_args=["-c"])
    command.save("cmd-sh", overwrite=True, _sync=True)
    profile = ExecutionProfileBlock(profile_name="sh", command_name="sh", walltime="00:05:00")
    profile.save("exec-sh", overwrite=True, _sync=True)
    other = ExecutionProfileBlock(profile_name="other", command_name="other")
    other.save("exec-other", overwrite=True, _sync=True)
    here = HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        secret_environment={"HP_TOKEN": "secret-value-4711"},
        local={"slots": 12, "spool": str(spool), "kill_grace": 1.0},
    )
    here.save(HERE, overwrite=True, _sync=True)


@pytest.fixture
def limited(blocks: None, spool: Path) -> str:
    """The name of a profile that allows a second of walltime."""
    profile = HPCProfileBlock(
        scheduler="local",
        executables={"sh": "/bin/sh"},
        max_walltime="00:00:01",
        local={"slots": 12, "spool": str(spool), "kill_grace": 1.0},
    )
    profile.save(f"{HERE}-limited", overwrite=True, _sync=True)
    return f"{HERE}-limited"
