"""The blocks of `flow.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpc_prefect.blocks import CommandBlock, ExecutionProfileBlock, HPCProfileBlock


def save_blocks(folder: Path, profile: str, **fields: Any) -> None:
    command = CommandBlock(command_name="program", executable_key="program")
    command.save("cmd-kills", overwrite=True, _sync=True)
    shape = ExecutionProfileBlock(profile_name="one", command_name="program", walltime="00:10:00")
    shape.save("exec-kills", overwrite=True, _sync=True)
    executables = {"program": str(folder / "program")}
    block = HPCProfileBlock(executables=executables, poll_interval=1.0, **fields)
    block.save(profile, overwrite=True, _sync=True)
