"""The artifacts of a flow run in Prefect's UI, which are created once and then updated.

A thread of its own sends them. No call waits for Prefect, and a server that hangs or refuses costs
a line in the log only: the run itself does not need its artifacts.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import ClassVar, NamedTuple
from uuid import UUID

from httpx import TransportError
from prefect.client.orchestration import PrefectClient
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_UI_URL

from hpc_prefect.flow_runs import prefect_internals as internals
from hpc_prefect.flow_runs.clients import short_client
from hpc_prefect.flow_runs.per_run import PerRun
from hpc_prefect.flow_runs.scopes import current_run, root_flow
from hpc_prefect.flow_runs.settings import HPCPrefectSettings

logger = logging.getLogger("hpc_prefect.artifacts")

#: Seconds between two updates of an artifact: each costs 8–15 ms of CPU.
EVERY = 10.0


class Content(NamedTuple):
    """What an artifact shows: Markdown, or the rows of a table as JSON; and a line about it."""

    data: str
    about: str = ""


class Home(NamedTuple):
    """Where in Prefect an artifact is shown."""

    flow_run: UUID | None
    task_run: UUID | None = None


def _are_wanted() -> bool:
    try:
        return HPCPrefectSettings().artifacts
    except Exception as error:  # noqa: BLE001 - as of a word in it that is no truth value
        logger.warning("no artifacts are shown, since the settings cannot be read: %s", error)
        return False


# Once a flow run: reading settings reads several files, which takes 12 ms.
_wanted = PerRun(_are_wanted)


def home_of_run() -> Home | None:
    """The outermost flow run of this call; None where there is none, or artifacts are off."""
    root = root_flow()
    if root is None or root.flow_run is None or not _wanted.of(current_run()):
        return None
    return Home(root.flow_run.id)


def home_of_place() -> Home | None:
    """The innermost flow run and task run of this call; None as in `home_of_run`."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    flow_run = flow.flow_run.id if flow is not None and flow.flow_run is not None else None
    if task is not None and flow_run is None:
        flow_run = task.task_run.flow_run_id
    home = Home(flow_run, None if task is None else task.task_run.id)
    return home if home != Home(None) and _wanted.of(current_run()) else None


def link_to(key: str) -> str:
    """The address of the newest artifact of this key in the UI; empty when the UI has none."""
    ui = PREFECT_UI_URL.value()
    return f"{ui.rstrip('/')}/artifacts/key/{key}" if ui else ""


class LiveArtifact:
    """One artifact. Only the newest content is sent; what came between two updates is dropped.

    Attributes:
        patience: how many seconds a server may take for one artifact; it may delay the end of a
            process as long.
    """

    patience: ClassVar[float] = 20.0

    def __init__(
        self,
        key: str,
        home: Home | None,
        *,
        kind: str = "markdown",
        every: float = EVERY,
        known: bool = False,
    ) -> None:
        """Creates nothing in Prefect before `show`.

        Args:
            key: Prefect lists it under this key, with those of other runs.
            home: None shows nothing.
            kind: `markdown` or `table`.
            every: seconds between two updates.
            known: another process of the run may have created it.
        """
        self.key, self.home, self.kind, self.every = key, home, kind, every
        self.settings = internals.settings_here()
        self.due = float("-inf")
        self._id: UUID | None = None
        self._may_exist = known
        self._sent: Content | None = None
        self._make: Callable[[], Content] = lambda: Content("")
        self._complained = False

    def show(self, make: Callable[[], Content], *, now: bool = False) -> None:
        """Show this at the next update, or now. Never raises, never waits.

        Args:
            make: makes the content, in the sending thread.
        """
        if self.home is None:
            return
        self._make = make
        if now:
            self.due = float("-inf")
        _sender.add(self)

    def send(self) -> bool:
        """Create or update it. Blocks for `patience` at most; the first failure is logged.

        Returns:
            False when the server does not answer.
        """
        self.due = time.monotonic() + self.every
        try:
            with internals.settings_as(self.settings):
                content = self._make()
                if content != self._sent:
                    asyncio.run(self._send(content))
                    self._sent = content
        except Exception as error:  # noqa: BLE001 - a missing picture must not fail anything
            level = logging.DEBUG if self._complained else logging.WARNING
            self._complained = True
            logger.log(
                level,
                "Prefect did not take the artifact %s: %s",
                self.key,
                str(error) or repr(error),
            )
            return not isinstance(error, TimeoutError | TransportError)
        return True

    async def _send(self, content: Content) -> None:
        # Plain requests: the client's own methods emit events, for which an ending process has no
        # thread, and one of them sends nulls, which the server refuses.
        async with asyncio.timeout(self.patience), short_client() as client:
            if self._id is None and self._may_exist:
                self._id = await self._find(client)
            shown = {"data": content.data, "description": content.about}
            if self._id is not None:
                which = {"id": self._id}
                await client.request("PATCH", "/artifacts/{id}", path_params=which, json=shown)
                return
            self._may_exist = True  # in case the answer is lost
            assert self.home is not None
            where = {"flow_run_id": self.home.flow_run, "task_run_id": self.home.task_run}
            made = shown | {name: str(run) for name, run in where.items() if run is not None}
            made |= {"key": self.key, "type": self.kind}
            answer = await client.request("POST", "/artifacts/", json=made)
            self._id = UUID(answer.json()["id"])

    async def _find(self, client: PrefectClient) -> UUID | None:
        assert self.home is not None
        wanted = {
            "key": {"any_": [self.key]},
            "flow_run_id": {"any_": [str(self.home.flow_run)]},
        }
        answer = await client.request("POST", "/artifacts/filter", json={"artifacts": wanted})
        found = answer.json()
        return UUID(found[0]["id"]) if found else None


class _Sender:
    """Sends the artifacts of this process, one at a time.

    Its thread lives only while something is due, so that the end of a process waits for nothing
    else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[LiveArtifact, None] = {}
        self._working = False
        self._wakes_at = float("inf")

    def add(self, artifact: LiveArtifact) -> None:
        with self._lock:
            self._waiting[artifact] = None
            self._go_on()

    def _go_on(self) -> None:
        """Start the thread, or a timer that starts it. The lock is held."""
        if self._working or not self._waiting:
            return
        due, now = min(each.due for each in self._waiting), time.monotonic()
        if due > now:
            if due < self._wakes_at:
                self._wakes_at = due
                clock = threading.Timer(due - now, self._wake)
                clock.daemon = True
                _start(clock)
            return
        # Not a daemon: a short script would end before it.
        self._working = _start(
            threading.Thread(target=self._work, name="hpc-prefect-artifacts", daemon=False)
        )

    def _wake(self) -> None:
        with self._lock:
            self._wakes_at = float("inf")
            self._go_on()

    def _work(self) -> None:
        while (artifact := self._next()) is not None:
            if not artifact.send():
                with self._lock:  # no answer: a hundred of these would delay the process's end
                    self._waiting.clear()

    def _next(self) -> LiveArtifact | None:
        with self._lock:
            now = time.monotonic()
            found = next((each for each in self._waiting if each.due <= now), None)
            if found is None:
                self._working = False
                self._go_on()
            else:
                del self._waiting[found]
            return found


def _start(thread: threading.Thread) -> bool:
    """Start it in an empty context, since the run may end; False if the interpreter is ending."""
    try:
        contextvars.Context().run(thread.start)
    except RuntimeError:
        return False
    return True


_sender = _Sender()


def _begin_anew() -> None:
    """A forked child has no thread, and leaves its parent's artifacts to the parent."""
    global _sender
    _sender = _Sender()


os.register_at_fork(after_in_child=_begin_anew)
