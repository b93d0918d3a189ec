"""What is said of a job by its folder: never better than what is known."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.ledger.claim import this_process
from hpc_prefect.operations import ask, list_jobs, read_job
from hpc_prefect.operations.find import MOST_ENTRIES, MOST_FOLDERS, work_dirs
from hpc_prefect.operations.format import _fitting, _readable, details, table
from hpc_prefect.schedulers.base import NoAnswer
from hpc_prefect.transports.local import LocalTransport

from ..executor.rig import Counting, Told, drive, until, was_killed

FOREVER = "sleep 600"


def one(rig, key="k", **given):
    """The job of a key as it is listed."""
    (job,) = [job for job in list_jobs(rig.work, **given) if job.key == key]
    return job


async def test_a_finished_job_is_listed_with_its_times_and_its_place(rig):
    result = await rig.run(rig.request(rig.spec("exit 0", site={"queue": "short"})))
    job = one(rig)
    assert (job.status.state, job.status.reason) == ("succeeded", "succeeded")
    assert (job.name, job.attempt, job.job_id, job.tag) == ("job", 1, result.job_id, result.tag)
    assert job.submitted_at
    assert job.started_at <= job.ended_at <= job.status.known_at
    assert job.where == f"local:short@{result.host}"
    assert job.campaign == "campaign"
    assert job.as_dict()["holder"]["pid"] == os.getpid()
    assert job.as_dict()["holder"]["alive"]


async def test_each_failure_is_listed_with_its_reason(rig):
    await rig.run(rig.request(rig.spec("exit 3")))
    await rig.run(rig.request(rig.spec("exit 0", resources={"ranks_per_node": 99}), "big"))
    assert one(rig).status.reason == "program failed"
    refused = one(rig, "big")
    assert refused.status.reason == str(Reason.REJECTED)
    assert (refused.job_id, refused.ended_at) == ("", None), "it never ran"


async def test_the_newest_job_and_attempt_are_last(rig):
    for key in ("c", "a", "b"):
        await rig.run(rig.request(rig.spec("exit 3"), key))
    await rig.run(rig.request(rig.spec("exit 0"), "c"))
    listed = [(job.key, job.attempt) for job in list_jobs(rig.work)]
    assert listed == [("c", 1), ("a", 1), ("b", 1), ("c", 2)]


async def test_a_job_runs_while_its_claimant_lives_and_is_unknown_after(rig):
    told = Told()
    request = rig.request(rig.spec(FOREVER), listener=told)
    with rig.under_way(request):
        await until(lambda: "running" in str(told.states), "the job's start")
        alive = one(rig)
    assert (alive.status.state, alive.holder.alive) == ("running", True)
    assert alive.started_at <= alive.status.known_at <= time.time()
    await rig.abandon(rig.request(rig.spec(FOREVER), "dead"))
    dead = one(rig, "dead")
    assert (dead.status.state, dead.holder.alive) == ("unknown", False)
    assert dead.status.reason == "last known: running; its process is dead"


async def test_what_a_program_wrote_tells_until_when_it_surely_ran(rig):
    await rig.abandon(rig.request(rig.spec(f"echo here; {FOREVER}")))
    output = rig.attempt() / "stdout"
    await until(lambda: output.exists() and output.read_text(), "its output")
    later = time.time() + 100
    os.utime(rig.attempt() / "stdout", (later, later))
    assert one(rig).status.known_at == pytest.approx(later)


async def test_a_job_that_ended_while_nobody_looked_is_no_success_yet(rig):
    await rig.abandon(rig.request(rig.spec(f"until [ -e {rig.folder}/go ]; do sleep 0.05; done")))
    (rig.folder / "go").touch()
    await until(lambda: not rig.active(), "the job's end")
    job = one(rig)
    assert job.status.state == "ended"
    assert job.status.reason == "its program ended with 0; no verdict yet"
    assert job.status.known_at == job.ended_at


async def test_the_job_is_the_one_that_the_start_guard_let_in(rig):
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    let_in = one(rig).job_id
    second = {"time": 9e9, "event": "submitted", "id": "99.vm"}
    with (rig.attempt() / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(second) + "\n")
        ended = {"time": 9e9, "event": "observed", "state": "ended", "word": "FAILED"}
        journal.write(json.dumps(ended) + "\n")  # the guard has turned it away
    assert one(rig).ids == (let_in, "99.vm")
    assert one(rig).started_at
    assert "last known: running" in one(rig).status.reason
    (rig.attempt() / "guard").unlink()  # as NFS may hide it, while it shows what the job writes
    assert one(rig).ids == (let_in, "99.vm")


async def test_a_job_whose_submission_is_in_doubt_is_unknown(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="intent", when="after"))
    assert one(rig).status.state == "unknown"
    assert "it is not known whether it was submitted" in one(rig).status.reason


async def test_a_job_that_was_claimed_and_not_submitted_waits_or_was_not_submitted(rig):
    jobs = [{"key": "k", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, jobs, at="intent", when="before"))
    job = one(rig)
    assert (job.status.state, job.status.reason) == ("not submitted", "its process is dead")
    claim = rig.attempt() / "claim-1"
    claim.write_text(json.dumps(dataclasses.asdict(this_process("run-7"))))
    assert one(rig).status.state == "waiting"
    assert one(rig).flow_run == "run-7"


def test_a_claimant_on_another_host_is_judged_by_its_last_touch(tmp_path):
    folder = tmp_path / ".hpc-prefect" / "c" / "ab" / "k-1"
    folder.mkdir(parents=True)
    claim = {"flow_run": "", "host": f"not-{socket.gethostname()}", "process": "boot 7 7"}
    (folder / "claim-1").write_text(json.dumps(claim))
    assert read_job(str(folder)).holder.alive
    os.utime(folder / "claim-1", (time.time() - 1000,) * 2)
    assert not read_job(str(folder)).holder.alive


async def test_torn_and_foreign_folders_are_shown_and_do_not_break_the_listing(rig):
    await rig.run(rig.request(rig.spec("exit 0")))
    (rig.attempt(1, "empty")).mkdir()
    (rig.attempt(1, "file")).write_text("")
    (rig.attempt(1, "odd")).mkdir()
    (rig.attempt(1, "odd") / "journal.jsonl").write_text('{"event":"intent","job":[1]}\n')
    (rig.attempt(1, "folder") / "journal.jsonl").mkdir(parents=True)
    (rig.attempt(1, "verdict")).mkdir()
    (rig.attempt(1, "verdict") / "journal.jsonl").write_text(
        '{"event":"verdict","result":{"a":1}}\n'
    )
    (rig.attempt().parents[1] / "cd" / "a-sampling").mkdir(parents=True)
    (rig.attempt().parents[1] / "ef").write_text("a file where a folder should be")
    (rig.attempt().parents[2] / "notes.txt").write_text("not ours")
    jobs = {job.key: job for job in list_jobs(rig.work)}
    assert set(jobs) == {"k", "empty", "file", "odd", "folder", "verdict", "ef"}
    assert jobs["k"].status.state == "succeeded"
    assert jobs["empty"].problem == "neither a journal nor a claim is there"
    assert "it is not a regular file" in jobs["folder"].problem
    assert "cannot be read" in jobs["odd"].problem
    unreadable = [job for job in jobs.values() if job.status.state == "unreadable"]
    assert len(unreadable) == 6
    assert table(list(jobs.values())).count("\n") == 7
    assert all(details(job) for job in jobs.values())


EVENT = st.sampled_from(
    ["intent", "submitted", "observed", "verdict", "cancel", "refused", "ended"]
)
VALUE = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
LINE = st.fixed_dictionaries(
    {"event": EVENT},
    optional=dict.fromkeys(
        ["time", "id", "job", "result", "state", "by", "said", "tag"],
        VALUE | st.dictionaries(st.text(max_size=3), VALUE, max_size=2),
    ),
).map(lambda value: json.dumps(value).encode() + b"\n")


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(LINE | st.binary(max_size=20), max_size=5).map(b"".join), st.binary(max_size=20))
def test_any_bytes_at_all_can_be_listed_and_shown(tmp_path, journal, other):
    folder = tmp_path / ".hpc-prefect" / "c" / "ab" / "k-1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").write_bytes(journal)
    for name in ("start", "exit", "cancel", "claim-1"):
        (folder / name).write_bytes(other)
    (job,) = list_jobs(tmp_path)
    assert job.status.state not in ("succeeded", "running")
    assert table([job]).count("\n") == 1
    assert details(job)
    json.dumps(job.as_dict())


@pytest.mark.parametrize("below", [".", ".hpc-prefect", ".hpc-prefect/campaign"])
async def test_jobs_are_found_from_the_work_dir_its_records_and_a_campaign(rig, below):
    await rig.run(rig.request(rig.spec("exit 0")))
    assert [job.key for job in list_jobs(rig.work / below)] == ["k"]
    assert [job.key for job in list_jobs(rig.attempt())] == ["k"]


async def test_equal_jobs_of_several_runs_are_told_apart_in_the_table(rig):
    for number in (1, 2):
        provenance = {
            "campaign": "n2-0123abcd",
            "scope": ["converge-89abcdef", f"iter-{number}"],
            "n": number - 1,
            "flow_run": {"id": f"id-{number}", "name": f"fox-{number}"},
        }
        claimant = dataclasses.replace(this_process(), flow_run=f"id-{number}")
        request = rig.request(rig.spec("exit 0"), f"key-{number}")
        await rig.run(dataclasses.replace(request, provenance=provenance, claimant=claimant))
    jobs = list_jobs(rig.work)
    head, first, second = table(jobs).splitlines()
    assert head.split()[:4] == ["JOB", "KEY", "ID", "STATE"]
    assert "converge/iter-1 " in first
    assert "converge/iter-2#1 " in second
    assert "fox-1" in first
    assert "fox-2" in second
    assert "FOLDER" not in head, "they are all of one work_dir"
    assert jobs[0].as_dict()["scope"] == ["converge-89abcdef", "iter-1"]
    assert jobs[0].as_dict()["work_dir"] == str(rig.work)


def test_digests_of_campaigns_are_left_out_where_names_tell_them_apart():
    assert _readable({"n2-0123abcd", "n2", "o2-0123abcd"}) == {
        "n2-0123abcd": "n2-0123abcd",
        "n2": "n2",
        "o2-0123abcd": "o2",
    }


async def test_on_a_narrow_terminal_a_job_is_one_line_of_what_matters_most(rig):
    await rig.run(rig.request(rig.spec("exit 0")))
    jobs = list_jobs(rig.work)
    lines = table(jobs, 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) == 2
    assert lines[0].split()[:4] == ["JOB", "KEY", "ID", "STATE"]
    assert "WHERE" not in lines[0]
    assert "WHERE" in table(jobs, 300)


async def test_the_process_that_looks_after_a_job_is_shown_until_the_job_is_over(rig):
    await rig.run(rig.request(rig.spec("exit 0"), "over"))
    assert "HOLDER" not in table(list_jobs(rig.work), 300)
    await rig.abandon(rig.request(rig.spec(FOREVER), "left"))
    over, left = table(list_jobs(rig.work), 300).splitlines()[1:]
    assert (" dead" in over, " dead" in left) == (False, True)


def test_wide_letters_keep_the_columns_straight():
    columns = _fitting({"JOB": ["温度", "ab"], "KEY": ["x", "y"], "HOLDER": ["1@a", "2@b"]}, 17)
    assert list(columns) == ["JOB", "KEY", "HOLDER"]
    assert "HOLDER" not in _fitting(columns, 16)


# --- folders below


def test_work_dirs_are_found_in_folders_below_and_not_where_nobody_would_look(tmp_path):
    for path in ("a", "a/deep/er", "b", ".hidden", "1/2/3/4", "1/2/3/4/5"):
        (tmp_path / path / ".hpc-prefect" / "c").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / ".hpc-prefect" / "c" / ".hpc-prefect").mkdir()
    found, whole = work_dirs(tmp_path)
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == [
        *("a", "b", "a/deep/er", "1/2/3/4")
    ]
    assert whole


def test_a_huge_tree_is_not_walked_through_and_that_is_told(tmp_path):
    (tmp_path / "big").mkdir()
    for number in range(MOST_ENTRIES + 1):
        (tmp_path / "big" / str(number)).touch()
    assert work_dirs(tmp_path) == ([], False)
    wide = tmp_path / "wide"
    for number in range(MOST_FOLDERS):
        (wide / str(number)).mkdir(parents=True)
    assert work_dirs(wide) == ([], False)
    (wide / ".hpc-prefect").mkdir()
    assert work_dirs(wide) == ([str(wide)], False)


async def test_a_campaign_is_all_its_instances(rig):
    await rig.run(rig.request(rig.spec("exit 0")))
    root = rig.work / ".hpc-prefect"
    (root / "campaign").rename(root / "n2.3")
    assert len(list_jobs(rig.work, campaign="n2")) == 1
    assert len(list_jobs(rig.work, campaign="n2.3")) == 1
    assert list_jobs(rig.work, campaign="n") == []


# --- with the scheduler's own word


async def test_the_scheduler_is_asked_once_about_all_that_have_no_verdict(rig):
    await rig.run(rig.request(rig.spec("exit 0"), "done"))
    spec = rig.spec(FOREVER)  # written once: the first job may be about to read its program
    for key in ("a", "b"):
        await rig.abandon(rig.request(spec, key), " as ")
    await until(lambda: len(rig.runs()) == 3, "the starts of both")
    transport = Counting()
    jobs = ask(list_jobs(rig.work, transport=transport))
    assert [job.status.state for job in jobs] == ["succeeded", "running", "running"]
    (question,) = transport.commands
    assert [job.job_id for job in jobs[1:]] == list(question.argv[-2:])


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        pytest.param(
            None, "unknown", "local does not list it; last known: unknown", id="not listed"
        ),
        pytest.param(
            NoAnswer("it hangs"),
            "unknown",
            "last known: running; its process is dead; local gave no answer (it hangs)",
            id="no answer",
        ),
        pytest.param(
            Observation(id="1", state=JobState.ENDED, word="OOM", cause=Reason.OUT_OF_MEMORY),
            "ended",
            "local says OOM (out of memory); no verdict yet",
            id="ended",
        ),
        pytest.param(
            Observation(id="1", state=JobState.UNKNOWN, word="ODD"),
            "unknown",
            "local says ODD",
            id="a strange word",
        ),
        pytest.param(
            Observation(id="1", state=JobState.QUEUED, message="Priority"),
            "queued",
            "Priority",
            id="queued",
        ),
        pytest.param(
            Observation(id="1", state=JobState.RUNNING, tag="another"),
            "unknown",
            "local does not list it; last known: unknown",
            id="another job of that id",
        ),
    ],
)
async def test_what_the_scheduler_says_is_told_apart(rig, answer, state, reason):
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    status = one(rig).seen(answer).status
    assert (status.state, status.reason) == (state, reason)


async def test_a_job_whose_own_record_is_there_is_not_said_to_run(rig):
    await rig.abandon(rig.request(rig.spec(f"until [ -e {rig.folder}/go ]; do sleep 0.05; done")))
    (rig.folder / "go").touch()
    await until(lambda: not rig.active(), "the job's end")
    running = Observation(id="1", state=JobState.RUNNING)
    assert one(rig).seen(running).status.state == "ended"
    assert one(rig).seen(None).status.state == "ended"


async def test_a_scheduler_that_this_version_does_not_know_is_not_asked(rig):
    await rig.abandon(rig.request(rig.spec(FOREVER)))
    job = one(rig)
    site = dataclasses.replace(job.spec.site, scheduler="flux")
    foreign = dataclasses.replace(job, spec=dataclasses.replace(job.spec, site=site))
    assert ask([foreign]) == [foreign]


async def test_a_file_that_may_not_be_read_is_told(rig):
    class Locked(LocalTransport):
        """As for a person who is not root."""

        def read(self, path, offset=0, size=-1):
            if path.endswith("journal.jsonl"):
                return super().read("/proc/1/mem/x", offset, size)
            return super().read(path, offset, size)

    await rig.abandon(rig.request(rig.spec(FOREVER)))
    assert "cannot read" in one(rig, transport=Locked()).problem
