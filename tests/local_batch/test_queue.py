"""The queue of the laptop's batch system, and what may die in it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from .rig import PATIENCE, gone, until

# The queue


def marks(engine):
    """What the jobs have written: (job's number, "start" or "end") in the order of the events."""
    return [tuple(line.split()) for line in engine.mark("marks").read_text().splitlines()]


MARKED = "echo $HPC_LOCAL_JOBID start >> marks; sleep 0.1; echo $HPC_LOCAL_JOBID end >> marks"


def test_twelve_jobs_on_two_slots_start_in_order_and_never_more_than_two_run(engine):
    jobs = [engine.submit(MARKED) for _ in range(12)]

    for job in jobs:
        assert engine.ended(job)["exit_code"] == 0

    now, most = 0, 0
    for _, event in marks(engine):
        now += 1 if event == "start" else -1
        most = max(most, now)
    assert most <= 2
    started = [engine.job(job)["started"] for job in jobs]
    assert started == sorted(started)
    assert list((engine.spool / "queues").glob("*/*")) == []


def test_a_job_that_needs_more_room_is_not_overtaken(engine):
    first = engine.submit("sleep 1000")
    engine.running(first)
    wide = engine.submit(MARKED, cpus=2)
    small = engine.submit(MARKED)
    assert engine.job(wide)["reason"] == "slots: 1 of 2 in use"
    assert engine.job(small)["reason"] == "slots: 1 of 2 in use; 1 before it in the queue"

    engine.cancel(first)
    engine.ended(small)

    assert [job for job, _ in marks(engine)] == [wide, wide, small, small]


def test_queues_do_not_wait_for_each_other(engine):
    engine.running(engine.submit("sleep 1000", queue="a", slots=1))

    assert engine.ended(engine.submit("true", queue="b", slots=1))["end"] == "EXITED"


def test_a_job_with_more_cpus_than_slots_is_refused(engine):
    done = engine.run("submit", *engine.options(cpus=3), engine.script("true"))

    assert (done.returncode, done.stdout) == (1, "")
    assert "asks for 3 cpus and queue 'q' has 2 slots: it could never start" in done.stderr
    assert engine.jobs() == []


def test_thirty_submits_at_once_get_thirty_ids_and_all_jobs_run(engine):
    script = engine.script("true")
    command = engine.command("submit", *engine.options(slots=4), script)

    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(30)]
    ids = [process.communicate(timeout=PATIENCE)[0].strip() for process in started]

    assert sorted(int(job.partition(".")[0]) for job in ids) == list(range(1, 31))
    until(lambda: engine.jobs() == [], "an empty queue")
    assert [record["end"] for record in engine.jobs(*ids)] == ["EXITED"] * 30


def test_submit_returns_and_its_pipes_close_while_the_job_runs_on(engine):
    command = engine.command("submit", *engine.options(), engine.script("sleep 1000"))
    other, inherited = os.pipe()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[inherited],
    ) as process:
        out, err = process.communicate(timeout=PATIENCE)
    os.close(inherited)

    assert err == ""
    assert os.read(other, 1) == b""
    os.close(other)
    engine.running(out.strip())


def test_submit_does_not_pay_for_modules_that_it_can_do_without(engine):
    command = engine.command("submit", *engine.options(), engine.script("true"))
    command[1:1] = ["-X", "importtime"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "fcntl" in imported
    assert not imported & {"json", "re", "enum", "typing", "subprocess", "argparse", "ctypes"}


def test_a_job_outlives_the_session_of_its_submitter(engine):
    command = engine.command("submit", *engine.options(), engine.script("touch ran; sleep 1000"))
    line = " ".join(f"'{word}'" for word in command)
    login = subprocess.Popen(
        ["bash", "-c", f"{line} > id; kill -9 0"], cwd=engine.folder, start_new_session=True
    )
    login.wait(PATIENCE)

    until(engine.mark("ran").exists)
    assert engine.job(engine.mark("id").read_text().strip())["state"] == "RUNNING"


# What dies


def test_without_its_supervisor_a_running_job_runs_on_and_is_lost_when_it_ends(engine):
    job = engine.submit("echo $$ > pid; until [ -e go ]; do sleep 0.05; done", slots=1)
    pid = engine.pid_in("pid")
    engine.kill_supervisor(job)
    assert engine.job(job)["state"] == "RUNNING"

    engine.mark("go").touch()
    until(lambda: gone(pid))

    record = engine.job(job)
    assert (record["state"], record["end"]) == ("ENDED", "NODE_FAIL")
    assert record["message"] == "its supervisor was killed"
    assert engine.ended(engine.submit("true", slots=1))["end"] == "EXITED"


def test_a_running_job_without_its_supervisor_can_be_cancelled_with_its_whole_tree(engine):
    stubborn = "trap '' TERM; echo $$ > pid; while :; do sleep 1000; done"
    job = engine.submit(
        f'setsid bash -c "{stubborn.replace("$", chr(92) + "$")}" & wait', kill_grace=0.3
    )
    pid = engine.pid_in("pid")
    engine.kill_supervisor(job)

    assert engine.cancel(job) == [f"cancelled {job}"]

    record = engine.ended(job)
    assert record["end"] == "CANCELLED"
    assert record["by"].endswith(f" {os.getpid()}")
    until(lambda: gone(pid))


def test_a_slot_of_a_killed_supervisor_is_free_again_when_its_script_is_over(engine):
    first = engine.submit("until [ -e go ]; do sleep 0.05; done", slots=1)
    engine.running(first)
    second = engine.submit("touch ran", slots=1)
    engine.kill_supervisor(first)

    engine.mark("go").touch()

    until(engine.mark("ran").exists, "the start of the job that nobody wakes")
    assert engine.ended(second)["end"] == "EXITED"


def test_a_waiting_supervisor_that_is_killed_does_not_block_the_queue(engine):
    first = engine.submit("sleep 1000", slots=1)
    second = engine.submit("touch wrong", slots=1)
    third = engine.submit("touch ran", slots=1)
    engine.kill_supervisor(second)

    engine.cancel(first)

    assert engine.ended(third)["end"] == "EXITED"
    record = engine.job(second)
    assert (record["end"], record["message"]) == (
        "NODE_FAIL",
        "its supervisor was killed before the job started",
    )
    assert not engine.mark("wrong").exists()


def test_a_supervisor_that_is_told_to_stop_stops_its_job_and_says_so(engine):
    job = engine.submit("sleep 1000")
    engine.running(job)

    os.kill(engine.supervisor(job), signal.SIGTERM)

    record = engine.ended(job)
    assert (record["end"], record["signal"]) == ("NODE_FAIL", "SIGTERM")
    assert "supervisor received SIGTERM" in record["message"]


@pytest.mark.parametrize("slots", [1, 2])
def test_what_was_queued_or_running_at_a_restart_of_the_machine_is_a_node_failure(engine, slots):
    engine.running(engine.submit("sleep 1000", slots=slots))
    job = engine.submit("sleep 1000", slots=slots)
    until(lambda: engine.job(job)["state"] == ("QUEUED" if slots == 1 else "RUNNING"))
    for file in (engine.records(job) / "supervisor", engine.records(job) / "start.json"):
        if file.exists():
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            file.write_text(file.read_text().replace(boot, "0" * 8 + boot[8:]))

    record = engine.job(job)

    assert (record["state"], record["end"]) == ("ENDED", "NODE_FAIL")
    assert "restarted" in record["message"]


def test_an_end_record_that_a_power_cut_has_emptied_does_not_keep_the_job_alive(engine):
    job = engine.submit("true")
    engine.ended(job)
    (engine.records(job) / "end.json").write_text("")
    file = engine.records(job) / "supervisor"
    file.write_text("00000000-0000-0000-0000-000000000000 1 1")

    assert engine.job(job)["end"] == "NODE_FAIL"
