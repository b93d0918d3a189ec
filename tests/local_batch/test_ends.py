"""How a job of the laptop's batch system ends, and how it is cancelled."""

import os
import sys
import time

import pytest

from .rig import gone, until

# How a job ends


def test_a_job_that_succeeds_leaves_its_output_and_a_complete_record(engine):
    before = time.time()
    job = engine.submit("echo to out; echo to err >&2; pwd", name="first")

    record = engine.ended(job)

    assert (engine.mark("out").read_text(), engine.mark("err").read_text()) == (
        f"to out\n{engine.folder}\n",
        "to err\n",
    )
    assert record == {
        "id": job,
        "name": "first",
        "queue": "q",
        "state": "ENDED",
        "end": "EXITED",
        "exit_code": 0,
        "signal": None,
        "by": None,
        "message": "",
        "submitted": record["submitted"],
        "started": record["started"],
        "ended": record["ended"],
        "max_rss": record["max_rss"],
        "cpu_seconds": record["cpu_seconds"],
        "host": record["host"],
        "reason": None,
    }
    times = [before, record["submitted"], record["started"], record["ended"], time.time()]
    assert times == sorted(times)
    assert record["max_rss"] > 0
    assert record["cpu_seconds"] > 0


def test_an_id_is_a_number_and_the_short_host_name(engine):
    number, _, host = engine.submit("true").partition(".")

    assert number == "1"
    assert host == "".join(
        c if c.isascii() and c.isalnum() else "-" for c in os.uname().nodename.split(".")[0]
    )


def test_a_job_that_fails_has_its_exit_code(engine):
    record = engine.ended(engine.submit("exit 3"))

    assert (record["end"], record["exit_code"], record["signal"]) == ("EXITED", 3, None)


def test_a_job_that_dies_by_a_signal_has_its_name(engine):
    record = engine.ended(engine.submit("kill -ABRT $$"))

    assert (record["end"], record["exit_code"], record["signal"]) == ("SIGNALED", None, "SIGABRT")


def test_over_its_walltime_a_job_has_timed_out_even_if_its_trap_exits_with_0(engine):
    job = engine.submit("trap 'exit 0' TERM; sleep 1000 & wait", walltime=10)

    record = engine.ended(job)

    assert (record["end"], record["exit_code"]) == ("TIMEOUT", 0)
    assert record["message"] == "over its walltime of 10 s"


def test_over_its_memory_a_job_is_out_of_memory_even_if_its_trap_exits_with_0(engine):
    hog = "import time; x = bytearray(200 << 20); time.sleep(1000)"
    job = engine.submit(
        f"trap 'exit 0' TERM; {sys.executable} -I -S -c '{hog}' & wait", memory=100 << 20
    )

    record = engine.ended(job)

    assert (record["end"], record["exit_code"]) == ("OUT_OF_MEMORY", 0)
    assert record["max_rss"] > 100 << 20
    assert f"of {100 << 20} bytes" in record["message"]


def test_memory_that_processes_share_counts_once(engine):
    text = """
import os, time
x = bytearray(150 << 20)
if os.fork() == 0:
    time.sleep(1)  # several looks at the memory
    os._exit(0)
os.wait()
"""
    job = engine.submit(f"#!{sys.executable} -IS\n{text}", memory=250 << 20)

    assert engine.ended(job)["end"] == "EXITED"


def test_a_job_inside_its_limits_is_left_alone(engine):
    job = engine.submit("sleep 0.6", walltime=1000, memory=1 << 30)

    assert engine.ended(job)["end"] == "EXITED"


def test_processes_that_the_script_leaves_behind_are_ended(engine):
    job = engine.submit("sleep 1000 & echo $! > a; setsid sleep 1000 & echo $! > b; sleep 0.1")
    pids = [engine.pid_in("a"), engine.pid_in("b")]

    record = engine.ended(job)

    assert (record["end"], record["exit_code"]) == ("EXITED", 0)
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("cwd", "cannot enter its folder"),
        ("out", "cannot write its output"),
        ("err", "cannot write its output"),
    ],
)
def test_a_missing_folder_is_a_failed_launch_that_names_it(engine, option, message):
    missing = engine.mark("no such folder") / "x"

    record = engine.ended(engine.submit("touch ran", **{option: missing}))

    assert (record["end"], record["exit_code"]) == ("LAUNCH_FAILED", None)
    assert record["message"] == f"{message}{' to' * (option != 'cwd')} {str(missing)!r}: " + (
        "No such file or directory"
    )
    assert not engine.mark("ran").exists()


def test_an_interpreter_that_does_not_exist_is_a_failed_launch_that_names_it(engine):
    record = engine.ended(engine.submit("#!/no/such/shell -x\n"))

    assert record["end"] == "LAUNCH_FAILED"
    assert record["message"] == (
        "cannot run its script: No such file or directory: '/no/such/shell'"
    )


def test_a_script_needs_no_permission_to_execute_and_no_interpreter_line(engine):
    path = engine.mark("plain")
    path.write_text("echo ran by $0\n")
    path.chmod(0o400)

    job = engine.ok("submit", *engine.options(), path).strip()

    assert engine.ended(job)["exit_code"] == 0
    assert engine.mark("out").read_text().startswith("ran by ")


def test_a_script_may_be_changed_or_removed_once_it_is_submitted(engine):
    first = engine.submit("sleep 1000", slots=1)
    second = engine.submit("echo as submitted", slots=1)
    engine.script("echo changed").unlink()

    engine.cancel(first)

    assert engine.ended(second)["end"] == "EXITED"
    assert engine.mark("out").read_text() == "as submitted\n"


def test_stdout_and_stderr_may_be_one_file(engine):
    job = engine.submit("echo 1; echo 2 >&2; echo 3", err=engine.mark("out"))

    engine.ended(job)

    assert engine.mark("out").read_text() == "1\n2\n3\n"


def test_a_job_has_the_submitters_environment_and_its_own_variables_and_no_input(engine):
    os.environ["ENGINE_TEST"] = "a b\n'\"$(x)"
    try:
        job = engine.submit(
            'cat; printf %s "$ENGINE_TEST|$HPC_LOCAL_JOBID|$HPC_LOCAL_RUN"; '
            'printf %s "|$HPC_LOCAL_QUEUE"',
            queue="my queue",
        )
    finally:
        del os.environ["ENGINE_TEST"]

    engine.ended(job)

    assert engine.mark("out").read_text() == f"a b\n'\"$(x)|{job}|1|my queue"


def test_a_job_starts_without_blocked_or_ignored_signals(engine):
    engine.ended(engine.submit("exec grep -E '^Sig(Blk|Ign)' /proc/self/status"))

    masks = [int(word, 16) for word in engine.mark("out").read_text().split()[1::2]]
    libc = 1 << 31 | 1 << 32  # 32 and 33 are the C library's own: whatever we inherited stays
    assert [mask & ~libc for mask in masks] == [0, 0]


# Cancelling


def test_a_queued_job_that_is_cancelled_never_starts(engine):
    first = engine.submit("sleep 1000", slots=1)
    second = engine.submit("touch ran", slots=1)
    assert engine.job(second)["state"] == "QUEUED"

    assert engine.cancel(second) == [f"cancelled {second}"]

    record = engine.ended(second)
    assert (record["end"], record["exit_code"], record["started"]) == ("CANCELLED", None, None)
    engine.cancel(first)
    engine.ended(first)
    engine.ended(engine.submit("true", slots=1))
    assert not engine.mark("ran").exists()


def test_a_cancelled_job_is_cancelled_even_if_its_trap_exits_with_0(engine):
    job = engine.submit("trap 'exit 0' TERM; touch ready; sleep 1000 & wait")
    until(engine.mark("ready").exists)

    assert engine.cancel(job) == [f"cancelled {job}"]

    record = engine.ended(job)
    assert (record["end"], record["exit_code"]) == ("CANCELLED", 0)
    user, _, rest = record["by"].partition("@")
    assert user
    assert rest == f"{os.uname().nodename} {os.getpid()}"


def test_a_child_with_its_own_session_that_ignores_sigterm_is_killed_after_the_grace(engine):
    stubborn = "trap '' TERM; echo $$ > pid; while :; do sleep 1000; done"
    job = engine.submit(
        f'setsid bash -c "{stubborn.replace("$", chr(92) + "$")}" & wait', kill_grace=0.3
    )
    pid = engine.pid_in("pid")

    engine.cancel(job)

    record = engine.ended(job)
    assert (record["end"], record["signal"]) == ("CANCELLED", "SIGTERM")
    assert gone(pid)


def test_cancel_says_what_it_did_with_each_id(engine):
    over, running = engine.submit("true"), engine.submit("sleep 1000")
    engine.ended(over)

    answers = engine.cancel(over, running, "99.host", "nonsense", running)

    assert answers[0] == f"already ended {over}"
    assert answers[1:4] == [f"cancelled {running}", "unknown 99.host", "unknown nonsense"]
    assert answers[4] in (f"cancelled {running}", f"already ended {running}")
    assert engine.ended(over)["end"] == "EXITED"


def test_a_job_that_a_job_has_submitted_outlives_it(engine):
    inner = engine.script("touch inner; sleep 1000", "inner.sh")
    command = engine.command("submit", *engine.options(out="o2", err="e2"), inner)
    words = " ".join(f"'{word}'" for word in command)
    outer = engine.submit(f"{words} > inner-id; touch done; sleep 1000")
    until(engine.mark("done").exists)
    until(engine.mark("inner").exists)

    engine.cancel(outer)

    assert engine.ended(outer)["end"] == "CANCELLED"
    assert engine.job(engine.mark("inner-id").read_text().strip())["state"] == "RUNNING"
