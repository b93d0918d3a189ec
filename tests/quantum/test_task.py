"""`sample` in flows: block, Variable, task run, and a resumed run."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid

import pytest
from circuits import bell
from prefect import flow
from prefect.variables import Variable

from hpc_prefect import campaign
from hpc_prefect.errors import InvalidJob
from hpc_prefect.quantum import QuantumBackendBlock, sample, sample_sync, submit_sampling
from hpc_prefect.quantum.task import _sample
from hpc_prefect.records.read import read_run

pytestmark = pytest.mark.usefixtures("prefect_server")


def counts(result):
    return result[0].data.meas.get_counts()


def records(work_dir):
    found = sorted(work_dir.glob(".hpc-prefect/*/*/*/sampling.json"))
    return {path: path.read_bytes() for path in found}


@pytest.fixture
async def block():
    name = f"aer-{uuid.uuid4().hex[:6]}"
    await QuantumBackendBlock(backend_name="aer").asave(name)
    return name


@pytest.fixture
async def variable():
    name = f"quantum_{uuid.uuid4().hex[:6]}"
    await Variable.aset(name, {"sampler": {"shots": 100, "seed": 11}, "n_reps": 1})
    return name


async def test_options_come_from_the_variable_and_the_calls_own_win(block, variable, tmp_path):
    @flow
    async def experiment():
        place = {"quantum_backend_block_name": block, "work_dir": tmp_path}
        return (
            await sample([bell()], variable_name=variable, **place),
            await sample([bell()], variable_name=variable, options={"shots": 7}, **place),
            await sample([bell()], options={"shots": 100, "seed": 11}, **place),
        )

    stored, own, given = await experiment()

    assert sum(counts(stored).values()) == 100
    assert sum(counts(own).values()) == 7
    assert counts(given) == counts(stored)


async def test_a_sampling_is_a_task_run_named_after_its_backend(block, tmp_path, caplog):
    @flow
    async def experiment():
        await sample(
            [bell()],
            quantum_backend_block_name=block,
            work_dir=tmp_path,
            options={"shots": 1, "seed": 1},
        )

    await experiment()
    lines = [each for each in caplog.records if each.message.startswith("Sampled ")]

    assert [each.task_run_name for each in lines] == [f"sample {block}"]
    assert "1 circuit, 1 shots on the simulator aer" in lines[0].message


async def test_a_backend_may_be_given_as_a_block_and_the_record_says_so(tmp_path):
    here = QuantumBackendBlock(backend_name="aer")

    @flow
    async def experiment():
        with campaign("given"):
            return await sample(
                [bell()],
                quantum_backend_block_name=here,
                work_dir=tmp_path,
                options={"shots": 50, "seed": 3},
            )

    first, second = await experiment(), await experiment()
    assert counts(first) == counts(second)
    ran, collected = await ended_records(tmp_path, 2)
    (job,), (again,) = ran.jobs.values(), collected.jobs.values()
    assert (job["collected"], again["collected"]) == (False, True)
    (block,) = ran.blocks.values()
    assert (block["kind"], block["name"]) == ("quantum-backend", "simulator (in code)")
    assert block["values"]["backend_name"] == "aer"


async def test_a_saved_block_that_is_given_is_told_by_its_name(block, tmp_path):
    stored = await QuantumBackendBlock.aload(block)
    given = {"quantum_backend_block_name": stored, "work_dir": tmp_path}

    @flow
    async def experiment():
        await sample([bell()], options={"shots": 1, "seed": 1}, **given)

    await experiment()
    (record,) = await ended_records(tmp_path, 1)
    assert [each["name"] for each in record.blocks.values()] == [block]


async def test_what_is_no_backend_is_told(tmp_path):
    with pytest.raises(InvalidJob) as refused:
        await sample(
            [bell()], quantum_backend_block_name=7, work_dir=tmp_path, options={"shots": 1}
        )

    assert refused.value.problems == (
        "int was given where a Quantum Backend block, or its name, is needed",
    )


async def test_a_submitted_sampling_is_of_a_stored_backend(tmp_path):
    with pytest.raises(InvalidJob, match="the name of a stored Quantum Backend block is needed"):
        await submit_sampling(
            [bell()], quantum_backend_block_name=QuantumBackendBlock(), work_dir=tmp_path
        )


async def test_two_identical_samplings_are_two_and_a_resumed_run_repeats_neither(block, tmp_path):
    calls = {
        "quantum_backend_block_name": block,
        "work_dir": tmp_path,
        "options": {"shots": 100, "seed": 3},
    }

    failures = [RuntimeError("a step after the samplings failed")]

    @flow
    async def experiment():
        found = await asyncio.gather(*[sample([bell()], **calls) for _ in range(2)])
        if failures:
            raise failures.pop()
        return [counts(each) for each in found]

    with pytest.raises(RuntimeError):
        await experiment()
    before = records(tmp_path)
    resumed = await experiment()

    assert len(before) == 2
    assert records(tmp_path) == before
    assert len(resumed) == 2
    assert all(json.loads(text)["state"] == "finished" for text in before.values())


def test_a_sync_flow_and_a_plain_script_sample_too(prefect_server, tmp_path):
    name = f"uniform-{uuid.uuid4().hex[:6]}"
    QuantumBackendBlock(backend_name="uniform").save(name, _sync=True)

    def call():
        return counts(
            sample_sync(
                [bell()],
                quantum_backend_block_name=name,
                work_dir=tmp_path,
                options={"shots": 50, "seed": 1},
            )
        )

    assert flow(call)() == call()


async def test_all_problems_with_a_call_are_told_at_once(block, variable, tmp_path):
    async def call():
        await sample(
            bell(),
            quantum_backend_block_name=block[:-1],
            work_dir=tmp_path,
            variable_name=variable[:-1],
            options={"sead": 1},
        )

    with pytest.raises(InvalidJob) as refused:
        await flow(call)()

    advice = "Add it with: hpc-prefect blocks apply FILE"
    first, second, *rest = refused.value.problems
    assert first.startswith(f"there is no Quantum Backend block {block[:-1]!r}; did you mean ")
    assert repr(block) in first
    assert first.endswith(f"? {advice}")
    assert second.startswith(f"there is no Variable {variable[:-1]!r}; did you mean ")
    assert rest == [
        "options: there is no option 'sead'; did you mean 'seed'?",
        "pubs: this is one circuit; pass a list of PUBs, such as [circuit]",
    ]
    assert records(tmp_path) == {}


async def test_other_tasks_go_on_while_the_simulator_works():
    started, go = threading.Event(), threading.Event()

    def simulate():
        started.set()
        return go.wait(200)

    class Work:
        async def known(self, log):
            return await asyncio.to_thread(simulate)

    sampling = asyncio.create_task(_sample("aer", Work()))
    await asyncio.to_thread(started.wait, 200)
    go.set()  # by this loop, which a simulation on it would keep from coming here

    assert await sampling


async def test_the_runs_record_has_the_sampling_its_block_variable_and_seed(
    block, variable, tmp_path
):
    @flow
    async def experiment():
        with campaign("recorded"):
            place = {"quantum_backend_block_name": block, "work_dir": tmp_path}
            await sample([bell()], variable_name=variable, **place)

    for _ in range(2):
        await experiment()
    first, second = await ended_records(tmp_path, 2)
    ((job,), (again,)) = first.jobs.values(), second.jobs.values()
    assert (job["kind"], job["state"], job["collected"]) == ("sampler", "succeeded", False)
    assert (job["shots"], job["seed"], job["backend"]["name"]) == (100, 11, "aer")
    assert (again["collected"], again["result_sha256"]) == (True, job["result_sha256"])
    told = {(each["kind"], each["name"]) for each in first.blocks.values()}
    assert told == {("quantum-backend", block), ("sampler-variable", variable)}


async def ended_records(work_dir, count):
    for _ in range(20_000):
        found = [read_run(each) for each in work_dir.glob(".hpc-prefect/*/runs/*")]
        if [each.state for each in found] == ["completed"] * count:
            return sorted(found, key=lambda each: each.started)
        await asyncio.sleep(0.01)
    raise AssertionError(found)
