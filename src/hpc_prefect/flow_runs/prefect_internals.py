"""Facts about Prefect that it does not promise; each has a test that fails when it changes.

The engine keeps a run's newest state in the `FlowRun` of its context, and drops that object soon
after the run has ended, except for a process's first run, whose context its services keep. If the
object says that the run is in a final state, an exception of the flow does not change that; else an
exception that is no `Exception` forces the run to Crashed.

The context around another one is kept only in the token of its variable, which a context has while
it is entered. A task that is sent to another process takes along what `FlowRunContext.serialize`
gives, with the flow run and its labels.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import prefect.context
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext, SettingsContext, TaskRunContext
from prefect.settings import Profile, Settings, get_current_settings


def has_ended(flow_run: FlowRun) -> bool:
    """Whether the engine has finished this run."""
    return flow_run.state is not None and flow_run.state.is_final()


def end_in(flow_run: FlowRun, state: State[Any]) -> None:
    """Have a run end in a state that the server already has, whatever its flow raises."""
    flow_run.state = state


def context_around(context: FlowRunContext | TaskRunContext) -> object:
    """The context of the same kind around one."""
    token = getattr(context, "_token", None)
    if token is None or token.old_value is contextvars.Token.MISSING:
        return None
    return token.old_value


def label_sent_runs(label: str, tell: Callable[[], str]) -> None:
    """Add a label to flow runs that Prefect sends to another process with a task."""
    plain = FlowRunContext.serialize

    def serialize(self: FlowRunContext, include_secrets: bool = True) -> dict[str, Any]:
        found = plain(self, include_secrets)
        run = found.get("flow_run")
        if isinstance(run, dict):
            found["flow_run"] = {**run, "labels": {**(run.get("labels") or {}), label: tell()}}
        return found

    FlowRunContext.serialize = serialize  # type: ignore[method-assign]


def living_flow_runs() -> Iterator[FlowRun]:
    """All flow runs under way in this process. Slow: looks at every object."""
    for each in gc.get_objects():
        run = each.flow_run if type(each) is FlowRunContext and _is_entered(each) else None
        if isinstance(run, FlowRun) and not has_ended(run):
            yield run


def _is_entered(context: FlowRunContext) -> bool:
    """Neither left, as that of an attempt that was followed by another, nor sent from elsewhere."""
    return context._token is not None and not context.detached


def seconds_since_state(flow_run: FlowRun) -> float:
    """How long ago the server set the run's state; may be negative where clocks differ."""
    if flow_run.state is None:
        return float("inf")
    return (datetime.now(UTC) - flow_run.state.timestamp).total_seconds()


def abandoned_events(
    around: Iterable[tuple[TaskRunContext, FlowRunContext]],
) -> list[threading.Event]:
    """Events that are set when a flow run ends around a thread that runs a task of it.

    Nothing else shows that; without them a thread waits for its job's end.
    """
    events = []
    for task, flow in around:
        known = getattr(flow.task_runner, "_cancel_events", None)
        event = known.get(task.task_run.id) if isinstance(known, dict) else None
        if isinstance(event, threading.Event):
            events.append(event)
    return events


class ServerAddress(NamedTuple):
    """The Prefect server of a call; equal for calls that talk to the same one as the same user."""

    url: str | None
    credentials: tuple[str, str]


class SettingsHere(NamedTuple):
    """The server, profile and settings of a call."""

    server: ServerAddress
    profile: Profile
    settings: Settings


def settings_here() -> SettingsHere:
    """The server and all settings that hold here, which may come from a `temporary_settings`."""
    settings = get_current_settings()
    context = SettingsContext.get()
    assert context is not None  # Prefect makes a global context when it is imported
    api = settings.api
    secrets = [
        "" if secret is None else secret.get_secret_value() for secret in (api.auth_string, api.key)
    ]
    server = ServerAddress(api.url, (secrets[0], secrets[1]))
    return SettingsHere(server, context.profile, settings)


def settings_as(here: SettingsHere) -> SettingsContext:
    """These settings, inside of a `with`; clients that are made there use them."""
    return SettingsContext(profile=here.profile, settings=here.settings)


def set_for_process(variables: Mapping[str, str]) -> None:
    """Have Prefect in this process, and in processes that it starts, take these settings.

    Prefect reads the environment when it is imported; those settings hold for every thread that has
    none of its own.
    """
    os.environ.update(variables)
    prefect.context.GLOBAL_SETTINGS_CONTEXT = prefect.context.root_settings_context()


async def own_client(profile: Profile, settings: Settings) -> PrefectClient:
    """A client for the caller alone, who opens and closes it.

    `get_client` would give the client of the context, if there is one, which its owner will close.
    It is made in a thread because reading certificates takes a while.
    """

    def make() -> PrefectClient:
        with SettingsContext(profile=profile, settings=settings):
            return get_client()

    return await asyncio.get_running_loop().run_in_executor(None, contextvars.Context().run, make)
