"""kill -9 of a bare driver at every step: after the next start each program has run exactly once."""

from __future__ import annotations

import json

import pytest
from rig import Rig, Told, drive, until, was_killed

ONE = [{"key": "one"}]
#: Two identical calls and another one: same program, same arguments, two places in the experiment.
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


# What one job's driver changes, in this order: the folder, the claim, the script, spec.json, four
# empty files, the intent (8), the submission (9), its id (10), …
@pytest.mark.parametrize(
    ("call", "when"),
    [
        pytest.param(1, "after", id="before the intent"),
        pytest.param(8, "torn", id="in the intent"),
        pytest.param(8, "after", id="before the submission"),
        pytest.param(9, "torn", id="in the submission"),
        pytest.param(10, "before", id="before the id is journalled"),
        pytest.param(10, "torn", id="while the id is journalled"),
        pytest.param(10, "after", id="after the id is journalled"),
    ],
)
async def test_a_driver_killed_while_it_submits_leaves_a_job_that_runs_once(rig, call, when):
    assert kill_and_finish(rig, ONE, call=call, when=when)


async def test_the_numbers_of_the_steps_are_those_of_the_boundaries(rig):
    """Guards the numbers above: call 8 journals the intent, call 9 is the submission."""
    jobs = programs(rig, ONE)
    assert was_killed(drive(rig, jobs, call=8, when="after"))
    assert (rig.events(1, "one"), rig.runs()) == (["intent"], [])
    assert was_killed(drive(rig, programs(rig, [{"key": "two"}]), call=9, when="after"))
    assert rig.events(1, "two") == ["intent"]
    assert await until(rig.runs, "the job's run") == ["program-two "]


async def test_a_driver_killed_while_its_job_runs_is_taken_up_again(rig):
    jobs = programs(rig, ONE)
    assert was_killed(drive(rig, jobs, state="running as"))
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
    assert was_killed(drive(rig, jobs, state="submitted as"))
    await until(lambda: not rig.active(), "the job's end")
    finish(rig, jobs)


@pytest.mark.parametrize("when", ["before", "torn", "after"])
async def test_a_driver_killed_around_the_verdict_does_not_run_the_job_again(rig, when):
    jobs = programs(rig, ONE)
    steps = life(rig, jobs)  # of a job of its own, to know the number of its last steps
    (rig.folder / "runs").unlink()
    jobs = programs(rig, [{"key": "next"}])
    last = steps[-1][0]
    # The last two calls are the verdict's line and the removal of the secrets.
    was_killed(drive(rig, jobs, call=last - 1, when=when))
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
