"""What a call costs on a real Slurm, beside a person's bash loop of the same scripts.

Run by `make bench` as root where HPC_PREFECT_ENGINES names slurm, or on CI; anywhere else it says
so and ends. It starts a cluster and a Prefect server of its own and stops both. Ours and theirs
take turns, and medians of one run are compared: on a busy machine look at the ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import HOME, copy_of, prefect_server, told  # before Prefect

# isort: split

from prefect import flow

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    JobResult,
    run_job_from_blocks,
)

SINGLE = 9
AT_ONCE = 100
TURNS = 3
SLEEPERS = 16
MOST_SINGLE = 1.3
MOST_AT_ONCE = 1.5
MOST_OTHER_COMMANDS = 8
MOST_CPU_MS = 20.0

TOOL = Path(__file__).parents[1] / "tools" / "slurm_cluster.py"
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")

#: What a person writes: all jobs one after another, then one question a second about all of them.
LOOP = """
ids=
for script in "$@"; do
  ids=$ids,$(sbatch --parsable --output=/dev/null "$script") || exit
done
while [ -n "$(squeue --noheader --format=%i --jobs="${ids#,}")" ]; do sleep 1; done
"""


@contextlib.contextmanager
def cluster(*options: str) -> Iterator[None]:
    """A Slurm inside, with room for all jobs at once, to which this process's commands go.

    `options` are further ones of the tool's `up`.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    print("starting a Slurm …", file=sys.stderr)
    try:
        tool("up", folder, "--cpus", "32", *options)
        for line in tool("env", folder).splitlines():
            name, _, value = line.partition("=")
            os.environ[name] = value
        yield
    finally:
        if (folder / "cluster.json").exists():
            tool("down", folder)
        shutil.rmtree(folder, ignore_errors=True)


def tool(verb: str, folder: Path, *words: str) -> str:
    argv = [sys.executable, str(TOOL), verb, str(folder), *words]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout


def save_blocks() -> None:
    for name in ("true", "sleep"):
        CommandBlock(command_name=name, executable_key=name).save(f"cmd-{name}", _sync=True)
        profile = ExecutionProfileBlock(profile_name=name, command_name=name)
        profile.save(f"exec-{name}", _sync=True)
    executables = {"true": "/bin/true", "sleep": "/bin/sleep"}
    HPCProfileBlock(scheduler="slurm", executables=executables).save("hpc", _sync=True)


async def job(label: str, program: str = "true", *arguments: str) -> JobResult:
    return await run_job_from_blocks(
        command_block_name=f"cmd-{program}",
        execution_profile_block_name=f"exec-{program}",
        hpc_profile_block_name="hpc",
        work_dir=HOME / "work",
        script_filename=label,
        user_args=arguments,
        job_key=label,
    )


# --- the same scripts without us


def seconds_of_loop(scripts: Sequence[str]) -> float:
    """From the first sbatch until squeue lists none of them any more."""
    return seconds_of("bash", "-c", LOOP, "loop", *scripts)


def seconds_of_wait(script: str) -> float:
    return seconds_of("sbatch", "--wait", "--output=/dev/null", script)


def seconds_of(*argv: str) -> float:
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


# --- one job


@flow
async def one_by_one() -> tuple[list[float], list[float], list[float]]:
    """Seconds of calls, of bash loops and of `sbatch --wait`, turn by turn."""
    result = await job("warm-up")
    called, looped, waited = [], [], []
    for n in range(SINGLE):
        began = time.perf_counter()
        await job(f"single-{n}")
        called.append(time.perf_counter() - began)
        looped.append(await asyncio.to_thread(seconds_of_loop, [copy_of(result.folder)]))
        waited.append(await asyncio.to_thread(seconds_of_wait, copy_of(result.folder)))
    return called, looped, waited


# --- many jobs


@flow
async def all_at_once(turn: int) -> tuple[float, float, float]:
    """Wall and own CPU seconds of the calls, and wall seconds of the bash loop."""
    model = await job(f"model-{turn}")
    scripts = [copy_of(model.folder) for _ in range(AT_ONCE)]
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(job(f"many-{turn}-{n}") for n in range(AT_ONCE)))
    called, cpu = time.perf_counter() - began, time.process_time() - cpu
    return called, cpu, await asyncio.to_thread(seconds_of_loop, scripts)


@flow
async def sleepers() -> float:
    began = time.perf_counter()
    await asyncio.gather(*(job(f"sleep-{n}", "sleep", "30") for n in range(SLEEPERS)))
    return time.perf_counter() - began


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often each command of Slurm was run inside, known after it."""
    folder = Path(tempfile.mkdtemp(dir=HOME))
    log = folder / "log"
    log.touch()
    for name in COMMANDS:
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {shutil.which(name)} "$@"\n')
        wrapper.chmod(0o700)
    path, found = os.environ["PATH"], Counter[str]()
    os.environ["PATH"] = f"{folder}:{path}"
    try:
        yield found
    finally:
        os.environ["PATH"] = path
        found.update(log.read_text().split())


# --- what is told


def report_one_by_one() -> None:
    called, looped, waited = (statistics.median(each) for each in asyncio.run(one_by_one()))
    ratio = called / looped
    print(f"/bin/true, call -> result, median of {SINGLE}:  {called:.2f} s")
    print(f"the same script by a bash loop:          {looped:.2f} s")
    print(f"the same script by sbatch --wait:        {waited:.2f} s")
    print(f"ratio to the loop: {ratio:.2f} ({told(ratio, MOST_SINGLE, 'x')})")


def report_all_at_once() -> None:
    # The table of jobs is renewed every 10 s at most: no cost of a job, but of a flow run.
    os.environ["PREFECT_INTEGRATIONS_HPC_PREFECT_ARTIFACTS"] = "false"
    turns = [asyncio.run(all_at_once(turn)) for turn in range(TURNS)]
    called, cpu, looped = (statistics.median(each) for each in zip(*turns, strict=True))
    ratio, cpu_ms = called / looped, 1000 * cpu / AT_ONCE
    print(f"{AT_ONCE} at once, median of {TURNS}: {called:.1f} s; by a bash loop: {looped:.1f} s")
    print(f"ratio: {ratio:.2f} ({told(ratio, MOST_AT_ONCE, 'x')})")
    print(
        f"CPU of the orchestrator: {cpu_ms:.1f} ms a job, no artifacts"
        f" ({told(cpu_ms, MOST_CPU_MS, 'ms')})"
    )


def report_commands() -> None:
    with counted() as found:
        seconds = asyncio.run(sleepers())
    submits, others = found["sbatch"], found.total() - found["sbatch"]
    print(f"{SLEEPERS} x sleep 30 in {seconds:.1f} s: {dict(sorted(found.items()))}")
    print(
        f"{submits} submits ({told(submits, SLEEPERS, '')}),"
        f" {others} other commands ({told(others, MOST_OTHER_COMMANDS, '')})"
    )


def main() -> None:
    named = os.environ.get("HPC_PREFECT_ENGINES", "").replace(",", " ").split()
    if os.geteuid() != 0 or not ("slurm" in named or os.environ.get("CI") == "true"):
        print("not run: it needs a real Slurm; set HPC_PREFECT_ENGINES=slurm as root")
        HOME.rmdir()
        return
    with cluster(), prefect_server():
        save_blocks()
        report_one_by_one()
        report_all_at_once()
        report_commands()


if __name__ == "__main__":
    main()
