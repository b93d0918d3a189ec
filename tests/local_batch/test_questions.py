"""Questions to the laptop's batch system, and its spool."""

import json
import os
import stat
import subprocess
import time

import pytest

from .rig import Engine, gone, until

# Questions


def test_find_gives_every_job_of_exactly_this_name(engine):
    jobs = [engine.submit("true", name=name) for name in ("a", "ab", "a")]
    for job in jobs:
        engine.ended(job)

    lines = engine.ok("find", "--spool", engine.spool, "a").splitlines()

    assert [json.loads(line)["id"] for line in lines] == [jobs[0], jobs[2]]
    both = engine.ok("find", "--spool", engine.spool, "ab", "none", "a").splitlines()
    assert [json.loads(line)["id"] for line in both] == jobs


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
        (["find", "--spool", "x"], "find takes one name or more"),
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
