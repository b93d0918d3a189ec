"""Arrays of the laptop's batch system: their elements, their place in the queue, what may die."""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_prefect.local_batch.elements import Elements

from .rig import PATIENCE, gone, until

GATE = 'echo "$HPC_LOCAL_ARRAY_INDEX" >> begun; until [ -e gate ]; do sleep 0.05; done'


def submit(engine, text, size, **changes):
    return engine.submit(text, array=size, **changes)


def elements(engine, array, *indices):
    return engine.jobs(*(f"{array}_{index}" for index in indices))


def ends(engine, array, *indices):
    return [record["end"] for record in elements(engine, array, *indices)]


def lines(engine, name):
    return engine.mark(name).read_text().splitlines() if engine.mark(name).exists() else []


def begun(engine, count):
    until(lambda: len(lines(engine, "begun")) == count, f"the start of {count}")


def test_each_element_runs_in_order_under_its_own_id_and_number(engine):
    text = 'echo "$HPC_LOCAL_JOBID $HPC_LOCAL_ARRAY_INDEX" | tee -a ran'
    array = submit(engine, text, 5, slots=1)
    whole = engine.ended(array)

    expected = [f"{array}_{index} {index}" for index in range(5)]
    assert lines(engine, "ran") == lines(engine, "out") == expected
    assert (whole["end"], whole["left"], whole["exit_code"]) == ("EXITED", [], None)
    records = elements(engine, array, *range(5))
    assert [record["id"] for record in records] == [f"{array}_{index}" for index in range(5)]
    assert {(r["state"], r["end"], r["exit_code"]) for r in records} == {("ENDED", "EXITED", 0)}
    started = [record["started"] for record in records]
    assert started == sorted(started)
    assert all(r["started"] <= r["ended"] and r["max_rss"] > 0 for r in records)


def test_an_element_takes_its_cpus_while_it_runs_and_no_longer(engine):
    array = submit(engine, GATE, 7, slots=5, cpus=2)
    begun(engine, 2)
    assert engine.job(array)["left"] == [[0, 6]]
    assert [r["state"] for r in elements(engine, array, 0, 1, 2)] == ["RUNNING"] * 2 + ["QUEUED"]
    files = sorted(path.name for path in (engine.spool / "queues").glob("*/*"))
    assert files == ["1-2-5-W", "1-4-5-R"]

    engine.mark("gate").touch()

    assert engine.ended(array)["end"] == "EXITED"
    engine.emptied()


def test_an_array_is_not_overtaken_while_it_waits_for_room(engine):
    array = submit(engine, "sleep 0.1; echo $HPC_LOCAL_ARRAY_INDEX >> order", 4, slots=1)
    later = engine.submit("echo later >> order", slots=1)

    assert engine.ended(later)["end"] == "EXITED"

    assert lines(engine, "order") == ["0", "1", "2", "3", "later"]
    assert engine.job(array)["state"] == "ENDED"


def test_an_array_that_may_not_run_more_at_once_lets_others_by(engine):
    array = submit(engine, GATE, 4, slots=2, at_once=1)
    begun(engine, 1)

    assert engine.ended(engine.submit("true", slots=2))["end"] == "EXITED"

    assert engine.job(array)["left"] == [[0, 3]]
    engine.mark("gate").touch()
    engine.ended(array)
    assert lines(engine, "begun") == ["0", "1", "2", "3"]


def test_an_array_waits_for_what_came_before_it(engine):
    first = engine.submit("sleep 1000", slots=1)
    engine.running(first)
    array = submit(engine, "true", 2, slots=1)

    record = engine.job(array)
    assert (record["state"], record["left"]) == ("QUEUED", [[0, 1]])
    assert record["reason"] == "slots: 1 of 1 in use"
    engine.cancel(first)

    assert engine.ended(array)["end"] == "EXITED"


# Ends


def test_each_element_has_an_end_of_its_own(engine):
    text = """case $HPC_LOCAL_ARRAY_INDEX in
        1) exit 3 ;; 2) kill -9 $$ ;; 3) exec sleep 1000 ;; 4) echo said >&2 ;;
    esac"""
    array = submit(engine, text, 5, slots=5, walltime=12)

    assert engine.ended(array)["end"] == "EXITED"

    records = elements(engine, array, *range(5))
    assert [(r["end"], r["exit_code"], r["signal"]) for r in records] == [
        ("EXITED", 0, None),
        ("EXITED", 3, None),
        ("SIGNALED", None, "SIGKILL"),
        ("TIMEOUT", None, "SIGTERM"),
        ("EXITED", 0, None),
    ]
    assert lines(engine, "err") == ["said"]


def test_an_element_over_its_memory_ends_alone(engine):
    hungry = "python3 -c 'import time; x = bytearray(300 << 20); time.sleep(1000)'"
    text = f'[ "$HPC_LOCAL_ARRAY_INDEX" != 1 ] || exec {hungry}; {GATE}'
    array = submit(engine, text, 3, slots=3, memory=100 << 20)
    until(lambda: ends(engine, array, 1) == ["OUT_OF_MEMORY"])
    assert engine.job(array)["left"] == [[0, 0], [2, 2]]

    engine.mark("gate").touch()

    engine.ended(array)
    assert ends(engine, array, 0, 2) == ["EXITED"] * 2


def test_elements_that_cannot_be_run_say_why(engine):
    (engine.folder / "away").mkdir()
    array = submit(engine, "true", 2, cwd=engine.folder / "away" / "none")
    engine.ended(array)

    for record in elements(engine, array, 0, 1):
        assert record["end"] == "LAUNCH_FAILED"
        assert "cannot enter its folder" in record["message"]


def test_what_an_element_leaves_behind_ends_with_it_and_no_other(engine):
    """A process in a session of its own, whose parent is gone."""
    text = f"""
        setsid sleep 1000 & echo $! > left.$HPC_LOCAL_ARRAY_INDEX
        [ "$HPC_LOCAL_ARRAY_INDEX" = 0 ] || {{ {GATE}; }}"""
    array = submit(engine, text, 2, slots=2)
    begun(engine, 1)
    until(lambda: ends(engine, array, 0) == ["EXITED"])

    assert gone(engine.pid_in("left.0"))
    assert not gone(engine.pid_in("left.1"))
    engine.mark("gate").touch()
    engine.ended(array)
    assert gone(engine.pid_in("left.1"))


# Cancelling


def test_elements_are_cancelled_alone_with_all_that_they_started(engine):
    text = f"""
        setsid bash -c "trap '' TERM; echo \\$\\$ > deaf.$HPC_LOCAL_ARRAY_INDEX; \
            while :; do sleep 1000; done" &
        {GATE}"""
    array = submit(engine, text, 5, slots=2, kill_grace=0.3)
    begun(engine, 2)
    deaf, other = engine.pid_in("deaf.0"), engine.pid_in("deaf.1")

    assert engine.cancel(f"{array}_0", f"{array}_3") == [
        f"cancelled {array}_0",
        f"cancelled {array}_3",
    ]

    until(lambda: ends(engine, array, 0, 3) == ["CANCELLED"] * 2)
    assert gone(deaf)
    assert not gone(other)
    assert elements(engine, array, 3)[0]["started"] is None
    assert elements(engine, array, 0)[0]["by"].endswith(f" {os.getpid()}")
    assert engine.cancel(f"{array}_0") == [f"already ended {array}_0"]
    begun(engine, 3)
    engine.mark("gate").touch()
    assert engine.ended(array)["end"] == "EXITED"
    assert ends(engine, array, 1, 2, 4) == ["EXITED"] * 3
    assert sorted(lines(engine, "begun")) == ["0", "1", "2", "4"]  # their scripts run side by side


def test_an_array_is_cancelled_with_all_its_elements(engine):
    array = submit(engine, GATE, 1000, slots=2)
    begun(engine, 2)

    assert engine.cancel(array) == [f"cancelled {array}"]

    whole = engine.ended(array)
    assert (whole["end"], whole["left"]) == ("CANCELLED", [])
    assert set(ends(engine, array, *range(1000))) == {"CANCELLED"}
    assert len(lines(engine, "begun")) == 2
    assert engine.cancel(array) == [f"already ended {array}"]


def test_an_element_that_was_told_cancelled_is_so_even_if_it_ended_meanwhile(engine):
    array = submit(engine, "until [ -e gate ]; do sleep 0.01; done; exit 5", 1)
    engine.running(array)
    supervisor = engine.supervisor(array)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        engine.mark("gate").touch()
        assert engine.cancel(f"{array}_0") == [f"cancelled {array}_0"]
    finally:
        os.kill(supervisor, signal.SIGCONT)

    engine.ended(array)
    assert ends(engine, array, 0) == ["CANCELLED"]


@pytest.mark.parametrize("word", ["_5", "_-1", "_", "_x", "_0_0", "_٣", "x_0", "[0]"])
def test_an_element_that_is_not_there_is_unknown(engine, word):
    array = submit(engine, "true", 5)

    assert engine.jobs(array + word) == []
    assert engine.cancel(array + word) == [f"unknown {array}{word}"]
    assert engine.cancel(engine.submit("true") + "_0")[0].startswith("unknown")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"array": 0}, "--array must"),
        ({"array": 1.5}, "--array must"),
        ({"array": 2, "at_once": 0}, "--at-once must"),
        ({"at_once": 2}, "--at-once needs --array"),
    ],
)
def test_an_array_that_makes_no_sense_is_refused(engine, changes, message):
    done = engine.run("submit", *engine.options(**changes), engine.script("true"))

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


# What dies


def test_without_its_supervisor_what_runs_of_an_array_runs_on_and_the_rest_is_lost(engine):
    array = submit(engine, f"echo $$ > pid.$HPC_LOCAL_ARRAY_INDEX; {GATE}", 6, slots=2)
    begun(engine, 2)
    engine.kill_supervisor(array)

    whole = engine.job(array)
    assert (whole["state"], whole["left"]) == ("RUNNING", [[0, 1]])
    states = [(r["state"], r["end"]) for r in elements(engine, array, 0, 1, 2, 5)]
    assert states == [("RUNNING", None)] * 2 + [("ENDED", "NODE_FAIL")] * 2
    lost = elements(engine, array, 5)[0]
    assert lost["message"] == "its supervisor was killed before the job started"

    os.kill(engine.pid_in("pid.0"), signal.SIGKILL)
    until(lambda: gone(engine.pid_in("pid.0")))
    assert engine.job(array)["left"] == [[1, 1]]
    beside = engine.submit("touch ran", slots=2)
    until(engine.mark("ran").exists, "the start of a job in the room of the one that is over")
    engine.ended(beside)
    engine.mark("gate").touch()
    until(lambda: gone(engine.pid_in("pid.1")))

    assert engine.job(array)["end"] == "NODE_FAIL"
    assert ends(engine, array, *range(6)) == ["NODE_FAIL"] * 6
    assert list((engine.spool / "queues").glob("*/*")) == []


@pytest.mark.parametrize("whole", [True, False])
def test_an_array_without_its_supervisor_can_be_cancelled(engine, whole):
    array = submit(engine, f"echo $$ > pid.$HPC_LOCAL_ARRAY_INDEX; {GATE}", 3, slots=2)
    begun(engine, 2)
    pids = [engine.pid_in(f"pid.{index}") for index in (0, 1)]
    engine.kill_supervisor(array)

    engine.cancel(array if whole else f"{array}_0")

    until(lambda: ends(engine, array, 0) == ["CANCELLED"])
    assert gone(pids[0])
    if not whole:
        assert not gone(pids[1])
        engine.cancel(f"{array}_1")
    until(lambda: ends(engine, array, 0, 1, 2) == ["CANCELLED", "CANCELLED", "NODE_FAIL"])
    until(lambda: engine.job(array)["state"] == "ENDED")


def test_an_array_whose_supervisor_died_before_its_turn_does_not_block_the_queue(engine):
    first = engine.submit("sleep 1000", slots=1)
    array = submit(engine, "touch wrong", 3, slots=1)
    third = engine.submit("true", slots=1)
    engine.kill_supervisor(array)

    engine.cancel(first)

    assert engine.ended(third)["end"] == "EXITED"
    assert set(ends(engine, array, 0, 1, 2)) == {"NODE_FAIL"}
    assert not engine.mark("wrong").exists()


def test_a_supervisor_that_is_told_to_stop_stops_all_elements_and_says_so(engine):
    array = submit(engine, GATE, 4, slots=2)
    begun(engine, 2)

    os.kill(engine.supervisor(array), signal.SIGTERM)

    assert engine.ended(array)["end"] == "NODE_FAIL"
    records = elements(engine, array, *range(4))
    assert [(r["end"], r["signal"]) for r in records] == [
        *[("NODE_FAIL", "SIGTERM")] * 2,
        *[("NODE_FAIL", None)] * 2,
    ]
    assert all("supervisor received SIGTERM" in record["message"] for record in records)


def test_what_was_left_of_an_array_at_a_restart_of_the_machine_is_a_node_failure(engine):
    array = submit(engine, f'[ "$HPC_LOCAL_ARRAY_INDEX" = 0 ] || {{ {GATE}; }}', 4, slots=1)
    begun(engine, 1)
    for name in ("supervisor", "elements"):
        file = engine.records(array) / name
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        file.write_text(file.read_text().replace(boot, "0" * 8 + boot[8:]))

    assert engine.job(array)["end"] == "NODE_FAIL"
    assert ends(engine, array, 0, 1, 2) == ["EXITED", "NODE_FAIL", "NODE_FAIL"]
    assert "restarted" in elements(engine, array, 1)[0]["message"]


def test_a_supervisor_whose_spool_is_removed_starts_nothing_more(engine):
    array = submit(engine, GATE, 4, slots=2)
    begun(engine, 2)
    pid, away = engine.supervisor(array), engine.spool.rename(engine.folder / "away")
    engine.mark("gate").touch()

    until(lambda: gone(pid), "the end of the supervisor")

    away.rename(engine.spool)
    assert len(lines(engine, "begun")) == 2


def test_kills_at_any_instant_leave_each_element_run_at_most_once_and_with_an_end(engine):
    """A seed that fails is in the message of pytest."""
    seed = random.randrange(10**6)
    pauses = random.Random(seed)
    for round_ in range(5):
        text = f'echo "$HPC_LOCAL_JOBID" >> ran.{round_}'
        array = submit(engine, text, 60, slots=3)
        time.sleep(pauses.uniform(0, 0.3))  # the instant is what is drawn, nothing is awaited
        if pid := engine.supervisor(array):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)

        until(lambda job=array: engine.job(job)["state"] == "ENDED", f"its end, seed {seed}")

        ran = lines(engine, f"ran.{round_}")
        assert len(ran) == len(set(ran)), seed
        told = ends(engine, array, *range(60))
        assert set(told) <= {"EXITED", "NODE_FAIL"}, seed
        exited = {f"{array}_{index}" for index, end in enumerate(told) if end == "EXITED"}
        assert exited <= set(ran), seed
        engine.emptied()


# What it costs


def test_a_thousand_elements_have_one_supervisor_and_no_files_of_their_own(engine):
    array = submit(engine, "true", 1000, slots=4)

    assert engine.ended(array)["end"] == "EXITED"

    assert len(list(engine.records(array).iterdir())) < 10
    assert set(ends(engine, array, *range(1000))) == {"EXITED"}


def test_an_array_does_not_make_the_submission_of_a_job_dearer(engine):
    command = engine.command("submit", *engine.options(), engine.script("true"))
    command[1:1] = ["-X", "importtime"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "local_batch.supervisor" in imported
    assert "local_batch.array" not in imported


# The file of their records


def read(path, data, size=6):
    path.write_bytes(data)
    return Elements(str(path), size)


RECORDS = [
    b'0 S {"process": "p", "started": 1.5}\n',
    b'1 C {"by": "me", "at": 1.0}\n',
    b'0 E {"end": "EXITED", "exit_code": 3}\n',
    b'0 E {"end": "CANCELLED"}\n',
    b'5 S {"process": "q", "started": 2.5}\n',
]


def test_the_first_end_of_an_element_counts(tmp_path):
    found = read(tmp_path / "elements", b"".join(RECORDS))

    assert found.end(0) == {"end": "EXITED", "exit_code": 3}
    assert (found.running(), found.waiting(), found.cancelled()) == ([5], [1, 2, 3, 4], [1])
    assert (found.left(), found.begun()) == ([[1, 5]], 1.5)


def test_a_line_that_a_power_cut_left_half_written_is_none_and_spoils_no_other(tmp_path):
    file = tmp_path / "elements"
    found = read(file, RECORDS[0] + RECORDS[2][:20])
    assert found.running() == [0]

    found.append("E", [(0, {"end": "NODE_FAIL"})])

    for each in (found, Elements(str(file), 6)):
        assert each.end(0) == {"end": "NODE_FAIL"}


@given(st.lists(st.sampled_from(RECORDS) | st.binary(max_size=40), max_size=12), st.integers(0, 80))
def test_whatever_is_in_the_file_is_read_the_same_at_once_and_bit_by_bit(
    tmp_path_factory, parts, cut
):
    file = tmp_path_factory.mktemp("elements") / "elements"
    data = b"".join(parts)
    begun = read(file, data[:cut])
    file.write_bytes(data)
    begun.refresh()

    whole = Elements(str(file), 6)

    assert begun.states == whole.states
    assert [begun.end(n) for n in range(6)] == [whole.end(n) for n in range(6)]
