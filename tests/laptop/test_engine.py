"""The laptop's batch system, as its users see it: commands, text and real processes."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hpc_prefect.laptop

ENGINE = Path(hpc_prefect.laptop.__file__).with_name("engine.py")
PATIENCE = 60.0


def until(predicate, what="the condition"):
    """Wait for what must come true; how long it takes is not judged."""
    end = time.monotonic() + PATIENCE
    while not (value := predicate()):
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.01)
    return value


def process_of(who):
    """The pid in a record of the spool, if that process lives."""
    boot, pid, start = who.split()
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(pid) if fields[19] == start and fields[0] not in "ZX" and boot else None


class Engine:
    """The commands on one spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.defaults = {
            "--spool": self.spool,
            "--name": "job",
            "--queue": "q",
            "--slots": 2,
            "--cpus": 1,
            "--out": folder / "out",
            "--err": folder / "err",
            "--cwd": folder,
            "--kill-grace": 5,
        }

    def command(self, verb, *words):
        return [sys.executable, "-I", "-S", str(ENGINE), verb, *map(os.fspath, words)]

    def run(self, verb, *words):
        return subprocess.run(
            self.command(verb, *words), capture_output=True, text=True, timeout=PATIENCE
        )

    def ok(self, verb, *words):
        done = self.run(verb, *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def script(self, text, name="script.sh"):
        path = self.folder / name
        path.write_text(text if text.startswith("#!") else "#!/bin/bash\n" + text)
        return path

    def options(self, **changes):
        named = {"--" + key.replace("_", "-"): value for key, value in changes.items()}
        merged = {**self.defaults, **named}
        return [str(word) for pair in merged.items() for word in pair]

    def submit(self, text, **changes):
        return self.ok("submit", *self.options(**changes), self.script(text)).strip()

    def jobs(self, *ids):
        return [
            json.loads(line) for line in self.ok("jobs", "--spool", self.spool, *ids).splitlines()
        ]

    def job(self, job):
        (record,) = self.jobs(job)
        return record

    def cancel(self, *ids):
        return self.ok("cancel", "--spool", self.spool, *ids).splitlines()

    def ended(self, job):
        return until(
            lambda: record if (record := self.job(job))["state"] == "ENDED" else None, "its end"
        )

    def running(self, job):
        return until(lambda: self.job(job)["state"] == "RUNNING", "its start")

    def records(self, job):
        return self.spool / "jobs" / job.partition(".")[0]

    def supervisor(self, job):
        return process_of((self.records(job) / "supervisor").read_text())

    def kill_supervisor(self, job):
        pid = self.supervisor(job)
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.supervisor(job) is None, "the supervisor's death")

    def mark(self, name):
        return self.folder / name

    def pid_in(self, name):
        """The pid that a job has written into a file of this name."""
        return int(until(lambda: (m := self.mark(name)).exists() and m.read_text().strip()))

    def stop_everything(self):
        """Kill supervisors first, so that nothing is started any more, then all their scripts."""
        for file in self.spool.glob("jobs/*/supervisor"):
            if pid := process_of(file.read_text()):
                os.kill(pid, signal.SIGKILL)
        spool = b"\0HPC_LOCAL_SPOOL=" + os.fsencode(self.spool) + b"\0"
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if spool in b"\0" + (folder / "environ").read_bytes():
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path)
    yield engine
    engine.stop_everything()


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


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
    job = engine.submit("trap 'exit 0' TERM; sleep 1000 & wait", walltime=1.5)

    record = engine.ended(job)

    assert (record["end"], record["exit_code"]) == ("TIMEOUT", 0)
    assert record["message"] == "over its walltime of 1.5 s"


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
        "its supervisor was killed before it started",
    )
    assert not engine.mark("wrong").exists()


def test_a_supervisor_that_is_told_to_stop_stops_its_job_and_says_so(engine):
    job = engine.submit("sleep 1000")
    engine.running(job)

    os.kill(engine.supervisor(job), signal.SIGTERM)

    record = engine.ended(job)
    assert (record["end"], record["signal"]) == ("NODE_FAIL", "SIGTERM")
    assert "told to stop" in record["message"]


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


# Questions


def test_find_gives_every_job_of_exactly_this_name(engine):
    jobs = [engine.submit("true", name=name) for name in ("a", "ab", "a")]
    for job in jobs:
        engine.ended(job)

    lines = engine.ok("find", "--spool", engine.spool, "a").splitlines()

    assert [json.loads(line)["id"] for line in lines] == [jobs[0], jobs[2]]


def test_without_ids_jobs_gives_what_is_active(engine):
    over, running = engine.submit("true"), engine.submit("sleep 1000")
    engine.ended(over)

    assert [record["id"] for record in engine.jobs()] == [running]


def test_an_unknown_id_is_left_out(engine):
    job = engine.submit("true")

    assert [r["id"] for r in engine.jobs("99.x", job, job + "x", "", "../1", "١.vm")] == [job]


def test_a_spool_that_does_not_exist_has_no_jobs(engine):
    assert engine.jobs() == engine.jobs("1.x") == []
    assert engine.ok("find", "--spool", engine.spool, "a") == ""
    assert engine.cancel("1.x") == ["unknown 1.x"]
    assert not engine.spool.exists()


@pytest.mark.parametrize("verb", ["jobs", "find", "cancel"])
@pytest.mark.parametrize("broken", ["no folder", "no jobs folder", "no record"])
def test_a_spool_that_cannot_be_read_is_an_error_and_not_an_empty_answer(engine, verb, broken):
    job = engine.submit("true")
    engine.ended(job)
    file = {"no folder": engine.spool, "no jobs folder": engine.spool / "jobs"}.get(broken)
    if file:
        file.rename(engine.folder / "away")
        file.write_text("")
    else:
        (engine.records(job) / "job.json").write_text('{"name": "job"')

    done = engine.run(verb, "--spool", engine.spool, "job" if verb == "find" else job)

    assert (done.returncode, done.stdout) == (1, "")
    assert str(file or engine.records(job)) in done.stderr


def test_a_script_that_is_missing_is_an_error_that_names_it(engine):
    done = engine.run("submit", *engine.options(), engine.mark("no such script"))

    assert (done.returncode, done.stdout) == (1, "")
    assert "no such script" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["walk"], "there is no command 'walk'"),
        (["jobs", "--spol", "x"], "jobs has no option --spol"),
        (["jobs", "--spool"], "--spool needs a value"),
        (["find", "--spool", "x"], "find takes one name, not 0"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(engine, words, message):
    done = engine.run(*words)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("slots", "0"),
        ("cpus", "1.5"),
        ("walltime", "nan"),
        ("walltime", "0"),
        ("memory", "1G"),
        ("kill-grace", "-1"),
        ("name", ""),
        ("queue", "x" * 101),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(engine, option, value):
    done = engine.run("submit", *engine.options(**{option: value}), engine.script("true"))

    assert (done.returncode, done.stdout) == (2, "")
    assert f"--{option} must" in done.stderr


HOSTILE = "-x 'a\" $(touch pwned) `touch pwned`;\n\\ * ü \udcff"


def test_names_and_paths_are_data(engine):
    folder = engine.folder / HOSTILE.replace("/", "")
    folder.mkdir()
    inner = Engine(folder)
    inner.script('pwd; echo "$HPC_LOCAL_QUEUE"').rename(folder / HOSTILE)
    options = inner.options(name=HOSTILE, queue=HOSTILE, out=folder / "o\n'", err=folder / '"e')
    try:
        done = subprocess.run(
            inner.command("submit", *options, "--", HOSTILE), cwd=folder, capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, b"")
        job = done.stdout.decode().strip()
        record = inner.ended(job)
    finally:
        inner.stop_everything()

    assert (record["end"], record["name"], record["queue"]) == ("EXITED", HOSTILE, HOSTILE)
    assert (folder / "o\n'").read_bytes() == b"%s\n%s\n" % (
        os.fsencode(folder),
        os.fsencode(HOSTILE),
    )
    assert len(inner.ok("find", "--spool", inner.spool, HOSTILE).splitlines()) == 1
    assert not list(engine.folder.rglob("pwned"))


# The spool


def test_only_the_user_can_look_into_the_spool(engine):
    job = engine.submit("true")
    engine.ended(job)

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (engine.spool, engine.records(job))]

    assert modes == [0o700, 0o700]


def test_what_ended_a_week_ago_is_forgotten_at_a_later_submit_and_its_id_is_not_reused(engine):
    old, recent = engine.submit("true"), engine.submit("true")
    engine.ended(old)
    engine.ended(recent)
    running = engine.submit("sleep 1000")
    engine.running(running)
    week_ago = time.time() - 8 * 86400
    os.utime(engine.spool / "pruned", (week_ago, week_ago))
    for job in (old, running):
        for path in (*engine.records(job).iterdir(), engine.records(job)):
            os.utime(path, (week_ago, week_ago))

    new = engine.submit("true")

    assert [r["id"] for r in engine.jobs(old, recent, running, new)] == [recent, running, new]
    assert new.startswith("4.")


def test_a_supervisor_whose_spool_is_removed_goes_away(engine):
    first, second = engine.submit("sleep 1000", slots=1), engine.submit("touch ran", slots=1)
    pid, script = engine.supervisor(second), engine.spool.rename(engine.folder / "away")

    until(lambda: gone(pid), "the end of the waiting supervisor")

    script.rename(engine.spool)
    engine.cancel(first)
    assert engine.ended(first)["end"] == "CANCELLED"
    assert not engine.mark("ran").exists()
