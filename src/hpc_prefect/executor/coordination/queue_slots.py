"""Limits how many jobs of a user are in one queue: slots, given in the order of requests.

A slot is taken first within this process, then among all processes of the user on this host, as a
file. The file outlives its process: a job that a killed process left in the queue counts until it
has left the queue, or until another process has taken it up with its slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hpc_prefect.executor.coordination.host_coordination import HostPeers
from hpc_prefect.executor.coordination.orphans import Orphan, await_end
from hpc_prefect.transports.host import host

if TYPE_CHECKING:
    from hpc_prefect.executor.connection import Connection

#: Seconds between two looks for a slot of another process.
_LOOK_EVERY = 0.25
#: A waiting process that has not looked for so many seconds is suspended: others go first.
_STOPPED = 10.0


@dataclass(frozen=True)
class QueueSlot:
    """The slot of one attempt: its job's name in the scheduler, its folder and what it asks for.

    Attributes:
        limit: slots that there are; 0: any number, and it does not count for other processes.
        poll_interval: seconds between two questions about jobs whose process is dead.
    """

    tag: str
    folder: str
    limit: int
    poll_interval: float = 10.0


class QueueSlots:
    """The slots of a queue. Used on one event loop."""

    def __init__(self, queue: str, peers: HostPeers, connection: Connection) -> None:
        self._peers = peers
        self._connection = connection
        self._queue = hashlib.sha256(queue.encode()).hexdigest()[:8]
        self._wait_file = f"wait-{self._queue}-{peers.me}"
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._first = asyncio.Lock()  # only the first looks for a slot among the peers
        self._lookers = 0
        self._given_back = asyncio.Event()
        self._left_over: dict[str, asyncio.Task[None]] = {}

    async def occupy(self, slot: QueueSlot) -> None:
        """Count a job that is in the queue already, whatever the limit."""
        self._taken += 1
        if slot.limit and not self._peers.alone:
            try:
                await self._connection.shortly(partial(self._write, slot))
            except BaseException:
                self.give_back(slot)
                raise

    async def take(self, slot: QueueSlot, on_wait: Callable[[], None] = lambda: None) -> None:
        """Wait for a slot; `on_wait` is called once when it is not there at once."""
        since = host().monotonic()
        waits = _Once(on_wait)
        await self._take_here(slot.limit, waits)
        if not slot.limit or self._peers.alone:
            return
        self._lookers += 1
        try:
            async with self._first:
                await self._take_among_peers(slot, since, waits)
        except BaseException:
            self._give_back_here()
            raise
        finally:
            self._lookers -= 1
            if not self._lookers:
                self._stop_awaiting()

    def give_back(self, slot: QueueSlot) -> None:
        """Free the slot of a job that has left the queue."""
        self._give_back_here()
        if slot.limit and not self._peers.alone:
            self._withdraw(slot)

    # --- among the jobs of this process

    async def _take_here(self, limit: int, waits: Callable[[], None]) -> None:
        if not limit or (not self._waiting and self._taken < limit):
            self._taken += 1
            return
        turn = (limit, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        waits()
        try:
            await turn[1]
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:  # it was given in this very moment
                self._taken -= 1
            self._next()
            raise

    def _give_back_here(self) -> None:
        self._taken -= 1
        self._next()

    def _next(self) -> None:
        while self._waiting:
            limit, turn = self._waiting[0]
            if 0 < limit <= self._taken:
                return
            self._waiting.popleft()
            self._taken += 1
            if not turn.cancelled():  # one that is, in this very moment, gives it on itself
                turn.set_result(None)

    # --- among all processes

    async def _take_among_peers(
        self, slot: QueueSlot, since: float, waits: Callable[[], None]
    ) -> None:
        try:
            while not await self._taken_among_peers(slot, since):
                waits()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._given_back.wait(), _LOOK_EVERY)
                self._given_back.clear()
        except BaseException:
            self._withdraw(slot)
            raise

    async def _taken_among_peers(self, slot: QueueSlot, since: float) -> bool:
        look = self._connection.shortly(partial(self._look, slot, since))
        looking = asyncio.ensure_future(look)
        try:
            got, orphan = await asyncio.shield(looking)
        except asyncio.CancelledError:  # it may be given in this very moment
            looking.add_done_callback(lambda _: self._withdraw(slot))
            raise
        for name in self._left_over.keys() - orphan.keys():
            self._left_over.pop(name).cancel()
        for name, one in orphan.items():
            if name not in self._left_over:
                work = await_end(one, self._connection, partial(self._forget, name))
                self._left_over[name] = asyncio.get_running_loop().create_task(work)
        return got

    def _withdraw(self, slot: QueueSlot) -> None:
        removal = self._connection.shortly(partial(self._remove, slot))
        removed = asyncio.get_running_loop().create_task(removal)
        removed.add_done_callback(lambda _: self._given_back.set())

    def _stop_awaiting(self) -> None:
        while self._left_over:
            self._left_over.popitem()[1].cancel()

    def _look(self, slot: QueueSlot, since: float) -> tuple[bool, dict[str, Orphan]]:
        """Take a slot if there is one, or note that we wait; with the dead's slots. Blocks."""
        alone: tuple[bool, dict[str, Orphan]] = (True, {})
        return self._peers.together(lambda lock: self._decide(slot, since), alone)

    def _decide(self, slot: QueueSlot, since: float) -> tuple[bool, dict[str, Orphan]]:
        names = self._peers.names()
        taken = [_Name(name) for name in names if name.startswith(f"slot-{self._queue}-")]
        tags = {one.tag for one in taken}
        if slot.tag in tags or (len(tags) < slot.limit and not self._older(names, since)):
            self._write_slot(slot)
            self._unlink(self._wait_file)
            return True, {}
        self._peers.write(self._wait_file, f"{since} {host().monotonic()}".encode())
        dead = [one for one in taken if not self._peers.is_alive(one.who)]
        return False, {one.name: self._orphan_of(one, slot) for one in dead}

    def _older(self, names: list[str], since: float) -> bool:
        """Whether a living process has waited for longer than we."""
        for name in names:
            if not name.startswith(f"wait-{self._queue}-") or name == self._wait_file:
                continue
            if not self._peers.is_alive(_Name(name).who):
                self._unlink(name)
                continue
            began, looked = map(float, (self._read(name) or "inf 0").split())
            if began < since and host().monotonic() - looked < _STOPPED:
                return True
        return False

    def _orphan_of(self, one: _Name, slot: QueueSlot) -> Orphan:
        return Orphan(one.tag, self._read(one.name), slot.poll_interval)

    def _write(self, slot: QueueSlot) -> None:
        self._peers.together(lambda lock: self._write_slot(slot), None)

    def _write_slot(self, slot: QueueSlot) -> None:
        ours = f"slot-{self._queue}-{slot.tag}-{self._peers.me}"
        self._peers.publish(ours, os.fsencode(slot.folder))
        for name in self._peers.names():
            if name.startswith(f"slot-{self._queue}-{slot.tag}-") and name != ours:
                self._unlink(name)  # of the dead process whose job we took up

    def _remove(self, slot: QueueSlot) -> None:
        ours = (f"slot-{self._queue}-{slot.tag}-{self._peers.me}", self._wait_file)
        self._peers.together(lambda lock: self._unlink(*ours), None)

    def _forget(self, name: str) -> None:
        self._peers.together(lambda lock: self._unlink(name), None)

    def _unlink(self, *names: str) -> None:
        for name in names:
            self._peers.remove(name)

    def _read(self, name: str) -> str:
        try:
            return os.fsdecode(self._peers.read(name))
        except FileNotFoundError:
            return ""


class _Name:
    """The parts of a file's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tag, self.who = name.split("-")[-2:]


class _Once:
    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def __call__(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()
