"""Arrays by their folders alone: listed, shown, read, cancelled, taken over."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import pytest

from hpc_prefect.cli import main
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.job.dialogue import Dialogue
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.provider import Provider
from hpc_prefect.job.spec import JobSpec, Site
from hpc_prefect.operations import JobSnapshot, attach, cancel_jobs, list_jobs
from hpc_prefect.operations.cancel_member import cancel_member
from hpc_prefect.operations.format import details, table
from hpc_prefect.operations.kinds import KINDS, JobKind
from hpc_prefect.operations.members import read_members
from hpc_prefect.schedulers.base import Found, NoAnswer, Submission, Ticket, Unclear
from hpc_prefect.schedulers.local.scheduler import LocalScheduler

from ..executor.rig import Rig, living_process, until

PROGRAM = """
echo "out $1"; echo "err $1" >&2
while [ -e "hold-$1" ]; do sleep 0.02; done
[ ! -e "fail-$1" ] || exit 3
"""


def only(rig: Rig) -> JobSnapshot:
    (job,) = list_jobs(rig.work)
    return job


@contextlib.asynccontextmanager
async def left(rig: Rig, lines: Sequence[str], held: Sequence[str]) -> AsyncIterator[None]:
    """An array whose process has died while the held members run."""
    for line in held:
        (rig.work / f"hold-{line}").touch()
    with living_process() as claimant:
        request = named(rig, lines, claimant=claimant)
        task = asyncio.get_running_loop().create_task(
            ArrayRun(request, rig.connection()).carry_out()
        )
        await until(lambda: all(f"program {line}" in rig.runs() for line in held), "a start")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    yield
    for line in held:
        (rig.work / f"hold-{line}").unlink(missing_ok=True)


def named(rig: Rig, lines: Sequence[str], **changes):
    request = rig.array(rig.spec(PROGRAM, name="scan"), lines, **changes)
    members = tuple(
        dataclasses.replace(each, name=f"scan[{n}]") for n, each in enumerate(request.members)
    )
    return dataclasses.replace(request, members=members)


async def test_an_array_is_one_line_with_counts_and_its_members_on_request(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    (rig.work / "fail-b").touch()
    await rig.run_array(named(rig, ["a", "b", "c"]))
    job = only(rig)
    assert (job.name, job.status.state, job.members and job.members.words) == (
        "scan", "failed", "3 of 3 ended, 1 failed",
    )  # fmt: skip
    text = table([job])
    assert len(text.splitlines()) == 2
    assert "3 of 3 ended, 1 failed" in text
    assert "scan[1]" in details(job)
    assert "program failed: ended with exit code 3" in details(job)
    assert [each.state for each in read_members(job.folder)] == ["succeeded", "failed", "succeeded"]

    assert main(["jobs", "show", job.key, "--work-dir", str(rig.work), "--members"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["scan[0]", "scan[1]", "scan[2]"]
    assert main(["jobs", "--work-dir", str(rig.work), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["members"] == {"all": 3, "began": 3, "succeeded": 2, "failed": 1}

    assert main(["jobs", "logs", job.key, "--work-dir", str(rig.work), "--member", "1"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("out b\n", "err b\n")


async def test_whose_output_is_to_be_said(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    await rig.run_array(named(rig, ["a", "b"]))
    where = ["--work-dir", str(rig.work)]
    assert main(["jobs", "logs", "scan", *where]) != 0
    assert "--member N" in capsys.readouterr().err
    assert main(["jobs", "logs", "scan", *where, "--member", "7"]) != 0
    assert "scan[0] to scan[1]" in capsys.readouterr().err


async def test_what_runs_is_told_while_nobody_looks_after_it(rig: Rig) -> None:
    async with left(rig, ["a", "b", "c"], held=["a", "b"]):
        job = only(rig)
        assert job.members is not None
        assert job.members.began == 2
        assert "its process is dead" in job.status.reason
        states = [each.state for each in read_members(job.folder)]
        assert states == ["running", "running", "submitted"]


async def test_attach_follows_all_members_and_writes_the_verdict(rig: Rig) -> None:
    async with left(rig, ["a", "b", "c"], held=["a", "b"]):
        job = only(rig)
    result = await asyncio.to_thread(attach, job)
    assert result.succeeded
    assert only(rig).status.state == "succeeded"
    assert sorted(rig.runs()) == ["program a", "program b", "program c"]
    again = await rig.run_array(named(rig, ["a", "b", "c"]))
    assert all(each.collected for each in again.values())


async def test_the_whole_is_cancelled_without_its_process(rig: Rig) -> None:
    async with left(rig, ["a", "b", "c"], held=["a", "b"]):
        (done,) = await asyncio.to_thread(cancel_jobs, [only(rig)])
        assert done.confirmed, done.words
        await rig.emptied()
    assert sorted(rig.runs()) == ["program a", "program b"]
    again = await rig.run_array(named(rig, ["a", "b", "c"]))
    assert [each.state for each in again.values()] == ["succeeded"] * 3
    assert len(rig.runs()) == 5


async def test_a_second_array_of_the_submission_is_found_by_its_name_and_cancelled(
    rig: Rig,
) -> None:
    async with left(rig, ["a", "b"], held=["a", "b"]):
        second = {"time": 9e9, "event": "submitted", "id": "99"}
        with (rig.attempt() / "journal.jsonl").open("a") as journal:
            journal.write(json.dumps(second) + "\n")
        job = only(rig)
        assert (job.ids, job.ended_surely) == (("99",), False)
        for wait in (1.0, 5.0, 25.0):  # a busy machine may need more time to ask
            (done,) = await asyncio.to_thread(cancel_jobs, [job], wait=wait)
            assert not done.confirmed, done.words  # nobody has seen the end of 99
            if not rig.active():
                break
        await rig.emptied()


async def test_an_end_in_the_journal_does_not_hide_members_that_run_in_another_array(
    rig: Rig,
) -> None:
    async with left(rig, ["a", "b"], held=["a", "b"]):
        second: list[dict[str, object]] = [{"event": "submitted", "id": "99"}]
        second += [{"event": "observed", "state": "ended", "word": "FAILED"}]
        with (rig.attempt() / "journal.jsonl").open("a") as journal:
            journal.writelines(json.dumps({"time": 9e9, **each}) + "\n" for each in second)
        job = only(rig)
        assert (job.ids, job.status.state, job.ended_surely) == (("99",), "ended", True)
        for wait in (1.0, 5.0, 25.0):  # a busy machine may need more time to ask
            (done,) = await asyncio.to_thread(cancel_jobs, [job], wait=wait)
            assert not done.confirmed, done.words  # nobody has seen the end of 99
            if not rig.active():
                break
        await rig.emptied()


@pytest.mark.parametrize("which", ["1", "2"], ids=["that runs", "that waits"])
async def test_a_member_is_cancelled_and_no_other(
    rig: Rig, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a", "b", "c", "d"]
    for line in lines[:2]:
        (rig.work / f"hold-{line}").touch()
    run = ArrayRun(named(rig, lines), rig.connection())
    task = asyncio.get_running_loop().create_task(run.carry_out())
    await until(lambda: len(rig.runs()) == 2, "two that run")
    where = ["--work-dir", str(rig.work)]
    status = await asyncio.to_thread(main, ["jobs", "cancel", "scan", *where, "--member", which])
    said = capsys.readouterr().out
    for line in lines[:2]:
        (rig.work / f"hold-{line}").unlink()
    results = await task
    assert status == 0, said
    assert f"scan[{which}]" in said
    assert [n for n, each in enumerate(results) if not each.succeeded] == [int(which)]
    assert results[int(which)].verdict.reason is Reason.CANCELLED


class ListsLate(LocalScheduler):
    """An array is not found by its name for now."""

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        return {tag: {} for tag in tags}
        yield


class Late(JobKind):
    def provider(self, site: Site) -> Provider:
        return ListsLate()


@contextlib.contextmanager
def listed_late() -> Iterator[None]:
    KINDS["batch"] = Late()
    yield
    del KINDS["batch"]


async def test_a_member_that_has_begun_in_an_array_listed_late_is_cancelled_there(
    rig: Rig,
) -> None:
    """It waited in the array that the journal knows when it was asked for."""
    async with left(rig, ["a", "b"], held=["a", "b"]):
        known = {"time": 9e9, "event": "submitted", "id": "99"}
        with (rig.attempt() / "journal.jsonl").open("a") as journal:
            journal.write(json.dumps(known) + "\n")
        job = only(rig)
        waiting = dataclasses.replace(read_members(job.folder)[1], state="submitted", job_id="")
        with listed_late():
            done, words = await asyncio.to_thread(cancel_member, job, waiting, wait=30.0)
        assert done, words
        (rig.work / "hold-a").unlink()
        await rig.emptied()


async def test_a_member_that_shares_its_element_is_not_cancelled_alone(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    async with left(rig, ["a"], held=["a"]):
        pass
    await rig.run_array(named(rig, ["a"]))
    (rig.work / "hold-b").touch()
    request = named(rig, ["b", "c"], per_element=2)
    request = dataclasses.replace(request, base=f"{request.base}x")
    task = asyncio.get_running_loop().create_task(ArrayRun(request, rig.connection()).carry_out())
    await until(lambda: "program b" in rig.runs(), "a start")
    key = next(job.key for job in list_jobs(rig.work) if job.members and job.members.all == 2)
    where = ["--work-dir", str(rig.work)]
    assert await asyncio.to_thread(main, ["jobs", "cancel", key, *where, "--member", "0"]) != 0
    assert "shares its element" in capsys.readouterr().err
    (rig.work / "hold-b").unlink()
    assert [each.state for each in await task] == ["succeeded"] * 2


class InDoubt(LocalScheduler):
    """The reply to each submission is lost, and no job has come of it."""

    patience = dataclasses.replace(LocalScheduler.patience, find=3600.0)

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        return Unclear("the connection was cut")
        yield


async def test_a_member_of_an_array_without_an_id_is_not_cancelled_alone(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody would carry the request out."""
    run = ArrayRun(named(rig, ["a", "b"]), rig.connection(InDoubt()))
    task = asyncio.get_running_loop().create_task(run.carry_out())
    await until(lambda: any(job.spec for job in list_jobs(rig.work)), "the intent")
    where = ["--work-dir", str(rig.work)]
    assert await asyncio.to_thread(main, ["jobs", "cancel", "scan", *where, "--member", "1"]) != 0
    assert "scan[1] cannot be cancelled alone yet" in capsys.readouterr().err
    assert not [each for each in only(rig).events if each.get("event") == "cancel"]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
