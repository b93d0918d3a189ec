"""The model of the job's script does what the rendered script does, run by a real bash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpc_prefect.job import folder as names
from hpc_prefect.job.script import JobScript, render
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Ticket
from simulation.chance import Chance
from simulation.cluster import BatchJob, Cluster
from simulation.coverage import Coverage
from simulation.file_server import File, FileServer, Link
from simulation.job_script import Program, ScriptRun, ScriptText
from simulation.machines import Machine
from simulation.world import World

WORD = "abc123"


@dataclass(frozen=True)
class Case:
    """Starts of the script, one after another: the id and the scheduler's own count of each.

    Attributes:
        code: how the program ends; `term`: it waits, and all of the job get SIGTERM.
        program: whether program.sh is whole, `empty`, or `gone`.
        start_file, guard: whether the start record's file is there; where the guard points before.
    """

    starts: tuple[tuple[str, int], ...] = (("7", 0),)
    code: int = 0
    term: bool = False
    requeue: bool = False
    program: str = "whole"
    start_file: bool = True
    guard: str = ""


CASES = {
    "it ends well": Case(),
    "it fails": Case(code=3),
    "it fails with the guard's own code": Case(code=117),
    "a second job is turned away": Case(starts=(("7", 0), ("8", 0))),
    "a start that is not counted does not run it again": Case(starts=(("7", 0), ("7", 0)), code=3),
    "a start whose guard is there, but no record, runs nothing if it is not counted": Case(
        guard="7"
    ),
    "a record that is missing counts no restart for another": Case(
        starts=(("7", 1), ("7", 1)), code=3, requeue=True, guard="7"
    ),
    "a start that was restarted before it began is known": Case(
        starts=(("7", 1), ("7", 1)), code=3, requeue=True
    ),
    "after a success it is not run again": Case(starts=(("7", 0), ("7", 0))),
    "a requeue that is counted runs it again": Case(
        starts=(("7", 0), ("7", 1)), code=3, requeue=True
    ),
    "a closed attempt does not start": Case(guard="closed"),
    "program.sh is empty": Case(program="empty"),
    "program.sh is not there": Case(program="gone"),
    "the start record has no file": Case(start_file=False),
    "it is asked to end": Case(term=True),
}


def _rendered(case: Case, folder: str, program: str, work_dir: str) -> JobScript:
    options = {"requeue": "yes"} if case.requeue else {}
    spec = JobSpec(
        name="job",
        command_name="program",
        executable=Executable(path=program),
        site=Site(scheduler="slurm", options=options),
        resources=Resources(),
        work_dir=work_dir,
    )
    script = f"{folder}/{names.SCRIPT}"
    ticket = Ticket(tag="t", folder=folder, script=script, scheduler_out="o", scheduler_err="e")
    return render(spec, folder, scheduler_for("slurm").preamble(spec, ticket), WORD)


def _facts(files: dict[str, bytes], guard: str | None, codes: list[int]) -> dict[str, Any]:
    """What is left of it, without times and tokens."""

    def records(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in files.get(name, b"").decode().split("\n") if line]

    starts, exits = records(names.START), records(names.EXIT)
    tokens = [each["token"] for each in starts]
    kept = ("word", "phase", "signals", "code", "oom")
    return {
        "codes": codes,
        "guard": guard,
        "starts": [each["id"] for each in starts],
        "exits": [
            ({name: each[name] for name in kept}, tokens.index(each["token"])) for each in exits
        ],
        "duplicates": files.get(names.DUPLICATES, b"").decode().split(),
        "phase": files.get(names.PHASE, b"").decode(),
    }


def _by_bash(case: Case, tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / names.ROOT / "c" / "ab" / "k-1"
    folder.mkdir(parents=True, mode=0o700)
    for each in (folder, *folder.parents[:3]):
        each.chmod(0o700)
    program = tmp_path / "program"
    body = "sleep 60 &\nwait" if case.term else f"exit {case.code}"
    program.write_text(f"#!/bin/bash\necho a line\n{body}\n")
    program.chmod(0o700)
    script = _rendered(case, str(folder), str(program), str(tmp_path))
    _fill(case, script, lambda name, data: (folder / name).write_bytes(data))
    if case.guard:
        (folder / names.GUARD).symlink_to(case.guard)
    codes = []
    for job_id, restarts in case.starts:
        environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": job_id}
        if restarts:
            environment["SLURM_RESTART_COUNT"] = str(restarts)
        job = subprocess.Popen(
            ["/bin/bash", "-p", str(folder / names.SCRIPT)],
            env=environment,
            cwd=tmp_path,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        if case.term:
            end = time.monotonic() + 60
            while not (folder / names.STDOUT).exists() or not (folder / names.STDOUT).read_bytes():
                assert time.monotonic() < end
                time.sleep(0.01)
            os.killpg(job.pid, signal.SIGTERM)
        codes.append(job.wait(60))
    files = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    guard = folder / names.GUARD
    return _facts(files, str(guard.readlink()) if guard.is_symlink() else None, codes)


def _fill(case: Case, script: JobScript, write: Any) -> None:
    """What is there when a job is handed over."""
    write(names.SCRIPT, script.outer.encode())
    if case.program != "gone":
        write(names.PROGRAM, script.inner.encode() if case.program == "whole" else b"")
    write(names.EXIT, b"")
    if case.start_file:
        write(names.START, b"")


def _by_model(case: Case) -> dict[str, Any]:
    world = World(Chance(1, only=()), Coverage())
    files = FileServer(world, 0.0)
    folder = "/w/.hpc-prefect/c/ab/k-1"
    files.make_folder("", folder)
    cluster = Cluster(world, files, {"n0": Machine(world, "n0", 0.0)})
    code = 143 if case.term else case.code
    cluster.outputs["k"] = ()
    cluster.behaviour["k"] = [Program(code, seconds=1000.0 if case.term else 1.0)]
    script = _rendered(case, folder, "/program", "/w")
    _fill(case, script, lambda name, data: files.put("", f"{folder}/{name}", data))
    if case.guard:
        files.link("", f"{folder}/{names.GUARD}", case.guard)
    codes: list[int] = []
    text = ScriptText.read(script.outer)
    for job_id, restarts in case.starts:
        job = BatchJob(
            int(job_id), job_id, "t", text, "/w", (), 300.0, case.requeue, world.now, node="n0"
        )
        job.restarts = restarts
        run = ScriptRun(cluster, job, codes.append)
        if case.term:
            world.later(5.0, run.terminate)
        world.run(world.now + 100.0)
    left = {name: files.entry(f"{folder}/{name}") for name in files.names(folder)}
    data = {name: entry.data for name, entry in left.items() if isinstance(entry, File)}
    guard = left.get(names.GUARD)
    return _facts(data, guard.target if isinstance(guard, Link) else None, codes)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_model_leaves_what_the_script_leaves(case: Case, tmp_path: Path) -> None:
    assert _by_model(case) == _by_bash(case, tmp_path)
