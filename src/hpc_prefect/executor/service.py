"""The executor: a daemon thread with its own event loop; callers hand over a job and wait.

So async, sync and threaded callers share one poller and one set of connections.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from hpc_prefect.errors import TransportError
from hpc_prefect.executor.arrays.request import ArrayRequest
from hpc_prefect.executor.arrays.run import ArrayRun
from hpc_prefect.executor.connection import Connection
from hpc_prefect.executor.coordination.host_coordination import HostPeers, peers_at
from hpc_prefect.executor.looks import USUAL, Looks
from hpc_prefect.executor.request import JobRequest
from hpc_prefect.executor.run import JobRun
from hpc_prefect.job.provider import Provider
from hpc_prefect.job.result import JobResult
from hpc_prefect.job.spec import Site
from hpc_prefect.ledger.claim import TOUCH_EVERY
from hpc_prefect.schedulers import is_allocation, scheduler_for
from hpc_prefect.schedulers.base import Scheduler
from hpc_prefect.transports.base import Transport
from hpc_prefect.transports.local import LocalTransport

logger = logging.getLogger("hpc_prefect.executor")

T = TypeVar("T")

#: How many commands run at once. They mostly wait for the scheduler's server; more would only load
#: it.
_WORKERS = 4


@dataclass(frozen=True)
class Handle(Generic[T]):
    """A job that was handed over.

    Attributes:
        result: the `JobResult`, whatever the verdict, or those of an array's members; an exception
            only if it could not be followed to its end.
    """

    result: Future[T]
    _executor: Executor
    _folder: str

    def cancel(self, by: str = "user") -> None:
        """Cancel the job; `result` then says how it ended."""
        self._soon(self._executor.cancel, self._folder, by)

    def leave(self) -> None:
        """Stop waiting: the job runs on, and a later call attaches to it.

        `result` is then cancelled, unless another caller still waits for it.
        """
        self._soon(self._executor.leave, self._folder)

    def _soon(self, action: Callable[..., None], *values: str) -> None:
        # Scheduled after the step of `start` that registers the job: else a cancel right after it
        # would be lost.
        loop = self._executor.loop
        loop.call_soon_threadsafe(loop.call_soon, action, *values)


class Renewable(Protocol):
    """A claim, or another sign of life that must be renewed."""

    @property
    def folder(self) -> str:
        """What it is about."""

    def touch(self) -> None:
        """Renew it."""


class Executor:
    """Runs jobs in the background of this process."""

    def __init__(
        self,
        transport: Transport | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        peers: Callable[[Scheduler, Mapping[str, object]], HostPeers] = peers_at,
        looks: Looks = USUAL,
    ) -> None:
        """All four are seams for a simulation.

        Args:
            loop: an event loop that another runs; None to run one in a thread.
            peers: the processes with which questions to a scheduler are shared.
            looks: how often the jobs' own records are looked at.
        """
        self._transport = transport or LocalTransport()
        self.loop = loop or asyncio.new_event_loop()
        self._peers = peers
        self._looks = looks
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="hpc-prefect")
        self._asking = ThreadPoolExecutor(_WORKERS, thread_name_prefix="hpc-prefect-asks")
        self._connections: dict[str | Provider, Connection] = {}
        self._runs: dict[str, JobRun | ArrayRun] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._waiting: Counter[str] = Counter()  # how many wait for each
        self._kept: dict[Renewable, None] = {}
        self.loop.call_soon(self._touch)
        if loop is None:
            thread = threading.Thread(target=self._serve, name="hpc-prefect-executor", daemon=True)
            thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def keep(self, claim: Renewable) -> None:
        """Renew a claim for as long as this process lives."""
        self._kept[claim] = None

    def release(self, claim: Renewable) -> None:
        """Renew a claim no more: its folder's work is done."""
        self._kept.pop(claim, None)

    def _touch(self) -> None:
        for claim in list(self._kept):
            try:
                claim.touch()
            except TransportError as error:
                logger.warning("the claim on %s could not be renewed: %s", claim.folder, error)
        self.loop.call_later(TOUCH_EVERY, self._touch)

    @overload
    def start(self, request: JobRequest, kind: type[JobRun] = JobRun) -> Handle[JobResult]: ...

    @overload
    def start(
        self, request: ArrayRequest, kind: type[ArrayRun]
    ) -> Handle[tuple[JobResult, ...]]: ...

    def start(self, request: Any, kind: type[JobRun | ArrayRun] = JobRun) -> Handle[Any]:
        """Hand over a job. A job that this process already runs is joined, not run again.

        Args:
            kind: what carries it out. With `submit_only` the result is a `JobSubmitted`; of an
                array it is those of its members, in their order.
        """
        # In an empty context: what begins here, such as the polling of all jobs, may outlive the
        # caller's run, and must neither use its clients nor keep it in memory.
        begin = partial(asyncio.run_coroutine_threadsafe, self._run(request, kind), self.loop)
        future = contextvars.Context().run(begin)
        return Handle(future, self, request.base)

    async def _run(self, request: Any, kind: type[JobRun | ArrayRun]) -> Any:
        task = self._tasks.get(request.base)
        if task is None:
            run = kind(
                request, self.connection(request.spec.site, request.provider), self.connection
            )
            task = self.loop.create_task(run.carry_out())
            self._runs[request.base], self._tasks[request.base] = run, task
            task.add_done_callback(lambda _: self._forget(request.base))
            if request.timeout is not None:
                timer = self.loop.call_later(request.timeout, run.cancel, "timeout")
                task.add_done_callback(lambda _: timer.cancel())
        self._waiting[request.base] += 1
        return await asyncio.shield(task)

    def _forget(self, base: str) -> None:
        del self._runs[base], self._tasks[base], self._waiting[base]

    def cancel(self, base: str, by: str) -> None:
        """On the loop: cancel a job by its folder's base, if it is still under way."""
        run = self._runs.get(base)
        if run is not None:
            run.cancel(by)

    def leave(self, base: str) -> None:
        """On the loop: a caller stops waiting for a job."""
        if base in self._tasks:
            self._waiting[base] -= 1
            if not self._waiting[base]:
                self._tasks[base].cancel()

    def connection(self, site: Site, provider: Provider | None = None) -> Connection:
        """On the loop: the one connection to a place, or to a provider that is no scheduler."""
        key = provider or json.dumps([site.scheduler, site.options], sort_keys=True)
        if key not in self._connections:
            scheduler = cast(Scheduler, provider) if provider else scheduler_for(site.scheduler)
            # A service gets its own threads: a slow one must not delay all batch jobs.
            pools = (_threads(), _threads()) if provider else (self._pool, self._asking)
            # Its users have accounts of their own, and an allocation is this flow's: no other
            # process asks about the same jobs.
            alone = provider or is_allocation(site.scheduler)
            peers = None if alone else self._peers(scheduler, site.options)
            self._connections[key] = Connection(
                scheduler, self._transport, site.options, *pools, peers=peers, looks=self._looks
            )
        return self._connections[key]


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_WORKERS, thread_name_prefix="hpc-prefect-service")


_executor: Executor | None = None
_owner = 0
_lock = threading.Lock()


def executor(transport: Transport | None = None) -> Executor:
    """This process's executor; a forked child gets its own: threads do not survive a fork.

    Args:
        transport: for the one that the first call makes, in place of this machine's own. A seam for
            tests whose process dies at a chosen step.
    """
    global _executor, _owner
    with _lock:
        if _executor is None or _owner != os.getpid():
            _executor, _owner = Executor(transport), os.getpid()
        return _executor
