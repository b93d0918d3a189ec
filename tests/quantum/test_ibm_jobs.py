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
from hpc_prefect.errors import QuantumJobFailed
from hpc_prefect.operations import find_job, list_jobs, list_quantum_jobs

from .. import warm
from .service import QuantumService, common_ibm_quantum
from .test_ibm_cancel import block, events, jobs, once, service, until

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
        await until(lambda: any(event["event"] == "posted" for event in events(folder)))
    finally:
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)


async def test_a_job_that_is_waited_for_is_seen_and_cancelled(service, block, tmp_path, capsys):
    service.fault("maintenance", backend="fake_manila")
    running = asyncio.create_task(once(tmp_path, block))
    await until(lambda: any(event["event"] == "posted" for event in events(tmp_path)))
    (posted,) = await asyncio.to_thread(jobs, service, tmp_path)

    assert await command("--work-dir", str(tmp_path), "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    seen = [shown[name] for name in ("kind", "name", "id", "state", "device", "campaign_name")]
    assert seen == ["quantum", block, posted["id"], "submitted", "fake_manila", "cancelled"]
    assert shown["holder"]["pid"] == os.getpid()

    assert await command("cancel", "--work-dir", str(tmp_path), posted["id"]) == 0
    assert "ended  " in (said := capsys.readouterr().out)
    assert "the service says CANCELLED" in said
    with pytest.raises(QuantumJobFailed, match="CANCELLED"):
        await running
    (known,) = list_quantum_jobs(tmp_path)
    assert (known.status.state, known.is_over) == ("cancelled", True)
    assert list_jobs(tmp_path) == []
    assert await command("cancel", "--work-dir", str(tmp_path), known.key) == 0
    assert "it had ended: CANCELLED" in capsys.readouterr().out


async def test_the_job_of_a_killed_process_is_attached_and_its_result_is_the_flows(
    service, block, tmp_path, capsys
):
    await left_by_a_killed_process(service, block, tmp_path)
    (left,) = list_quantum_jobs(tmp_path)
    assert left.status.state == "unknown"
    assert left.status.reason == "last known: submitted; its process is dead"
    assert find_job(left.tag, jobs=[left]) is left

    service.clear()
    assert await command("attach", "--work-dir", str(tmp_path), left.key) == 0
    (done,) = list_quantum_jobs(tmp_path)
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
    (left,) = list_quantum_jobs(tmp_path)
    words = ("cancel", "--work-dir", str(tmp_path), left.folder.path)
    done = await asyncio.to_thread(run, *words, "--wait", "1")
    assert (done.returncode, done.stdout[:11]) == (1, "UNCONFIRMED"), done.stderr
    (doubtful,) = list_quantum_jobs(tmp_path)
    assert (doubtful.status.state, doubtful.is_over) == ("unknown", False)
    assert "nobody has seen it" in doubtful.status.reason

    service.clear("cancel-lags")
    done = await asyncio.to_thread(run, *words, "--wait", "60")
    assert (done.returncode, done.stdout[:7]) == (0, "ended  "), done.stderr
    assert list_quantum_jobs(tmp_path)[0].is_over


async def test_who_stops_to_wait_leaves_the_job(service, block, tmp_path):
    await left_by_a_killed_process(service, block, tmp_path)
    (left,) = list_quantum_jobs(tmp_path)
    words = ["-c", COMMAND, "jobs", "attach", "--work-dir", str(tmp_path), left.key]
    attach = await asyncio.to_thread(warm.Process, words, stderr=warm.PIPE, imports="qiskit")
    await until(lambda: list_quantum_jobs(tmp_path)[0].status.state == "submitted")
    attach.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(attach.communicate, timeout=100)
    assert attach.returncode == 130, said
    assert "is left as it is" in said
    (job,) = await asyncio.to_thread(jobs, service, tmp_path)
    assert job["status"] == "Queued"
    assert events(tmp_path)[-1]["event"] == "posted"


async def test_the_job_of_a_killed_process_is_cancelled_without_prefect(service, block, tmp_path):
    await left_by_a_killed_process(service, block, tmp_path)
    (left,) = list_quantum_jobs(tmp_path)
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}
    done = await apart("cancel", "--work-dir", str(tmp_path), left.job_id, **nowhere)
    assert done.returncode == 0, done.stderr
    assert "the service says CANCELLED" in done.stdout
    (known,) = list_quantum_jobs(tmp_path)
    assert known.status.state == "cancelled"
    assert events(tmp_path)[-1]["qpu_seconds"] == 0


def test_a_folder_that_makes_no_sense_is_shown_as_such(tmp_path, capsys):
    folder = tmp_path / ".hpc-prefect" / "campaign-x" / "ab" / ("k" * 20)
    folder.mkdir(parents=True)
    for text in ("", "torn", '{"time":1,"event":"posted","job_id":"j"}\n', '{"event":"intent"}\n'):
        (folder / "quantum.jsonl").write_text(text)
        (job,) = list_quantum_jobs(tmp_path)
        assert (job.status.state, bool(job.problem)) == ("unreadable", True), text
    assert main(["jobs", "--work-dir", str(tmp_path)]) == 0
    assert "unreadable" in capsys.readouterr().out
    assert main(["jobs", "cancel", "--work-dir", str(tmp_path), "k" * 20]) == 1
    assert "UNCONFIRMED" in capsys.readouterr().out


def test_a_job_that_is_done_without_its_result_says_so(tmp_path):
    folder = tmp_path / ".hpc-prefect" / "campaign-x" / "ab" / ("k" * 20)
    folder.mkdir(parents=True)
    intent = {"time": 1.0, "event": "intent", "tag": "hp-1", "device": "ibm_x", "block": "qpu"}
    posted = {"time": 2.0, "event": "posted", "job_id": "j"}
    done = {"time": 3.0, "event": "ended", "status": "DONE", "qpu_seconds": 4}
    lines = [json.dumps(each) for each in (intent, posted, done)]
    (folder / "quantum.jsonl").write_text("\n".join(lines) + "\n")
    (job,) = list_quantum_jobs(tmp_path)
    assert (job.status.state, job.qpu_seconds) == ("succeeded", 4)
    assert job.status.reason == "its result is still at the service"
    (folder / "estimation.json").write_text('{"state": "finished"}')
    assert list_quantum_jobs(tmp_path)[0].status.reason == ""
