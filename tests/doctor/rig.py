"""Places to examine, and findings to ask about."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_prefect.blocks import HPCProfileBlock
from hpc_prefect.doctor import Terms, examine
from hpc_prefect.schedulers.finding import Finding, Outcome
from hpc_rehearsal.pbs.install import install, stop


def of(findings: Sequence[Finding], check: str) -> Finding:
    """The one finding of a check."""
    (found,) = [each for each in findings if each.check == check]
    return found


def wrong(findings: Sequence[Finding]) -> list[str]:
    """The checks that went wrong."""
    return [each.check for each in findings if each.outcome is Outcome.WRONG]


@contextmanager
def on_path(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """A folder first on PATH, or alone with the machine's own."""
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:/usr/bin:/bin" if alone else f"{folder}:{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


class Place:
    """A place, the fields of a profile that is right for it, and a folder for its programs."""

    def __init__(self, folder: Path, fields: dict[str, Any]) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.program = folder / "program"
        self.program.write_text("#!/bin/sh\n")
        self.program.chmod(stat.S_IRWXU)
        self.fields = {
            "executables": {"diag": str(self.program)},
            "launcher": "env HPC=1 {command}",
            **fields,
        }

    async def examined(
        self,
        *,
        submit: bool = False,
        work_dir: str = "",
        record: Path | None = None,
        **changes: Any,
    ) -> list[Finding]:
        """The findings about the right profile with `changes`."""
        hpc = HPCProfileBlock(**self.fields | changes)
        terms = Terms(work_dir=work_dir or str(self.work), submit=submit, wait=240.0, record=record)
        return await examine(hpc, terms)


def local(folder: Path) -> Place:
    options = {"slots": 2, "spool": str(folder / "spool"), "kill_grace": 1.0}
    return Place(folder, {"scheduler": "local", "local": options, "poll_interval": 1.0})


QUEUES = {
    "workq": {},
    "disabled": {"enabled": False},
    "stopped": {"started": False},
    "others": {"acl_groups": ["gz99"]},
}


@contextmanager
def pbs(folder: Path) -> Iterator[Place]:
    """The stand-in; `table` beside it has the commands of a site with a qstat of its own."""
    state = folder / "state"
    install(folder / "table", state, queues=QUEUES, qstat="table", home=str(folder))
    install(folder / "bin", state, queues=QUEUES, home=str(folder))
    fields = {"scheduler": "pbs", "queue_cpu": "workq", "poll_interval": 1.0}
    try:
        with on_path(folder / "bin"):
            yield Place(folder, fields)
    finally:
        stop(state)
