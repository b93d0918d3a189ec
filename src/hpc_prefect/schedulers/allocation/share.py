"""A job's share of a held allocation, and how its program is started on it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpc_prefect.job.spec import JobSpec, Resources, Site, write_memory

_MIB = 1024**2
#: A node's memory in MiB if it is not known: more than any job asks for.
UNKNOWN_MEMORY = 10**12

_PLACES = re.compile(r"(?<!\$)\{(hosts|hostfile)\}")
_SRUN = re.compile(r"srun(?=\s|$)")
#: Replaces the word srun in a site's launcher line: the step gets exactly its cores and memory, and
#: leaves the others to the steps beside it. The agent finds the step by its name if srun is killed.
_STEP = (
    'srun --job-name="$HPC_ALLOCATION_JOB_ID" --exact --nodes={nodes} --nodelist={hosts}'
    " --mem={memory}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What an allocation holds.

    Attributes:
        scheduler, options: of the batch job that holds the nodes.
        memory_per_node: in bytes; 0 if it is not known.
        walltime: in seconds; the last of them (`margin`) are for the agent's own end.
    """

    scheduler: str
    options: dict[str, Any]
    num_nodes: int
    cores_per_node: int
    memory_per_node: int
    gpus_per_node: int
    walltime: int

    @classmethod
    def of(cls, spec: JobSpec) -> Held:
        """What the batch job of this spec holds."""
        shape = spec.resources
        return cls(
            scheduler=spec.site.scheduler,
            options=spec.site.options,
            num_nodes=shape.num_nodes,
            cores_per_node=shape.cores_per_node,
            memory_per_node=shape.memory_per_node,
            gpus_per_node=shape.gpus_per_node,
            walltime=shape.walltime,
        )

    @property
    def mib_per_node(self) -> int:
        """A node's memory in MiB, rounded up as a job's is, so that a job may ask for all of it."""
        return _mib(self.memory_per_node) or UNKNOWN_MEMORY

    @property
    def margin(self) -> int:
        """Seconds at the end of the walltime in which no job runs any more."""
        return min(30, 3 + self.walltime // 20)

    def as_options(self, spool: str) -> dict[str, Any]:
        """The options of the allocation as a scheduler; JSON values."""
        return {"spool": spool, "held": dataclasses.asdict(self)}

    def refuses(self, spec: JobSpec) -> str:
        """Why a job cannot run in the allocation, in words; empty if it can."""
        asked = spec.resources
        memory = self.memory_per_node or asked.memory_per_node  # if it is not known, enough
        for what, wanted, there, write in (
            ("nodes", asked.num_nodes, self.num_nodes, str),
            ("cores on a node", asked.cores_per_node, self.cores_per_node, str),
            ("GPUs on a node", asked.gpus_per_node, self.gpus_per_node, str),
            ("of memory on a node", asked.memory_per_node, memory, write_memory),
        ):
            if wanted > there:
                return f"it asks for {write(wanted)} {what}, and the allocation has {write(there)}"
        if asked.walltime > self.walltime - self.margin:
            return (
                f"its walltime is {asked.walltime} s, but an allocation of {self.walltime} s has"
                f" only {self.walltime - self.margin} s for jobs"
            )
        if spec.site.options.get("qpu"):
            return "it asks for a QPU, which only the scheduler itself can give"
        if self._how(spec, self.launcher(spec)) == "alone" and asked.num_nodes < self.num_nodes:
            return (
                f"its launcher cannot start it on {asked.num_nodes} of {self.num_nodes} nodes; set"
                " launcher_in_allocation in the HPC profile to a line with {hosts} or {hostfile}"
            )
        return ""

    def launcher(self, spec: JobSpec) -> str:
        """The line that starts a job's program on its share; empty: it is started directly."""
        site, single = spec.site, spec.resources.launch == "single"
        if line := site.launcher_in_allocation.strip():
            pass
        elif self.scheduler == "slurm" and single:
            line = f"{_STEP} --ntasks=1 --cpus-per-task={{threads}}{_gpus(spec.resources)}"
        elif self.scheduler == "slurm" and _SRUN.match(site.launcher.strip()):
            line = _SRUN.sub(_STEP + _gpus(spec.resources), site.launcher.strip(), count=1)
        else:
            line = site.launcher
        return line.replace("{memory}", f"{self._memory(spec.resources)}M")

    def site(self, spec: JobSpec, spool: str) -> Site:
        """The site of a job that runs in the allocation; it replaces the job's own."""
        return dataclasses.replace(
            spec.site,
            scheduler=f"allocation-{self.scheduler}",
            options=self.as_options(spool),
            launcher=self.launcher(spec),
        )

    def share(self, spec: JobSpec) -> Share:
        """The share of a job whose site is that of `site`."""
        asked = spec.resources
        cores = asked.cores_per_node
        if asked.gpus_per_node and self.scheduler != "slurm":
            cores = self.cores_per_node  # so that no two jobs use the same GPU
        return Share(
            nodes=asked.num_nodes,
            cores=cores,
            memory=self._memory(asked),
            gpus=asked.gpus_per_node,
            walltime=asked.walltime,
            how=self._how(spec, spec.site.launcher),
            ranks=asked.ranks_per_node,
        )

    def _memory(self, asked: Resources) -> int:
        """MiB on a node: what the job asks for, else in proportion to its cores; 0: not known."""
        if asked.memory_per_node:
            return _mib(asked.memory_per_node)
        return self.memory_per_node * asked.cores_per_node // self.cores_per_node // _MIB

    def _how(self, spec: JobSpec, launcher: str) -> How:
        """On which nodes its program can be started."""
        if _PLACES.search(launcher):
            return "any"
        if spec.resources.launch == "single":
            return "here"
        # On one machine the agent gives each launcher cores of its own. But PJM's mpiexec always
        # starts the ranks of the whole batch job, and on several nodes a launcher uses all of them.
        one_machine = self.scheduler == "local" or (self.num_nodes == 1 and self.scheduler != "pjm")
        return "here" if one_machine else "alone"


How = Literal["any", "here", "alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a job gets of an allocation; memory in MiB, walltime in seconds.

    Attributes:
        how: on `any` nodes; on the agent's node (`here`); or on all nodes, with no other job beside
            it (`alone`).
        ranks: on each node; the host file names the node so many times.
    """

    nodes: int
    cores: int
    memory: int
    gpus: int
    walltime: int
    how: How
    ranks: int

    def fields(self) -> tuple[str, ...]:
        """The fields of a job's file, in the order in which the agent reads them."""
        numbers = (self.nodes, self.cores, self.memory, self.gpus, self.walltime)
        return (*map(str, numbers), self.how, str(self.ranks))


def share_of(spec: JobSpec) -> Share:
    """The share of a job whose site is a held allocation."""
    return held_of(spec.site.options).share(spec)


def held_of(options: Mapping[str, Any]) -> Held:
    """What an allocation holds, by its options as a scheduler."""
    known = {each.name for each in dataclasses.fields(Held)}
    return Held(**{name: value for name, value in options["held"].items() if name in known})


def _mib(size: int) -> int:
    return -(-size // _MIB)


def _gpus(asked: Resources) -> str:
    return " --gpus-per-node={gpus_per_node}" if asked.gpus_per_node else ""
