"""What every seed draws: machines, a file server, the flows' processes, and the weather."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hpc_prefect.job import folder as names
from simulation.file_server import FileServer
from simulation.machines import Machine
from simulation.process import Process
from simulation.world import World

if TYPE_CHECKING:
    from simulation.life import Life

WORK_DIR = "/w"
CAMPAIGN = f"{WORK_DIR}/{names.ROOT}/c"
#: The troubles of machines and the file server.
ITS_OWN = ("full", "silent", "power")
#: Seconds after which the last troubles that were drawn are over.
_LATEST = 300.0


class Ground:
    """Attributes:
    lives: the flows.
    scheduler: to whom commands go; None where there is none.
    runs: their processes by the names of their flow runs.
    taken_for_dead: processes that were stopped, and whose flows were started again.
    deaths: of processes that did not end by themselves.
    nodes: machines on which no process of the product is.
    weather: the other side's kinds of trouble, until when each lasts.
    """

    #: What may go wrong by itself.
    troubles: ClassVar[tuple[str, ...]] = ITS_OWN

    def __init__(self, world: World) -> None:
        chance = world.chance
        self.world = world
        self.deaths = 0
        self.scheduler: Any = None
        self.lives: list[Life] = []
        self.runs: dict[str, Process] = {}
        self.taken_for_dead: set[Process] = set()
        self.machines = [
            Machine(world, f"login{n}", chance.one_of("skew", (0.0, 0.0, 0.4, -3.0, 90.0)))
            for n in range(1, 2 + chance.below("machines", 3))
        ]
        self.nodes: dict[str, Machine] = {}
        self.weather: dict[str, float] = {}
        lag = chance.number("lag", 1.0, 60.0) if chance.fault("the file server lags", 0.5) else 0.0
        self.files = FileServer(world, lag)
        self.files.make_folder("", CAMPAIGN)
        self._processes = 0

    # --- what goes wrong by itself

    def may_get_into_trouble(self) -> None:
        """Draw what goes wrong here in the beginning."""
        for _ in range(4):
            self._trouble()

    def _trouble(self) -> None:
        chance = self.world.chance
        kind = chance.one_of("trouble", self.troubles)
        begin = chance.number("trouble begins", 0.0, _LATEST / 3)
        lasts = chance.one_of("trouble lasts", (2.0, 10.0, 40.0, _LATEST / 2))
        if chance.fault("there is trouble", 0.3):
            self.world.later(begin, lambda: self._begin(kind, lasts))

    def _begin(self, kind: str, lasts: float) -> None:
        if self.world.chance.fair:
            return
        until = self.world.now + lasts
        self.world.note("weather", f"{kind} for {lasts:.0f} s")
        if kind == "full":
            self.files.full_until = until
        elif kind == "silent":
            self.files.silent_until = until
        elif kind == "power":
            self.lose_power(self.machines[0])
        else:
            self.weather[kind] = until

    def lose_power(self, machine: Machine) -> None:
        """All processes on it, and what they wrote without forcing it to disk."""
        self.world.coverage.sometimes("a login node loses its power")
        self.files.power_lost_at(machine.name)
        machine.lose_power()

    # --- processes

    def new_process(self, name: str) -> Process:
        self._processes += 1
        chance = self.world.chance
        machine = self.machines[chance.below("which machine", len(self.machines))]
        self.world.note(name, f"begins on {machine.name}")
        return Process(self, machine, self._processes)

    def died(self, process: Process) -> None:
        for life in self.lives:
            life.died(process)

    def stopped(self, process: Process) -> None:
        """It does nothing for a while, and some think that it is dead."""
        for life in self.lives:
            life.stopped(process)

    def prefect_says_over(self, asker: Process, run: str) -> bool:
        """Whether Prefect thinks that a flow run has ended: late, and at times wrongly."""
        process = self.runs.get(run)
        if process is None:
            return False
        chance = self.world.chance
        if process.dead or process in self.taken_for_dead:
            return chance.below("Prefect is late", 2) == 0
        if chance.fault("Prefect is wrong about a run", 0.1):
            self.world.coverage.sometimes("Prefect is wrong about a run")
            return True
        return False

    def come_to_rest(self) -> None:
        """All processes have ended: let that be over which goes on without them for a while."""

    def leaks(self) -> list[str]:
        """What is left over in the end, in a sentence each."""
        return []

    def close(self) -> None:
        """The world is over."""
