"""kill -9 at each boundary of a job's life × place × one job or ten: each program runs once.

Ten jobs, of which two are the same in all; the process dies at the first or third of them to come
to the boundary, so that the others are anywhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lives import TEN, Driver, Life, jobs_of, of_record, program, wrong

#: How the process dies, as `driver.py` has it. `gate`: what of a job waits until it is dead.
BOUNDARIES: dict[str, dict[str, Any]] = {
    "before the intent": {"step": "intent", "when": "before"},
    "after the intent": {"step": "intent", "when": "after"},
    "in the submission": {"step": "submit", "when": "torn"},
    "after the submission": {"step": "submitted", "when": "before"},
    "queued": {"state": "queued as"},
    "running": {"state": "running as", "gate": "program"},
    "ending": {"file": "ending", "gate": "teardown"},
    "after the exit record": {"step": "exit", "when": "after"},
    "after the verdict": {"step": "verdict", "when": "after"},
    "before the result is handed over": {"result": True},
    "before the record has any of it": {"result": True, "lag": 600.0},
}
#: The reply to a submission is lost, and the process dies, or does not, when that is dealt with.
LOST = {
    "reply lost": {"lose": 1},
    "reply lost, then killed": {"lose": 1, "state": "not clear whether the job was submitted"},
}

QUICK = [pytest.param(name, id=name) for name in ("local", "pbs", "pjm")]
PLACES = [*QUICK, pytest.param("slurm", id="slurm")]


def kill_and_finish(
    driver: Driver, folder: Path, labels: list[str], trap: dict[str, Any]
) -> list[str]:
    """One cell: a life to the kill, and another one to the results; what is wrong then."""
    trap = dict(trap)
    folder.mkdir()
    gate, go = trap.pop("gate", ""), folder / "go"
    program(folder, gate="go" if gate == "program" else "")
    more: dict[str, Any] = {}
    if gate == "teardown":
        waits = f"until [ -e {go} ]; do sleep 0.05; done"
        more = {"teardown": [f": > {folder}/ending", waits]}
    if "file" in trap:
        trap["file"] = str(folder / trap["file"])
    if trap.get("state") == "queued as":
        more |= driver.place.fill(folder, go)
    if len(labels) > 1 and ("step" in trap or "state" in trap):
        trap["nth"] = 3
        trap |= {"lose": 3} if "lose" in trap else {}
    jobs = jobs_of(folder, labels, **more)
    first = driver.begin(folder, jobs, **trap)
    assert first.wait(), "neither killed nor done"
    go.touch()
    met = first.killed or trap.keys() == {"lose"}
    missed = [] if met else [f"the trap was not met: {list(first.said)}"]
    missed += of_record(folder)
    return missed + finish(driver, folder, jobs, labels)


def finish(
    driver: Driver, folder: Path, jobs: list[dict[str, Any]], labels: list[str]
) -> list[str]:
    last: Life = driver.begin(folder, jobs)
    assert last.wait(), "the second life did not come to its end"
    return wrong(folder, labels, last.said)


def cells(driver: Driver, folder: Path, labels: list[str], traps: dict[str, Any]) -> dict[str, Any]:
    """All at once, because they mostly wait; what is wrong, by cell."""
    with ThreadPoolExecutor(6) as pool:
        done = {
            name: pool.submit(
                kill_and_finish, driver, folder / name.replace(" ", "-"), labels, trap
            )
            for name, trap in traps.items()
        }
    return {name: found for name, cell in done.items() if (found := cell.result())}


@pytest.mark.parametrize("driver", QUICK, indirect=True)
def test_a_process_killed_at_a_boundary_leaves_a_job_that_runs_once(driver, tmp_path):
    assert cells(driver, tmp_path, ["one"], BOUNDARIES | LOST) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", PLACES, indirect=True)
def test_a_process_killed_at_a_boundary_leaves_ten_jobs_that_run_once(driver, tmp_path):
    assert cells(driver, tmp_path, TEN, BOUNDARIES | LOST) == {}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["slurm"], indirect=True)
def test_a_process_killed_at_a_boundary_leaves_a_job_that_runs_once_on_slurm(driver, tmp_path):
    assert cells(driver, tmp_path, ["one"], BOUNDARIES | LOST) == {}
