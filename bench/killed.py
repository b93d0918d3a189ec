"""The same kills against a flow with plain submit and poll, and against hpc-prefect.

    python killed.py [PLACE ...]        local, pbs, pjm; never fails, prints a table

Ten jobs, of which two are the same in all; the process is killed once at an instant, then started
again as it was and left to end. Programs that ran twice and results that were wrong or missing are
counted by what the programs themselves have written.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kills"))

from chaos import make
from lives import TEN, Driver, jobs_of, program, runs, until
from places import Place

TIMES = int(os.environ.get("TIMES") or 20)
NAIVE = Path(__file__).with_name("naive.py")


def naive(place: Place, folder: Path, after: float) -> tuple[int, int]:
    """Killed after so many seconds and started again; programs run again, results wrong."""
    submit = [word.replace("{folder}", str(folder)) for word in place.submits]
    if place.scheduler == "local":  # all at once, as for the other one
        submit[submit.index("--slots") + 1] = "64"
    submit = [
        word.replace("narrow", "workq" if place.scheduler == "pbs" else "small") for word in submit
    ]
    argv = [
        sys.executable,
        str(NAIVE),
        str(folder),
        shlex.join(submit),
        shlex.join(place.active),
        *TEN,
    ]
    environ = os.environ | place.environ
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after)
    process.kill()
    process.communicate()
    done = subprocess.run(argv, capture_output=True, text=True, env=environ)
    until(lambda: not _left(place), "the end of all jobs")
    results = json.loads(done.stdout) if done.returncode == 0 else []
    right = sum(text == f"result of {label}\n" for text, label in zip(results, TEN, strict=False))
    return (runs(folder) - Counter(TEN)).total(), len(TEN) - right


def _left(place: Place) -> list[str]:
    lines = place.run(*place.active).splitlines()
    return [line for line in lines if line.strip() and "JOB_ID" not in line]


def ours(driver: Driver, folder: Path, after: float) -> tuple[int, int]:
    """The same against the executor."""
    jobs = jobs_of(folder, TEN)
    first = driver.begin(folder, jobs)
    if not first.wait(after):
        first.kill()
    last = driver.begin(folder, jobs)
    last.wait()
    results = last.said.get("results", [])
    right = sum(
        result["state"] == "succeeded"
        and Path(result["stdout_path"]).read_text() == f"result of {label}\n"
        for result, label in zip(results, TEN, strict=False)
    )
    return (runs(folder) - Counter(TEN)).total(), len(TEN) - right


def main() -> None:
    names = sys.argv[1:] or ["local", "pbs", "pjm"]
    with tempfile.TemporaryDirectory() as home:
        for name, place in make(names, Path(home)).items():
            driver, dice = Driver(place), random.Random(7)
            sums = {"submit and poll": [0, 0], "hpc-prefect": [0, 0]}
            begun = time.monotonic()
            for n in range(TIMES):
                after = dice.uniform(0.2, 3.0)
                for which, found in sums.items():
                    folder = Path(home, name, f"{n}-{which.replace(' ', '-')}")
                    folder.mkdir(parents=True)
                    program(folder, seconds=1.0)
                    again, bad = (
                        ours(driver, folder, after)
                        if which == "hpc-prefect"
                        else naive(place, folder, after)
                    )
                    found[0] += again
                    found[1] += bad
            driver.close()
            place.end()
            for which, (again, bad) in sums.items():
                print(
                    f"{name:6} {which:16} kills={TIMES} jobs={TIMES * len(TEN)}"
                    f" run again={again} results wrong or missing={bad}"
                )
            print(f"       {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
