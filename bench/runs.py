"""How long the list of runs takes, with many runs in it.

    python runs.py          RUNS=2000 JOBS=50 by default; never fails

Each figure is the best of some. The command is a process of its own; its time is told also as a
multiple of what the same command takes with a single run: what is beyond 1 is for the runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RUNS = int(os.environ.get("RUNS") or 2000)
JOBS = int(os.environ.get("JOBS") or 50)
LARGEST = 10_000
TIMES = 5
COMMAND = [sys.executable, "-c", "import sys; from hpc_prefect.cli import main; sys.exit(main())"]


def events(number: int, jobs: int) -> bytes:
    """What a loop's run of so many jobs leaves."""
    began = 1.7e9 + 600 * number
    ident = f"{number:08x}-0000-7000-8000-{number:012x}"
    shots = 1000 * (1 + number % 7)
    found: list[dict[str, object]] = [
        {
            "event": "began",
            "run": {"id": ident, "name": f"hot-polecat-{number}", "kind": "flow",
                    "flow": f"flow-{number % 5}", "attempt": 1},
            "parameters": {"shots": shots, "basis": "sto-3g", "molecule": {"charge": number % 3},
                           "tolerance": 1e-6, "bonds": [1.0, 1.1, 1.2]},
            "code": {"file": "/home/ada/flow.py", "sha256": "0" * 64, "commit": "0" * 40},
            "environment": {"host": "elsewhere", "pid": 4242, "user": "ada", "python": "3.11.7",
                            "packages": {f"package-{n}": "1.2.3" for n in range(60)}},
        }
    ]  # fmt: skip
    for n in range(jobs):
        same = {"key": f"{n:016x}", "kind": "batch", "name": "diagonalise", "folder": f"/w/{n}"}
        row = {"iteration": n, "energy": -109 - n / 100, "change": 0.01, "seconds": 12.5}
        found += [
            {"event": "job", **same, "scope": ["converge", f"iter-{n}"], "n": 0, "blocks": []},
            {"event": "job-ended", **same, "attempt": 1, "state": "succeeded", "collected": n < 3,
             "job_id": str(n), "exit_code": 0, "queue_seconds": 30.0, "run_seconds": 60.0,
             "node_hours": 0.1, "core_hours": 4.8, "summary": "it ended with status 0",
             "script_sha256": "0" * 64, "asked": {"nodes": 6, "walltime": 600},
             "outputs": {f"out-{k}": {"size": 100, "sha256": "0" * 64} for k in range(3)}},
            {"event": "iteration", "loop": "converge", "number": n, "row": row},
        ]  # fmt: skip
    found.append({"event": "ended", "state": "failed" if number % 9 == 0 else "completed"})
    lines = [json.dumps({"time": began + at} | each) for at, each in enumerate(found)]
    return "".join(f"{line}\n" for line in lines).encode()


def make(work_dir: Path, number: int, jobs: int) -> Path:
    ident = f"{number:08x}-0000-7000-8000-{number:012x}"
    folder = work_dir / ".hpc-prefect" / f"campaign-{number % 20}" / "runs" / ident
    folder.mkdir(mode=0o700, parents=True)
    for made in (folder, *folder.parents[:3]):
        made.chmod(0o700)
    (folder / "events.jsonl").write_bytes(events(number, jobs))
    return folder


def command(data: Path, *words: str) -> None:
    done = subprocess.run(
        [*COMMAND, "runs", *words],
        env=os.environ | {"XDG_DATA_HOME": str(data)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)


def best(what: Callable[[], None], times: int = TIMES) -> float:
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        what()
        found.append(time.perf_counter() - begin)
    return min(found)


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="hpc-prefect-bench-"))
    try:
        measure(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def measure(home: Path) -> None:
    one, many, largest = home / "one", home / "many", home / "largest"
    make(one / "work", 0, JOBS)
    for number in range(RUNS):
        make(many / "work", number, JOBS)
    folder = make(largest, 0, LARGEST)
    scans = {
        each: best(lambda each=each: command(each, "scan", str(each)), 1) for each in (one, many)
    }  # type: ignore[misc]
    lists: dict[str, tuple[str, ...]] = {
        "runs": (),
        "runs --where 'shots>3000' --sort energy": ("--where", "shots>3000", "--sort", "energy"),
        "runs --where … --limit 20": ("--where", "shots>3000", "--limit", "20"),
        "runs --json": ("--json",),
        "runs --csv": ("--csv",),
    }
    print(f"{RUNS} runs of {JOBS} jobs each; the same command with 1 run is 1.0")
    for name, words in lists.items():
        with_one = best(lambda words=words: command(one, *words))  # type: ignore[misc]
        with_many = best(lambda words=words: command(many, *words))  # type: ignore[misc]
        told = f"  target 1 s {'met' if with_many <= 1 else 'missed'}"
        print(f"  {name:<40} {with_many:6.2f} s  {with_many / with_one:6.1f}{told}")
    each = (scans[many] - scans[one]) / max(1, RUNS - 1)
    print(f"  {'runs scan':<40} {scans[many]:6.2f} s  {scans[many] / scans[one]:6.1f}"
          f"  {1000 * each:.1f} ms a run")  # fmt: skip
    shown = {jobs: best(lambda at=at: command(one, "show", str(at)))  # type: ignore[misc]
             for jobs, at in ((JOBS, one), (LARGEST, folder))}  # fmt: skip
    print(f"  {f'runs show, of {LARGEST} jobs':<40} {shown[LARGEST]:6.2f} s"
          f"  {shown[LARGEST] / shown[JOBS]:6.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
