"""kill -9 of a bare driver at the steps of an array: each member has run exactly once."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, drive, was_killed

from hpc_prefect.job import members as layout

#: What fails does so always; so that kills fall into its life too, each takes a moment.
PROGRAM = 'sleep 0.1; echo "out $1"; [ "$1" != bad ] || exit 3'
WHEN = {"append": ("before", "torn", "after"), "run": ("before", "torn", "after")}
#: "elements": how many an array may have, where that is not up to the laptop's own engine.
SINGLE = {"lines": ["a", "bad", "c"], "elements": 0}
PACKED = {"lines": ["a", "bad", "c"], "per_element": 2, "elements": 0}
ARRAY = {"lines": ["a", "b", "bad"]}
PACKED_ARRAY = {"lines": ["a", "b", "bad", "d"], "per_element": 2}
OTHER_ARRAY = {"lines": ["a", "bad", "c"], "per_element": 2, "elements": 100}
SHAPES = [
    pytest.param(SINGLE, id="single jobs"),
    pytest.param(PACKED, id="two in a job"),
    pytest.param(ARRAY, id="an array"),
    pytest.param(PACKED_ARRAY, id="two in an element"),
    pytest.param(OTHER_ARRAY, id="an array of another scheduler"),
]


def array(rig: Rig, shape: dict[str, Any], key: str = "one") -> dict[str, Any]:
    return shape | {"key": key, "program": rig.program(PROGRAM, name=f"program-{key}")}


def jobs(shape: dict[str, Any]) -> int:
    """How many jobs an array of this shape is."""
    alone = shape.get("elements") == 0
    return math.ceil(len(shape["lines"]) / shape.get("per_element", 1)) if alone else 1


async def finish(rig: Rig, job: dict[str, Any]) -> dict[str, Any]:
    """Start again, without a trap: everything has to be right; the results."""
    judged = verdicts(rig, job)
    done = drive(rig, [job])
    assert done.returncode == 0, done.stderr
    (results,) = json.loads(done.stdout.splitlines()[-1])["results"]
    assert {key: each["state"] for key, each in results.items()} == {
        line: "failed" if line == "bad" else "succeeded" for line in job["lines"]
    }
    assert results["bad"]["verdict"]["exit_code"] == 3
    for line in job["lines"]:
        # What failed runs again only when the submission that it was in had been concluded.
        count = 2 if line == "bad" and "bad" in judged else 1
        name = f"program-{job['key']} {line}"
        assert rig.runs().count(name) == count, (line, rig.runs(), judged)
        assert Path(results[line]["stdout_path"]).read_text() == f"out {line}\n"
    await rig.emptied()
    for folder in folders(rig, job):
        assert rig.events(int(folder.name.rpartition("-")[2]), job["key"]).count("verdict") <= 1
    return results


def assert_collected(rig: Rig, job: dict[str, Any], results: dict[str, Any]) -> None:
    """A further call has the same successes, and runs nothing but what failed."""
    before = rig.runs()
    (again,) = json.loads(drive(rig, [job]).stdout.splitlines()[-1])["results"]
    for line in job["lines"]:
        if line != "bad":
            assert again[line] == results[line] | {"collected": True}
    assert rig.runs() == [*before, f"program-{job['key']} bad"]


def folders(rig: Rig, job: dict[str, Any]) -> list[Path]:
    return sorted((rig.attempt(1).parent).glob(f"{job['key']}-*"))


def verdicts(rig: Rig, job: dict[str, Any]) -> set[str]:
    """The members of submissions that have been concluded."""
    found: set[str] = set()
    for folder in folders(rig, job):
        if "verdict" in rig.events(int(folder.name.rpartition("-")[2]), job["key"]):
            asked = layout.read_asked((folder / layout.ASKED).read_bytes())
            found |= {each.member.key for each in asked}
    return found


def life(rig: Rig, job: dict[str, Any]) -> list[tuple[int, str]]:
    """All the steps of an undisturbed life, as (number, when)."""
    done = drive(rig, [job])
    assert done.returncode == 0, done.stderr
    calls = json.loads(done.stdout.splitlines()[-1])["calls"]
    return [(n, when) for n, name in enumerate(calls) for when in WHEN.get(name, ("before",))] + [
        (len(calls) - 1, "after")
    ]


async def kill_and_finish(rig: Rig, job: dict[str, Any], **trap: Any) -> bool:
    killed = was_killed(drive(rig, [job], **trap))
    await finish(rig, job)
    return killed


@pytest.mark.parametrize(
    ("at", "when"),
    [
        pytest.param("create", "after", id="after the claim"),
        pytest.param("asked.jsonl", "before", id="before its members are written"),
        pytest.param("asked.jsonl", "after", id="after its members are written"),
        pytest.param("intent", "torn", id="in the intent"),
        pytest.param("intent", "after", id="before the submission"),
        pytest.param("submit", "torn", id="in the submission"),
        pytest.param("submitted", "torn", id="while the id is journalled"),
        pytest.param("ended.jsonl", "torn", id="while ends are written"),
        pytest.param("ended.jsonl", "after", id="after the ends"),
        pytest.param("relink", "before", id="before what failed is shut out"),
        pytest.param("relink", "after", id="after what failed is shut out"),
        pytest.param("verdict", "torn", id="in the verdict"),
        pytest.param("verdict", "after", id="after the verdict"),
    ],
)
async def test_an_array_whose_driver_is_killed_at_a_boundary_runs_each_member_once(rig, at, when):
    killed = await kill_and_finish(rig, array(rig, PACKED_ARRAY), at=at, when=when)
    assert killed, "no trap was met"


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_driver_killed_when_it_has_submitted_is_taken_up_again(rig, shape):
    job = array(rig, shape)
    assert was_killed(drive(rig, [job], at="submitted", when="after"))
    assert_collected(rig, job, await finish(rig, job))


async def test_members_that_ended_while_nobody_looked_are_collected(rig):
    job = array(rig, PACKED_ARRAY)
    assert was_killed(drive(rig, [job], state="submitted as"))
    await rig.emptied()
    await finish(rig, job)


async def test_killed_again_and_again(rig):
    """Each driver lives a little longer than the one before it."""
    job = array(rig, ARRAY)
    for at, when in (("intent", "after"), ("submit", "torn"), ("submitted", "torn"),
                     ("attached", "torn"), ("ended.jsonl", "torn")):  # fmt: skip
        assert was_killed(drive(rig, [job], at=at, when=when)), at
    assert_collected(rig, job, await finish(rig, job))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("shape", SHAPES)
async def test_an_array_killed_at_any_step_at_all_runs_each_member_once(rig, shape, subtests):
    # All shapes take much the same steps, and where one is several jobs these take them beside each
    # other: some steps are drawn, of each shape other ones, and the same ones each time.
    steps = life(rig, array(rig, shape))
    drawn = random.Random(str(shape)).sample(steps, len(steps) // (2 * jobs(shape)))
    for number, (call, when) in enumerate(drawn):
        (rig.folder / "runs").unlink(missing_ok=True)
        with subtests.test(call=call, when=when):
            await kill_and_finish(rig, array(rig, shape, f"k{number}"), call=call, when=when)
