"""Where in a run a call is made: scopes, enclosing tasks and sub-flows, as frames that count.

The frames are found through Prefect's contexts of this process; nobody is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import NamedTuple

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.utilities.hashing import hash_objects

from hpc_prefect.job.identity import ScopeFrame, digest, slug


class _Owner(NamedTuple):
    """The innermost flow run and task run of a moment; empty where there is none."""

    flow_run: str
    task_run: str


class _Open(NamedTuple):
    frame: ScopeFrame
    owner: _Owner


_scope: ContextVar[_Open | None] = ContextVar("hpc_prefect_scope", default=None)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name a context, so that identical calls in it are told apart from those in another.

    A loop over walkers, say, that runs the same job for each:

        for walker in range(4):
            with scope(f"walker-{walker}"):
                await run_job_from_blocks(...)

    Identical calls inside one scope are numbered in the order in which they are made, and so are
    scopes of one name that are opened one after another: they are different scopes. A retry or a
    resumed run counts from the beginning again, and so finds what its predecessor did.
    """
    if not name:
        raise ValueError("a scope needs a name")
    parent = current_frame()
    again = parent.count(f"scope:{name}")
    frame = ScopeFrame(f"{name}#{again}" if again else name, parent)
    token = _scope.set(_Open(frame, _owner()))
    try:
        yield
    finally:
        _scope.reset(token)


def root_flow() -> FlowRunContext | None:
    """The outermost flow run of this call that this process knows."""
    flow = _flow_context()
    while flow is not None and flow.flow_run and flow.flow_run.parent_task_run_id:
        outer = _outer(flow)
        if not isinstance(outer, FlowRunContext):
            break
        flow = outer
    return flow


def flow_contexts() -> Iterator[FlowRunContext]:
    """The flow runs around this call that this process knows, the innermost first."""
    flow: object = _flow_context()
    while isinstance(flow, FlowRunContext) and isinstance(flow.flow_run, FlowRun):
        yield flow
        flow = _outer(flow) if flow.flow_run.parent_task_run_id else None


def task_runs() -> Iterator[tuple[TaskRunContext, FlowRunContext]]:
    """The task runs around this call in the innermost flow run, the innermost first."""
    flow = _flow_context()
    task: object = _task_context(flow)
    while isinstance(task, TaskRunContext) and flow is not None and _same_flow(task, flow):
        yield task, flow
        task = _outer(task)


def _flow_context() -> FlowRunContext | None:
    return FlowRunContext.get()


def _task_context(flow: FlowRunContext | None) -> TaskRunContext | None:
    """The task run inside which we are: none in the body of a sub-flow that a task called."""
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


def current_frame() -> ScopeFrame:
    """The innermost scope frame of this moment."""
    opened = _scope.get()
    if opened is not None and opened.owner == _owner():
        return opened.frame
    flow = _flow_context()
    task = _task_context(flow)
    if task is not None:
        return _task_frame(task, flow)
    return _flow_frame(flow)


@dataclass(slots=True)
class _Frames:
    """The frames of this process, by the run and attempt that entered them."""

    by_entry: dict[tuple[str, int], ScopeFrame] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def enter(
        self, run_id: str, attempt: int, parent: Callable[[], ScopeFrame], name: Callable[[], str]
    ) -> ScopeFrame:
        """The frame of one attempt of one run; a retry is a new entry with new counters."""
        with self.lock:
            frame = self.by_entry.get((run_id, attempt))
            if frame is None:
                frame = self._make(run_id, parent(), name())
                self.by_entry[run_id, attempt] = frame
            return frame

    def _make(self, run_id: str, parent: ScopeFrame, name: str) -> ScopeFrame:
        # A retry of one run keeps its number among the identical siblings of its parent's entry.
        number = parent.numbers.setdefault(name, {})
        return ScopeFrame(f"{name}-{number.setdefault(run_id, len(number))}", parent)


_frames = _Frames()
_roots: dict[tuple[str, int], ScopeFrame] = {}


def _task_frame(task: TaskRunContext, flow: FlowRunContext | None) -> ScopeFrame:
    return _frames.enter(
        str(task.task_run.id),
        task.task_run.run_count,
        lambda: _around_task(task, flow),
        lambda: f"task-{slug(task.task.name)}-{value_digest(task.parameters)}",
    )


def _around_task(task: TaskRunContext, flow: FlowRunContext | None) -> ScopeFrame:
    """The frame in which a task was called: a scope, an outer task, or the flow."""
    outer = _outer(task)
    outer_id = str(outer.task_run.id) if isinstance(outer, TaskRunContext) else ""
    flow_id = str(flow.flow_run.id) if flow and flow.flow_run else ""
    opened = _scope.get()
    if opened is not None and opened.owner == _Owner(flow_id, outer_id):
        return opened.frame
    if isinstance(outer, TaskRunContext) and _same_flow(outer, flow):
        return _task_frame(outer, flow)
    return _flow_frame(flow)


def _same_flow(task: TaskRunContext, flow: FlowRunContext | None) -> bool:
    flow_run_id = flow.flow_run.id if flow and flow.flow_run else None
    return task.task_run.flow_run_id in (None, flow_run_id)


def _flow_frame(flow: FlowRunContext | None) -> ScopeFrame:
    """The frame of a flow run: the root, or below the caller when it is a sub-flow."""
    if flow is None or flow.flow_run is None:
        return _roots.setdefault(("", 0), ScopeFrame())
    run = flow.flow_run
    parent = _outer(flow)
    if run.parent_task_run_id is None or not isinstance(parent, FlowRunContext):
        return _roots.setdefault((str(run.id), run.run_count), ScopeFrame())
    return _frames.enter(
        str(run.id),
        run.run_count,
        lambda: _around_flow(parent),
        lambda: (
            f"flow-{slug(flow.flow.name if flow.flow else run.name)}-{value_digest(run.parameters)}"
        ),
    )


def _around_flow(parent: FlowRunContext) -> ScopeFrame:
    parent_id = str(parent.flow_run.id) if parent.flow_run else ""
    task = TaskRunContext.get()
    inside = task if task is not None and _same_flow(task, parent) else None
    opened = _scope.get()
    if opened is not None and opened.owner == _Owner(
        parent_id, str(inside.task_run.id) if inside else ""
    ):
        return opened.frame
    return _task_frame(inside, parent) if inside else _flow_frame(parent)


def _outer(context: FlowRunContext | TaskRunContext) -> object:
    """The context of the same kind around one. Prefect keeps it only in the variable's token."""
    token = getattr(context, "_token", None)
    return None if token is None or token.old_value is Token.MISSING else token.old_value


def value_digest(parameters: object) -> str:
    """Eight characters that tell parameters apart; none when they cannot be told apart stably."""
    try:
        return digest(parameters)[:8]
    except TypeError:
        return (hash_objects(parameters) or "")[:8]
