"""A job from the call to the result: how each end looks, and what the folder says of it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from datetime import date
from pathlib import Path

import pytest
from rig import Counting, Rig, Told, until

from hpc_prefect.errors import LedgerError
from hpc_prefect.executor.finalize import versions
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.schedulers.local.scheduler import LocalScheduler
from hpc_prefect.transports.local import LocalTransport

MiB = 1 << 20


async def test_a_success_tells_everything_and_leaves_its_records(rig):
    told = Told()
    spec = rig.spec("echo hello; echo oops >&2; sleep 0.2; echo > made", expected_outputs=("made",))
    result = await rig.run(rig.request(spec, listener=told, provenance={"flow": "f"}))

    assert (result.state, result.verdict.reason, result.exit_code, result.signal) == (
        "succeeded",
        Reason.SUCCEEDED,
        0,
        "",
    )
    assert (result.attempt, result.name, result.key, result.collected) == (1, "job", "k", False)
    assert re.fullmatch(r"h[a-z0-9]{14}", result.tag)
    assert re.fullmatch(r"\d+\..+", result.job_id)
    assert result.folder == str(rig.attempt())
    assert Path(result.stdout_path).read_text() == "hello\n"
    assert Path(result.stderr_path).read_text() == "oops\n"
    assert os.access(result.script_path, os.X_OK)
    assert result.run_seconds >= 0.2
    assert result.queue_seconds is not None
    assert "cpu_seconds" in result.resources_used
    assert [entry["event"] for entry in rig.journal() if entry["event"] != "observed"] == [
        "intent",
        "submitted",
        "verdict",
    ]
    record = json.loads((rig.attempt() / "record.json").read_text())
    assert record["result"] == json.loads(json.dumps(result.as_dict()))
    assert (record["flow"], record["job"]["name"]) == ("f", "job")
    assert told.text("stdout") == "hello"
    assert told.states[-1] == "succeeded: the program ended with 0"
    assert rig.attempt().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("text", "changes", "reason", "code", "name"),
    [
        ("exit 3", {}, Reason.PROGRAM_FAILED, 3, ""),
        ("exit 117", {}, Reason.PROGRAM_FAILED, 117, ""),
        ("kill -SEGV $$", {}, Reason.PROGRAM_FAILED, 139, "SIGSEGV"),
        ("sleep 60", {"resources": {"walltime": 1}}, Reason.WALLTIME, None, None),
        (
            "trap 'exit 0' TERM; sleep 60 & wait",
            {"resources": {"walltime": 1}},
            Reason.WALLTIME,
            None,  # bash 5.2 loses a status now and then when TERM and CHLD come at once
            None,
        ),
        ("exit 0", {"site": {"setup": ("false || exit 5",)}}, Reason.SETUP_FAILED, 5, ""),
        ("exit 0", {"site": {"modules": ("gcc",)}}, Reason.SETUP_FAILED, None, ""),
        ("exit 0", {"expected_outputs": ("made",)}, Reason.OUTPUT_LOST, 0, ""),
        ("", {"program": "/no/such/program"}, Reason.EXECUTABLE_MISSING, 127, ""),
    ],
    ids=[
        "exit code",
        "the guard's own code",
        "signal",
        "walltime",
        "walltime, trapped",
        "set-up",
        "module",
        "output missing",
        "executable missing",
    ],
)
async def test_each_failure_is_told_apart(rig, text, changes, reason, code, name):
    result = await rig.run(rig.request(rig.spec(text, **changes)))
    assert (result.verdict.reason, result.state) == (reason, "failed"), result
    assert code in (None, result.exit_code)
    assert name in (None, result.signal)


async def test_a_program_that_runs_into_its_own_memory_limit_failed_by_itself(rig):
    text = "import resource\n"
    text += (
        f"resource.setrlimit(resource.RLIMIT_AS, ({200 * MiB}, {200 * MiB}))\nbytes({400 * MiB})"
    )
    spec = rig.spec(program=rig.python(text), resources={"memory_per_node": 1024 * MiB})
    result = await rig.run(rig.request(spec))
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 1)
    assert "MemoryError" in Path(result.stderr_path).read_text()


async def test_a_program_over_the_jobs_memory_is_out_of_memory(rig):
    text = f"import time\nblock = bytearray(b'x') * {100 * MiB}\ntime.sleep(60)"
    spec = rig.spec(program=rig.python(text), resources={"memory_per_node": 60 * MiB})
    result = await rig.run(rig.request(spec))
    assert result.verdict.reason is Reason.OUT_OF_MEMORY
    assert "bytes of memory" in result.verdict.summary
    assert result.verdict.retryable


async def test_an_output_that_was_there_before_is_no_output_of_this_run(rig):
    (rig.work / "made").write_text("of an earlier run")
    result = await rig.run(rig.request(rig.spec(expected_outputs=("made",))))
    assert result.verdict.reason is Reason.OUTPUT_LOST
    assert "made" in result.verdict.summary


async def test_a_refused_job_was_never_submitted(rig):
    spec = rig.spec(resources={"ranks_per_node": 3})
    result = await rig.run(rig.request(spec))
    assert (result.verdict.reason, result.job_id) == (Reason.REJECTED, "")
    assert "2 slots" in result.verdict.said
    assert rig.runs() == []


async def test_a_failed_job_runs_again_as_the_next_attempt_and_nothing_is_overwritten(rig):
    flag = rig.folder / "flag"
    spec = rig.spec(f'echo "seen $(ls {flag} 2>&1)"; [ -e {flag} ]')
    first = await rig.run(rig.request(spec))
    before = {path: path.read_bytes() for path in rig.attempt(1).iterdir() if path.is_file()}
    flag.touch()
    second = await rig.run(rig.request(spec))
    assert (first.state, first.attempt) == ("failed", 1)
    assert (second.state, second.attempt) == ("succeeded", 2)
    assert first.tag != second.tag
    assert before == {path: path.read_bytes() for path in before}
    assert len(rig.runs()) == 2


async def test_a_finished_job_is_collected_without_a_single_command(rig):
    request = rig.request(rig.spec("echo > made", expected_outputs=("made",)))
    first = await rig.run(request)
    transport = Counting()
    second = await rig.run(request, rig.connection(transport=transport))
    assert transport.commands == []
    assert len(rig.runs()) == 1
    assert second.collected
    assert second.as_dict() | {"collected": False} == first.as_dict()


async def test_a_finished_job_whose_output_is_gone_runs_again(rig):
    request = rig.request(rig.spec("echo > made", expected_outputs=("made",)))
    await rig.run(request)
    (rig.work / "made").unlink()
    result = await rig.run(request)
    assert (result.state, result.attempt, result.collected) == ("succeeded", 2, False)
    assert len(rig.runs()) == 2


class Remembering(LocalTransport):
    """NFS, which remembers from before the job that its output is not there."""

    looks = 0

    def left_now(self, path, name):
        self.looks += 1
        return None if self.looks == 1 else super().left_now(path, name)


class Patient(LocalScheduler):
    patience = dataclasses.replace(LocalScheduler.patience, outputs=600.0)


async def test_an_output_that_nfs_remembers_as_absent_has_no_finished_job_run_again(rig):
    request = rig.request(rig.spec("echo > made", expected_outputs=("made",)))
    await rig.run(request)
    result = await rig.run(request, rig.connection(Patient(), Remembering()))
    assert (result.state, result.attempt, result.collected) == ("succeeded", 1, True)
    assert len(rig.runs()) == 1


async def test_a_finished_job_whose_output_was_changed_is_an_error_that_names_it(rig):
    request = rig.request(rig.spec("echo > made; echo > other", expected_outputs=("made", "other")))
    await rig.run(request)
    (rig.work / "made").write_text("changed by hand")
    with pytest.raises(LedgerError, match=r"job job already ran .* but made has changed since"):
        await rig.run(request)
    assert len(rig.runs()) == 1


async def test_a_verdict_that_cannot_be_read_is_an_error_and_no_second_run(rig):
    request = rig.request(rig.spec())
    await rig.run(request)
    journal = rig.attempt() / "journal.jsonl"
    journal.write_text('{"event":"verdict","result":{"verdict":{"reason":"unheard of"}}}\n')
    with pytest.raises(LedgerError, match="holds a verdict that cannot be read"):
        await rig.run(request)
    assert len(rig.runs()) == 1


class Forgetful(LocalScheduler):
    """Answers well, and knows no job any more that has begun; loses its patience soon."""

    patience = LocalScheduler.patience.__class__(absent=0.2, lost=0.5, record=0.2, find=0.2)

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def observe(self, ids, options):
        said = yield from super().observe(ids, options)
        return {} if self.rig.runs() else said


async def test_a_lost_job_is_not_submitted_again_by_itself_and_can_still_be_found(rig):
    gate = rig.folder / "gate"
    request = rig.request(rig.spec(f"until [ -e {gate} ]; do sleep 0.05; done"), poll_interval=0.1)
    lost = await rig.run(request, rig.connection(Forgetful(rig)))
    assert (lost.state, lost.verdict.reason) == ("lost", Reason.LOST)
    again = await rig.run(request, rig.connection(Forgetful(rig)))
    assert (again.state, again.attempt, again.job_id) == ("lost", 1, lost.job_id)
    gate.touch()
    await until(lambda: not rig.active(), "the job's end")
    found = await rig.run(request)
    assert (found.state, found.attempt, found.job_id) == ("succeeded", 1, lost.job_id)
    assert (await rig.run(request)).collected
    assert len(rig.runs()) == 1


async def test_secrets_reach_the_program_and_nothing_else(rig):
    spec = rig.spec('echo "$TOKEN" > made', secret_names=("TOKEN",))
    result = await rig.run(rig.request(spec, secrets={"TOKEN": "it's a $ecret"}))
    assert result.succeeded
    assert (rig.work / "made").read_text() == "it's a $ecret\n"
    for path in rig.folder.rglob("*"):
        if path.is_file() and path.name != "made":
            assert b"$ecret" not in path.read_bytes(), path


async def test_the_intent_holds_all_that_another_process_needs_to_take_the_job_over(rig):
    campaign = {"campaign": "a", "parameters": {"when": date(2026, 1, 2)}}
    request = rig.request(rig.spec(arguments=("a b",)), poll_interval=0.25, provenance=campaign)
    await rig.run(request)
    intent = next(entry for entry in rig.journal() if entry["event"] == "intent")
    assert JobSpec.from_dict(intent["job"]) == request.spec
    assert intent["poll_interval"] == 0.25
    assert intent["provenance"] == {"campaign": "a", "parameters": {"when": "2026-01-02"}}


def test_what_a_run_record_names_as_versions():
    assert set(versions()) >= {"hpc-prefect", "prefect", "python"}


@pytest.mark.parametrize("name", ["guard", "record.json"])
async def test_what_a_program_puts_in_the_place_of_a_record_hides_no_verdict(rig, name):
    path = f"{rig.attempt()}/{name}"
    spec = rig.spec(f"rm -f '{path}'; mkdir '{path}'; exit 9")
    result = await rig.run(rig.request(spec))
    assert (result.verdict.reason, result.exit_code) == (Reason.PROGRAM_FAILED, 9)
    again = await rig.run(rig.request(spec))
    assert (again.attempt, len(rig.runs())) == (2, 2), "and a second attempt is one"
