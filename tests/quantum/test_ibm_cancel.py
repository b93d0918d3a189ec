"""A cancelled job is looked at until it has ended: real client, a service on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from pathlib import Path

import pytest
from circuits import bell
from prefect import flow

from hpc_prefect import campaign
from hpc_prefect.ledger.quantum_folder import qpu_seconds
from hpc_prefect.operations import list_jobs
from hpc_prefect.quantum import QuantumBackendBlock, sample
from hpc_prefect.quantum.purchase.budget import Budget
from hpc_prefect.records.fold import Record
from hpc_prefect.records.read import read_run

from .journals import cost, events, reason, words
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


def last(folder: Path) -> float:
    """What the newest job has cost, or may cost."""
    job = list_jobs(folder)[-1]
    return qpu_seconds(job.ledger)


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
    assert words(tmp_path) == ["intent", "submitted", "cancel", "verdict"]
    assert (job["status"], reason(end)) == ("Cancelled", "cancelled")
    assert cost(end) == pytest.approx(26.0)
    (journal,) = tmp_path.glob(".hpc-prefect/**/journal.jsonl")
    assert Budget(journal.parent.parent.parent).total() == cost(end)
    await until(lambda: [each.state for each in records(tmp_path)] != ["running"])
    (record,) = records(tmp_path)
    (told,) = record.jobs.values()
    assert (told["state"], told["qpu_seconds"]) == ("cancelled", cost(end))
    assert record.totals.costs == {"qpu_seconds": cost(end)}
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
    assert words(tmp_path)[:3] == ["intent", "submitted", "cancel"]
    assert words(tmp_path)[-1] in ("verdict", "unconfirmed")

    result = await once(tmp_path, block)

    assert sum(result[0].data.meas.get_counts().values()) == 100
    assert [job["status"] for job in jobs(service, tmp_path)] == ["Completed"]
    assert reason(events(tmp_path)[-1]) == "succeeded"
    assert last(tmp_path) == cost(events(tmp_path)[-1]) > 0


async def test_a_job_that_does_not_end_is_unconfirmed_and_nothing_is_bought_before_it_is_gone(
    service, block, tmp_path
):
    service.fault("maintenance", backend="fake_manila")
    service.fault("cancel-lags", seconds=600)
    await cancelled_when(lambda: len(jobs(service, tmp_path)) == 1, tmp_path, block)
    assert words(tmp_path)[-2:] == ["cancel", "unconfirmed"]
    assert last(tmp_path) > 0  # until its end is known it may cost what was estimated

    again = asyncio.create_task(once(tmp_path, block))
    await until(lambda: words(tmp_path).count("cancel") == 2)
    (job,) = jobs(service, tmp_path)
    assert job["status"] == "Queued"
    service.clear("cancel-lags")
    await asyncio.to_thread(cancel_at_service, job["id"])
    service.clear()
    await again

    assert sorted(job["status"] for job in jobs(service, tmp_path)) == ["Cancelled", "Completed"]
    first = next(event for event in events(tmp_path) if event["event"] == "verdict")
    assert (reason(first), cost(first)) == ("cancelled", 0)


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
        assert words(tmp_path) == ["intent", "submitted", "cancel", "verdict"]
        assert (job["status"], last(tmp_path)) == ("Cancelled", 0)
        return
    assert words(tmp_path) == ["intent", "unconfirmed"]
    assert last(tmp_path) > 0  # it may be there, and cost
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
    assert last(tmp_path) == pytest.approx(2 * 3.5)


async def test_a_post_whose_reply_makes_no_sense_is_no_refusal_its_job_is_adopted(
    service, block, tmp_path
):
    service.fault("reply-lost", status=200, times=1)  # accepted, and the body has no id

    result = await once(tmp_path, block)

    assert sum(result[0].data.meas.get_counts().values()) == 100
    assert words(tmp_path) == ["intent", "submitted", "verdict"]
    assert len(jobs(service, tmp_path)) == 1
