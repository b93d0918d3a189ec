"""A cancelled job is looked at until it has ended: real client, a service on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from pathlib import Path

import pytest
from circuits import bell
from prefect import flow

from hpc_prefect import campaign
from hpc_prefect.ledger.quantum_journal import Journal, QuantumAttempt
from hpc_prefect.quantum import QuantumBackendBlock, sample
from hpc_prefect.quantum.purchase.budget import Budget
from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import read_run

from .service import QuantumService, common_ibm_quantum, quantum_service

pytestmark = pytest.mark.usefixtures("prefect_server")

__all__ = ["common_ibm_quantum"]


@pytest.fixture
def service(common_ibm_quantum: QuantumService):
    yield common_ibm_quantum
    common_ibm_quantum.clear()


@pytest.fixture
async def block():
    name = f"ibm-{uuid.uuid4().hex[:6]}"
    await QuantumBackendBlock(kind="ibm", backend_name="fake_manila").asave(name)
    return name


def events(folder: Path) -> list[dict]:
    paths = sorted(folder.glob(".hpc-prefect/**/quantum.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def words(folder: Path) -> list[str]:
    return [event["event"] for event in events(folder)]


def last(folder: Path) -> QuantumAttempt:
    (path,) = folder.glob(".hpc-prefect/**/quantum.jsonl")
    found = Journal(path.parent).last()
    assert found is not None
    return found


def jobs(service: QuantumService, folder: Path) -> list[dict]:
    tags = {event["tag"] for event in events(folder) if event["event"] == "intent"}
    return [job for job in service.counters()["jobs"] if tags & set(job["tags"])]


def records(folder: Path) -> list[Record]:
    return [read_run(path) for path in folder.glob(".hpc-prefect/*/runs/*")]


async def once(folder: Path, block: str, shots: int = 100):
    @flow
    async def experiment():
        with campaign("cancelled"):
            return await sample(
                [bell()],
                quantum_backend_block_name=block,
                work_dir=folder,
                options={"shots": shots, "seed": 1},
            )

    return await experiment()


async def until(true) -> None:
    """Wait for a condition; pytest's own time limit is the limit."""
    while True:
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.05)


async def cancelled_when(true, folder: Path, block: str, **options) -> None:
    """Start the experiment and cancel its call when something is so."""
    running = asyncio.create_task(once(folder, block, **options))
    await until(true)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_end_and_the_cost_of_a_job_that_was_cancelled_while_it_ran_are_the_services(
    block, tmp_path
):
    with (
        quantum_service(tmp_path / "service", queue_seconds=0, run_seconds=250) as own,
        own.found(),
    ):
        own.fault("cancel-lags", seconds=2)
        await cancelled_when(
            lambda: [job["status"] for job in jobs(own, tmp_path)] == ["Running"],
            tmp_path,
            block,
            shots=100_000,
        )
        (job,) = jobs(own, tmp_path)

    end = events(tmp_path)[-1]
    assert words(tmp_path) == ["intent", "posted", "cancel", "ended"]
    assert (job["status"], end["status"]) == ("Cancelled", "CANCELLED")
    assert end["qpu_seconds"] == pytest.approx(26.0)
    (journal,) = tmp_path.glob(".hpc-prefect/**/quantum.jsonl")
    assert Budget(journal.parent.parent.parent).total() == end["qpu_seconds"]
    await until(lambda: [each.state for each in records(tmp_path)] != ["running"])
    (record,) = records(tmp_path)
    (told,) = record.jobs.values()
    assert (told["state"], told["qpu_seconds"]) == ("cancelled", end["qpu_seconds"])
    assert record.totals.costs == {"qpu_seconds": end["qpu_seconds"]}
    # Its process could have been killed before the record had it: the folder has it too.
    (file,) = Path(record.folder).glob("events*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if '"event":"job-ended"' not in line))
    (again,) = records(tmp_path)
    assert again.totals.as_dict()["costs"] == record.totals.as_dict()["costs"]
    assert [each["from_folder"] for each in again.jobs.values()] == [True]


async def test_a_result_that_came_although_its_job_was_cancelled_is_taken_by_the_next_run(
    service, block, tmp_path
):
    service.fault("queue", seconds=0)
    service.fault("cancel-lags", seconds=600)
    await cancelled_when(
        lambda: [job["status"] for job in jobs(service, tmp_path)] == ["Running"],
        tmp_path,
        block,
    )
    # On a busy machine it may take longer than the patience.
    assert words(tmp_path)[:3] == ["intent", "posted", "cancel"]
    assert words(tmp_path)[-1] in ("ended", "unconfirmed")

    result = await once(tmp_path, block)

    assert sum(result[0].data.meas.get_counts().values()) == 100
    assert [job["status"] for job in jobs(service, tmp_path)] == ["Completed"]
    assert events(tmp_path)[-1]["status"] == "DONE"
    assert last(tmp_path).seconds == events(tmp_path)[-1]["qpu_seconds"] > 0


async def test_a_job_that_does_not_end_is_unconfirmed_and_nothing_is_bought_before_it_is_gone(
    service, block, tmp_path
):
    service.fault("maintenance", backend="fake_manila")
    service.fault("cancel-lags", seconds=600)
    await cancelled_when(lambda: len(jobs(service, tmp_path)) == 1, tmp_path, block)
    assert words(tmp_path)[-2:] == ["cancel", "unconfirmed"]
    assert last(tmp_path).seconds > 0  # until its end is known it may cost what was estimated

    again = asyncio.create_task(once(tmp_path, block))
    await until(lambda: words(tmp_path).count("cancel") == 2)
    (job,) = jobs(service, tmp_path)
    assert job["status"] == "Queued"
    service.clear("cancel-lags")
    await asyncio.to_thread(cancel_at_service, job["id"])
    service.clear()
    await again

    assert sorted(job["status"] for job in jobs(service, tmp_path)) == ["Cancelled", "Completed"]
    first = next(event for event in events(tmp_path) if event["event"] == "ended")
    assert (first["status"], first["qpu_seconds"]) == ("CANCELLED", 0)


def cancel_at_service(job_id: str) -> None:
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.exceptions import RuntimeInvalidStateError

    with contextlib.suppress(RuntimeInvalidStateError):  # the run's own request came first
        QiskitRuntimeService().job(job_id).cancel()


@pytest.mark.parametrize("lag", [2, 600])
async def test_a_lost_post_that_is_listed_late_is_found_now_or_by_the_next_run(
    service, block, tmp_path, lag
):
    service.fault("maintenance", backend="fake_manila")
    service.fault("list-lags", seconds=lag)
    service.fault("reply-lost", times=1)
    await cancelled_when(lambda: len(jobs(service, tmp_path)) == 1, tmp_path, block)

    (job,) = jobs(service, tmp_path)
    if lag == 2:
        assert words(tmp_path) == ["intent", "posted", "cancel", "ended"]
        assert (job["status"], last(tmp_path).seconds) == ("Cancelled", 0)
        return
    assert words(tmp_path) == ["intent", "unconfirmed"]
    assert last(tmp_path).seconds > 0  # it may be there, and cost
    service.clear()
    result = await once(tmp_path, block)
    assert sum(result[0].data.meas.get_counts().values()) == 100
    # The first job was done before it could be cancelled, or was cancelled and another one bought.
    intents = [event["tag"] for event in events(tmp_path) if event["event"] == "intent"]
    assert len(jobs(service, tmp_path)) == len(intents) <= 2


async def test_a_duplicate_that_ran_has_its_cost_in_the_budget(service, block, tmp_path):
    service.fault("queue", seconds=0)
    service.fault("duplicate", times=1)
    service.fault("cancel-lags", seconds=600)

    await once(tmp_path, block, shots=10_000)

    assert [job["status"] for job in jobs(service, tmp_path)] == ["Completed", "Completed"]
    assert last(tmp_path).seconds == pytest.approx(2 * 3.5)


async def test_a_post_whose_reply_makes_no_sense_is_no_refusal_its_job_is_adopted(
    service, block, tmp_path
):
    service.fault("reply-lost", status=200, times=1)  # accepted, and the body has no id

    result = await once(tmp_path, block)

    assert sum(result[0].data.meas.get_counts().values()) == 100
    assert words(tmp_path) == ["intent", "posted", "ended"]
    assert len(jobs(service, tmp_path)) == 1
