"""The watch of this process's flow runs, with a Prefect API of the test's own."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from uuid import UUID, uuid4

import prefect
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import AsyncClientContext, FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Cancelling, Completed, Retrying, Running

from hpc_prefect.errors import FlowRunCancelled
from hpc_prefect.executor.service import executor
from hpc_prefect.flow_runs.cancellation import raise_if_cancelled, run_is_cancelled
from hpc_prefect.flow_runs.watch import (
    Watch,
    cancelled_between_attempts,
    history,
    says_cancelled,
    watch,
)
from hpc_prefect.server import free_port

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Api(BaseHTTPRequestHandler):
    """Answers the watch's question, and takes the states of runs."""

    questions: ClassVar[list[list[str]]] = []
    states: ClassVar[dict[str, str]] = {}
    cancelling: ClassVar[set[str]] = set()
    slow: ClassVar[threading.Event | None] = None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.slow is not None:
            self.slow.wait(60)
        if self.path.endswith("/set_state"):
            self.states[self.path.split("/")[-2]] = body["state"]["type"]
            return self._answer({"status": "ACCEPT", "details": {"type": "accept_details"}})
        asked = body["flow_runs"]["id"]["any_"]
        self.questions.append(asked)
        there = [each for each in asked if each in self.cancelling]
        return self._answer([run_of(UUID(each), Cancelling()) for each in there])

    def do_GET(self) -> None:
        if self.path.endswith("/admin/version"):
            return self._send(200, prefect.__version__)
        return self.send_error(404)  # the client's token against forged requests

    def _answer(self, value: Any) -> None:
        runs = value if isinstance(value, list) else [value]
        data = [each if isinstance(each, dict) else each.model_dump(mode="json") for each in runs]
        self._send(
            201 if isinstance(value, dict) else 200, data if isinstance(value, list) else data[0]
        )

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def api() -> Iterator[type[Api]]:
    class Mine(Api):
        questions: ClassVar[list[list[str]]] = []
        states: ClassVar[dict[str, str]] = {}
        cancelling: ClassVar[set[str]] = set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
        yield Mine
    if Mine.slow is not None:
        Mine.slow.set()
    server.shutdown()
    server.server_close()


def run_of(run_id: UUID | None = None, state: Any = None) -> FlowRun:
    return FlowRun(id=run_id or uuid4(), flow_id=uuid4(), state=state or Running())


@contextmanager
def inside(flow_run: FlowRun) -> Iterator[FlowRunContext]:
    with FlowRunContext.model_construct(flow=None, flow_run=flow_run) as context:
        yield context


def entered(the_watch: Watch, *flow_runs: FlowRun) -> None:
    for each in flow_runs:
        with inside(each) as context:
            the_watch.enter([context])


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


@pytest.fixture
def mine(api: type[Api]) -> Watch:
    return Watch(executor().loop)


def test_all_runs_of_the_process_are_asked_about_in_one_question(
    mine: Watch, api: type[Api]
) -> None:
    runs = [run_of() for _ in range(500)]
    entered(mine, *runs)  # a first question may come before all of them are in
    everyone = sorted(str(run.id) for run in runs)
    until(lambda: [sorted(asked) for asked in api.questions[-2:]] == [everyone] * 2)


def test_a_run_is_watched_between_its_calls(mine: Watch, api: type[Api]) -> None:
    run = run_of()
    entered(mine, run)
    until(lambda: api.questions)
    api.cancelling.add(str(run.id))
    until(lambda: (known := mine.find(run.id)) is not None and known.cancelled)


def test_the_client_of_the_first_call_may_be_closed_meanwhile(mine: Watch, api: type[Api]) -> None:
    run = run_of()

    async def first_call() -> None:
        async with AsyncClientContext.get_or_create():
            entered(mine, run)

    asyncio.run_coroutine_threadsafe(first_call(), executor().loop).result()
    api.cancelling.add(str(run.id))
    until(lambda: (known := mine.find(run.id)) is not None and known.cancelled)


def test_a_run_without_a_call_under_way_is_not_told_to_have_ended(
    mine: Watch, api: type[Api]
) -> None:
    run = run_of()
    api.cancelling.add(str(run.id))
    entered(mine, run)
    until(lambda: (known := mine.find(run.id)) is not None and known.cancelled)
    until(lambda: len(mine) == 1)
    assert not api.states


def test_three_thousand_runs_that_ended_are_forgotten(mine: Watch) -> None:
    for _ in range(3000):
        run = run_of()
        entered(mine, run)
        run.state = Completed()
    until(lambda: len(mine) == 0)


def test_a_run_whose_engine_went_away_without_a_last_word_is_forgotten(mine: Watch) -> None:
    entered(mine, run_of())
    until(lambda: gc.collect() >= 0 and len(mine) == 0)


def test_a_cancelled_run_is_remembered_for_as_long_as_its_engine_is_there(
    mine: Watch, api: type[Api]
) -> None:
    runs = [run_of()]
    known_as = runs[0].id
    api.cancelling.add(str(known_as))
    entered(mine, *runs)
    until(lambda: (known := mine.find(known_as)) is not None and known.cancelled)
    runs[0].state = Completed()
    other = run_of(state=Completed())
    entered(mine, other)
    until(lambda: mine.find(other.id) is None)
    assert mine.find(known_as) is not None
    runs.clear()
    until(lambda: gc.collect() >= 0 and len(mine) == 0)


async def test_a_run_that_began_long_ago_is_asked_about_before_its_first_submission(
    api: type[Api],
) -> None:
    with inside(run_of(state=Running(timestamp=LONG_AGO))):
        assert not await run_is_cancelled()  # a client is made: the next answer comes fast
    run = run_of(state=Running(timestamp=LONG_AGO))
    api.cancelling.add(str(run.id))
    with inside(run):
        assert await run_is_cancelled()
        with pytest.raises(FlowRunCancelled):
            await raise_if_cancelled()
    assert api.states == {str(run.id): "CANCELLED"}
    assert run.state is not None
    assert run.state.is_cancelled()


async def test_a_run_that_just_began_waits_for_nobody(api: type[Api]) -> None:
    run = run_of()
    with inside(run):
        assert not await run_is_cancelled()
        await raise_if_cancelled()
    assert not api.questions


async def test_a_prefect_that_does_not_answer_holds_nothing_up(api: type[Api]) -> None:
    api.slow = threading.Event()
    run = run_of(state=Running(timestamp=LONG_AGO))
    with inside(run):
        assert not await asyncio.wait_for(run_is_cancelled(), 60)
        await raise_if_cancelled()
    assert not api.questions


async def test_a_prefect_that_is_gone_holds_nothing_up() -> None:
    run = run_of(state=Running(timestamp=LONG_AGO))
    gone = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}
    with temporary_settings(gone), inside(run):
        assert not await asyncio.wait_for(run_is_cancelled(), 60)
        await raise_if_cancelled()


async def test_a_cancelled_run_ends_also_when_prefect_is_gone_meanwhile() -> None:
    run = run_of(state=Cancelling())
    gone = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}
    with temporary_settings(gone), inside(run), pytest.raises(FlowRunCancelled):
        await asyncio.wait_for(raise_if_cancelled(), 90)


@pytest.mark.usefixtures("prefect_server")
async def test_flow_runs_of_every_kind_are_forgotten_when_they_end() -> None:
    ids = []

    def known() -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        ids.append(context.flow_run.id)
        assert watch().find(context.flow_run.id) is not None

    @flow
    async def completes() -> None:
        await raise_if_cancelled()
        known()

    @flow
    async def fails() -> None:
        await raise_if_cancelled()
        known()
        raise ValueError("on purpose")

    @flow
    async def around() -> None:
        await raise_if_cancelled()
        known()
        await completes()

    @flow
    def in_sync() -> None:
        asyncio.run(raise_if_cancelled())
        known()

    await completes()
    with pytest.raises(ValueError, match="on purpose"):
        await fails()
    await around()
    await asyncio.to_thread(in_sync)
    assert len(ids) == 5
    await asyncio.to_thread(until, lambda: not any(watch().find(each) for each in ids))


TYPES = {
    "AwaitingRetry": StateType.SCHEDULED,
    "Retrying": StateType.RUNNING,
    "Suspended": StateType.PAUSED,
}


@pytest.mark.parametrize(
    ("names", "cancelled"),
    [
        ("Pending Running", False),
        ("Pending Running AwaitingRetry Running", False),
        ("Pending Running AwaitingRetry Cancelled Running", True),
        ("Pending Running AwaitingRetry Cancelling Cancelled Retrying", True),
        # Nobody could ask in time, and another attempt has begun.
        ("Running AwaitingRetry Cancelled Running AwaitingRetry Running", True),
        ("Running AwaitingRetry Cancelled Running Failed AwaitingRetry Pending Running", False),
        # Cancelled as the attempt began, and shown after it.
        ("Running AwaitingRetry Running Cancelled AwaitingRetry Running", True),
        ("Running AwaitingRetry Running Cancelled", False),  # the usual question finds it
        # Somebody starts it anew: from the UI, and in a process of their own.
        ("Running AwaitingRetry Cancelled AwaitingRetry Pending Running", False),
        ("Running Cancelling Cancelled Running", False),
        ("Running Suspended Cancelled", False),
        ("Running AwaitingRetry Cancelled", False),  # the usual question finds it
        ("", False),
    ],
)
def test_a_run_that_was_cancelled_while_it_waited_for_its_retry(
    names: str, cancelled: bool
) -> None:
    states = [
        State(
            type=TYPES.get(name) or StateType(name.upper()),
            name=name,
            timestamp=LONG_AGO + timedelta(seconds=second),
        )
        for second, name in enumerate(names.split())
    ]
    assert cancelled_between_attempts(states) == cancelled


@pytest.mark.usefixtures("prefect_server")
async def test_a_run_that_was_cancelled_as_its_next_attempt_began() -> None:
    """Two requests at once: whichever Prefect grants first, and however it dates them."""

    @flow(retries=1)
    def begins_again() -> None: ...

    async def once(engine: PrefectClient, somebody: PrefectClient) -> bool:
        run = await engine.create_flow_run(begins_again)
        await engine.set_flow_run_state(run.id, Running())
        await engine.set_flow_run_state(run.id, AwaitingRetry(), force=True)
        await asyncio.gather(
            engine.set_flow_run_state(run.id, Retrying()),
            somebody.set_flow_run_state(run.id, Cancelling()),
        )
        state = (await engine.read_flow_run(run.id)).state
        return says_cancelled(state) or cancelled_between_attempts(await history(engine, run.id))

    async with get_client() as engine, get_client() as somebody:
        for _ in range(5):
            assert all(await asyncio.gather(*(once(engine, somebody) for _ in range(8))))
