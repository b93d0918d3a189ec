"""Blocks for workers on this machine, in a queue of the session's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.blocks import ExecutionProfileBlock, HPCProfileBlock
from hpc_prefect.server import Server

from .. import warm

FLOWS = str(Path(__file__).with_name("flows.py"))
_NAME = sha256(f"workers {os.environ.get('PYTEST_XDIST_WORKER', '')}".encode()).hexdigest()[:6]


@dataclass(frozen=True)
class Workers:
    """Profiles for workers, and flows that use them."""

    spool: Path
    work_dir: Path

    def profile(self, name: str, **fields: Any) -> str:
        """Store an HPC profile, of the laptop's queue if no other is said; its block's name."""
        local = {"slots": 8, "spool": str(self.spool), "kill_grace": 1.0}
        here = {} if "scheduler" in fields else {"scheduler": "local", "local": local}
        block = HPCProfileBlock(**here | fields)
        block.save(f"workers-{name}-{_NAME}", overwrite=True, _sync=True)
        return f"workers-{name}-{_NAME}"

    def shape(self, name: str, **fields: Any) -> str:
        """Store an execution profile; its block's name."""
        block = ExecutionProfileBlock(profile_name=name, **fields)
        block.save(f"workers-{name}-{_NAME}", overwrite=True, _sync=True)
        return f"workers-{name}-{_NAME}"

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> Callable[[], dict[str, Any]]:
        """Start a flow of `flows.py`; a call waits for it and gives what it made."""
        return Started(warm.Process(
            [FLOWS, arguments[0], str(self.work_dir), *arguments[1:]],
            env=env, stdout=warm.PIPE, stderr=warm.STDOUT,
        ))  # fmt: skip


@dataclass(frozen=True)
class Started:
    """A flow that was started in a process of its own."""

    process: warm.Process

    def __call__(self) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=600)
        ends = [line for line in out.splitlines() if line.startswith("END ")]
        assert ends, out
        made: dict[str, Any] = json.loads(ends[-1].removeprefix("END "))
        return {**made, "out": out}


@pytest.fixture
def workers(prefect_server: Server, tmp_path: Path) -> Workers:
    return Workers(tmp_path / "spool", tmp_path / "work")
