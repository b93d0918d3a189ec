"""Login nodes and compute nodes: their clocks, what they remember of the file server, who lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpc_prefect.transports.host import Host
from simulation.neighbours import MeetingPlace
from simulation.world import EPOCH, World

if TYPE_CHECKING:
    from simulation.process import Process


class Machine:
    """One of them.

    Attributes:
        skew: seconds by which its clock is ahead of the file server's.
        boots: how often it has started.
        living: its processes of the product, by their pids.
        meeting_place: where these meet.
    """

    def __init__(self, world: World, name: str, skew: float) -> None:
        self.world = world
        self.name = name
        self.skew = skew
        self.boots = 1
        self.booted_at = -100_000.0
        self.living: dict[int, Process] = {}
        self.meeting_place = MeetingPlace()
        self._pids = 100

    @property
    def boot_id(self) -> str:
        return f"boot-{self.name}-{self.boots}"

    def time(self) -> float:
        """Seconds since 1970, as its clock has it."""
        return EPOCH + self.world.now + self.skew

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def identity(self, pid: int) -> str | None:
        return f"{self.boot_id} {pid} {pid} 1" if pid in self.living else None

    def lose_power(self) -> None:
        """All of its processes die at once, and it starts again."""
        self.world.note(self.name, "loses its power")
        for process in list(self.living.values()):
            process.die("its machine lost its power")
        self.meeting_place.clear()
        self.boots += 1
        self.booted_at = self.world.now


class ProcessHost(Host):
    """What one process sees of its machine: the product's `Host`, in the world."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._machine = process.machine
        self._world = process.world

    @property
    def process(self) -> Process:
        """Who sees it."""
        return self._process

    @property
    def name(self) -> str:
        return self._machine.name

    @property
    def pid(self) -> int:
        return self._process.pid

    def time(self) -> float:
        return self._machine.time()

    def monotonic(self) -> float:
        return self._world.now

    def sleep(self, seconds: float) -> None:
        self._process.pause(seconds)

    def seconds_since_boot(self) -> float:
        return self._world.now - self._machine.booted_at

    def token(self, size: int) -> str:
        return self._world.chance.token(self._process.draws, size)

    def uniform(self, low: float, high: float) -> float:
        return self._world.chance.number(self._process.draws, low, high)

    def identity(self, pid: int) -> str | None:
        return self._machine.identity(pid)

    def is_of_this_boot(self, who: str) -> bool:
        return who.partition(" ")[0] == self._machine.boot_id

    def alive(self, who: str) -> bool:
        return bool(who) and self._machine.identity(int(who.split()[1])) == who

    def dead(self, who: str) -> bool:
        return self.is_of_this_boot(who) and not self.alive(who)
