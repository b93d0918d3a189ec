"""Jobs posted / jobs wanted, whatever dies or gets lost: the real client, a service on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import IO

import pytest
from circuits import bell
from once import experiment
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling

from hpc_prefect import campaign, cancel_jobs
from hpc_prefect.operations import list_jobs
from hpc_prefect.quantum import QuantumBackendBlock, sample, sample_sync

from .. import warm
from ..warm import Process
from .journals import events, words
from .service import QuantumService, common_ibm_quantum

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]

__all__ = ["common_ibm_quantum"]

HERE = Path(__file__).parent
_runs: list[Run] = []


@pytest.fixture
def service(common_ibm_quantum: QuantumService):
    yield common_ibm_quantum
    common_ibm_quantum.clear()
    while _runs:
        run = _runs.pop()
        run.process.kill()
        run.process.wait()


@pytest.fixture
async def block():
    name = f"ibm-{uuid.uuid4().hex[:6]}"
    await QuantumBackendBlock(kind="ibm", backend_name="fake_manila").asave(name)
    return name


class Run:
    """The flow in a process of its own."""

    def __init__(self, folder: Path, block: str, *more: str) -> None:
        self.log = folder / f"run-{uuid.uuid4().hex[:4]}.log"
        with self.log.open("wb") as log:
            self.process = self.begin([str(HERE / "once.py"), str(folder), block, *more], log)
        _runs.append(self)

    def begin(self, words: list[str], log: IO[bytes]) -> Process:
        return Process(words, stdout=log, stderr=log, imports="qiskit")

    async def until_posted(self, service: QuantumService, folder: Path) -> None:
        await until(
            lambda: self.process.poll() is None or self.fail(), lambda: posted(service, folder)
        )

    def fail(self) -> bool:
        raise AssertionError(self.log.read_text())

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 280)


class RunWithRetries(Run):
    """The same with a setting that Prefect reads when it is imported."""

    def begin(self, words: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        settings = {"PREFECT_TASKS_DEFAULT_RETRIES": "2"}
        command = [sys.executable, *words]
        return subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)


async def until(alive, true) -> None:
    """Wait for a condition; pytest's own time limit is the limit."""
    while not await asyncio.to_thread(true):
        assert alive()
        await asyncio.sleep(0.1)


def jobs(service: QuantumService, folder: Path) -> list[dict]:
    tags = {event["tag"] for event in events(folder) if event["event"] == "intent"}
    return [job for job in service.counters()["jobs"] if tags & set(job["tags"])]


def posted(service: QuantumService, folder: Path) -> int:
    return len(jobs(service, folder))


async def once(folder: Path, block: str, *, name: str = "once"):
    """The call of `once.py` in this process."""

    @flow
    async def experiment():
        with campaign(name):
            return await sample(
                [bell()],
                quantum_backend_block_name=block,
                work_dir=folder,
                options={"shots": 100, "seed": 1},
            )

    return await experiment()


async def test_killed_while_it_waits(service, block, tmp_path):
    service.fault("maintenance", backend="fake_manila")
    first = Run(tmp_path, block)
    await until(
        lambda: first.process.poll() is None or first.fail(),
        lambda: any(event["event"] == "submitted" for event in events(tmp_path)),
    )
    first.process.kill()
    await first.ended()
    service.clear()
    again = Run(tmp_path, block)

    assert await again.ended() == 0, again.log.read_text()
    assert "attached to" in again.log.read_text()
    assert "counts 100" in again.log.read_text()
    assert posted(service, tmp_path) == 1


async def test_the_hook_cancels_the_job_of_a_run_that_was_killed(service, block, tmp_path):
    service.fault("maintenance", backend="fake_manila")
    killed = Run(tmp_path, block)
    await until(
        lambda: killed.process.poll() is None or killed.fail(),
        lambda: any(event["event"] == "submitted" for event in events(tmp_path)),
    )
    killed.process.kill()
    await killed.ended()
    (claim,) = tmp_path.glob(".hpc-prefect/*/claim-1")
    async with get_client() as client:
        run = await client.read_flow_run(uuid.UUID(json.loads(claim.read_text())["flow_run"]))
    await cancel_jobs(experiment, run, Cancelling())

    (job,) = jobs(service, tmp_path)
    assert job["status"] == "Cancelled"
    (left,) = list_jobs(tmp_path)
    assert (left.status.state, left.qpu_seconds) == ("ended", 0)


async def test_killed_right_after_the_post_was_accepted(service, block, tmp_path):
    service.fault("reply-lost", delay=300, times=1)  # accepted, and the answer does not come
    first = Run(tmp_path, block)
    await first.until_posted(service, tmp_path)
    first.process.kill()
    await first.ended()
    assert [event["event"] for event in events(tmp_path)] == ["intent"]
    again = Run(tmp_path, block)

    assert await again.ended() == 0, again.log.read_text()
    assert "it had been submitted" in again.log.read_text()
    assert posted(service, tmp_path) == 1


async def test_a_refusal_after_a_lost_reply_closes_nothing(service, block, tmp_path):
    service.fault("reply-lost", delay=300, times=1)
    first = Run(tmp_path, block)
    await first.until_posted(service, tmp_path)
    first.process.kill()
    await first.ended()
    service.fault("list-lags", seconds=3600)
    service.fault("post-fails", status=400)
    refused = Run(tmp_path, block)
    assert await refused.ended() != 0
    assert "an earlier POST of it may have been accepted" in refused.log.read_text()
    assert words(tmp_path) == ["intent", "attached", "intent", "refused"]
    service.clear()
    again = Run(tmp_path, block)

    assert await again.ended() == 0, again.log.read_text()
    assert posted(service, tmp_path) == 1


@pytest.mark.parametrize("status", [503, 500, 0])
async def test_the_reply_to_the_post_is_lost(service, block, tmp_path, status):
    service.fault("reply-lost", status=status, times=1)

    await once(tmp_path, block)

    assert posted(service, tmp_path) == 1
    assert words(tmp_path) == ["intent", "submitted", "verdict"]


async def test_two_polls_fail(service, block, tmp_path):
    service.fault("queue", seconds=3)
    service.fault("poll-fails", times=2)

    await once(tmp_path, block)

    assert posted(service, tmp_path) == 1


async def test_the_service_is_started_anew_while_the_job_waits(service, block, tmp_path):
    service.fault("maintenance", backend="fake_manila")
    waiting = asyncio.create_task(once(tmp_path, block))
    await until(lambda: not waiting.done(), lambda: len(events(tmp_path)) == 2)
    await asyncio.to_thread(service.kill)
    await asyncio.sleep(2)  # it is away for longer than one question
    await asyncio.to_thread(service.restart)
    service.clear()
    await waiting

    assert posted(service, tmp_path) == 1


async def test_the_token_expires_while_the_job_waits(service, block, tmp_path):
    service.fault("maintenance", backend="fake_manila")
    waiting = asyncio.create_task(once(tmp_path, block))
    await until(lambda: not waiting.done(), lambda: len(events(tmp_path)) == 2)
    # A token tells its time in whole seconds: the next one must be younger than the fault.
    issued = time.time()
    await until(lambda: not waiting.done(), lambda: time.time() > issued + 1.1)
    service.fault("token-expired")
    service.clear("maintenance")
    await waiting

    assert posted(service, tmp_path) == 1


async def test_the_result_is_had_again_offline(service, block, tmp_path):
    failures = [RuntimeError("a step after the sampling failed")]

    @flow
    async def experiment():
        result = await sample(
            [bell()],
            quantum_backend_block_name=block,
            work_dir=tmp_path,
            options={"shots": 100, "seed": 1},
        )
        counts.append(result[0].data.meas.get_counts())
        if failures:
            raise failures.pop()

    counts: list[dict[str, int]] = []
    with pytest.raises(RuntimeError):
        await experiment()
    service.stop()
    try:
        await experiment()
    finally:
        await asyncio.to_thread(service.restart)

    assert counts[0] == counts[1]
    assert posted(service, tmp_path) == 1


async def test_the_same_call_twice_on_purpose(service, block, tmp_path):
    @flow
    async def experiment():
        call = {"quantum_backend_block_name": block, "work_dir": tmp_path}
        one = await sample([bell()], options={"shots": 100, "seed": 1}, **call)
        other = await sample([bell()], options={"shots": 100, "seed": 1}, **call)
        return one, other

    await experiment()

    assert posted(service, tmp_path) == 2


async def test_the_block_is_edited_to_another_backend(service, block, tmp_path):
    await once(tmp_path, block, name="edited")
    await QuantumBackendBlock(kind="ibm", backend_name="fake_torino").asave(block, overwrite=True)
    (campaign_folder,) = tmp_path.glob(".hpc-prefect/*")
    (campaign_folder / "completed").unlink(missing_ok=True)

    await once(tmp_path, block, name="edited")

    backends = sorted(job["backend"] for job in jobs(service, tmp_path))
    assert backends == ["fake_manila", "fake_torino"]


@pytest.mark.parametrize("keep", [False, True])
def test_a_cancelled_call_cancels_its_job_unless_it_is_to_be_kept(
    service, prefect_server, tmp_path, keep
):
    name = f"ibm-{uuid.uuid4().hex[:6]}"
    fields = {"on_cancel": "keep"} if keep else {}
    QuantumBackendBlock(kind="ibm", backend_name="fake_manila", **fields).save(name, _sync=True)
    service.fault("maintenance", backend="fake_manila")

    def interrupt_when_posted() -> None:
        while len(events(tmp_path)) < 2:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_posted, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        sample_sync(
            [bell()],
            quantum_backend_block_name=name,
            work_dir=tmp_path,
            options={"shots": 100, "seed": 1},
        )

    assert [job["status"] for job in jobs(service, tmp_path)] == ["Queued" if keep else "Cancelled"]


async def test_a_run_that_is_cancelled_in_prefect_cancels_its_job(service, block, tmp_path):
    service.fault("maintenance", backend="fake_manila")
    first = Run(tmp_path, block)
    await until(
        lambda: first.process.poll() is None or first.fail(),
        lambda: any(event["event"] == "submitted" for event in events(tmp_path)),
    )
    async with get_client() as client:
        asked = {"work_dir": str(tmp_path), "block": block}
        runs = await client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=200)
        (run,) = [each for each in runs if each.parameters == asked]
        await client.set_flow_run_state(run.id, Cancelling())
        await first.ended()
        run = await client.read_flow_run(run.id)

    assert run.state.is_cancelled()
    assert [job["status"] for job in jobs(service, tmp_path)] == ["Cancelled"]


async def test_prefects_settings_do_not_buy_a_job_that_fails_a_second_time(
    service, block, tmp_path
):
    service.fault("job-fails")
    run = RunWithRetries(tmp_path, block)
    assert await run.ended() != 0
    assert posted(service, tmp_path) == 1, run.log.read_text()


async def test_ctrl_c_cancels_all_jobs_that_wait_at_once(service, block, tmp_path):
    service.fault("maintenance", backend="fake_manila")
    run = Run(tmp_path, block, "3")
    await until(
        lambda: run.process.poll() is None or run.fail(),
        lambda: sum(event["event"] == "submitted" for event in events(tmp_path)) == 3,
    )
    run.process.send_signal(signal.SIGINT)
    assert await run.ended() != 0
    said = run.log.read_text()
    assert [job["status"] for job in jobs(service, tmp_path)] == ["Cancelled"] * 3, said
    assert sum(event["event"] == "verdict" for event in events(tmp_path)) == 3, said


async def test_processes_of_a_pool_share_the_budget_of_their_experiment(service, tmp_path):
    """Each job is estimated at 2 s and costs 1: never are there 2 s for a second one."""
    name = f"ibm-{uuid.uuid4().hex[:6]}"
    await QuantumBackendBlock(kind="ibm", backend_name="fake_manila", max_qpu_seconds=2.5).asave(
        name
    )
    command = [str(HERE / "pooled.py"), str(tmp_path), name]

    done = await asyncio.to_thread(warm.run, command, capture_output=True, imports="qiskit")

    told = done.stdout.partition("told ")[2].split()
    assert sorted(told) == ["bought", "refused", "refused", "refused"], done.stderr
