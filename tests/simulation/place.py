"""All that one seed draws: machines, a file server, a scheduler, flows and their weather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpc_prefect.job import folder as names
from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from simulation.array_world import FIRST as FIRST_OF_ARRAYS
from simulation.array_world import array_lives
from simulation.cluster import Cluster
from simulation.file_server import FileServer
from simulation.job_script import Program
from simulation.life import Life, Wanted
from simulation.machines import Machine
from simulation.oracles import Judgements, Submissions
from simulation.pbs import PBSCommands
from simulation.pjm import PJMCommands
from simulation.process import Process
from simulation.slurm import SlurmCommands
from simulation.world import World

#: Slurm's dialect has most to do.
_LANGUAGES = (SlurmCommands, SlurmCommands, PBSCommands, PJMCommands)
_WORK_DIR = "/w"
_CAMPAIGN = f"{_WORK_DIR}/{names.ROOT}/c"
_TROUBLES = ("down", "hung", "unlisted", "forgetful", "garbage", "full", "silent", "power")
#: Seconds after which the last troubles that were drawn are over.
_LATEST = 300.0


class Place:
    """Attributes:
    lives: the flows.
    runs: their processes by the names of their flow runs.
    taken_for_dead: processes that were stopped, and whose flows were started again.
    deaths: of processes that did not end by themselves.
    """

    def __init__(self, world: World) -> None:
        chance = world.chance
        self.world = world
        self.deaths = 0
        self.runs: dict[str, Process] = {}
        self.taken_for_dead: set[Process] = set()
        self.machines = [
            Machine(world, f"login{n}", chance.one_of("skew", (0.0, 0.0, 0.4, -3.0, 90.0)))
            for n in range(1, 2 + chance.below("machines", 3))
        ]
        nodes = {
            f"n{n}": Machine(world, f"n{n}", chance.one_of("skew", (0.0, 0.0, 2.0, -40.0)))
            for n in range(3)
        }
        lag = chance.number("lag", 1.0, 60.0) if chance.fault("the file server lags", 0.5) else 0.0
        self.files = FileServer(world, lag)
        self.files.make_folder("", _CAMPAIGN)
        self._nodes = nodes
        self.cluster = Cluster(world, self.files, nodes)
        self.programs = self.cluster.programs
        self.judgements = Judgements(world, self.cluster)
        language = chance.one_of("scheduler", _LANGUAGES)
        self.scheduler = language(self.cluster, Submissions(self.cluster, self.judgements))
        self.poll_interval = chance.one_of("poll interval", (2.0, 10.0, 30.0))
        self._options = dict(chance.one_of("options", self.scheduler.options))
        self.cluster.has_history = (
            self._options.get("accounting", True) is True
            and self._options.get("history_flag") != "none"
        )
        world.coverage.sometimes(f"a site has {self.scheduler.name}")
        self._processes = 0
        self.lives: Sequence[Life]
        if chance.seed >= FIRST_OF_ARRAYS:
            self.lives = array_lives(self)
        else:
            self.lives = [self._life(n) for n in range(1, 2 + (chance.below("lives", 4) == 0))]
        for _ in range(4):
            self._trouble()

    # --- what is wanted

    def _life(self, number: int) -> Life:
        chance = self.world.chance
        count = chance.one_of("jobs", (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 6))
        if chance.below("many jobs", 200) == 0:
            count = 40
        # A second flow may want jobs of the first one.
        other = number if chance.below("shared", 3) else 1
        wanted = [self.wanted(f"{chr(96 + other)}{n}") for n in range(count)]
        return Life(self, number, wanted, starts=1 + chance.below("starts", 5))

    def wanted(self, key: str) -> Wanted:
        chance = self.world.chance
        if key not in self.cluster.behaviour:
            self.cluster.behaviour[key] = [self._program() for _ in range(3)]
            has_output = chance.below("outputs", 2)
            self.cluster.outputs[key] = (f"{_WORK_DIR}/{key}.out",) * has_output
        outputs = tuple(path.rpartition("/")[2] for path in self.cluster.outputs[key])
        spec = JobSpec(
            name=key,
            command_name="program",
            executable=Executable(path="/program"),
            site=Site(scheduler=self.scheduler.name, options=self._options),
            resources=Resources(walltime=120),
            work_dir=_WORK_DIR,
            expected_outputs=outputs,
        )
        return Wanted(key, f"{_CAMPAIGN}/ab/{key}", spec)

    def _program(self) -> Program:
        chance = self.world.chance
        good = not chance.fault("a program fails", 0.2)
        code = 0 if good else chance.one_of("code", (1, 3, 117, 118, 137, 139, 143))
        seconds = chance.one_of("seconds", (0.01, 0.5, 0.5, 1.0, 2.0, 2.0, 5.0, 20.0))
        if chance.fault("a program runs for too long", 0.03):
            seconds = 1000.0
        writes = not chance.fault("a program writes no output", 0.05)
        return Program(
            code,
            seconds,
            writes,
            chance.one_of("on term", ("dies", "dies", "slow", "deaf", "zero")),
        )

    # --- what goes wrong by itself

    def _trouble(self) -> None:
        chance = self.world.chance
        kind = chance.one_of("trouble", _TROUBLES)
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
            self.cluster.weather[kind] = until

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

    def close(self) -> None:
        """The world is over."""
        for machine in (*self.machines, *self._nodes.values()):
            machine.meeting_place.close()

    def facts(self) -> dict[str, Any]:
        """What a person wants to know of this world first."""
        return {
            "scheduler": self.scheduler.name,
            "options": self._options,
            "machines": [f"{each.name} ({each.skew:+g} s)" for each in self.machines],
            "lag": round(self.files.lag, 1),
            "jobs": [len(life.wanted) for life in self.lives],
        }
