"""Observation: few questions, and none that failed changes anything."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging

import pytest
from rig import Counting, Told, until

from hpc_prefect.errors import TransportError
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.schedulers.local.scheduler import LocalScheduler


class Answering(LocalScheduler):
    """Answers through `twist` for as long as it is set; counts its questions."""

    #: Longer than a busy machine takes for a few questions.
    patience = dataclasses.replace(LocalScheduler.patience, absent=600.0, lost=600.0, silent=600.0)

    def __init__(self, twist) -> None:
        self.twist, self.asked = twist, 0

    def observe(self, ids, options):
        self.asked += 1
        answer = yield from super().observe(ids, options)
        return self.twist(answer) if self.twist else answer


async def failing_for_a_while(rig, twist):
    """A job that fails, so that its end needs the scheduler's word; 5 bad answers come first."""
    scheduler = Answering(twist)
    request = rig.request(rig.spec("exit 3"))
    with rig.under_way(request, rig.connection(scheduler)) as (_, task):
        await until(lambda: scheduler.asked >= 5 or task.done(), "five questions")
        assert not task.done(), task
        assert "verdict" not in rig.events()
        scheduler.twist = None
        return await task


async def test_a_question_that_failed_changes_nothing(rig, caplog):
    with caplog.at_level(logging.WARNING, logger="hpc_prefect.executor"):
        result = await failing_for_a_while(rig, lambda answer: NoAnswer("slurmctld: timed out"))
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 3)
    told = [r.getMessage() for r in caplog.records if "no useful answer" in r.getMessage()]
    assert len(told) == 1, "a failing scheduler is told once, not at each question"
    assert "slurmctld: timed out" in told[0]


async def test_a_command_that_cannot_be_run_changes_nothing(rig):
    def broken(answer):
        raise TransportError("cannot run squeue: Cannot allocate memory")

    assert (await failing_for_a_while(rig, broken)).exit_code == 3


async def test_a_dialect_that_trips_over_an_answer_does_not_stop_the_loop(rig, caplog):
    def broken(answer):
        raise KeyError("JobState")

    assert (await failing_for_a_while(rig, broken)).exit_code == 3
    assert "an answer could not be read" in caplog.text


async def test_a_job_listed_with_an_unknown_word_has_not_ended(rig):
    def unknown(answer):
        return {id_: Observation(id=id_, state=JobState.UNKNOWN, word="ODD") for id_ in answer}

    assert (await failing_for_a_while(rig, unknown)).exit_code == 3
    assert {"unknown", "ended"} <= {
        entry["state"] for entry in rig.journal() if entry["event"] == "observed"
    }


class Impatient(Answering):
    patience = dataclasses.replace(LocalScheduler.patience, absent=0.2, lost=0.4, silent=0.4)


async def test_a_job_that_is_listed_with_an_unknown_word_for_long_is_lost(rig):
    def unknown(answer):
        return {id_: Observation(id=id_, state=JobState.UNKNOWN, word="ODD") for id_ in answer}

    request = rig.request(rig.spec("sleep 60"), poll_interval=0.05)
    connection = rig.connection(Impatient(unknown))
    with rig.under_way(request, connection) as (_, task):
        result = await task
    assert result.verdict.reason is Reason.LOST
    assert "'ODD'" in result.verdict.summary


async def test_a_job_that_is_not_listed_for_a_while_has_not_ended(rig):
    """It appears late: the grace is not over, nothing is concluded."""
    gate, told = rig.folder / "gate", Told()
    scheduler = Answering(lambda answer: {})
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    request = rig.request(spec, poll_interval=0.05, listener=told)
    with rig.under_way(request, rig.connection(scheduler)) as (_, task):
        await until(lambda: scheduler.asked >= 5, "five questions")
        scheduler.twist = None
        gate.touch()
        assert (await task).succeeded


async def test_a_job_that_is_no_longer_listed_ends_by_its_own_record(rig):
    request = rig.request(rig.spec("exit 3"), poll_interval=0.1)
    result = await rig.run(request, rig.connection(Impatient(lambda answer: {})))
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 3)


async def test_another_job_under_our_number_is_not_ours(rig):
    def foreign(answer):
        return {
            id_: dataclasses.replace(
                seen, tag="hsomebodyelses", state=JobState.ENDED, cause=Reason.NODE_FAILURE
            )
            for id_, seen in answer.items()
        }

    scheduler = Answering(foreign)
    gate = rig.folder / "gate"
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    request = rig.request(spec, poll_interval=0.05)
    with rig.under_way(request, rig.connection(scheduler)) as (_, task):
        await until(lambda: scheduler.asked >= 3, "three questions")
        gate.touch()
        assert (await task).succeeded


async def test_the_number_of_questions_does_not_grow_with_the_number_of_jobs(rig):
    """Fifty jobs that wait behind a gate: each question names all of them."""
    gate = rig.folder / "gate"
    transport = Counting()
    connection = rig.connection(transport=transport)
    rig.options["slots"] = 50
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.5; done")
    requests = [rig.request(spec, f"k{n}") for n in range(50)]
    tasks = [asyncio.create_task(rig.run(request, connection)) for request in requests]
    try:
        await until(lambda: len(rig.runs()) == 50, "the start of all jobs")
        await until(lambda: transport.verbs().count("submit") == 50, "all submissions")
        before = transport.verbs().count("jobs")
        questions = []

        def asked():
            questions[:] = [c for c in transport.commands if c.argv[4] == "jobs"][before:]
            return len(questions) >= 3

        await until(asked, "three more questions")
        assert all(len(question.argv) == 7 + 50 for question in questions[1:])
        gate.touch()
        results = await asyncio.gather(*tasks)
    finally:
        gate.touch()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result.succeeded for result in results)
    assert len({result.job_id for result in results}) == 50
    assert transport.verbs().count("find") == 0


async def test_more_ids_than_one_question_may_carry_are_asked_in_chunks(rig):
    class Small(LocalScheduler):
        ids_per_question = 2

    gate = rig.folder / "gate"
    transport = Counting()
    connection = rig.connection(Small(), transport)
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    tasks = [
        asyncio.create_task(rig.run(rig.request(spec, f"k{n}", poll_interval=0.1), connection))
        for n in range(5)
    ]
    asked = set()

    def all_asked():
        for command in transport.commands:
            if command.argv[4] == "jobs":
                assert len(command.argv) <= 7 + 2
                asked.update(command.argv[7:])
        return len(asked) == 5

    try:
        await until(all_asked, "a question about each job")
    finally:
        gate.touch()
    assert all(result.succeeded for result in await asyncio.gather(*tasks))


class Files(Counting):
    """Counts what is asked of each file."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: collections.Counter[tuple[str, str]] = collections.Counter()

    def read(self, path, offset=0, size=-1):
        self.calls["read", path.rpartition("/")[2]] += 1
        return super().read(path, offset, size)

    def status(self, path):
        self.calls["status", path.rpartition("/")[2]] += 1
        return super().status(path)


async def test_a_look_at_a_running_job_opens_one_file(rig):
    """The exit file; the outputs are asked for their sizes, and seldom."""
    gate, told, files = rig.folder / "gate", Told(), Files()
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    request = rig.request(spec, listener=told, poll_interval=1000.0)
    with rig.under_way(request, rig.connection(transport=files)) as (_, task):
        await until(lambda: "running" in str(told.states), "the job's start")
        before = files.calls.copy()
        await until(lambda: files.calls["read", "exit"] >= before["read", "exit"] + 8, "8 looks")
        now = files.calls - before
        assert set(now) <= {("read", "exit"), ("status", "stdout"), ("status", "stderr")}
        assert now["status", "stdout"] <= now["read", "exit"]
        gate.touch()
        assert (await task).succeeded


async def test_one_job_whose_watching_fails_does_not_disturb_the_others(rig):
    class Raising(Told):
        def output(self, stream, text, path):
            raise RuntimeError("a defect in a listener")

    connection = rig.connection()
    spec = rig.spec("echo out; sleep 0.3; exit 3")
    bad, good = await asyncio.gather(
        rig.run(rig.request(spec, "bad", listener=Raising()), connection),
        rig.run(rig.request(spec, "good"), connection),
        return_exceptions=True,
    )
    assert isinstance(bad, RuntimeError)
    assert good.exit_code == 3


@pytest.mark.parametrize("cause", [Reason.CAN_NEVER_RUN, Reason.DEPENDENCY_NEVER_MET])
async def test_a_job_that_can_never_run_is_a_verdict_and_leaves_the_queue(rig, cause):
    def never(answer):
        return {
            id_: dataclasses.replace(seen, cause=cause, message="(PartitionNodeLimit)")
            for id_, seen in answer.items()
        }

    spec = rig.spec(program="/bin/sleep", arguments=("60",), resources={"ranks_per_node": 2})
    with rig.under_way(rig.request(spec, "blocker", listener=(told := Told()))):
        await until(lambda: "running" in str(told.states), "the job that takes all slots")
        request = rig.request(rig.spec(), poll_interval=0.1)
        result = await rig.run(request, rig.connection(Answering(never)))
        assert result.verdict.reason is cause
        assert "PartitionNodeLimit" in result.verdict.summary
        await until(lambda: result.job_id not in rig.active(), "its leaving the queue")
    assert rig.runs() == []


# --- what a program leaves in the place of the files that are read


@pytest.mark.parametrize("name", ["exit", "start", "cancel", "stdout", "stderr", "scheduler.out"])
@pytest.mark.parametrize(
    "change", ["mkfifo {0}", "mkdir {0}", "ln -s /dev/zero {0}", "ln -s /etc/passwd {0}"]
)
async def test_what_stands_in_the_place_of_a_file_ends_that_job_and_holds_up_no_other(
    rig, name, change
):
    path = rig.attempt(key="bad") / name
    connection = rig.connection()
    bad = rig.spec(f"rm -f {path}; {change.format(path)}; exit 0", name="bad")
    good = rig.spec(program=rig.program("sleep 0.5; exit 0", "good"), name="good")
    one, other = await asyncio.gather(
        rig.run(rig.request(bad, "bad"), connection),
        rig.run(rig.request(good, "good"), connection),
    )
    assert other.succeeded
    if name in ("exit", "start"):
        # A start that was read before needs no second look.
        assert one.verdict.reason is Reason.OUTPUT_LOST or (name == "start" and one.succeeded)
        assert one.succeeded or path.name in one.verdict.summary
    else:
        assert one.succeeded


async def test_a_record_that_a_program_floods_is_no_success(rig):
    path = rig.attempt() / "exit"
    spec = rig.spec(f"head -c 3000000 /dev/zero >> {path}; exit 0")
    result = await rig.run(rig.request(spec))
    assert result.verdict.reason is Reason.OUTPUT_LOST
    assert "holds more than any record" in result.verdict.summary


async def test_a_clean_record_that_the_program_writes_is_no_success(rig):
    folder = rig.attempt()
    spec = rig.spec(
        f"""token=$(sed 's/.*"token":"\\([^"]*\\)".*/\\1/' {folder}/start)
printf '{{"token":"%s","code":0,"phase":"program","signals":"","oom":0,"time":1}}\\n' "$token" \
>> {folder}/exit
sleep 0.5; exit 9"""
    )
    result = await rig.run(rig.request(spec))
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 9)


# --- where the scheduler may start the job again


async def test_a_success_of_a_job_that_may_be_requeued_needs_the_schedulers_word_and_closes_it(rig):
    def runs_on(answer):
        return {
            id_: dataclasses.replace(seen, state=JobState.RUNNING, cause=None)
            for id_, seen in answer.items()
        }

    rig.options["requeue"] = "yes"
    scheduler = Answering(runs_on)
    with rig.under_way(rig.request(rig.spec("exit 0")), rig.connection(scheduler)) as (_, task):
        exits = rig.attempt() / "exit"
        await until(lambda: exits.exists() and exits.read_bytes(), "the record")
        asked = scheduler.asked
        await until(lambda: scheduler.asked >= asked + 3 or task.done(), "three questions")
        assert not task.done(), task
        scheduler.twist = None
        assert (await task).succeeded
    assert (rig.attempt() / "guard").readlink().name == "closed"
