"""Every way in which a job can end, as a user's flow meets it: all at once, at one place."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow

from hpc_prefect import (
    CommandBlock,
    ExecutionProfileBlock,
    HPCProfileBlock,
    JobFailed,
    JobResult,
    Reason,
    run_job_from_blocks,
)
from hpc_prefect.flow_runs.scopes import root_flow

from ..flows.seen import task_runs
from .places import Place

#: What every program does first: count its run, and tell under which id it runs.
BEGIN = """
echo "$1" >> runs
echo "${HPC_LOCAL_JOBID:-${SLURM_JOB_ID:-${PBS_JOBID:-$PJM_JOBID}}}" > "$1.id"
"""
GIVE_UP = "give up"
FOR_EVER = "while :; do sleep 0.2; done"
PATIENCE = 240.0


@dataclass(frozen=True, kw_only=True)
class Ending:
    """One job and how it is to end.

    Attributes:
        needs: the variant of the place's profile; an ending of a variant that a place does not have
            cannot happen there.
        act: what is done to the job meanwhile, and whether it runs by then: a method of the place,
            or `give up` for a cancellation by its own flow, or the one and then the other.
        execution: fields of the execution profile.
        runs: how often the program is to start; None when that is not certain.
    """

    name: str
    program: str = "exit 0"
    reason: Reason
    code: int | None = None
    signal: str = ""
    needs: str = ""
    act: str = ""
    queued: bool = False
    execution: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    runs: int | None = 1


ENDINGS = (
    Ending(name="ok", reason=Reason.SUCCEEDED, code=0),
    Ending(name="code-3", program="echo why >&2; exit 3", reason=Reason.PROGRAM_FAILED, code=3),
    Ending(
        name="code-137",
        program="exit 137",
        reason=Reason.PROGRAM_FAILED,
        code=137,
        signal="SIGKILL",
    ),
    Ending(name="code-255", program="exit 255", reason=Reason.PROGRAM_FAILED, code=255),
    Ending(
        name="segfault",
        program="kill -SEGV $$",
        reason=Reason.PROGRAM_FAILED,
        code=139,
        signal="SIGSEGV",
    ),
    Ending(
        name="script-killed",
        program="kill -9 $PPID; exit 1",
        reason=Reason.PROGRAM_FAILED,
        signal="SIGKILL",
    ),
    Ending(
        name="walltime",
        program=FOR_EVER,
        reason=Reason.WALLTIME,
        execution={"walltime": "shortest"},
    ),
    Ending(
        name="walltime-trapped",
        program=f'trap "exit 0" TERM; {FOR_EVER}',
        reason=Reason.WALLTIME,
        execution={"walltime": "shortest"},
    ),
    Ending(
        name="memory",
        program="exec python3 -c 'import time; x = bytearray(400 << 20); time.sleep(100)'",
        reason=Reason.OUT_OF_MEMORY,
        execution={"memory_per_node": "64M"},
        needs="memory",
    ),
    Ending(
        name="executable-missing",
        reason=Reason.EXECUTABLE_MISSING,
        code=127,
        needs="executable missing",
        runs=0,
    ),
    Ending(name="set-up-fails", reason=Reason.SETUP_FAILED, code=9, needs="set-up fails", runs=0),
    Ending(
        name="module-missing", reason=Reason.SETUP_FAILED, code=127, needs="module missing", runs=0
    ),
    Ending(
        name="output-lost",
        reason=Reason.OUTPUT_LOST,
        code=0,
        call={"expected_outputs": ["never-written"]},
    ),
    Ending(name="rejected", reason=Reason.REJECTED, needs="rejected", runs=0),
    Ending(
        name="never",
        reason=Reason.CAN_NEVER_RUN,
        needs="never",
        execution={"walltime": "01:00:00"},
        runs=0,
    ),
    Ending(name="dependency", reason=Reason.DEPENDENCY_NEVER_MET, needs="dependency", runs=0),
    Ending(
        name="held",
        reason=Reason.CANCELLED,
        needs="held",
        act="hold, then give up",
        queued=True,
        runs=0,
    ),
    Ending(
        name="cancelled-by-hand",
        program=FOR_EVER,
        reason=Reason.CANCELLED_ELSEWHERE,
        act="cancel",
    ),
    Ending(
        name="cancelled-by-hand-queued",
        reason=Reason.CANCELLED_ELSEWHERE,
        needs="waits",
        act="cancel",
        queued=True,
        runs=0,
    ),
    Ending(name="cancelled", program=FOR_EVER, reason=Reason.CANCELLED, act="give up"),
    Ending(
        name="cancelled-trapped",
        program=f'trap "exit 0" TERM; {FOR_EVER}',
        reason=Reason.CANCELLED,
        act="give up",
    ),
    Ending(
        name="cancelled-queued",
        reason=Reason.CANCELLED,
        needs="waits",
        act="give up",
        queued=True,
        runs=0,
    ),
    Ending(
        name="timed-out",
        program=FOR_EVER,
        reason=Reason.TIMED_OUT,
        call={"timeout_seconds": 6},
        runs=None,
    ),
    Ending(
        name="node-failure",
        program=FOR_EVER,
        reason=Reason.NODE_FAILURE,
        needs="node failure",
        act="fail_node",
    ),
    Ending(
        name="preempted",
        program=FOR_EVER,
        reason=Reason.PREEMPTED,
        needs="preempted",
        act="preempt",
    ),
    Ending(
        name="requeued",
        program='[ "$(grep -c requeued runs)" = 2 ] || sleep 1000',
        reason=Reason.SUCCEEDED,
        code=0,
        needs="requeued",
        act="requeue",
        runs=2,
    ),
    # Its first run ends with 0, but that is not its end.
    Ending(
        name="requeues-itself",
        program='[ "$(grep -c requeues-itself runs)" = 2 ] || { sh -c "$AGAIN"; exit 0; }; exit 3',
        reason=Reason.PROGRAM_FAILED,
        code=3,
        needs="requeues itself",
        act="let_go",
        runs=2,
    ),
)


@dataclass(frozen=True)
class Ended:
    """How the jobs of one flow run ended.

    Attributes:
        results: by ending; those that its flow cancelled have theirs from the ledger.
        errors: what the call raised, by ending.
        states: the state of each job's task run, by ending.
        runs: the programs that started, in order.
    """

    flow_run_id: str
    results: dict[str, JobResult]
    errors: dict[str, BaseException]
    states: dict[str, str]
    runs: list[str]


def save_blocks(place: Place) -> None:
    """The three blocks of each ending, named after the place."""
    command = CommandBlock(command_name="sh", executable_key="sh", default_args=["-c"])
    command.save("cmd-contract", overwrite=True, _sync=True)
    profile = ExecutionProfileBlock(profile_name="sh", command_name="sh", walltime="00:10:00")
    profile.save("exec-contract", overwrite=True, _sync=True)
    for variant in place.variants:
        there = HPCProfileBlock(**place.with_variant(variant))
        there.save(place.block(variant), overwrite=True, _sync=True)


def possible(place: Place) -> list[Ending]:
    """The endings that this place can have."""
    return [ending for ending in ENDINGS if ending.needs in place.variants]


def run_all(place: Place, work_dir: Path) -> Ended:
    """Run one job for each ending, all at once, in one flow."""
    save_blocks(place)
    endings = possible(place)
    work_dir.mkdir(parents=True, exist_ok=True)

    @flow(name=f"endings-{place.name}")
    async def run_endings() -> tuple[str, list[Any]]:
        run = root_flow()
        assert run is not None
        assert run.flow_run is not None
        calls = (_one(place, ending, work_dir) for ending in endings)
        return str(run.flow_run.id), await asyncio.gather(*calls, return_exceptions=True)

    run_id, outcomes = asyncio.run(run_endings())
    results: dict[str, JobResult] = {}
    errors: dict[str, BaseException] = {}
    for ending, outcome in zip(endings, outcomes, strict=True):
        if isinstance(outcome, JobResult):
            results[ending.name] = outcome
            continue
        errors[ending.name] = outcome
        found = outcome.result if isinstance(outcome, JobFailed) else settled(work_dir, ending.name)
        if found is not None:
            results[ending.name] = found
    started = work_dir / "runs"
    runs = started.read_text().split() if started.exists() else []
    return Ended(run_id, results, errors, _states(run_id, len(endings)), runs)


def _states(run_id: str, count: int) -> dict[str, str]:
    found = task_runs(run_id, count=count)
    return {run.name: str(run.state_type and run.state_type.value) for run in found}


async def _one(place: Place, ending: Ending, work_dir: Path) -> JobResult:
    execution = {**ending.execution, **place.executions.get(ending.needs, {})}
    if execution.get("walltime") == "shortest":
        execution["walltime"] = place.shortest_walltime
    with contextlib.ExitStack() as stack:
        if ending.act == "fail_node":
            await asyncio.to_thread(stack.enter_context, place.failing_node())
        job = asyncio.create_task(
            run_job_from_blocks(
                command_block_name="cmd-contract",
                execution_profile_block_name="exec-contract",
                hpc_profile_block_name=place.block(ending.needs),
                work_dir=work_dir,
                script_filename=ending.name,
                user_args=[BEGIN + ending.program, "sh", ending.name],
                execution_profile_overrides=execution,
                **ending.call,
            )
        )
        if ending.act:
            await _until(lambda: job.done() or _ready(ending, work_dir), ending.name)
            if not job.done():
                await _act(place, ending, work_dir, job)
        return await job


def _ready(ending: Ending, work_dir: Path) -> bool:
    """Whether the job runs or, where it is to be met in the queue, was submitted."""
    if ending.queued:
        return bool(job_id(work_dir, ending.name))
    id_file = work_dir / f"{ending.name}.id"
    return id_file.exists() and id_file.read_text().endswith("\n")


async def _act(place: Place, ending: Ending, work_dir: Path, job: asyncio.Task[JobResult]) -> None:
    action = ending.act.removesuffix(GIVE_UP).removesuffix(", then ")
    if action:
        await asyncio.to_thread(getattr(place, action), job_id(work_dir, ending.name))
    if ending.act.endswith(GIVE_UP):
        if action:  # only when it was seen
            await _until(lambda: job.done() or "held" in states(work_dir, ending.name), action)
        job.cancel()


async def _until(condition: Any, what: str) -> None:
    clock = asyncio.get_running_loop().time
    end = clock() + PATIENCE
    while not condition():
        assert clock() < end, f"{what}: did not come so far"
        await asyncio.sleep(0.1)


# --- what the ledger says of a job


def journal(work_dir: Path, name: str) -> list[dict[str, Any]]:
    """The newest journal of the job of that name."""
    for file in sorted(work_dir.glob(".hpc-prefect/*/*/*/journal.jsonl"), reverse=True):
        lines = [line for line in file.read_text().split("\n")[:-1] if line]
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        if entries and entries[0].get("job", {}).get("name") == name:
            return entries
    return []


def job_id(work_dir: Path, name: str) -> str:
    entries = journal(work_dir, name)
    return next((str(each["id"]) for each in entries if each["event"] == "submitted"), "")


def states(work_dir: Path, name: str) -> list[str]:
    """The states that were observed, in order."""
    return [each["state"] for each in journal(work_dir, name) if each["event"] == "observed"]


def settled(work_dir: Path, name: str) -> JobResult | None:
    entries = journal(work_dir, name)
    verdict = next((each for each in entries if each["event"] == "verdict"), None)
    return JobResult.from_dict(verdict["result"]) if verdict else None
