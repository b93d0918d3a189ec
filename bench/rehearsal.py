"""Many jobs at once at a rehearsed PBS and PJM: are all verdicts right, and what does it cost?

    python bench/rehearsal.py [--jobs N] [pbs] [pjm]

Run by `make bench` with 1,000 jobs each. Every job is a process of this machine, so the time is
that of a laptop's work, and a figure of no cluster. It starts a Prefect server of its own in a
temporary home, and ends all that it started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import HOME, prefect_server  # before Prefect

# isort: split

from prefect import flow

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    JobFailed,
    Reason,
    run_job_from_blocks,
)
from hpc_rehearsal.pbs import install as pbs
from hpc_rehearsal.pjm import install as pjm

JOBS = 1000
AT_ONCE = 32
PATIENCE = 120.0
FOR_EVER = "exec sleep 3600"
GIVE_UP, DELETE = "give up", "delete"
#: The stand-in, its options, the commands that are counted, and the one that deletes.
PLACES = {
    "pbs": (pbs, {"nodes": 1, "ncpus": AT_ONCE, "mem": "64gb"},
            ("qsub", "qstat", "qselect", "qdel")),
    "pjm": (pjm, {"nodes": AT_ONCE, "rscgrps": {"small": {}}}, ("pjsub", "pjstat", "pjdel")),
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A way to end.

    Attributes:
        share: of a hundred jobs.
        act: what is done to the job once it runs: by its flow, or by hand.
    """

    name: str
    share: int
    reason: Reason
    program: str = "exit 0"
    act: str = ""
    profile: str = "plain"
    execution: dict[str, Any] = field(default_factory=dict)


MEMORY = "exec python3 -S -c 'import time; x = bytearray(150 << 20); time.sleep(3600)'"
KINDS = (
    Kind("succeeds", 60, Reason.SUCCEEDED, 'echo "$1" >> runs'),
    Kind("fails", 10, Reason.PROGRAM_FAILED, "exit 3"),
    Kind("is killed by a signal", 4, Reason.PROGRAM_FAILED, "kill -SEGV $$"),
    Kind("walltime", 4, Reason.WALLTIME, FOR_EVER, execution={"walltime": "00:00:02"}),
    Kind("memory", 4, Reason.OUT_OF_MEMORY, MEMORY, execution={"memory_per_node": "64M"}),
    Kind("is cancelled by its flow", 4, Reason.CANCELLED, FOR_EVER, GIVE_UP),
    Kind("is deleted by hand", 4, Reason.CANCELLED_ELSEWHERE, FOR_EVER, DELETE),
    Kind("program missing", 4, Reason.EXECUTABLE_MISSING, profile="missing"),
    Kind("rejected", 4, Reason.REJECTED, profile="rejected"),
    Kind("output missing", 2, Reason.OUTPUT_LOST),
)


def kind_of(n: int) -> Kind:
    """Spread evenly: the hundred of each block in an order in which the kinds alternate."""
    place = n * 37 % 100
    for kind in KINDS:
        if place < kind.share:
            return kind
        place -= kind.share
    raise AssertionError("the shares are no hundred")


# --- the place


@contextlib.contextmanager
def rehearsed(name: str) -> Iterator[Path]:
    """The stand-in's commands on PATH, behind wrappers that count them in the yielded file."""
    module, options, commands = PLACES[name]
    folder = Path(tempfile.mkdtemp(prefix="many-", dir=HOME))
    module.install(folder / "bin", folder / "state", **options)
    log, wrappers = folder / "log", folder / "counted"
    log.touch()
    wrappers.mkdir()
    for command in commands:
        wrapper = wrappers / command
        wrapper.write_text(
            f'#!/bin/sh\necho {command} >> {log}\nexec {folder}/bin/{command} "$@"\n'
        )
        wrapper.chmod(0o700)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{wrappers}:{folder}/bin:{path}"
    try:
        yield log
    finally:
        os.environ["PATH"] = path
        module.stop(folder / "state")
        shutil.rmtree(folder, ignore_errors=True)


def save_blocks(name: str) -> None:
    CommandBlock(command_name="sh", executable_key="sh", default_args=["-c"]).save(
        "cmd", overwrite=True, _sync=True
    )
    how = ExecutionProfileBlock(profile_name="sh", command_name="sh", walltime="01:00:00")
    how.save("exec", overwrite=True, _sync=True)
    for profile, changes in {
        "plain": {"executables": {"sh": "/bin/sh"}},
        "missing": {"executables": {"sh": "/no/such/sh"}},
        "rejected": {"executables": {"sh": "/bin/sh"}, "queue_cpu": "nosuch"},
    }.items():
        block = HPCProfileBlock(scheduler=name, **changes)
        block.save(f"hpc-{name}-{profile}", overwrite=True, _sync=True)


# --- the jobs


async def one(name: str, n: int, work_dir: Path) -> Reason | None:
    """Run one job; why it ended, or None where its flow gave it up: then its record tells."""
    kind, label = kind_of(n), f"job-{n}"
    begin = 'echo "${PBS_JOBID:-$PJM_JOBID}" > "$1.id"\n' if kind.act else ""
    call = asyncio.create_task(
        run_job_from_blocks(
            command_block_name="cmd",
            execution_profile_block_name="exec",
            hpc_profile_block_name=f"hpc-{name}-{kind.profile}",
            work_dir=work_dir,
            script_filename=label,
            job_key=label,
            user_args=[begin + kind.program, "sh", label],
            execution_profile_overrides=kind.execution,
            expected_outputs=["never"] if kind.reason is Reason.OUTPUT_LOST else [],
        )
    )
    if kind.act:
        await act(name, kind.act, work_dir / f"{label}.id", call)
    try:
        return (await call).verdict.reason
    except JobFailed as failed:
        return failed.result.verdict.reason
    except asyncio.CancelledError:
        return None


async def act(name: str, what: str, file: Path, call: asyncio.Task[Any]) -> None:
    while not (file.exists() and file.read_text().endswith("\n")):
        if call.done():
            return
        await asyncio.sleep(0.2)
    if what == GIVE_UP:
        call.cancel()
    else:
        delete = PLACES[name][2][-1]
        await asyncio.to_thread(subprocess.run, [delete, file.read_text().strip()], check=True,
                                stdout=subprocess.DEVNULL)  # fmt: skip


async def recorded(work_dir: Path, labels: set[str]) -> dict[str, Reason]:
    """The verdicts in the records of these jobs; one that was given up just now comes later."""
    found: dict[str, Reason] = {}
    end = time.monotonic() + PATIENCE
    while labels - found.keys() and time.monotonic() < end:
        await asyncio.sleep(1)
        for file in work_dir.glob(".hpc-prefect/*/*/*/journal.jsonl"):
            lines = [json.loads(line) for line in file.read_text().split("\n")[:-1] if line]
            label = lines[0].get("job", {}).get("name") if lines else None
            if label in labels:
                for line in lines:
                    if line["event"] == "verdict":
                        found[label] = Reason(line["result"]["verdict"]["reason"])
    return found


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, CPU seconds of this process and of its children."""

    wall: float
    own: float
    children: float


@flow
async def many(name: str, jobs: int, work_dir: Path) -> tuple[list[Reason | None], Cost]:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = time.perf_counter(), time.process_time(), used.ru_utime + used.ru_stime
    found = await asyncio.gather(*(one(name, n, work_dir) for n in range(jobs)))
    given_up = {f"job-{n}" for n, reason in enumerate(found) if reason is None}
    later = await recorded(work_dir, given_up)
    found = [reason or later.get(f"job-{n}") for n, reason in enumerate(found)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    after = time.perf_counter(), time.process_time(), used.ru_utime + used.ru_stime
    return found, Cost(*(b - a for a, b in zip(before, after, strict=True)))


def report(name: str, jobs: int) -> None:
    work_dir = Path(tempfile.mkdtemp(prefix="work-", dir=HOME))
    save_blocks(name)
    with rehearsed(name) as log:
        found, cost = asyncio.run(many(name, jobs, work_dir))
        commands = Counter(log.read_text().split())
    wrong = [
        f"job-{n}, which {kind_of(n).name}: {reason}"
        for n, reason in enumerate(found)
        if reason is not kind_of(n).reason
    ]
    started = Counter((work_dir / "runs").read_text().split())
    expected = sum(kind_of(n).name == "succeeds" for n in range(jobs))
    twice = [label for label, times in started.items() if times > 1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {jobs} jobs at once, {AT_ONCE} of them running at once: {cost.wall:.0f} s")
    print(f"  verdicts: {jobs - len(wrong)} right, {len(wrong)} wrong")
    for line in wrong[:10]:
        print(f"    {line}")
    print(f"  programs that succeed: {len(started)} of {expected} ran, {len(twice)} of them twice")
    counts = ", ".join(f"{count} {command}" for command, count in commands.most_common())
    print(f"  commands: {counts} ({sum(commands.values()) / jobs:.2f} a job)")
    print(f"  CPU of the orchestrator: {1000 * cost.own / jobs:.1f} ms a job")
    print(f"  CPU of the commands: {1000 * cost.children / jobs:.1f} ms a job (the stand-in's)")
    print(f"  memory of the orchestrator: {memory:.0f} MiB at most", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("places", nargs="*", metavar="PLACE", help=f"of {', '.join(PLACES)}")
    arguments = parser.parse_args()
    # The table of jobs is renewed every 10 s at most: no cost of a job, but of a flow run.
    os.environ["PREFECT_INTEGRATIONS_HPC_PREFECT_ARTIFACTS"] = "false"
    with prefect_server():
        for name in arguments.places or PLACES:
            report(name, arguments.jobs)


if __name__ == "__main__":
    main()
