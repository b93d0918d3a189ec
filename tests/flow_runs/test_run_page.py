"""The page of a run: one for each flow run that uses this package, whatever it consists of."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import Artifact

from hpc_prefect import campaign, record_measures, resume, runs, sample_sync
from hpc_prefect.errors import InvalidQuery, JobFailed
from hpc_prefect.records.read import read_run

from .. import warm
from ..background import settle
from ..flows.jobs import COUNT, WAIT, job, job_sync
from ..flows.jobs import runs as programs
from ..flows.recorded import record_of, records
from ..flows.seen import PROGRAMS, artifacts, table_on, until

pytestmark = pytest.mark.usefixtures("blocks")

JOBS = PROGRAMS / "jobs.py"
POOLED = PROGRAMS / "pooled.py"


def keys(run_id: str) -> list[str]:
    return sorted(str(each.key) for each in artifacts(run_id) if each.key)


def page_of(run_id: str) -> Artifact:
    settle()
    (page,) = [each for each in artifacts(run_id) if str(each.key).startswith("run-")]
    return page


def test_sub_flows_threads_and_retries_are_on_the_page_of_the_run_around(tmp_path: Path) -> None:
    @flow
    def inner(work_dir: str) -> None:
        job_sync(work_dir, "inner")

    @task
    def in_thread(work_dir: str, label: str) -> None:
        job_sync(work_dir, label)

    @flow(name="Outer one", retries=1)
    def outer(work_dir: str) -> None:
        if not programs(tmp_path):
            (tmp_path / "fail-last").touch()
        futures = [in_thread.submit(work_dir, label) for label in ("a", "b")]
        inner(work_dir)
        [future.result() for future in futures]
        record_measures(energy=-1.5)
        job_sync(work_dir, "last")

    outer(str(tmp_path))
    record = record_of(tmp_path)
    page = page_of(record.id)
    assert page.key == "run-outer-one"
    jobs = [(row["job"], row["result"]) for row in table_on(page, "Jobs")]
    assert jobs[0] == ("last", "program failed")
    assert sorted(jobs[1:]) == [(name, "succeeded") for name in ("a", "b", "inner", "last")]
    assert "| begun | 2 times: it was retried or resumed |" in str(page.data)
    assert "| energy | -1.5 |" in str(page.data)
    assert f"## {record.name}: completed" in str(page.data)


def test_a_flow_that_uses_nothing_of_ours_has_no_page(tmp_path: Path) -> None:
    ids = []

    @flow
    def plain() -> None:
        ids.append(str(get_run_logger().extra["flow_run_id"]))  # type: ignore[index]

    plain()
    settle()
    assert keys(ids[0]) == []


async def test_the_page_is_there_while_the_run_goes_on(tmp_path: Path) -> None:
    @flow
    async def waits(work_dir: str) -> None:
        with campaign("page"):
            await job(work_dir, "a", WAIT)

    running = asyncio.create_task(waits(str(tmp_path)))  # type: ignore[arg-type]
    try:
        # A thread of its own writes the record.
        await asyncio.to_thread(until, lambda: programs(tmp_path) and records(tmp_path))
        (record,) = records(tmp_path)
        page = await asyncio.to_thread(page_of, record.id)
        assert f"## {record.name}: running" in str(page.data)
    finally:
        (tmp_path / "go").touch()
        await running
    assert (await asyncio.to_thread(page_of, record.id)).id == page.id


def test_who_goes_on_with_a_run_of_another_process_goes_on_with_its_page(tmp_path: Path) -> None:
    script = "import asyncio, sys; from jobs import alone; asyncio.run(alone(sys.argv[1]))"
    killed = warm.Process(["-c", script, str(tmp_path)], cwd=JOBS.parent)
    until(lambda: programs(tmp_path) and records(tmp_path))
    (before,) = records(tmp_path)
    until(lambda: keys(before.id))
    killed.kill()
    killed.wait()
    (tmp_path / "go").touch()
    resume(before.id, entrypoint=f"{JOBS}:alone")
    assert "completed" in str(page_of(before.id).description)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_pools_workers_make_no_page_of_their_own(how: str, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    done = warm.run([str(POOLED), how, str(tmp_path)], timeout=300)
    assert done.returncode == 0
    folders = tmp_path.glob(".hpc-prefect/*/runs/*")
    (run_id,) = {folder.name for folder in folders}
    assert len([key for key in keys(run_id) if key.startswith("run-")]) <= 1


# --- compared


@flow(name="sampled")
def sampled(work_dir: str, shots: int, seed: int = 1, backend: str = "qpu-compared") -> None:
    """A Bell pair, sampled, and a job."""
    from qiskit import QuantumCircuit

    bell = QuantumCircuit(2)
    bell.h(0)
    bell.cx(0, 1)
    bell.measure_all()
    options = {"shots": shots, "seed": seed}
    found = sample_sync(
        [bell], quantum_backend_block_name=backend, work_dir=work_dir, options=options
    )
    job_sync(work_dir, "count", COUNT)
    record_measures(share=found[0].data.meas.get_counts()["00"] / shots)


def test_in_a_flow_a_comparison_is_an_artifact_of_it(tmp_path: Path) -> None:
    from hpc_prefect import QuantumBackendBlock

    QuantumBackendBlock(backend_name="aer").save("qpu-compared", overwrite=True, _sync=True)
    for shots in (100, 400):
        sampled(str(tmp_path / str(shots)), shots)
    settle()
    ids = []

    @flow
    def compares() -> str:
        ids.append(str(get_run_logger().extra["flow_run_id"]))  # type: ignore[index]
        first, second = runs.find(where="shots>0", flow="sampled", sort="shots")
        return runs.compare(first, read_run(second.folder)).text()

    told = compares()
    (parameters,) = [each for each in told.split("\n\n") if each.startswith("parameters")]
    assert [line.split()[0] for line in parameters.splitlines()[2:]] == ["shots", "work_dir"]
    settle()
    (shown,) = [each for each in artifacts(ids[0]) if each.key]
    assert shown.key == "compare-sampled"
    assert "| shots | 100 | 400 |" in str(shown.data)


def test_a_comparison_of_one_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidQuery, match="takes two runs or more"):
        runs.compare("latest")


async def test_a_failed_run_has_its_failure_on_the_page(tmp_path: Path) -> None:
    @flow
    async def fails(work_dir: str) -> None:
        await job(work_dir, "a", "exit 3")

    with pytest.raises(JobFailed):
        await fails(str(tmp_path))  # type: ignore[arg-type]
    record = await asyncio.to_thread(record_of, tmp_path)
    page = await asyncio.to_thread(page_of, record.id)
    assert str(page.description).startswith("failed; 1 job: 1 failed")
