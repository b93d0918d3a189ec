"""Facts about Prefect that it does not promise; each has a test that fails when it changes.

The engine keeps a run's newest state in the `FlowRun` of its context, and lets go of that object
soon after the run has ended, but for a process's first run, whose context its services keep. An
exception does not change the state of a run whose object says that it is final; without that, one
that is no `Exception` has the run forced to Crashed.

The context around another one is kept in the token of its variable alone. What goes to another
process with a task is what `FlowRunContext.serialize` gives, the flow run with its labels in it.
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
    """Whether the engine is done with this run."""
    return flow_run.state is not None and flow_run.state.is_final()


def end_in(flow_run: FlowRun, state: State[Any]) -> None:
    """Have a run end in a state that the server was told already, whatever its flow raises."""
    flow_run.state = state


def context_around(context: FlowRunContext | TaskRunContext) -> object:
    """The context of the same kind around one."""
    token = getattr(context, "_token", None)
    if token is None or token.old_value is contextvars.Token.MISSING:
        return None
    return token.old_value


def label_sent_runs(label: str, tell: Callable[[], str]) -> None:
    """Have flow runs bear a label where Prefect takes them to another process with a task."""
    plain = FlowRunContext.serialize

    def serialize(self: FlowRunContext, include_secrets: bool = True) -> dict[str, Any]:
        found = plain(self, include_secrets)
        run = found.get("flow_run")
        if isinstance(run, dict):
            found["flow_run"] = {**run, "labels": {**(run.get("labels") or {}), label: tell()}}
        return found

    FlowRunContext.serialize = serialize  # type: ignore[method-assign]


def living_flow_runs() -> Iterator[FlowRun]:
    """The flow runs under way in this process, wherever in it. Slow: looks at every object."""
    for each in gc.get_objects():
        run = each.flow_run if type(each) is FlowRunContext and not each.detached else None
        if isinstance(run, FlowRun) and not has_ended(run):
            yield run


def seconds_since_state(flow_run: FlowRun) -> float:
    """How long ago the server took the run's state; a negative number where clocks differ."""
    if flow_run.state is None:
        return float("inf")
    return (datetime.now(UTC) - flow_run.state.timestamp).total_seconds()


def abandoned_events(
    around: Iterable[tuple[TaskRunContext, FlowRunContext]],
) -> list[threading.Event]:
    """Events that are set when a flow run ends around a thread that runs a task of it.

    They are the only word of it; without them a thread waits for its job's end.
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
    """What a call's run was told by its user."""

    server: ServerAddress
    profile: Profile
    settings: Settings


def settings_here() -> SettingsHere:
    """The server and all settings of the moment, which may be those of a `temporary_settings`."""
    settings = get_current_settings()
    context = SettingsContext.get()
    assert context is not None  # Prefect makes a global one when it is imported
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

    Prefect reads the environment when it is imported; what it read then holds for every thread that
    has no settings of its own.
    """
    os.environ.update(variables)
    prefect.context.GLOBAL_SETTINGS_CONTEXT = prefect.context.root_settings_context()


async def own_client(profile: Profile, settings: Settings) -> PrefectClient:
    """A client that is nobody else's, to be opened and closed by who asks for it.

    `get_client` gives the client of the context when there is one, which its owner will close. It
    is made in a thread because reading certificates takes a while.
    """

    def make() -> PrefectClient:
        with SettingsContext(profile=profile, settings=settings):
            return get_client()

    return await asyncio.get_running_loop().run_in_executor(None, contextvars.Context().run, make)
