"""The place of a call in its run: scopes, enclosing tasks and sub-flows.

They are found in Prefect's contexts of this process, without asking the server.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext

from hpc_prefect.errors import ConfigurationError
from hpc_prefect.flow_runs.given import changed_in_flow, changed_in_task
from hpc_prefect.flow_runs.lost import opened as noted_open
from hpc_prefect.flow_runs.parameters import changed_problem, digest_in_run, parameters_of
from hpc_prefect.flow_runs.per_run import PerRun, note_alive
from hpc_prefect.flow_runs.prefect_internals import context_around
from hpc_prefect.flow_runs.sent import flow_sent_here, send_along, sent
from hpc_prefect.flow_runs.session import cell
from hpc_prefect.job.identity import Path, Step
from hpc_prefect.job.numbers import Entry


class Frame(NamedTuple):
    """The innermost scope, task run or flow run around a call.

    Attributes:
        entry: the run that numbers its calls.
        problem: why calls here could not be found again by a later run; empty when they can.
    """

    entry: Entry
    path: Path
    problem: str = ""

    def next_number(self, what: str) -> int:
        """The number of the next call among identical calls in this place."""
        with _lock:
            return self.entry.next_number((self.path, what))

    @property
    def names(self) -> tuple[str, ...]:
        """The names on the way to this place, for people."""
        return tuple(step.name for step in self.path)


class _Owner(NamedTuple):
    """The innermost flow run and task run; empty where there is none."""

    flow_run: str
    task_run: str


class _Open(NamedTuple):
    frame: Frame
    owner: _Owner


_scope: ContextVar[_Open | None] = ContextVar("hpc_prefect_scope", default=None)
_lock = threading.RLock()


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name a context, so that identical calls in it differ from those in another.

    A loop over walkers, say, that runs the same job for each:

        for walker in range(4):
            with scope(f"walker-{walker}"):
                await run_job_from_blocks(...)

    A scope is identified by its name and the scope or task around it; opened twice it is the same.
    Identical calls inside are numbered in their order. A retry or a resumed run counts from the
    beginning again, and so finds the jobs of its predecessor.
    """
    exact_name(name, "scope")
    around = current_frame()
    # A scope inside a task run identifies that run among the task's runs.
    frame = Frame(around.entry, (*around.path, Step("scope", name)))
    token = _scope.set(_Open(frame, _owner()))
    try:
        with noted_open(name):
            yield
    finally:
        _scope.reset(token)


def exact_name(name: object, of: str) -> None:
    """Refuse what is a name by mistake: an empty text, a number, None.

    Raises:
        ConfigurationError: it is not a name.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"the name of a {of} must be a text that is not empty, not {name!r}; nothing was"
            " submitted in it"
        )


_cells: dict[str, tuple[int, Entry]] = {}


@contextmanager
def numbered_in_cell(campaign: str) -> Iterator[None]:
    """In a notebook, number a campaign's calls from 0 again in each cell that names it.

    So a cell that is run again finds what it did before, as a script that is started again does.
    """
    number = cell()
    if not number or FlowRunContext.get() is not None:
        yield
        return
    if _cells.get(campaign, (0,))[0] != number:
        _cells[campaign] = (number, Entry())
    around = current_frame()
    frame = around._replace(entry=_cells[campaign][1])
    token = _scope.set(_Open(frame, _owner()))
    try:
        yield
    finally:
        _scope.reset(token)


def _scope_of(owner: _Owner) -> Frame | None:
    """The innermost scope that is open in this run itself."""
    for opened in (_scope.get(), _sent_scope()):
        if opened is not None and opened.owner == owner:
            return opened.frame
    return None


def _scope_to_send() -> object:
    opened = _scope.get() or _sent_scope()
    if opened is None:
        return None
    return [opened.frame.path, opened.frame.problem, opened.owner]


def _sent_scope() -> _Open | None:
    """The scope that was open in the process that sent the task around this call."""
    told = sent("scope")
    if told is None:
        return None
    steps, problem, owner = told
    root = _entries.of(current_run()).root
    return _Open(Frame(root, tuple(Step(*step) for step in steps), problem), _Owner(*owner))


def root_flow() -> FlowRunContext | None:
    """The outermost flow run of this call that this process knows."""
    flow = _flow_context()
    while flow is not None and flow.flow_run and flow.flow_run.parent_task_run_id:
        outer = context_around(flow)
        if not isinstance(outer, FlowRunContext):
            break
        flow = outer
    return flow


def flow_contexts() -> Iterator[FlowRunContext]:
    """The flow runs around this call that this process knows, the innermost first."""
    flow: object = _flow_context()
    while isinstance(flow, FlowRunContext) and isinstance(flow.flow_run, FlowRun):
        yield flow
        flow = context_around(flow) if flow.flow_run.parent_task_run_id else None


def task_runs() -> Iterator[tuple[TaskRunContext, FlowRunContext]]:
    """The task runs around this call in the innermost flow run, the innermost first."""
    flow = _flow_context()
    task: object = _task_context(flow)
    while isinstance(task, TaskRunContext) and flow is not None and _same_flow(task, flow):
        yield task, flow
        task = context_around(task)


def _flow_context() -> FlowRunContext | None:
    return FlowRunContext.get()


def _task_context(flow: FlowRunContext | None) -> TaskRunContext | None:
    """The task run around this call; none in the body of a sub-flow that a task called."""
    task = TaskRunContext.get()
    if task is None or flow is None or flow.flow_run is None:
        return task
    inside = task.task_run.flow_run_id in (None, flow.flow_run.id)
    return task if inside else None


def _owner() -> _Owner:
    flow = _flow_context()
    task = _task_context(flow)
    return _Owner(
        str(flow.flow_run.id) if flow and flow.flow_run else "",
        str(task.task_run.id) if task else "",
    )


def innermost_task_run() -> str:
    """The id of the task run inside which this call is made; empty when there is none."""
    return _owner().task_run


def current_run() -> str:
    """The id of the outermost flow run of this call; empty when there is none."""
    root = root_flow()
    if root is None or root.flow_run is None:
        return ""
    run_id = str(root.flow_run.id)
    note_alive(run_id, root)
    return run_id


def lost_in_sub_flow() -> str:
    """Why a call's experiment is unknown in a task of another process's sub-flow; else empty."""
    flow = flow_sent_here()
    if flow is None or flow.flow_run is None:
        return ""
    root, mine = sent("root"), str(flow.flow_run.id)
    if root == mine or (not root and flow.flow_run.parent_task_run_id is None):
        return ""
    return (
        "it is made in another process, by a task of a sub-flow, in which the outer flow is not"
        " known. Give the sub-flow a ThreadPoolTaskRunner, or call the task from the outermost"
        " flow"
    )


send_along("scope", _scope_to_send)
send_along("root", current_run)


def current_frame() -> Frame:
    """The innermost frame around this call."""
    if (opened := _scope_of(_owner())) is not None:
        return opened
    flow = _flow_context()
    task = _task_context(flow)
    if task is not None:
        return _task_frame(task, flow)
    return _flow_frame(flow)


@dataclass
class _Entries:
    """The task runs and sub-flows of one flow run, in its present attempt."""

    attempt: int = 1
    root: Entry = field(default_factory=Entry)
    inner: dict[str, Entry] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def begin(self, attempt: int) -> None:
        """Begin at 0 again for a retry of the flow run, which repeats all of its calls."""
        if attempt > self.attempt:
            self.attempt, self.root = attempt, Entry()
            self.inner.clear()
            self.problems.clear()


_entries = PerRun(_Entries)


def _task_frame(
    task: TaskRunContext, flow: FlowRunContext | None, *, asked_in_body: bool = True
) -> Frame:
    run = task.task_run
    with _lock:
        entries = _entries.of(current_run())
        if str(run.id) not in entries.inner:
            function = task.task.fn
            named = getattr(function, "__qualname__", type(function).__qualname__)
            told = digest_in_run(task.parameters, f"task {task.task.name}")
            if asked_in_body and (changed := changed_in_task(task)):
                told = told._replace(problem=told.problem or changed_problem(changed))
            step = Step("task", task.task.name, named, told.digest)
            _enter(entries, str(run.id), _around_task(task, flow), step, told.problem)
        return _frame(entries, str(run.id), run.run_count)


def _enter(entries: _Entries, run_id: str, around: Frame, step: Step, problem: str) -> None:
    entries.inner[run_id] = Entry(around.entry, (*around.path, step))
    entries.problems[run_id] = problem or around.problem


def _frame(entries: _Entries, run_id: str, attempt: int) -> Frame:
    entry = entries.inner[run_id]
    entry.begin(attempt)
    return Frame(entry, entry.path, entries.problems[run_id])


def number_task_run(what: str) -> tuple[Path, int]:
    """The place and number of the task run around this call, counted as one call.

    Only valid in code that Prefect calls for every run of a task, also when its result is cached.
    """
    with _lock:
        flow = _flow_context()
        task = _task_context(flow)
        # The body has not begun, so its parameters cannot have been changed.
        frame = _task_frame(task, flow, asked_in_body=False) if task else current_frame()
        entry = frame.entry
        number = entry.number_itself(what)
        return entry.path, number


def _around_task(task: TaskRunContext, flow: FlowRunContext | None) -> Frame:
    """The frame in which a task was called: a scope, an outer task, or the flow."""
    outer = context_around(task)
    # Prefect enters two contexts of one task run: one for the run, one for its attempt.
    while isinstance(outer, TaskRunContext) and outer.task_run.id == task.task_run.id:
        outer = context_around(outer)
    outer_id = str(outer.task_run.id) if isinstance(outer, TaskRunContext) else ""
    flow_id = str(flow.flow_run.id) if flow and flow.flow_run else ""
    if (opened := _scope_of(_Owner(flow_id, outer_id))) is not None:
        return opened
    if isinstance(outer, TaskRunContext) and _same_flow(outer, flow):
        return _task_frame(outer, flow)
    return _flow_frame(flow)


def _same_flow(task: TaskRunContext, flow: FlowRunContext | None) -> bool:
    flow_run_id = flow.flow_run.id if flow and flow.flow_run else None
    return task.task_run.flow_run_id in (None, flow_run_id)


def _flow_frame(flow: FlowRunContext | None) -> Frame:
    """The frame of a flow run: the root, or for a sub-flow one below its caller."""
    with _lock:
        entries = _entries.of(current_run())
        if flow is None or not isinstance(flow.flow_run, FlowRun):
            return Frame(entries.root, ())
        run = flow.flow_run
        parent = context_around(flow)
        if run.parent_task_run_id is None or not isinstance(parent, FlowRunContext):
            entries.begin(run.run_count)
            return Frame(entries.root, ())
        if str(run.id) not in entries.inner:
            name = flow.flow.name if flow.flow else run.name
            function = flow.flow.fn.__qualname__ if flow.flow else ""
            told = digest_in_run(parameters_of(flow), f"flow {name}")
            if changed := changed_in_flow(flow):
                told = told._replace(problem=told.problem or changed_problem(changed))
            step = Step("flow", name, function, told.digest)
            _enter(entries, str(run.id), _around_flow(parent), step, told.problem)
        return _frame(entries, str(run.id), run.run_count)


def _around_flow(parent: FlowRunContext) -> Frame:
    parent_id = str(parent.flow_run.id) if parent.flow_run else ""
    task = TaskRunContext.get()
    inside = task if task is not None and _same_flow(task, parent) else None
    opened = _scope_of(_Owner(parent_id, str(inside.task_run.id) if inside else ""))
    if opened is not None:
        return opened
    return _task_frame(inside, parent) if inside else _flow_frame(parent)
