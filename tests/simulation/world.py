"""Virtual time and the one queue of events; what happened, as a trace whose digest is compared."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush

from simulation.chance import Chance
from simulation.coverage import Coverage

#: Seconds since 1970 at which each world begins.
EPOCH = 1_800_000_000.0
#: A pause inside of a pause inside of …: deeper, no thread begins.
_DEEPEST = 6
#: More events than the longest life has.
_MOST_EVENTS = 400_000
#: More operations and events than ever happen at one moment.
MOST_AT_ONCE = 20_000


class World:
    """Attributes:
    now: seconds since the world began.
    wrong: what must not have happened, a sentence each; the first one ends the world.
    at_once: operations and events at this moment, counted where they are.
    timeline: lines of (seconds, who, what), when they are kept for a person.
    """

    def __init__(self, chance: Chance, coverage: Coverage, *, keep: bool = False) -> None:
        self.chance = chance
        self.coverage = coverage
        self.now = 0.0
        self.wrong: list[tuple[str, str]] = []
        self.steps = 0
        self.timeline: list[tuple[float, str, str]] = []
        self._keep = keep
        self._told: list[str] = []
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []
        self._order = chance.stream("order")
        self._until = 0.0
        self._count = 0
        self._depth = 0
        self.at_once = 0
        self.over = False

    @property
    def trace(self) -> str:
        """The digest of all that happened."""
        return blake2b("".join(self._told).encode(), digest_size=16).hexdigest()

    def note(self, who: str, what: str) -> None:
        """Something happened."""
        self._told.append(f"{self.now:.6f} {who} {what}\n")
        if self._keep:
            self.timeline.append((self.now, who, what))

    def fail(self, kind: str, sentence: str) -> None:
        """Something must not have happened: `kind` is one of `oracles.KINDS`."""
        self.note("oracle", f"{kind}: {sentence}")
        self.wrong.append((kind, sentence))
        self.over = True

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        """Have it happen; of two things at one moment the seed says which is first."""
        self._count += 1
        heappush(self._events, (self.now + seconds, self._order(), self._count, event))

    def next(self, event: Callable[[], None]) -> None:
        """As `later` without a pause, where an event ends: at once, if nothing is before it."""
        events, now = self._events, self.now
        if self.over or now > self._until or (events and events[0][0] <= now):
            self.later(0.0, event)
            return
        self._order()
        self._count += 1
        self.steps += 1
        self.at_once += 1
        if self.at_once <= MOST_AT_ONCE or not self.stuck():
            event()

    def run(self, until: float) -> None:
        """Let time pass, up to a moment or the world's end."""
        events = self._events
        before, self._until = self._until, until
        while events and not self.over and events[0][0] <= until:
            now, _, _, event = heappop(events)
            if now != self.now:
                self.now, self.at_once = now, 0
            self.steps += 1
            self.at_once += 1
            if self.at_once > MOST_AT_ONCE and self.stuck():
                break
            event()
            if self.steps > _MOST_EVENTS:
                self.fail("stuck", f"{self.steps} events, and no end")
        self._until = before
        if not self.over and until > self.now and until != float("inf"):
            self.now, self.at_once = until, 0

    def pass_time(self, seconds: float) -> None:
        """Inside of something that takes time: meanwhile everybody else goes on."""
        if seconds <= 0:
            return
        self._depth += 1
        try:
            self.run(self.now + seconds)
        finally:
            self._depth -= 1

    @property
    def is_busy(self) -> bool:
        """Whether no thread may begin now, because it would wait inside of too many others."""
        return self._depth >= _DEEPEST

    def stuck(self) -> bool:
        """Something goes round and round while no time passes: there were too many operations."""
        if not self.over:
            self.fail("stuck", f"{MOST_AT_ONCE} operations at one moment, and no end")
        return True
