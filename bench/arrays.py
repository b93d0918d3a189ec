"""What many small jobs cost in one call on a real Slurm, beside `sbatch --array --wait`.

Run by `make bench` as root where HPC_PREFECT_ENGINES names slurm, or on CI; anywhere else it says
so and ends. MEMBERS (default 2000) of /bin/true; ours, the same scripts by hand, and a script that
has nothing but /bin/true take turns, and ratios of one run count. The load of the machine is told
with each: beside other work they differ by more than what is asked.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import HOME, load, prefect_server, told  # before Prefect
from slurm import cluster, counted

# isort: split

from prefect import flow

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    Member,
    run_jobs_from_blocks,
)
from hpc_prefect.batch.arrays.results import JobResults

MEMBERS = int(os.environ.get("MEMBERS", "2000"))
TURNS = int(os.environ.get("TURNS", "2"))
CHUNK = 1001  # the MaxArraySize of a Slurm that nobody has configured
MOST_RATIO, MOST_CPU_MS, MOST_COMMANDS, MOST_MIB = 1.1, 1.0, 30, 500

PLAIN = "#!/bin/bash\n/bin/true\n"


def save_blocks() -> None:
    CommandBlock(command_name="true", executable_key="true").save("cmd", _sync=True)
    ExecutionProfileBlock(profile_name="true", command_name="true").save("exec", _sync=True)
    HPCProfileBlock(scheduler="slurm", executables={"true": "/bin/true"}).save("hpc", _sync=True)


@flow
async def sweep(turn: int) -> tuple[float, float, JobResults]:
    """Wall and own CPU seconds of the call, and what it returned."""
    members = [Member(user_args=[turn, n]) for n in range(MEMBERS)]
    began, cpu = time.perf_counter(), time.process_time()
    results = await run_jobs_from_blocks(
        command_block_name="cmd",
        execution_profile_block_name="exec",
        hpc_profile_block_name="hpc",
        work_dir=HOME / "work",
        script_filename="scan",
        members=members,
    )
    return time.perf_counter() - began, time.process_time() - cpu, results


def seconds_by_hand(scripts: Sequence[tuple[Path, int]]) -> float:
    """All of these arrays at once, each with `sbatch --wait`."""
    began = time.perf_counter()
    waiting = [
        subprocess.Popen(
            ["sbatch", "--wait", f"--array=0-{size - 1}", "--output=/dev/null", script],
            stdout=subprocess.DEVNULL,
        )
        for script, size in scripts
    ]
    codes = [each.wait() for each in waiting]
    assert not any(codes), codes
    return time.perf_counter() - began


def copies(results: JobResults) -> list[tuple[Path, int]]:
    """The arrays' rendered scripts once more, in folders with fresh guards."""
    above = HOME / "copies" / "of" / "jobs"
    above.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = []
    for folder in dict.fromkeys(result.folder for result in results):
        copy = Path(tempfile.mkdtemp(dir=above))
        size = sum(result.folder == folder for result in results)
        for path in Path(folder).rglob("*"):
            if path.is_dir():
                (copy / path.relative_to(folder)).mkdir(parents=True)
        for path in [Path(folder, "program.sh"), *Path(folder).glob("m/*/members")]:
            shutil.copy(path, copy / path.relative_to(folder))
        for index in range(size):
            (copy / "m" / str(index // 100) / f"{index}.record").touch()
        script = copy / "script.sh"
        text = Path(folder, "script.sh").read_text().replace(folder, str(copy))
        script.write_text("\n".join(_without_array(text)))
        script.chmod(0o700)
        found.append((script, size))
    return found


def _without_array(text: str) -> list[str]:
    return [line for line in text.split("\n") if not line.startswith("#SBATCH --array")]


def plain() -> list[tuple[Path, int]]:
    script = HOME / "plain.sh"
    script.write_text(PLAIN)
    sizes = [min(CHUNK, MEMBERS - first) for first in range(0, MEMBERS, CHUNK)]
    return [(script, size) for size in sizes]


def main() -> None:
    named = os.environ.get("HPC_PREFECT_ENGINES", "").replace(",", " ").split()
    if os.geteuid() != 0 or not ("slurm" in named or os.environ.get("CI") == "true"):
        print("not run: it needs a real Slurm; set HPC_PREFECT_ENGINES=slurm as root")
        HOME.rmdir()
        return
    # A turn has three times as many jobs as MEMBERS; Slurm would refuse what is over its
    # MaxJobCount, in which those count that have ended and are still known.
    with cluster("--min-job-age", "30"), prefect_server():
        save_blocks()
        report()


def report() -> None:
    ours, cpus, same, bare, commands = [], [], [], [], []
    for turn in range(TURNS):
        with counted() as found:
            seconds, cpu, results = asyncio.run(sweep(turn))
        assert not results.failed, results.summary
        ours.append(seconds)
        cpus.append(cpu)
        commands.append(found.total())
        print(
            f"turn {turn}: ours {seconds:.1f} s, {cpu:.1f} s of CPU;"
            f" {dict(sorted(found.items()))}; {load()}",
            flush=True,
        )
        same.append(seconds_by_hand(copies(results)))
        print(f"turn {turn}: the same scripts {same[-1]:.1f} s; {load()}", flush=True)
        bare.append(seconds_by_hand(plain()))
        print(f"turn {turn}: /bin/true alone {bare[-1]:.1f} s; {load()}", flush=True)
    called, scripts, alone = (statistics.median(each) for each in (ours, same, bare))
    cpu_ms = 1000 * statistics.median(cpus) / MEMBERS
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{MEMBERS} members of /bin/true, median of {TURNS}: {called:.1f} s")
    print(f"the same scripts by sbatch --array --wait: {scripts:.1f} s;"
          f" ratio {called / scripts:.2f} ({told(called / scripts, MOST_RATIO, 'x')})")  # fmt: skip
    print(f"a script of /bin/true alone: {alone:.1f} s; ratio {called / alone:.2f}"
          f" ({told(called / alone, MOST_RATIO, 'x')})")  # fmt: skip
    print(f"CPU of the orchestrator: {cpu_ms:.2f} ms a member ({told(cpu_ms, MOST_CPU_MS, 'ms')})")
    print(f"commands: {max(commands)} ({told(max(commands), MOST_COMMANDS, '')})")
    print(f"memory: {mib:.0f} MiB ({told(mib, MOST_MIB, 'MiB')})")


if __name__ == "__main__":
    main()
