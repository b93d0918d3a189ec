"""Who works on a job: one living process, and nobody who was taken over from."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rig import Overtaken, Told, dead_process, drive, until

from hpc_prefect.errors import JobHeld, LedgerError
from hpc_prefect.executor.attempt import open_attempt
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.claim import Claimant, this_process
from hpc_prefect.ledger.job_folder import JobFolder
from hpc_prefect.local_batch import process
from hpc_prefect.transports.local import LocalTransport

LOCAL = LocalTransport()
ME = this_process("run-me")
ELSEWHERE = Claimant(flow_run="run-there", host="login2", process="another-boot 7 7")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def other():
    """A claimant that lives on this host."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as child:
        who = process.identity(child.pid)
        yield Claimant(flow_run="run-other", host=socket.gethostname(), process=who)


def age(folder: str, generation: int, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(f"{folder}/claim-{generation}", (then, then))


def test_a_free_folder_is_claimed_and_claimed_again_by_the_same_claimant(folder):
    first, predecessor = claims.take(LOCAL, folder, ME)
    again, _ = claims.take(LOCAL, folder, ME)
    assert (first.generation, again.generation, predecessor) == (1, 1, None)
    assert claims.holder_of(LOCAL, folder) == ME
    assert os.listdir(folder) == ["claim-1"]


def test_a_living_holder_is_named_with_the_way_out(folder, other):
    claims.take(LOCAL, folder, other)
    with pytest.raises(JobHeld) as caught:
        claims.take(LOCAL, folder, ME)
    pid = other.process.split()[1]
    assert str(caught.value) == (
        f"{folder} is held by flow run run-other (pid {pid} on {other.host}), which still runs."
        f" Wait for it, or stop it; if you are sure that it is dead, remove {folder}/claim-1 and"
        " start again"
    )


def test_a_dead_process_of_this_host_is_taken_over_from_at_once(folder):
    claims.take(LOCAL, folder, dead_process())
    claim, predecessor = claims.take(LOCAL, folder, ME)
    assert (claim.generation, predecessor) == (2, dead_process())


def test_a_pid_that_was_given_to_another_process_is_dead(folder):
    boot, pid, start, namespace = ME.process.split()
    recycled = dataclasses.replace(
        ME, process=f"{boot} {pid} {int(start) - 1} {namespace}", flow_run="old"
    )
    claims.take(LOCAL, folder, recycled)
    assert claims.take(LOCAL, folder, ME)[1] == recycled


@pytest.fixture
def earlier():
    """A claimant on a host of this one's name that was started another time."""
    _, rest = ME.process.split(" ", 1)
    return dataclasses.replace(ME, process=f"another-boot {rest}", flow_run="old")


def test_a_process_of_an_earlier_boot_is_dead(folder, earlier):
    claims.take(LOCAL, folder, earlier)
    age(folder, 1, process.seconds_since_boot() + 60)
    assert claims.take(LOCAL, folder, ME)[1] == earlier


def test_another_machine_of_the_same_name_renews_its_claim_after_our_boot(folder, earlier):
    claims.take(LOCAL, folder, earlier)
    with pytest.raises(JobHeld, match="flow run old"):
        claims.take(LOCAL, folder, ME)


def test_an_older_versions_claim_of_this_host_is_held_while_its_process_lives(folder, other):
    older = dataclasses.replace(other, process=" ".join(other.process.split()[:3]))
    claims.take(LOCAL, folder, older)
    age(folder, 1, claims.STALE_AFTER + 60)
    with pytest.raises(JobHeld, match="flow run run-other"):
        claims.take(LOCAL, folder, ME)


def test_an_older_versions_claim_whose_process_cannot_be_found_is_held_until_it_is_old(folder):
    """It may be of a container with PIDs of its own."""
    older = dead_process().process.rpartition(" ")[0]
    claims.take(LOCAL, folder, dataclasses.replace(dead_process(), process=older))
    assert claims.is_held(LOCAL, folder)
    age(folder, 1, claims.STALE_AFTER + 60)
    assert not claims.is_held(LOCAL, folder)


CLAIMER = """
import sys
from hpc_prefect.ledger.claim import take, this_process
from hpc_prefect.transports.local import LocalTransport
take(LocalTransport(), sys.argv[1], this_process("run-inside"))
print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_living_process_in_a_container_with_its_own_pids_is_not_taken_over_from(folder, own_pids):
    argv = [*own_pids, sys.executable, "-c", CLAIMER, folder]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, **pipes, text=True) as inside:
        assert inside.stdout.readline() == "claimed\n"
        with pytest.raises(JobHeld, match=r"flow run run-inside \(pid 1 on "):
            claims.take(LOCAL, folder, ME)
        inside.stdin.close()
    age(folder, 1, claims.STALE_AFTER + 60)
    assert claims.take(LOCAL, folder, ME)[1].flow_run == "run-inside"


def test_a_worker_holds_nothing_when_the_process_of_its_flow_is_dead(folder, other):
    """A pool's worker waits for ever for work that a killed flow cannot send it."""
    worker = dataclasses.replace(other, worker_of=dead_process().process)
    orphan, _ = claims.take(LOCAL, folder, worker)
    with pytest.raises(JobHeld, match="the process of this worker's flow has ended"):
        orphan.check()
    assert claims.take(LOCAL, folder, ME)[1] == worker


def test_a_worker_holds_its_job_while_the_process_of_its_flow_lives(folder, other):
    claims.take(LOCAL, folder, dataclasses.replace(other, worker_of=ME.process))
    with pytest.raises(JobHeld):
        claims.take(LOCAL, folder, ME)


def test_a_folder_that_was_removed_is_told_as_that(folder):
    mine, _ = claims.take(LOCAL, folder, ME)
    shutil.rmtree(folder)
    with pytest.raises(LedgerError, match=f"{folder}.* was removed"):
        mine.check()


def test_a_fresh_claim_of_another_host_is_respected(folder):
    claims.take(LOCAL, folder, ELSEWHERE)
    age(folder, 1, claims.STALE_AFTER - 60)
    with pytest.raises(JobHeld, match=r"flow run run-there \(pid 7 on login2\)"):
        claims.take(LOCAL, folder, ME)
    assert os.listdir(folder) == ["claim-1"], "looking leaves nothing behind"


def test_a_claim_of_another_host_that_nobody_renews_is_taken_over(folder):
    claims.take(LOCAL, folder, ELSEWHERE)
    age(folder, 1, claims.STALE_AFTER + 60)
    claim, predecessor = claims.take(LOCAL, folder, ME)
    assert (claim.generation, predecessor) == (2, ELSEWHERE)


def test_a_renewed_claim_is_fresh_again(folder):
    claim, _ = claims.take(LOCAL, folder, ELSEWHERE)
    age(folder, 1, claims.STALE_AFTER + 60)
    claim.touch()
    with pytest.raises(JobHeld):
        claims.take(LOCAL, folder, ME)


@pytest.mark.parametrize("here", [True, False])
def test_a_run_that_has_ended_holds_nothing(folder, other, here):
    holder = other if here else ELSEWHERE
    claims.take(LOCAL, folder, holder)
    claim, _ = claims.take(LOCAL, folder, ME, lambda run: run == holder.flow_run)
    assert claim.generation == 2


def test_the_process_that_was_taken_over_from_may_not_go_on(folder, other):
    mine, _ = claims.take(LOCAL, folder, ME)
    mine.check()
    claims.take(LOCAL, folder, other, lambda run: True)
    with pytest.raises(JobHeld, match="was taken over by flow run run-other"):
        mine.check()


def test_a_claim_that_was_removed_by_hand_and_given_again_is_not_ours(folder, other):
    mine, _ = claims.take(LOCAL, folder, ME)
    os.unlink(f"{folder}/claim-1")
    assert claims.take(LOCAL, folder, other)[0].generation == mine.generation
    with pytest.raises(JobHeld, match="was taken over by flow run run-other"):
        mine.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"flow_run":"a","host":"b"}'])
def test_a_claim_that_makes_no_sense_holds_nothing(folder, content):
    Path(folder, "claim-3").write_bytes(content)
    assert claims.take(LOCAL, folder, ME)[0].generation == 4


def test_what_a_killed_claimant_left_half_done_is_no_claim(folder):
    Path(folder, "claim-1.abcd1234").write_bytes(b"{}")
    Path(folder, ".claim-1.abcd1234.99").write_bytes(b"{")
    assert claims.take(LOCAL, folder, ME)[0].generation == 1


RACER = """
import json, os, sys
from hpc_prefect.errors import JobHeld, LedgerError
from hpc_prefect.ledger.claim import take, this_process
from hpc_prefect.transports.local import LocalTransport

me, transport = this_process(sys.argv[2]), LocalTransport()
for line in sys.stdin:
    folder = line.strip()
    try:
        claim, predecessor = take(transport, folder, me)
        claim.check()
        print(json.dumps([claim.generation, predecessor is not None]), flush=True)
    except JobHeld:
        print("null", flush=True)
"""


def test_of_two_processes_that_take_over_at_once_one_wins(tmp_path):
    """200 rounds; both get the folder's name in the same moment."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), f"run-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    winners = set()
    try:
        for round_ in range(200):
            folder = tmp_path / str(round_)
            folder.mkdir()
            claims.take(LOCAL, str(folder), dead_process())
            for racer in racers:
                racer.stdin.write(f"{folder}\n")
                racer.stdin.flush()
            told = [json.loads(racer.stdout.readline()) for racer in racers]
            assert sorted(told, key=str) == [None, [2, True]], (folder, told)
            winners.add(told.index(None))
    finally:
        for racer in racers:
            racer.stdin.close()
            racer.stdout.close()
            racer.wait()
    assert winners


async def test_a_job_that_another_living_run_holds_is_left_alone(rig, other):
    request = rig.request(rig.spec())
    rig.attempt().mkdir(parents=True)
    claims.take(LOCAL, str(rig.attempt()), other)
    with pytest.raises(JobHeld, match="is held by flow run run-other"):
        await rig.run(request)
    assert rig.runs() == []
    assert not (rig.attempt() / "journal.jsonl").exists()


async def test_a_claimant_that_was_taken_over_from_neither_submits_nor_writes(rig, other):
    """A process that was stopped for minutes wakes up: its job has gone on without it."""
    gate = rig.folder / "gate"
    told = Told()
    spec = rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done")
    with rig.under_way(rig.request(spec, listener=told)) as (_, stale):
        await until(lambda: "running" in str(told.states), "the job's start")
        Path(rig.attempt(), "claim-2").write_text(json.dumps(dataclasses.asdict(other)))
        gate.touch()
        with pytest.raises(JobHeld, match="was taken over by flow run run-other"):
            await stale
    assert "verdict" not in rig.events()
    assert not (rig.attempt() / "record.json").exists()


async def test_who_is_taken_over_from_while_it_prepares_a_submission_submits_nothing(rig, other):
    connection = rig.connection(transport=Overtaken(other))
    with pytest.raises(JobHeld, match="was taken over by flow run run-other"):
        await rig.run(rig.request(rig.spec()), connection)
    assert rig.events() == ["intent", "refused"]
    assert not JobFolder(LOCAL, str(rig.attempt())).ledger().intended  # nobody looks for its job
    assert (rig.active(), rig.runs()) == ([], [])


async def test_who_is_taken_over_from_before_it_writes_the_verdict_tells_none(rig, other):
    connection = rig.connection(transport=Overtaken(other, b'"verdict"'))
    with pytest.raises(JobHeld, match="was taken over by flow run run-other"):
        await rig.run(rig.request(rig.spec()), connection)
    assert len(rig.runs()) == 1


async def test_the_exit_record_of_a_job_that_a_process_without_its_claim_submitted_is_known(rig):
    """Of one that was stopped in its submission, and went on after this one had taken over."""
    attempt = open_attempt(rig.request(rig.spec()), rig.connection())
    attempt.folder.note("intent", tag=attempt.tag, claim=0, word_sha256="of its script")
    attempt.adopted("7.a", 0.0)
    assert (attempt.job_id, "of its script" in attempt.words) == ("7.a", True)


async def test_a_claimant_that_was_taken_over_from_cancels_nothing(rig, other):
    told = Told()
    spec = rig.spec("sleep 60")
    with rig.under_way(rig.request(spec, listener=told)) as (run, stale):
        await until(lambda: "running" in str(told.states), "the job's start")
        Path(rig.attempt(), "claim-2").write_text(json.dumps(dataclasses.asdict(other)))
        run.cancel("user")
        with pytest.raises(JobHeld):
            await stale
    assert "cancel" not in rig.events()
    assert len(rig.active()) == 1


async def test_a_job_whose_driver_died_is_taken_up_with_a_word_about_whom_from(rig):
    gate, told = rig.folder / "gate", Told()
    request = rig.request(rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done"), listener=told)
    job_id = await rig.abandon(request)
    with rig.under_way(request) as (_, task):
        await until(lambda: told.states, "the first word")
        gate.touch()
        assert (await task).job_id == job_id
    pid = str(rig.left_by.pid)
    assert told.states[0].startswith(f"attached to {job_id}, which a script (pid {pid} on ")
    attached = next(entry for entry in rig.journal() if entry["event"] == "attached")
    assert pid in attached["from_"]
    assert len(rig.runs()) == 1


async def test_two_runs_in_two_processes_at_once_run_the_job_once(rig):
    """The one that comes second is told who holds it."""
    jobs = [{"key": "k", "program": rig.program("sleep 0.5")}]
    done = await asyncio.gather(*(asyncio.to_thread(drive, rig, jobs) for _ in range(2)))
    assert len(rig.runs()) == 1
    failed = [one for one in done if one.returncode]
    assert len(failed) <= 1
    assert all("JobHeld" in one.stderr for one in failed)


def test_a_claim_is_held_while_its_process_lives_as_far_as_can_be_told(folder, other):
    assert not claims.is_held(LOCAL, folder)
    claims.take(LOCAL, folder, other)
    assert claims.is_held(LOCAL, folder)


def test_a_claim_of_another_host_is_held_until_it_is_old(folder):
    claims.take(LOCAL, folder, ELSEWHERE)
    assert claims.is_held(LOCAL, folder)
    age(folder, 1, claims.STALE_AFTER + 60)
    assert not claims.is_held(LOCAL, folder)
