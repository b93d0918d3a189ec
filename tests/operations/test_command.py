"""`hpc-prefect jobs`, as a user meets it: after a real `kill -9`, without a Prefect server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ..executor.rig import Rig, drive, until, was_killed

COMMAND = [sys.executable, "-c", "import sys; from hpc_prefect.cli import main; sys.exit(main())"]
#: No command may need it: whoever asks this server fails.
NO_SERVER = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}


def run(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    """`hpc-prefect jobs` in the work_dir."""
    return subprocess.run(
        [*COMMAND, "jobs", *words],
        cwd=rig.work,
        env=os.environ | NO_SERVER,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_in_a_pipe(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    """What of the command's output `head -1` lets through; the rest it does not read."""
    command = " ".join(f"'{word}'" for word in [*COMMAND, "jobs", *words])
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} 2>{rig.folder}/err | head -1"],
        cwd=rig.work,
        capture_output=True,
        text=True,
    )


@contextlib.asynccontextmanager
async def running(rig: Rig, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command while it runs, its output in the files `out` and `err`."""
    with (rig.folder / "out").open("w") as out, (rig.folder / "err").open("w") as err:
        command = [*COMMAND, "jobs", *words]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=rig.work, env=os.environ | NO_SERVER, stdout=out, stderr=err
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def said(rig: Rig, name: str) -> str:
    return (rig.folder / name).read_text()


def killed(rig: Rig, text: str, key: str = "abcdefgh", state: str = "running as") -> str:
    """Let a process submit a job and be killed; returns a file that the job may wait for."""
    program = rig.program(f"echo begun; echo oops >&2; {text}", f"program-{key}")
    assert was_killed(drive(rig, [{"key": key, "program": program}], state=state))
    return key


def waiting(rig: Rig) -> str:
    return f"until [ -e {rig.folder}/gate ]; do sleep 0.05; done"


def open_gate(rig: Rig) -> None:
    (rig.folder / "gate").touch()


def listed(rig: Rig, *words: str) -> list[dict[str, object]]:
    done = run(rig, *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


async def test_after_a_kill_the_job_is_listed_shown_followed_and_attached_to(rig):
    killed(rig, waiting(rig))
    (job,) = listed(rig)
    assert (job["state"], job["holder"]["alive"], job["scheduler"]) == ("unknown", False, "local")
    (job,) = listed(rig, "--ask")
    assert job["state"] == "running"

    table = run(rig, "--state", "unknown").stdout.splitlines()
    assert table[0].split()[:4] == ["JOB", "KEY", "ID", "STATE"]
    assert table[1].split()[:4] == ["job", "abcdefg-1", str(job["id"]), "unknown"]
    none = run(rig, "--state", "succeeded,failed")
    assert (none.stdout, none.returncode) == ("", 0)
    assert "no such jobs in" in none.stderr

    shown = json.loads(run(rig, "show", "abc", "--json").stdout)
    assert shown["job"]["executable"]["path"].endswith("program-abcdefgh")
    assert [entry["event"] for entry in shown["events"]][:2] == ["intent", "submitted"]
    assert run(rig, "show", "job").stdout.startswith("job  abcdefgh-1\n")

    async with running(rig, "logs", "abc", "--follow", "--stream", "stdout") as logs:
        await until(lambda: said(rig, "out") == "begun\n", "the output so far")
        assert logs.returncode is None
        open_gate(rig)
        assert await asyncio.wait_for(logs.wait(), 60) == 0
    assert "no process watches this job" in said(rig, "err")

    attached = run(rig, "attach", str(job["id"]))
    assert (attached.returncode, attached.stdout) == (0, "begun\n")
    assert f"job ({job['id']}): succeeded" in attached.stderr
    (job,) = listed(rig)
    assert job["state"] == "succeeded"
    assert len(rig.runs()) == 1


async def test_attach_tells_states_and_output_as_they_come(rig):
    killed(rig, waiting(rig))
    async with running(rig, "attach", "abc") as attach:
        await until(lambda: "running as" in said(rig, "err"), "the state")
        await until(lambda: "begun" in said(rig, "out"), "the output")
        assert attach.returncode is None
        held = run(rig, "attach", "abc")
        assert held.returncode == 1
        assert f"is held by a script (pid {attach.pid} on " in held.stderr
        open_gate(rig)
        assert await asyncio.wait_for(attach.wait(), 60) == 0


async def test_ctrl_c_stops_the_watching_and_leaves_the_job_running(rig):
    killed(rig, waiting(rig))
    async with running(rig, "attach", "abc") as attach:
        await until(lambda: "running as" in said(rig, "err"), "the state")
        attach.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(attach.wait(), 60) == 130
    assert "no longer watching; the job was left as it is" in said(rig, "err")
    assert "Traceback" not in said(rig, "err")
    assert len(rig.active()) == 1
    open_gate(rig)
    assert run(rig, "attach", "abc").returncode == 0


async def test_attach_to_a_job_that_fails_has_status_1_and_says_what_to_do(rig):
    killed(rig, "exit 3", state=" as ")
    done = run(rig, "attach", "abc")
    assert done.returncode == 1
    assert "program failed" in done.stderr
    assert "what to do: read the program's stderr" in done.stderr


async def test_jobs_are_cancelled_and_what_is_not_confirmed_is_status_1(rig):
    killed(rig, "sleep 600", "first")
    killed(rig, "sleep 600", "second")
    done = run(rig, "cancel", "first", "second")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ended", "first-1"],
        ["ended", "second-1"],
    ]
    await rig.emptied()

    doubt = [{"key": "doubt", "program": rig.program("exit 0")}]
    assert was_killed(drive(rig, doubt, at="intent", when="after"))
    for wait in ("1", "5", "25"):  # a busy machine may need more time to ask
        done = run(rig, "cancel", "doubt", "first", "--wait", wait)
        if "whether it was submitted" in done.stdout:
            break
    assert done.returncode == 1
    assert done.stdout.startswith("UNCONFIRMED  doubt-1  job  unknown: whether it was submitted")
    assert "the end of 1 of 2 jobs is not confirmed" in done.stderr


async def test_nothing_is_cancelled_when_one_name_is_not_understood(rig):
    killed(rig, "sleep 600")
    done = run(rig, "cancel", "abc", "nosuch")
    assert done.returncode == 1
    assert done.stderr.startswith("hpc-prefect: no job 'nosuch' below")
    assert len(rig.active()) == 1


async def test_a_reader_that_has_seen_enough_is_no_error(rig):
    killed(rig, "seq 100000; exit 0", state=" as ")
    await until(lambda: not rig.active(), "the job's end")
    for verb in ("logs", "attach"):
        done = run_in_a_pipe(rig, verb, "abc")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
        assert "Traceback" not in said(rig, "err")
    assert "succeeded" in said(rig, "err")


async def test_a_state_that_is_none_is_wrong_usage(rig):
    done = run(rig, "--state", "runing")
    assert done.returncode == 2
    assert "there is no state 'runing'; there are waiting, not submitted" in done.stderr


@pytest.mark.parametrize("module", ["hpc_prefect.operations", "hpc_prefect.cli.jobs"])
def test_it_is_there_without_prefect(module: str, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['prefect'] = None\n"
        f"import {module}\n"
        "from hpc_prefect.cli import main\n"
        "sys.exit(main(['jobs', '--ask']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=120)
    assert done.returncode == 0


async def test_jobs_of_folders_below_are_listed_found_and_shown(rig):
    killed(rig, "exit 3", state=" as ")
    above = rig.work.parent
    for words in ([str(above)], ["list", str(above)], ["--work-dir", str(above)], [str(rig.work)]):
        (job,) = listed(rig, *words)
        assert job["work_dir"] == str(rig.work)
    assert run(rig, "show", "abc", "--work-dir", str(above)).stdout.startswith("job  abcdefgh-1\n")
    assert listed(rig, str(above), "--state", "succeeded") == []
    assert listed(rig, "--state", "succeeded", str(above)) == []


def test_a_word_that_is_neither_an_action_nor_a_folder_is_said(tmp_path):
    done = subprocess.run(
        [*COMMAND, "jobs", "shwo", "diag"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        "hpc-prefect: there is no folder shwo; the actions are list, show, logs, cancel, attach\n"
    )
