"""What ends a job with its flow, and how soon: the table of docs/resume.md.

Source × kind of task × scheduler. The schedulers are the local one and the rehearsal's PBS and PJM,
and Slurm where `sinfo` answers; arguments choose among them, and among the sources. Run by hand; it
takes minutes.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import HOME, prefect_server  # before Prefect

# isort: split

from prefect.client.orchestration import get_client
from prefect.states import Cancelling

from hpc_prefect import CommandBlock, ExecutionProfileBlock, HPCProfileBlock
from hpc_rehearsal.pbs import install as pbs
from hpc_rehearsal.pjm import install as pjm

SIGNALS = {
    "Ctrl-C": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
    "SIGHUP": signal.SIGHUP,
    "kill -9": signal.SIGKILL,
}
BETWEEN = "cancelled between jobs"
SOURCES = (
    *("cancelled in Prefect", BETWEEN, "jobs cancel", *SIGNALS, "failed sibling"),
    *("timeout of the call", "timeout of the task", "timeout of the flow"),
)
KINDS = ("async", "sync", "thread")
#: A sync task calls one job after the other; Prefect cannot time out a thread.
NOT_THERE = {("sync", "failed sibling"), ("thread", "timeout of the task")}
AT_ONCE = 3
FLOWS = Path(__file__).with_name("cancel_flows.py")
LIMIT = 8.0


@dataclass(frozen=True)
class Cell:
    scheduler: str
    kind: str
    source: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.kind, self.source

    @property
    def folder(self) -> Path:
        return HOME / "cells" / "-".join((self.scheduler, self.kind, *self.source.split()))


def save_blocks(wanted: list[str]) -> list[str]:
    """The names of the schedulers that are here."""
    CommandBlock(command_name="sh", executable_key="sh", default_args=["-c"]).save(
        "cmd-sh", _sync=True
    )
    ExecutionProfileBlock(profile_name="sh", command_name="sh", walltime="00:20:00").save(
        "exec-sh", _sync=True
    )
    shell = {"executables": {"sh": "/bin/sh"}, "poll_interval": 2.0}
    profiles = {
        "local": {"local": {"slots": 8, "spool": str(HOME / "spool"), "kill_grace": 1.0}},
        "pbs": {"pbs": {}},
        "pjm": {"pjm": {}},
        "slurm": {"slurm": {}},
    }
    here = ["local", "pbs", "pjm"] + ["slurm"] * (shutil.which("sinfo") is not None)
    here = [name for name in here if name in wanted] or here
    for name in here:
        HPCProfileBlock(scheduler=name, **shell, **profiles[name]).save(f"hpc-{name}", _sync=True)
    return here


def measured(cell: Cell) -> tuple[str, str, str]:
    """What became of the job, the run's state, and seconds from the cause to the job's end."""
    cell.folder.mkdir(parents=True)
    with (cell.folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, str(FLOWS), cell.kind, cell.source, str(cell.folder),
             f"hpc-{cell.scheduler}"],
            stdout=said, stderr=said,
        )  # fmt: skip
    pid = wait_for(lambda: number(cell.folder / "pid"), 120)
    if pid is None:
        process.kill()
        return "did not start", "", ""
    if cell.source == BETWEEN:
        return between(cell, process)
    began = cause(cell, process)
    gone = wait_for(lambda: not alive(pid) or process.poll() is not None, 60)
    gone = gone and wait_for(lambda: not alive(pid), 20)
    seconds = time.time() - began
    process.wait(90)
    state = run_state(cell)
    if gone:
        return "cancelled", state, f"{max(0.0, seconds):.1f}"
    os.kill(pid, signal.SIGKILL)
    return "runs on", state, ""


def between(cell: Cell, process: subprocess.Popen[bytes]) -> tuple[str, str, str]:
    """How many jobs are begun after the cause, the run's state, seconds to the flow's end."""
    before, began = jobs_of(cell), cause(cell, process)
    process.wait(90)
    seconds = time.time() - began
    more = jobs_of(cell) - before
    return f"{more} more begun", run_state(cell), f"{seconds:.1f}"


def jobs_of(cell: Cell) -> int:
    return len(list(cell.folder.glob(".hpc-prefect/*/*/*-1")))


def cause(cell: Cell, process: subprocess.Popen[bytes]) -> float:
    """Bring it about; when it happens, or will."""
    if cell.source in SIGNALS:
        time.sleep(1)  # a person is no faster
        process.send_signal(SIGNALS[cell.source])
    elif cell.source in ("cancelled in Prefect", BETWEEN):
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run(cell), Cancelling())
    elif cell.source == "jobs cancel":
        main = "import sys; from hpc_prefect.cli import main; sys.exit(main())"
        began = time.time()
        subprocess.run(
            [sys.executable, "-c", main, "jobs", "cancel", "long", "--work-dir", str(cell.folder)],
            capture_output=True,
        )
        return began
    elif cell.source.startswith("timeout"):
        return float((cell.folder / "t0").read_text()) + LIMIT
    return time.time()


def flow_run(cell: Cell) -> str:
    (claim,) = cell.folder.glob(".hpc-prefect/*/claim-1")
    return str(json.loads(claim.read_text())["flow_run"])


def run_state(cell: Cell) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run(cell)).state
    return state.name if state else ""


def number(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found or None


def cells(names: list[str], sources: list[str]) -> list[Cell]:
    every = [Cell(*each) for each in itertools.product(names, KINDS, sources)]
    return [each for each in every if each.pair not in NOT_THERE]


def all_of(wanted: list[Cell]) -> dict[Cell, tuple[str, str, str]]:
    found = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for cell, outcome in zip(wanted, pool.map(measured, wanted), strict=True):
            print(cell.scheduler, cell.kind, cell.source, *outcome, file=sys.stderr)
            found[cell] = outcome
    return found


def main() -> None:
    stands = {"pbs": pbs, "pjm": pjm}
    paths = []
    for name, stand_in in stands.items():
        bin_folder = HOME / f"{name}-bin"
        stand_in.install(bin_folder, HOME / f"{name}-state")
        paths.append(str(bin_folder))
    os.environ["PATH"] = os.pathsep.join([*paths, os.environ["PATH"]])
    sources = [each for each in SOURCES if each in sys.argv[1:]] or list(SOURCES)
    with prefect_server():
        try:
            names = save_blocks(sys.argv[1:])
            found = all_of(cells(names, sources))
        finally:
            for name, stand_in in stands.items():
                stand_in.stop(HOME / f"{name}-state")
    print("| what happens | kind of task | job | flow run | seconds: " + ", ".join(names) + " |")
    print("|---|---|---|---|---|")
    for source, kind in itertools.product(sources, KINDS):
        if (kind, source) in NOT_THERE:
            continue
        row = [found[Cell(name, kind, source)] for name in names]
        jobs, states = ({each[i] for each in row} for i in (0, 1))
        seconds = ", ".join(each[2] or "–" for each in row)
        print(f"| {source} | {kind} | {' / '.join(jobs)} | {' / '.join(states)} | {seconds} |")


if __name__ == "__main__":
    main()
