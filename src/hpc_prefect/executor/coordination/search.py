"""Searches for jobs whose submission is in doubt: one question for all of a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from hpc_prefect.job.state import Observation
from hpc_prefect.schedulers.base import Found, NoAnswer, Scheduler

#: The jobs of one name by their ids, or that there was no useful answer about it.
Sought = dict[str, Observation] | NoAnswer

#: Each pause between two questions is so much longer than the last one, up to this part of the
#: patience with which a name is looked for.
_SLOW_DOWN = 2.0
_SLOWEST = 0.25


class Search:
    """All searches by name of one connection, on the executor's event loop.

    A caller asks again until it has a useful answer. The pace is kept here; requests during a pause
    go into the next question.
    """

    def __init__(
        self, scheduler: Scheduler, ask: Callable[[Sequence[str]], Awaitable[Found]]
    ) -> None:
        """`ask` puts one question to the scheduler; its answer has every name."""
        self._scheduler = scheduler
        self._ask = ask
        self._sought: dict[str, asyncio.Future[Sought]] = {}
        self._answered: set[str] = set()  # names that had an answer already: they can wait
        self._failed = False  # the last question had no useful answer about some name
        self._pause = 0.0
        self._not_before = float("-inf")
        self._came = asyncio.Event()  # somebody asks
        self._asking: asyncio.Task[None] | None = None

    async def find(self, tag: str) -> Sought:
        """The jobs of that name, by the answer to the next question."""
        loop = asyncio.get_running_loop()
        if tag not in self._sought:
            self._sought[tag] = loop.create_future()
        self._came.set()
        if self._asking is None or self._asking.done():
            self._asking = loop.create_task(self._ask_all())
        return await asyncio.shield(self._sought[tag])

    async def _ask_all(self) -> None:
        while self._sought:
            await self._rest()
            tags = list(self._sought)
            found = await self._ask(tags)
            self._choose_pause(found)
            for tag in tags:
                self._sought.pop(tag).set_result(found[tag])

    async def _rest(self) -> None:
        """Wait until the next question is due. For a name that is new it is due at once, unless
        the scheduler does not answer: then one more job in doubt is no reason to press it."""
        clock = asyncio.get_running_loop().time
        while (left := self._not_before - clock()) > 0:
            self._came.clear()
            if not self._failed and not self._sought.keys() <= self._answered:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), left)

    def _choose_pause(self, found: Found) -> None:
        hurry = self._scheduler.hurry
        slowest = max(hurry, _SLOWEST * self._scheduler.patience.find)
        self._failed = any(isinstance(each, NoAnswer) for each in found.values())
        first = not self._failed and not found.keys() <= self._answered
        self._pause = hurry if first else min(max(hurry, _SLOW_DOWN * self._pause), slowest)
        self._not_before = asyncio.get_running_loop().time() + self._pause
        self._answered |= {tag for tag in found if not isinstance(found[tag], NoAnswer)}
