"""The facts about Prefect that it does not promise: these tests fail when one of them changes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.settings.models.tasks import TasksSettings
from prefect.states import Cancelled, Cancelling

from hpc_prefect.flow_runs import prefect_internals as internals
from hpc_prefect.flow_runs.scopes import task_runs

pytestmark = pytest.mark.usefixtures("prefect_server")


def here() -> FlowRun:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run


def server_says(flow_run_id: Any) -> str:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run_id).state
    return str(state and state.name)


def set_cancelling(flow_run_id: Any) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Cancelling())


def test_the_engine_keeps_the_state_in_the_object_of_its_context() -> None:
    seen: list[FlowRun] = []

    @flow
    def fails() -> None:
        seen.append(here())
        assert not internals.has_ended(here())
        assert abs(internals.seconds_since_state(here())) < 300
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fails()
    assert internals.has_ended(seen[0])


async def test_the_engine_lets_go_of_the_object_when_the_run_has_ended() -> None:
    seen: list[weakref.ref[FlowRun]] = []

    @flow
    async def completes() -> None:
        seen.append(weakref.ref(here()))

    for _ in range(4):
        await completes()
    # Prefect's background services began in the context of the first run, and keep it.
    while any(each() is not None for each in seen[1:]):  # pytest's time limit is the limit
        await asyncio.sleep(0.1)
        gc.collect()


class Stop(BaseException):
    pass


def test_a_run_whose_object_is_final_is_not_forced_to_crashed() -> None:
    seen = []

    @flow
    def stopped() -> None:
        seen.append(here().id)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(here().id, Cancelled(), force=True)
        internals.end_in(here(), Cancelled(message="enough"))
        raise Stop

    with pytest.raises(CancelledRun, match="enough"):
        stopped()
    assert server_says(seen[0]) == "Cancelled"


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_is_being_cancelled_stays_so_and_its_hooks_are_called(fails: bool) -> None:
    seen, hooked = [], []

    def hook(flow: object, flow_run: FlowRun, state: object) -> None:
        hooked.append(flow_run)

    @flow
    def goes_on() -> str:
        seen.append(here())
        set_cancelling(here().id)
        if fails:
            raise ValueError("on purpose")
        return "all is well"

    goes_on.on_cancellation_hooks.append(hook)
    goes_on(return_state=True)
    assert hooked == seen
    assert hooked[0] is seen[0]
    assert server_says(seen[0].id) == "Cancelling"


def test_of_a_run_that_is_retried_only_the_context_of_its_present_attempt_is_entered() -> None:
    contexts: list[FlowRunContext | None] = []  # so that the first one is not collected
    living: list[int] = []

    def count() -> int:
        return sum(run.id == contexts[0].flow_run.id for run in internals.living_flow_runs())  # type: ignore[union-attr]

    @flow(retries=1)
    def retried() -> None:
        contexts.append(FlowRunContext.get())
        living.append(count())
        if len(contexts) == 1:
            raise ValueError("on purpose")

    retried()
    first, second = (each.flow_run for each in contexts if each and each.flow_run)
    assert first.id == second.id
    assert not internals.has_ended(first)  # so that its state does not tell
    assert [*living, count()] == [1, 1, 0]


def test_a_cancelled_run_whose_flow_returns_is_completed() -> None:
    seen = []

    @flow
    def returns() -> None:
        seen.append(here().id)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(here().id, Cancelled(), force=True)

    returns(return_state=True)
    assert server_says(seen[0]) == "Completed"


def test_a_thread_is_told_by_an_event_that_its_run_has_ended() -> None:
    events: list[threading.Event] = []

    @task
    def waits() -> bool:
        events.extend(internals.abandoned_events(task_runs()))
        return bool(events) and events[0].wait(120)

    @flow
    def fails() -> None:
        waits.submit()
        while not events:
            time.sleep(0.01)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fails()
    assert events[0].is_set()


async def test_a_client_is_that_of_the_context_and_ours_is_not() -> None:
    @flow
    async def inside() -> tuple[bool, bool]:
        context = FlowRunContext.get()
        assert context is not None
        _, profile, settings = internals.settings_here()
        ours = await internals.own_client(profile, settings)
        return get_client() is context.client, ours is context.client

    assert await inside() == (True, False)


async def test_a_client_talks_to_the_server_of_the_settings_it_was_asked_for() -> None:
    elsewhere = "http://127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: elsewhere}):
        server, profile, settings = internals.settings_here()
    asking = internals.own_client(profile, settings)
    client = await asyncio.create_task(asking, context=contextvars.Context())
    assert server.url == elsewhere
    assert str(client.api_url).rstrip("/") == elsewhere


def test_prefect_has_no_settings_of_tasks_that_we_do_not_know() -> None:
    assert set(TasksSettings.model_fields) == {
        *("refresh_cache", "default_no_cache", "disable_caching"),
        *("default_retries", "default_retry_delay_seconds", "default_persist_result"),
        *("runner", "scheduling"),
    }


def test_settings_of_the_environment_can_be_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    url = get_current_settings().api.url
    seen: list[str | None] = []

    def look() -> None:
        thread = threading.Thread(target=lambda: seen.append(get_current_settings().api.url))
        thread.start()
        thread.join()

    monkeypatch.setenv("PREFECT_API_URL", str(url))
    internals.set_for_process({"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    look()
    internals.set_for_process({"PREFECT_API_URL": str(url)})
    look()
    assert seen == ["http://127.0.0.1:9/api", url]
