"""How many jobs of this process may be in one queue at once."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """Places in a queue, given in the order in which they are asked for. Used on one event loop."""

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def occupy(self) -> None:
        """Count a job that is in the queue already, whatever the limit."""
        self._taken += 1

    async def take(self, limit: int) -> None:
        """Wait for a place among `limit` (0: without limit)."""
        if limit and (self._waiting or limit <= self._taken):
            turn = (limit, asyncio.get_running_loop().create_future())
            self._waiting.append(turn)
            try:
                await turn[1]
            except asyncio.CancelledError:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:  # it was given in this very moment
                    self._taken -= 1
                self._next()
                raise
        else:
            self._taken += 1

    def give_back(self) -> None:
        """The job is not in the queue any more."""
        self._taken -= 1
        self._next()

    def _next(self) -> None:
        while self._waiting:
            limit, turn = self._waiting[0]
            if 0 < limit <= self._taken:
                return
            self._waiting.popleft()
            self._taken += 1
            turn.set_result(None)
