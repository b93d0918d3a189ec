"""What a run's record costs: CPU a job, in one run with and without it, and how it grows.

    python records.py          JOBS=100 TURNS=5 by default; never fails

It starts a Prefect server of its own in a temporary home and stops it. CPU is this process's own,
jobs at once in one work_dir, and in a work_dir each; turns with the record and without it alternate
in one flow run. What the writing thread took by its own clock is told beside the difference, which
on a busy machine says more. Then records of 10³, 10⁴ and 10⁵ jobs are written and read, each by a
process of its own. Last, a sweep of 40 runs is compared, one table and one plot, by a command: its
seconds, and its CPU, which is what it takes where nothing else runs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import runs

JOBS = int(os.environ.get("JOBS") or 100)
TURNS = int(os.environ.get("TURNS") or 5)
SIZES = (1_000, 10_000, 100_000)
MOST_CPU_MS, MOST_GROWTH = 1.0, 1.2
SWEEP, SWEEP_JOBS, MOST_SWEEP = 40, 50, 2.0


# --- with and without it, in one run


def report_cost() -> None:
    from common import HOME, prefect_server, told

    with prefect_server():
        from prefect import flow

        from hpc_prefect import (
            CommandBlock,
            ExecutionProfileBlock,
            HPCProfileBlock,
            run_job_from_blocks,
        )
        from hpc_prefect.flow_runs import recording

        CommandBlock(command_name="true", executable_key="true").save("cmd", _sync=True)
        profile = ExecutionProfileBlock(profile_name="true", command_name="true")
        profile.save("exec", _sync=True)
        local = {"slots": os.cpu_count() or 1, "spool": str(HOME / "spool")}
        here = {"scheduler": "local", "executables": {"true": "/bin/true"}, "local": local}
        HPCProfileBlock(**here).save("hpc", _sync=True)

        async def jobs(turn: str, *, apart: bool) -> float:
            """CPU seconds of so many jobs at once."""
            work = HOME / ("apart" if apart else "shared")
            names = [f"{turn}-{number}" for number in range(JOBS)]
            gc.collect()
            before = time.process_time()
            calls = [
                run_job_from_blocks(
                    command_block_name="cmd",
                    execution_profile_block_name="exec",
                    hpc_profile_block_name="hpc",
                    work_dir=work / name if apart else work,
                    script_filename=name,
                )
                for name in names
            ]
            await asyncio.gather(*calls)
            return time.process_time() - before

        @flow
        async def measured(*, apart: bool) -> tuple[list[float], list[float], float]:
            await jobs("warm-up", apart=apart)
            mine = recording._recording()
            writer, found = mine.writer, ([], [])
            assert writer is not None
            without: Any = NoWriter()
            written = 0.0
            for turn in range(TURNS):
                for kept in (True, False):
                    mine.writer = writer if kept else without
                    before = cpu_of_the_writer()
                    found[not kept].append(await jobs(f"{turn}-{kept}", apart=apart))
                    writer.settle(60.0)
                    written += cpu_of_the_writer() - before
            mine.writer = writer
            return (*found, written / TURNS / JOBS)

        for apart in (False, True):
            kept, not_kept, written = asyncio.run(measured(apart=apart))
            ms = [1000 * statistics.median(each) / JOBS for each in (kept, not_kept)]
            print(
                f"{JOBS} jobs at once, {'a work_dir each' if apart else 'one work_dir'}:"
                f" {ms[0]:.1f} ms CPU a job with the record, {ms[1]:.1f} ms without;"
                f" difference {ms[0] - ms[1]:.2f} ms"
            )
            print(
                f"  its writing thread: {1000 * written:.2f} ms a job;"
                f" {told(1000 * written, MOST_CPU_MS, 'ms')}"
            )


class NoWriter:
    """Takes what a writer is told and writes nothing. (Without any, a new work_dir begins one.)"""

    def note(self, event: str, **facts: object) -> None: ...

    def later(self, make: object) -> None: ...

    def settle(self, seconds: float) -> bool:
        return True


def cpu_of_the_writer() -> float:
    """Seconds, by the clocks of the threads that write."""
    threads = [each for each in threading.enumerate() if each.name == "hpc-prefect-record"]
    clocks = [time.pthread_getcpuclockid(each.ident) for each in threads if each.ident]
    return sum(map(time.clock_gettime, clocks))


# --- growth


def facts_of(number: int) -> dict[str, Any]:
    """A job's end as a record has it."""
    return {
        "key": f"{number:020x}", "kind": "batch", "name": f"diagonalise-{number}", "attempt": 1,
        "folder": f"/work/group/me/.hpc-prefect/sweep-0123456789ab/0f/{number:020x}-1",
        "job_id": f"{number}.pbs", "state": "succeeded", "reason": "succeeded", "signal": "",
        "summary": "the program ended with 0", "exit_code": 0, "collected": False, "host": "n1",
        "queue_seconds": 30.5, "run_seconds": 60.25, "node_hours": 0.1, "core_hours": 4.8,
        "resources_used": {"cpu_seconds": 59.0, "max_rss": 10**9},
        "asked": {"nodes": 6, "ranks_per_node": 8, "threads_per_rank": 1, "cores": 48, "gpus": 0,
                  "memory_per_node": 10**10, "walltime": 600},
        "scheduler": "pbs", "queue": "small", "modules": ["gcc/12"], "loaded_modules": ["gcc/12"],
        "command": "diagonalise", "arguments": ["--tolerance", "1e-6", str(number)],
        "script_sha256": "0" * 64, "images": [], "inputs": {"in": {"size": 9, "sha256": "0" * 64}},
        "executable": {"path": "/opt/bin/diag", "size": 10**7, "mtime": 1.7e9, "sha256": "0" * 64},
        "work_dir": "/work/group/me", "expected_outputs": ["out"], "made_by": "run-1",
        "outputs": {"out": {"path": "/work/group/me/out", "size": 100, "sha256": "0" * 64}},
    }  # fmt: skip


def write(jobs: int, folder: str) -> None:
    """In a process of its own: so many jobs into a record; its cost as JSON."""
    from hpc_prefect.records.write.writer import RunWriter

    run = {"id": f"run-{jobs}", "name": "n", "kind": "flow", "flow": "f", "attempt": 1}
    writer = RunWriter(folder)
    writer.note("began", format=1, run=run, parameters={}, environment={})
    assert writer.settle(600.0)
    rss, before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for number in range(jobs):
        key, name = f"{number:020x}", f"diagonalise-{number}"
        same = {"kind": "batch", "name": name, "folder": f"/work/.hpc-prefect/c/0f/{key}"}
        writer.note("job", key=key, **same, scope=[], n=0, blocks=["0" * 16] * 3)
        writer.later(lambda number=number: [("job-ended", facts_of(number))])
        if number % 100 == 99:  # jobs end over time: what waits does not pile up
            assert writer.settle(600.0)
    writer.note("ended", state="completed", message="")
    assert writer.settle(600.0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss
    print(json.dumps({"cpu": time.process_time() - before, "rss": grown * 1024}))


def report_growth() -> None:
    home = Path(tempfile.mkdtemp(prefix="hpc-prefect-bench-"))
    environ = os.environ | {"XDG_DATA_HOME": str(home / "data")}
    costs = {}
    try:
        for jobs in SIZES:
            folder = home / ".hpc-prefect" / "c" / "runs" / str(jobs)
            argv = [sys.executable, __file__, "--write", str(jobs), str(folder)]
            done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            costs[jobs] = 1000 * found["cpu"] / jobs
            size = sum(each.stat().st_size for each in folder.iterdir())
            show = "import sys; from hpc_prefect.cli import main; sys.exit(main())"
            began = time.perf_counter()
            argv = [sys.executable, "-c", show, "runs", "show", str(folder)]
            subprocess.run(argv, env=environ, capture_output=True, check=True)
            print(
                f"{jobs:>7} jobs: written in {costs[jobs]:.3f} ms CPU a job, {size / jobs:.0f} B a"
                f" job on disk, {found['rss'] / jobs:.0f} B a job in memory; `runs show`"
                f" {time.perf_counter() - began:.1f} s"
            )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    growth = costs[SIZES[-1]] / costs[SIZES[-2]]
    met = "met" if growth <= MOST_GROWTH else "missed"
    print(f"a job of {SIZES[-1]} costs {growth:.2f} of one of {SIZES[-2]};"
          f" target {MOST_GROWTH} {met}")  # fmt: skip


# --- a sweep


def report_sweep() -> None:
    home = Path(tempfile.mkdtemp(prefix="hpc-prefect-bench-"))
    try:
        folders = [str(runs.make(home / "work", number, SWEEP_JOBS)) for number in range(SWEEP)]
        table = [*runs.COMMAND, "runs", "compare", *folders, "--measure", "energy"]
        plot = ["--against", "shots", "--plot", str(home / "sweep.png")]
        drawing = [sys.executable, "-c", "import matplotlib.figure"]
        took = {name: best_of(argv, home) for name, argv in
                (("all", [*table, *plot]), ("table", table), ("drawing", drawing))}  # fmt: skip
    finally:
        shutil.rmtree(home, ignore_errors=True)
    seconds, cpu = took["all"]
    met = "met" if cpu <= MOST_SWEEP else "missed"
    print(
        f"a sweep of {SWEEP} runs of {SWEEP_JOBS} jobs, table and plot: {cpu:.2f} s CPU,"
        f" {seconds:.2f} s with whatever else runs here; target {MOST_SWEEP:g} s of CPU {met}\n"
        f"  the table alone {took['table'][1]:.2f} s CPU, to import matplotlib"
        f" {took['drawing'][1]:.2f} s"
    )


def best_of(argv: list[str], home: Path) -> tuple[float, float]:
    """Seconds, and CPU seconds, of a command: each the best of some times."""
    found = []
    for _ in range(max(2, TURNS)):  # at its very first time matplotlib looks for fonts
        before, began = cpu_of_commands(), time.perf_counter()
        environ = os.environ | {"XDG_DATA_HOME": str(home / "data")}
        subprocess.run(argv, env=environ, capture_output=True, check=True)
        found.append((time.perf_counter() - began, cpu_of_commands() - before))
    return min(each[0] for each in found), min(each[1] for each in found)


def cpu_of_commands() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(int(sys.argv[2]), sys.argv[3])
    else:
        report_growth()
        report_sweep()
        report_cost()
