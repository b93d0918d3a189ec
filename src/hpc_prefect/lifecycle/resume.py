"""Resumes a flow run that died or failed, as the same flow run.

Finished tasks give their stored results, jobs are taken up where they are or their results read
from their folders, and the loop goes on at its iteration.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.exceptions import ObjectNotFound
from prefect.results import ResultStore
from prefect.states import Crashed, Pending

from hpc_prefect.batch import task as tasks
from hpc_prefect.errors import CannotResume
from hpc_prefect.flow_runs.cache_policy import PREFIX
from hpc_prefect.flow_runs.campaigns import campaign
from hpc_prefect.flow_runs.campaigns.opening import completed_by
from hpc_prefect.flow_runs.cancellation import forget
from hpc_prefect.flow_runs.reproduction import reproducing
from hpc_prefect.flow_runs.run_labels import Trace, campaign_folders, read_trace
from hpc_prefect.ledger import claim as claims
from hpc_prefect.ledger.campaign_parts import folders_of
from hpc_prefect.lifecycle import start
from hpc_prefect.lifecycle.start import (
    entrypoint_problems,
    load_flow,
    seen_from_here,
    started_from,
)
from hpc_prefect.quantum import task as quantum_task
from hpc_prefect.quantum import transpilation
from hpc_prefect.transports.local import LocalTransport

#: The server's limit for one answer.
_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class ResumePlan:
    """What a resume will do.

    Attributes:
        kept: names of finished tasks whose results are found, with how many there are.
        again: names of finished tasks that will run again, with how many and why.
        by_source: tasks of `kept` whose results Prefect finds only while their source is unchanged.
    """

    flow_run: FlowRun
    trace: Trace
    entrypoint: str
    kept: dict[str, int]
    again: dict[str, tuple[int, str]]
    by_source: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        run = self.flow_run
        state = run.state.name if run.state else "unknown"
        yield f"flow run {run.name} ({run.id}) of {self.entrypoint}, in Prefect's state {state}"
        for folder in self.trace.folders:
            others = len(folders_of(LocalTransport(), folder)) - 1
            more = f" and {others} more work_dirs" if others > 0 else ""
            yield f"  jobs and samplings: from {folder}{more}"
        for name, count in sorted(self.kept.items()):
            yield f"  task {name}: {count} finished, from stored results"
        if self.by_source:
            yield f"    found only while their source is unchanged: {', '.join(self.by_source)}"
        for name, (count, why) in sorted(self.again.items()):
            yield f"  task {name}: {count} finished, but run again: {why}"


def plan(flow_run: str | UUID, *, entrypoint: str = "", dead: bool = False) -> ResumePlan:
    """Find out whether and how a flow run can be resumed. Changes nothing.

    Args:
        flow_run: its id or name.
        entrypoint: `FILE:FLOW` or `MODULE:FLOW`, in place of where it was started from.
        dead: the caller knows that the process of this run is dead, where it cannot be told.

    Raises:
        CannotResume: it cannot; with all reasons.
    """
    with get_client(sync_client=True) as client:
        run = _find(client, flow_run)
        trace = read_trace(run)
        chosen = seen_from_here(entrypoint) or trace.entrypoint
        problems = [*_problems(client, run, trace, dead=dead), *entrypoint_problems(chosen)]
        if problems:
            raise CannotResume(f"flow run {run.name} ({run.id})", problems)
        tasks = list(_finished_tasks(client, run.id))
    kept: Counter[str] = Counter()
    by_source = set()
    again: dict[str, tuple[int, str]] = {}
    store = ResultStore()
    for task_run in tasks:
        name = task_run.task_key.rsplit("-", 1)[0]
        why = _why_again(task_run, store)
        if why:
            again[name] = (again.get(name, (0, ""))[0] + 1, why)
        else:
            kept[name] += 1
            if not _storage_name(task_run).startswith(PREFIX):
                by_source.add(name)
    return ResumePlan(
        flow_run=run,
        trace=trace,
        entrypoint=chosen,
        kept=dict(kept),
        again=again,
        by_source=tuple(sorted(by_source)),
    )


def resume(flow_run: str | UUID, *, entrypoint: str = "", dead: bool = False) -> Any:
    """Resume a flow run that died or failed; `plan` shows what that will do.

    Its state in Prefect may still be Running. Call this from a plain script, in the environment
    that the flow was started in.

    Args:
        flow_run: its id or name.
        entrypoint: `FILE:FLOW` or `MODULE:FLOW`, in place of where it was started from.
        dead: the caller knows that the process of this run is dead, where it cannot be told.

    Returns:
        What the flow returns.

    Raises:
        CannotResume: it cannot; with all reasons; nothing was changed. Also raises what the flow
            raises.
    """
    return carry_out(plan(flow_run, entrypoint=entrypoint, dead=dead))


def carry_out(planned: ResumePlan) -> Any:
    """Carry out a plan."""
    run, trace = planned.flow_run, planned.trace
    with started_from(trace.cwd, planned.entrypoint):
        flow = load_flow(planned.entrypoint)
        if isinstance(flow, str):
            raise CannotResume(f"flow run {run.name} ({run.id})", [flow])
        forget(run.id)
        with get_client(sync_client=True) as client:
            if run.state is None or not run.state.is_final():
                gone: State[Any] = Crashed(message="Its process was gone when it was resumed.")
                client.set_flow_run_state(run.id, gone, force=True)
            # Not Scheduled: a process that serves its deployment would start it too.
            client.set_flow_run_state(run.id, Pending(message="Resumed."), force=True)
            run = client.read_flow_run(run.id)
        named = campaign(trace.name) if trace.name else nullcontext()
        with named, reproducing(trace.reproduces):
            return start.run(flow, run, run.parameters)


def _find(client: SyncPrefectClient, flow_run: str | UUID) -> FlowRun:
    try:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(flow_run))]))
    except ValueError:
        wanted = FlowRunFilter(name=FlowRunFilterName(any_=[str(flow_run)]))
    found = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.START_TIME_DESC, limit=2)
    if not found:
        raise CannotResume(f"flow run {flow_run}", ["Prefect knows no such flow run"])
    if len(found) > 1:
        ids = " and ".join(str(each.id) for each in found)
        raise CannotResume(
            f"flow run {flow_run}", [f"several flow runs have this name, such as {ids}; give an id"]
        )
    return found[0]


def _problems(
    client: SyncPrefectClient, run: FlowRun, trace: Trace, *, dead: bool
) -> Iterator[str]:
    """Why this run cannot be resumed."""
    state = run.state
    if run.parent_task_run_id is not None:
        parent = _parent(client, run.parent_task_run_id)
        yield f"it is part of another flow run; resume that one{f': {parent}' if parent else ''}"
    if state is not None and state.is_completed():
        yield "it has completed; start the flow again for another instance of its campaign"
    if trace.lost:
        yield (
            f"Prefect does not hold its parameters {', '.join(trace.lost)} as they were given;"
            " start the script again: it continues the campaign"
        )
    for folder in campaign_folders(trace):
        if not Path(folder).is_dir():
            yield (
                f"its campaign's folder {folder} does not exist on {socket.gethostname()}, so all"
                f" of its jobs would run again. Is its file system mounted? If the folder was"
                f" removed, start the flow again: that begins a new experiment"
            )
        elif by := completed_by(folder, str(run.id)):
            yield (
                f"its campaign {folder} was taken over and completed by {by}; there is nothing left"
                " to do, start the flow again for more of it"
            )
    alive = _holders(trace)
    if alive:
        yield f"it is still running: {', '.join(alive)}"
    elif not trace.folders and not dead and (state is None or not state.is_final()):
        yield (
            "it has begun no job or sampling yet, so it cannot be checked whether its process is"
            " alive; if you know that it is dead, add --dead"
        )


def _parent(client: SyncPrefectClient, task_run_id: UUID) -> str:
    try:
        return str(client.read_task_run(task_run_id).flow_run_id or "")
    except ObjectNotFound:
        return ""


def _holders(trace: Trace) -> list[str]:
    """The living processes that hold the campaigns."""
    transport = LocalTransport()
    holders = []
    for folder in campaign_folders(trace):
        if claims.is_held(transport, folder) and (who := claims.holder_of(transport, folder)):
            holders.append(who.describe())
    return holders


def _finished_tasks(client: SyncPrefectClient, run_id: UUID) -> Iterator[TaskRun]:
    """The finished tasks of a flow run, without ours, for which the records on disk decide."""
    ours = {
        each.task_key
        for module in (tasks, quantum_task, transpilation)
        for each in vars(module).values()
        if isinstance(each, Task)
    }
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    offset = 0
    while True:
        page = client.read_task_runs(
            flow_run_filter=wanted, sort=TaskRunSort.ID_DESC, limit=_PAGE, offset=offset
        )
        for each in page:
            done = each.state is not None and each.state.is_completed()
            if done and each.task_key not in ours:
                yield each
        offset += _PAGE
        if len(page) < _PAGE:
            return


def _why_again(task_run: TaskRun, store: ResultStore) -> str:
    """Why a finished task will run again; empty when its result will be found."""
    name = _storage_name(task_run)
    if not name:
        return "its result was not stored; give the task cache_policy=hpc_prefect.ONCE"
    data = task_run.state.data if task_run.state else None
    if getattr(data, "storage_block_id", None) is None and not store.exists(name):
        return f"its stored result {name} is gone"
    return ""


def _storage_name(task_run: TaskRun) -> str:
    """The key of a task run's stored result; empty if there is none."""
    key = getattr(task_run.state.data if task_run.state else None, "storage_key", None)
    return Path(key).name if key else ""
