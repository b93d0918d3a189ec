"""The model of an element of an array does what the rendered script does, run by a real bash."""

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
from hpc_prefect.job import members as layout
from hpc_prefect.job.members import Asked, MemberSpec
from hpc_prefect.job.script import ArrayScript, render_array
from hpc_prefect.job.spec import Array, Executable, JobSpec, Resources, Site
from hpc_prefect.schedulers import scheduler_for
from hpc_prefect.schedulers.base import Ticket
from simulation.chance import Chance
from simulation.cluster import BatchJob, Cluster
from simulation.coverage import Coverage
from simulation.file_server import File, FileServer, Link
from simulation.job_script import Program, ScriptText
from simulation.machines import Machine
from simulation.members import ElementRun
from simulation.world import World

KEYS = ("a", "b", "c")


@dataclass(frozen=True)
class Case:
    """Starts of the element with the members `a` and `b`, of an array that has `c` too.

    Attributes:
        codes: how each member's program ends.
        term: the first one waits, and all of the job get SIGTERM.
        starts: under which ids, one after another.
        element: its number.
        members: what the file of the members' lines has: `whole`, `empty` or `cut`.
        guard: where the first one's start guard points before.
    """

    codes: tuple[int, ...] = (0, 0, 0)
    term: bool = False
    starts: tuple[str, ...] = ("7_0",)
    element: int = 0
    members: str = "whole"
    guard: str = ""


CASES = {
    "all end well": Case(),
    "the first one fails": Case(codes=(3, 0, 0)),
    "the worst code is the element's": Case(codes=(3, 5, 0)),
    "the last element has fewer": Case(element=1, starts=("7_1",), codes=(0, 0, 4)),
    "it is asked to end": Case(term=True),
    "what has succeeded is not run again": Case(codes=(0, 3, 0), starts=("7_0", "7_0")),
    "another submission is turned away": Case(starts=("7_0", "8_0")),
    "one that is closed does not start": Case(guard="closed"),
    "that one was turned away counts more than a worse code": Case(guard="8_0", codes=(0, 143, 0)),
    "the members' lines are empty": Case(members="empty"),
    "the members' lines are cut off": Case(members="cut"),
}


def _rendered(folder: str, program: str, work_dir: str) -> tuple[ArrayScript, bytes]:
    spec = JobSpec(
        name="job",
        command_name="program",
        executable=Executable(path=program),
        site=Site(scheduler="slurm"),
        resources=Resources(),
        work_dir=work_dir,
        array=Array(size=2),
        has_members=True,
    )
    members = [MemberSpec(key=k, name=k, arguments=(k,), work_dir=work_dir) for k in KEYS]
    script = f"{folder}/{names.SCRIPT}"
    ticket = Ticket(tag="t", folder=folder, script=script, scheduler_out="o", scheduler_err="e")
    preamble = scheduler_for("slurm").preamble(spec, ticket)
    asked = layout.asked_text([Asked(member) for member in members])
    return render_array(spec, folder, preamble, "abc123", members, 2), asked


def _files(case: Case, script: ArrayScript, asked: bytes) -> dict[str, bytes]:
    """What is there when an array is handed over."""
    lines = script.shards[0].encode()
    return {
        names.SCRIPT: script.outer.encode(),
        names.PROGRAM: script.inner.encode(),
        layout.ASKED: asked,
        f"m/0/{layout.MEMBERS}": {"whole": lines, "empty": b"", "cut": lines[:-9]}[case.members],
        **{f"m/0/{n}.{layout.RECORD}": b"" for n in range(3)},
    }


def _facts(files: dict[str, bytes], guards: dict[int, str], codes: list[int]) -> dict[str, Any]:
    """What is left of it, without times and tokens."""
    found: dict[str, Any] = {"codes": codes, "guards": guards}
    for n, key in enumerate(KEYS):
        record = files[f"m/0/{n}.{layout.RECORD}"].decode().split("\n")
        lines = [json.loads(line) for line in record if line]
        kept = ("id", "word", "phase", "signals", "code", "oom")
        told = [{name: each[name] for name in kept if name in each} for each in lines]
        phase = files.get(f"m/0/{n}.{names.PHASE}", b"").decode()
        duplicates = files.get(f"m/0/{n}.{names.DUPLICATES}", b"").decode().split()
        found[key] = (told, phase, duplicates)
    return found


def _by_bash(case: Case, tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / names.ROOT / "c" / "ab" / "k-1"
    (folder / "m" / "0").mkdir(parents=True, mode=0o700)
    for each in (folder, *folder.parents[:3]):
        each.chmod(0o700)
    program = tmp_path / "program"
    ends = " ".join(f"{k}) exit {code} ;;" for k, code in zip(KEYS, case.codes, strict=True))
    waits = '[ "$1" != a ] || { sleep 60 & wait; }' if case.term else ""
    program.write_text(f"#!/bin/bash\necho a line\n{waits}\ncase $1 in {ends} esac\n")
    program.chmod(0o700)
    for name, data in _files(case, *_rendered(str(folder), str(program), str(tmp_path))).items():
        (folder / name).write_bytes(data)
    if case.guard:
        (folder / "m/0/0.guard").symlink_to(case.guard)
    codes = []
    for job_id in case.starts:
        array, _, index = job_id.partition("_")
        job = subprocess.Popen(
            ["/bin/bash", "-p", str(folder / names.SCRIPT)],
            env={
                "PATH": os.environ["PATH"],
                "SLURM_ARRAY_JOB_ID": array,
                "SLURM_ARRAY_TASK_ID": index,
            },
            cwd=tmp_path,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        if case.term:
            out, end = folder / "m/0/0.stdout", time.monotonic() + 60
            while not out.exists() or not out.read_bytes():
                assert time.monotonic() < end
                time.sleep(0.01)
            os.killpg(job.pid, signal.SIGTERM)
        codes.append(job.wait(60))
    files = {
        str(each.relative_to(folder)): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file()
    }
    links = {n: folder / f"m/0/{n}.guard" for n in range(3)}
    guards = {n: str(link.readlink()) for n, link in links.items() if link.is_symlink()}
    return _facts(files, guards, codes)


def _by_model(case: Case) -> dict[str, Any]:
    world = World(Chance(1, only=()), Coverage())
    files = FileServer(world, 0.0)
    folder = "/w/.hpc-prefect/c/ab/k-1"
    files.make_folder("", f"{folder}/m/0")
    cluster = Cluster(world, files, {"n0": Machine(world, "n0", 0.0)})
    for key, code in zip(KEYS, case.codes, strict=True):
        waits = case.term and key == "a"
        cluster.outputs[key] = ()
        cluster.behaviour[key] = [Program(143 if waits else code, 1000.0 if waits else 1.0)]
    script, asked = _rendered(folder, "/program", "/w")
    for name, data in _files(case, script, asked).items():
        files.put("", f"{folder}/{name}", data)
    if case.guard:
        files.link("", f"{folder}/m/0/0.guard", case.guard)
    codes: list[int] = []
    text = ScriptText.read(script.outer)
    for job_id in case.starts:
        job = BatchJob(7, job_id, "t", text, "/w", (), 300.0, False, world.now, node="n0")
        job.index = case.element
        run = ElementRun(cluster, job, codes.append)
        if case.term:
            world.later(5.0, run.terminate)
        world.run(world.now + 100.0)
    names_there = [f"m/0/{name}" for name in files.names(f"{folder}/m/0")]
    left = {name: files.entry(f"{folder}/{name}") for name in names_there}
    data = {name: entry.data for name, entry in left.items() if isinstance(entry, File)}
    guards = {n: left.get(f"m/0/{n}.guard") for n in range(3)}
    return _facts(data, {n: g.target for n, g in guards.items() if isinstance(g, Link)}, codes)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_model_of_an_element_leaves_what_its_script_leaves(case: Case, tmp_path: Path) -> None:
    assert _by_model(case) == _by_bash(case, tmp_path)
