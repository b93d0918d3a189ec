"""`hpc-prefect jobs` and quantum jobs: real client, a service on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc_prefect.cli import main
from hpc_prefect.errors import LedgerError, QuantumJobFailed
from hpc_prefect.operations import find_job, list_jobs
from hpc_prefect.quantum.purchase.budget import Budget

from .. import warm
from .journals import events, words
from .service import QuantumService, common_ibm_quantum
from .test_ibm_cancel import block, jobs, once, service, until

pytestmark = pytest.mark.usefixtures("prefect_server")

__all__ = ["block", "common_ibm_quantum", "service"]

HERE = Path(__file__).parent
COMMAND = "import sys; from hpc_prefect.cli import main; sys.exit(main())"


async def command(*words: str) -> int:
    """The command, which has a loop of its own, as a person would give it."""
    return await asyncio.to_thread(main, ["jobs", *words])


def started(*words: str) -> warm.Process:
    return warm.Process([str(HERE / "once.py"), *words], imports="qiskit")


async def left_by_a_killed_process(service: QuantumService, block: str, folder: Path) -> None:
    """A job in the service's queue, of a process that was killed while it waited for it."""
    service.fault("maintenance", backend="fake_manila")
    process = started(str(folder), block)
    try:
        await until(lambda: any(event["event"] == "submitted" for event in events(folder)))
    finally:
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)


async def test_a_job_that_is_waited_for_is_seen_and_cancelled(service, block, tmp_path, capsys):
    service.fault("maintenance", backend="fake_manila")
    running = asyncio.create_task(once(tmp_path, block))
    await until(lambda: any(event["event"] == "submitted" for event in events(tmp_path)))
    (posted,) = await asyncio.to_thread(jobs, service, tmp_path)

    assert await command("--work-dir", str(tmp_path), "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    seen = [shown[name] for name in ("kind", "name", "id", "device", "campaign_name")]
    assert seen == ["quantum", block, posted["id"], "fake_manila", "cancelled"]
    assert shown["state"] in ("submitted", "queued")
    assert shown["holder"]["pid"] == os.getpid()

    assert await command("cancel", "--work-dir", str(tmp_path), posted["id"]) == 0
    assert "ended  " in (said := capsys.readouterr().out)
    assert "ibm says CANCELLED" in said
    with pytest.raises(QuantumJobFailed, match="CANCELLED"):
        await running
    (known,) = list_jobs(tmp_path)
    assert (known.status.state, known.is_over) == ("cancelled", True)
    assert await command("cancel", "--work-dir", str(tmp_path), known.key) == 0
    assert "it had ended: cancelled" in capsys.readouterr().out


async def test_the_job_of_a_killed_process_is_attached_and_its_result_is_the_flows(
    service, block, tmp_path, capsys
):
    await left_by_a_killed_process(service, block, tmp_path)
    (left,) = list_jobs(tmp_path)
    assert left.status.state == "unknown"
    assert left.status.reason.startswith("last known: ")
    assert left.status.reason.endswith("; its process is dead")
    assert find_job(left.tag, jobs=[left]) is left

    service.clear()
    assert await command("attach", "--work-dir", str(tmp_path), left.key) == 0
    (done,) = list_jobs(tmp_path)
    assert (done.status.state, done.job_id) == ("succeeded", left.job_id)
    assert done.qpu_seconds
    assert done.ended_at

    capsys.readouterr()
    assert await command("show", "--work-dir", str(tmp_path), left.key) == 0
    text = capsys.readouterr().out
    assert "ibm:fake_manila" in text
    assert "qpu seconds" in text
    assert len(jobs(service, tmp_path)) == 1


async def apart(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", COMMAND, "jobs", *words],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=200,
    )


def run(*words: str) -> warm.CompletedProcess[str]:
    """The same, in this session's Prefect."""
    return warm.run(
        ["-c", COMMAND, "jobs", *words], capture_output=True, timeout=200, imports="qiskit"
    )


async def test_an_end_that_nobody_saw_is_not_confirmed_until_somebody_sees_it(
    service, block, tmp_path
):
    await left_by_a_killed_process(service, block, tmp_path)
    service.fault("cancel-lags", seconds=600)
    (left,) = list_jobs(tmp_path)
    cancel = ("cancel", "--work-dir", str(tmp_path), left.folder.path)
    done = await asyncio.to_thread(run, *cancel, "--wait", "1")
    assert (done.returncode, done.stdout[:11]) == (1, "UNCONFIRMED"), done.stderr
    (doubtful,) = list_jobs(tmp_path)
    assert (doubtful.status.state, doubtful.ended_surely) == ("unknown", False)
    assert "its cancellation was requested (user)" in doubtful.status.reason

    service.clear("cancel-lags")
    done = await asyncio.to_thread(run, *cancel, "--wait", "60")
    assert (done.returncode, done.stdout[:7]) == (0, "ended  "), done.stderr
    assert list_jobs(tmp_path)[0].ended_surely


async def test_who_stops_to_wait_leaves_the_job(service, block, tmp_path):
    await left_by_a_killed_process(service, block, tmp_path)
    (left,) = list_jobs(tmp_path)
    command = ["-c", COMMAND, "jobs", "attach", "--work-dir", str(tmp_path), left.key]
    attach = await asyncio.to_thread(warm.Process, command, stderr=warm.PIPE, imports="qiskit")
    await until(lambda: list_jobs(tmp_path)[0].status.state in ("submitted", "queued"))
    attach.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(attach.communicate, timeout=100)
    assert attach.returncode == 130, said
    assert "was left as it is" in said
    (job,) = await asyncio.to_thread(jobs, service, tmp_path)
    assert job["status"] == "Queued"
    assert words(tmp_path) == ["intent", "submitted", "attached"]


async def test_the_job_of_a_killed_process_is_cancelled_without_prefect(service, block, tmp_path):
    await left_by_a_killed_process(service, block, tmp_path)
    (left,) = list_jobs(tmp_path)
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = await apart("cancel", "--work-dir", str(tmp_path), left.job_id, **nowhere)
    assert done.returncode == 0, done.stderr
    assert "ibm says CANCELLED" in done.stdout
    (known,) = list_jobs(tmp_path)
    assert (known.status.state, known.qpu_seconds) == ("ended", 0)


def test_a_folder_that_makes_no_sense_is_shown_as_such(tmp_path, capsys):
    folder = tmp_path / ".hpc-prefect" / "campaign-x" / "ab" / (("k" * 20) + "-1")
    folder.mkdir(parents=True)
    for text in (
        "",
        "torn",
        '{"event":"intent"}\n',
        '{"event":"intent","job":{"kind":"quantum"}}\n',
    ):
        (folder / "journal.jsonl").write_text(text)
        (job,) = list_jobs(tmp_path)
        assert (job.status.state, bool(job.problem)) == ("unreadable", True), text
    assert main(["jobs", "--work-dir", str(tmp_path)]) == 0
    assert "unreadable" in capsys.readouterr().out
    assert main(["jobs", "cancel", "--work-dir", str(tmp_path), "k" * 20]) == 1
    assert "UNCONFIRMED" in capsys.readouterr().out


async def test_jobs_that_the_version_before_wrote_down_are_refused_in_a_sentence(
    service, block, tmp_path
):
    await once(tmp_path, block)
    (work,) = {path.parent for path in tmp_path.glob(".hpc-prefect/*/*/*/sampling.json")}
    intent = {"time": 1.0, "event": "intent", "tag": "hp-1", "device": "ibm_x", "block": "qpu"}
    (work / "quantum.jsonl").write_text(json.dumps(intent) + "\n")
    (work / "sampling.json").unlink()

    with pytest.raises(LedgerError, match="was written by an earlier version of this package"):
        await once(tmp_path, block)
    with pytest.raises(LedgerError, match="was written by an earlier version of this package"):
        Budget(work.parent.parent).total()
    assert len(jobs(service, tmp_path)) == 1
    (told,) = [job.problem for job in list_jobs(tmp_path) if job.problem]
    assert "was written by an earlier version of this package" in told
