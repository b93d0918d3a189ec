"""Does a member of an array cost the same among 100,000 as among 10,000? At a PBS and a PJM.

    python bench/many.py [--sizes 10000,100000] [--at FOLDER] [pbs] [pjm]

Run by `make bench`. The schedulers are the rehearsals, and the members are played (`played.py`):
what is measured is this process, its CPU and its memory, and no cluster's time. The first call of a
hundred members bears what a process costs once. It starts a Prefect server of its own in a
temporary home, and ends all that it started.

Nothing is removed before all is measured: an ext4 without a journal looks, for each new file, at
all inodes that were freed in the last minutes (seen: 0.4 ms of CPU in the kernel for each file, in
place of 0.01). Where others remove many files meanwhile, have the members' files elsewhere, such as
in memory: `--at /dev/shm`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from common import HOME, load, prefect_server, told  # before Prefect

# isort: split

from prefect import flow

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    Member,
    run_jobs_from_blocks,
)
from hpc_rehearsal.pbs import install as pbs
from hpc_rehearsal.pjm import install as pjm

SIZES = "10000,100000"
WARM_UP = 100
MOST_RATIO, MOST_CPU_MS, MOST_MIB = 1.2, 1.0, 500
PLAYER = Path(__file__).with_name("played.py")
COMMANDS = {"pbs": ("qsub", "qstat", "qselect", "qdel"), "pjm": ("pjsub", "pjstat", "pjdel")}


@contextlib.contextmanager
def played(name: str) -> Iterator[Path]:
    """The stand-in's commands on PATH, behind wrappers that count them in the yielded file."""
    folder = Path(tempfile.mkdtemp(prefix="many-", dir=HOME))
    commands, state, log, wrappers = (folder / each for each in ("bin", "state", "log", "counted"))
    if name == "pbs":
        pbs.install(commands, state)
    else:
        pjm.install(commands, state)
        answers = f'exec {sys.executable} {PLAYER} pjstat {state} "$@"\n'
        (commands / "pjstat").write_text(f"#!/bin/sh\n{answers}")
    log.touch()
    wrappers.mkdir()
    for command in COMMANDS[name]:
        wrapper = wrappers / command
        wrapper.write_text(f'#!/bin/sh\necho {command} >> {log}\nexec {commands}/{command} "$@"\n')
        wrapper.chmod(0o700)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{wrappers}:{commands}:{path}"
    player = subprocess.Popen(
        [sys.executable, PLAYER, name, state], stdout=subprocess.PIPE, text=True
    )
    try:
        assert player.stdout is not None
        assert player.stdout.readline() == "plays\n"
        yield log
    finally:
        os.environ["PATH"] = path
        player.kill()
        player.wait()
        shutil.rmtree(folder, ignore_errors=True)


def save_blocks() -> None:
    CommandBlock(command_name="true", executable_key="true").save("cmd", _sync=True)
    ExecutionProfileBlock(profile_name="true", command_name="true").save("exec", _sync=True)
    for name in COMMANDS:
        place = HPCProfileBlock(scheduler=name, executables={"true": "/bin/true"})
        place.save(f"hpc-{name}", _sync=True)


@dataclass(frozen=True)
class Cost:
    """Of one call: seconds on the clock, of this process's CPU and of its commands', MiB at most.

    Attributes:
        system: seconds of `own` that the kernel took, for files above all.
    """

    members: int
    wall: float
    own: float
    system: float
    children: float
    mib: float
    commands: Counter[str]

    @property
    def each(self) -> float:
        """Milliseconds of CPU a member."""
        return 1000 * self.own / self.members


@flow
async def call(name: str, count: int, work_dir: Path) -> tuple[float, float, float, float]:
    """Seconds of the call: on the clock, of CPU, of it in the kernel, of the commands."""
    members = [Member(user_args=[n]) for n in range(count)]
    before = time.perf_counter(), *_cpu()
    results = await run_jobs_from_blocks(
        command_block_name="cmd",
        execution_profile_block_name="exec",
        hpc_profile_block_name=f"hpc-{name}",
        work_dir=work_dir,
        script_filename="scan",
        members=members,
    )
    after = time.perf_counter(), *_cpu()
    assert len(results) == count, results.summary
    assert not results.failed, results.summary
    wall, own, system, children = (b - a for a, b in zip(before, after, strict=True))
    return wall, own, system, children


def _cpu() -> tuple[float, float, float]:
    """Seconds of this process, of those in the kernel, and of the commands that have ended."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, own.ru_stime, children.ru_utime + children.ru_stime


def measured(name: str, count: int, at: Path) -> Cost:
    work_dir = Path(tempfile.mkdtemp(prefix="work-", dir=at))
    with played(name) as log:
        Path("/proc/self/clear_refs").write_text("5")  # the most memory from now on
        wall, own, system, children = asyncio.run(call(name, count, work_dir))
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert peak is not None
        commands = Counter(log.read_text().split())
    mib = int(peak[1]) / 1024
    return Cost(count, wall, own, system, children, mib, commands)


def report(name: str, sizes: list[int], at: Path) -> None:
    measured(name, WARM_UP, at)
    costs = []
    for count in sizes:
        costs.append(cost := measured(name, count, at))
        print(
            f"{name}: {count} members in {cost.wall:.0f} s: {cost.each:.2f} ms of CPU a member"
            f" ({told(cost.each, MOST_CPU_MS, 'ms')}), {1000 * cost.system / count:.2f} of it in"
            f" the kernel; {cost.mib:.0f} MiB ({told(cost.mib, MOST_MIB, 'MiB')});"
            f" {dict(sorted(cost.commands.items()))}, {cost.children:.0f} s of their CPU;"
            f" {load()}",
            flush=True,
        )
    for less, more in pairwise(costs):
        ratio = more.each / less.each
        print(
            f"{name}: a member of {more.members} costs {ratio:.2f} × one of {less.members}"
            f" ({told(ratio, MOST_RATIO, 'x')})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--at", type=Path, default=HOME, help="where the members' files are")
    parser.add_argument("places", nargs="*", metavar="PLACE", help=f"of {', '.join(COMMANDS)}")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    with (
        prefect_server(),
        tempfile.TemporaryDirectory(
            prefix="many-", dir=arguments.at, ignore_cleanup_errors=True
        ) as at,
    ):
        save_blocks()
        for name in arguments.places or COMMANDS:
            report(name, sizes, Path(at))


if __name__ == "__main__":
    main()
