"""kill -9 of a bare driver at every step: started again, each program has run exactly once."""

from __future__ import annotations

import json

import pytest
from rig import Rig, Told, drive, until, was_killed

ONE = [{"key": "one"}]
#: Two identical calls and another one: same program, same arguments, two slots in the experiment.
THREE = [{"key": "one"}, {"key": "two"}, {"key": "three", "arguments": ["other"]}]
WHEN = {"append": ("before", "torn", "after"), "run": ("before", "torn", "after")}


def programs(rig: Rig, jobs):
    """The same jobs with programs whose runs can be counted by key."""
    return [
        job | {"program": rig.program("sleep 0.1; echo out", name=f"program-{job['key']}")}
        for job in jobs
    ]


def finish(rig: Rig, jobs):
    """Start again, without a trap: everything has to be right."""
    done = drive(rig, jobs)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])["results"]
    assert [result["state"] for result in results] == ["succeeded"] * len(jobs)
    assert [result["attempt"] for result in results] == [1] * len(jobs)
    expected = sorted(f"program-{j['key']} {' '.join(j.get('arguments', ()))}" for j in jobs)
    assert sorted(rig.runs()) == expected, "each program runs exactly once"
    for job in jobs:
        assert (rig.attempt(1, job["key"]) / "stdout").read_text() == "out\n"
        assert (rig.attempt(1, job["key"]) / "record.json").exists()
        assert rig.events(1, job["key"]).count("verdict") == 1


def life(rig: Rig, jobs):
    """All the steps of an undisturbed life, as (number, when)."""
    done = drive(rig, jobs)
    assert done.returncode == 0, done.stderr
    calls = json.loads(done.stdout.splitlines()[-1])["calls"]
    return [(n, when) for n, name in enumerate(calls) for when in WHEN.get(name, ("before",))] + [
        (len(calls) - 1, "after")
    ]


def kill_and_finish(rig: Rig, jobs, **trap):
    jobs = programs(rig, jobs)
    killed = was_killed(drive(rig, jobs, **trap))
    finish(rig, jobs)
    return killed


@pytest.mark.parametrize(
    ("at", "when"),
    [
        pytest.param("create", "before", id="before the claim"),
        pytest.param("intent", "before", id="before the intent"),
        pytest.param("intent", "torn", id="in the intent"),
        pytest.param("intent", "after", id="before the submission"),
        pytest.param("submit", "torn", id="in the submission"),
        pytest.param("submitted", "before", id="before the id is journalled"),
        pytest.param("submitted", "torn", id="while the id is journalled"),
        pytest.param("submitted", "after", id="after the id is journalled"),
        pytest.param("write_atomic", "after", id="with half of its files"),
        pytest.param("verdict", "before", id="after the exit record"),
        pytest.param("verdict", "torn", id="in the verdict"),
        pytest.param("verdict", "after", id="after the verdict"),
    ],
)
async def test_a_driver_killed_at_a_boundary_leaves_a_job_that_runs_once(rig, at, when):
    assert kill_and_finish(rig, ONE, at=at, when=when), "the trap was not met"


async def test_a_driver_killed_while_its_job_runs_is_taken_up_again(rig):
    gate = rig.folder / "gate"
    text = f"until [ -e {gate} ]; do sleep 0.05; done; echo out"
    jobs = [{"key": "one", "program": rig.program(text, name="program-one")}]
    assert was_killed(drive(rig, jobs, state="running as"))
    gate.touch()
    finish(rig, jobs)
    assert "attached" in rig.events(1, "one")


async def test_a_driver_killed_while_its_job_waits_is_taken_up_again(rig):
    gate = rig.folder / "gate"
    blocker = rig.request(
        rig.spec(
            program="/bin/bash",
            arguments=("-c", f"until [ -e {gate} ]; do sleep 0.05; done"),
            resources={"ranks_per_node": 2},
        ),
        "blocker",
        listener=(told := Told()),
    )
    with rig.under_way(blocker) as (_, task):
        await until(lambda: "running" in str(told.states), "the job that takes all slots")
        jobs = programs(rig, ONE)
        assert was_killed(drive(rig, jobs, state="submitted as"))
        assert (len(rig.active()), rig.runs()) == (2, [])
        gate.touch()
        assert (await task).succeeded
    finish(rig, jobs)


async def test_a_job_that_ended_while_nobody_looked_is_collected(rig):
    jobs = programs(rig, ONE)
    # "submitted as", or "running as" when that is seen first.
    assert was_killed(drive(rig, jobs, state=" as "))
    await until(lambda: not rig.active(), "the job's end")
    finish(rig, jobs)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("jobs", [pytest.param(ONE, id="one job"), pytest.param(THREE, id="three")])
async def test_a_driver_killed_at_any_step_at_all_leaves_jobs_that_run_once(rig, jobs, subtests):
    steps = life(rig, programs(rig, jobs))
    # Of three jobs at once every third step: the steps of one are all taken, and theirs alternate.
    for number, (call, when) in enumerate(steps[:: len(jobs)]):
        (rig.folder / "runs").unlink(missing_ok=True)
        these = [job | {"key": f"{job['key']}{number}"} for job in jobs]
        with subtests.test(call=call, when=when):
            kill_and_finish(rig, these, call=call, when=when)
