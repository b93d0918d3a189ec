"""All that a seed of batch jobs draws: a scheduler with its nodes, and the flows that want jobs."""

from __future__ import annotations

from typing import Any

from hpc_prefect.job.spec import Executable, JobSpec, Resources, Site
from simulation import leaks, mix
from simulation.allocation_world import allocation_lives
from simulation.array_world import array_lives
from simulation.branch_life import branch_lives
from simulation.cluster import Cluster
from simulation.ground import CAMPAIGN, ITS_OWN, WORK_DIR, Ground
from simulation.held import WithSpools
from simulation.held_array_life import held_array_lives
from simulation.job_script import Program
from simulation.life import Life, Wanted
from simulation.machines import Machine
from simulation.oracles import Judgements, Submissions
from simulation.pbs import PBSCommands
from simulation.pjm import PJMCommands
from simulation.slurm import SlurmCommands
from simulation.world import World

#: Slurm's dialect has most to do.
_LANGUAGES = (SlurmCommands, SlurmCommands, PBSCommands, PJMCommands)


class Place(Ground):
    """A site with a scheduler and its nodes."""

    troubles = ("down", "hung", "unlisted", "forgetful", "garbage", *ITS_OWN)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        chance = world.chance
        nodes = self.nodes = {
            f"n{n}": Machine(world, f"n{n}", chance.one_of("skew", (0.0, 0.0, 2.0, -40.0)))
            for n in range(3)
        }
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
        self.weather = self.cluster.weather
        world.coverage.sometimes(f"a site has {self.scheduler.name}")
        if mix.is_of_arrays(chance.seed):
            self.lives = [*array_lives(self)]
        elif mix.is_of_branches(chance.seed):
            self.lives = [*branch_lives(self)]
        elif mix.is_of_allocations(chance.seed):
            self.scheduler = WithSpools(self.scheduler, self.files)
            of_arrays = mix.is_of_held_arrays(chance.seed)
            lives = [*(held_array_lives if of_arrays else allocation_lives)(self)]
            self.lives = [*lives]
            self.cluster.orphaned = lambda run: [life.orphaned(run) for life in lives]
        else:
            self.lives = [self._life(n) for n in range(1, 2 + (chance.below("lives", 4) == 0))]
        self.may_get_into_trouble()

    # --- what is wanted

    def _life(self, number: int) -> Life:
        chance = self.world.chance
        count = mix.jobs(chance, (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 6))
        if mix.are_many(chance):
            count = mix.MOST_JOBS
        # A second flow may want jobs of the first one.
        other = number if chance.below("shared", 3) else 1
        wanted = [self.wanted(f"{chr(96 + other)}{n}") for n in range(count)]
        return Life(self, number, wanted, starts=mix.starts(chance))

    def wanted(self, key: str) -> Wanted:
        chance = self.world.chance
        if key not in self.cluster.behaviour:
            self.cluster.behaviour[key] = [self._program() for _ in range(3)]
            has_output = chance.below("outputs", 2)
            self.cluster.outputs[key] = (f"{WORK_DIR}/{key}.out",) * has_output
        outputs = tuple(path.rpartition("/")[2] for path in self.cluster.outputs[key])
        spec = JobSpec(
            name=key,
            command_name="program",
            executable=Executable(path="/program"),
            site=Site(scheduler=self.scheduler.name, options=self._options),
            resources=Resources(walltime=120),
            work_dir=WORK_DIR,
            expected_outputs=outputs,
        )
        return Wanted(key, f"{CAMPAIGN}/ab/{key}", spec)

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

    def leaks(self) -> list[str]:
        jobs = [left for life in self.lives for left in life.left_over()]
        return jobs + leaks.of_world(self.files, CAMPAIGN, self.world.chance.happened)

    def come_to_rest(self) -> None:
        if mix.is_of_allocations(self.world.chance.seed):
            self.world.run(self.world.now + 2000.0)

    def facts(self) -> dict[str, Any]:
        """What a person wants to know of this world first."""
        return {
            "scheduler": self.scheduler.name,
            "options": self._options,
            "machines": [f"{each.name} ({each.skew:+g} s)" for each in self.machines],
            "lag": round(self.files.lag, 1),
            "jobs": [len(life.wanted) for life in self.lives],
        }
