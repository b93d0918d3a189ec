"""Held allocations on a cluster: the batch job whose program is an agent, and the jobs in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.schedulers.allocation import spool as spools
from simulation.agent import Agent, Asked, Child, read_arguments
from simulation.file_server import File, FileServer
from simulation.job_script import Program, ScriptRun, ScriptText
from simulation.members import ElementRun
from simulation.spool_commands import SpoolCommands

if TYPE_CHECKING:
    from simulation.cluster import BatchJob, Cluster
    from simulation.process import Process

#: bash's own codes for a script that is cut off, and for one that is not there.
_CUT_OFF, _MISSING = 2, 127
_WHOLE = re.compile(r"\n(_hp_end \$\? \w+|exit \"\$_hp_worst\")\n$")


@dataclass(frozen=True, slots=True)
class AgentProgram(Program):
    """The program of a batch job that holds nodes; it takes no notice of signals by itself."""

    on_term: str = "deaf"


class AgentRun(ScriptRun):
    """One start of such a batch job.

    Attributes:
        agent: once it has begun.
        inside: the jobs that it has started.
    """

    def __init__(self, cluster: Cluster, job: BatchJob, ended: Callable[[int], None]) -> None:
        self.agent: Agent | None = None
        self.inside: list[InsideRun | InsideElement] = []
        self.began_at = 0.0
        self._log_full_until = -1.0
        super().__init__(cluster, job, ended)

    # --- what becomes of it

    @property
    def is_over(self) -> bool:
        """Whether its agent has ended, or ends what runs."""
        return not self.in_program or self.agent is None or self.agent.is_ending

    def kill(self) -> None:
        if self.agent is not None:
            self.agent.kill()
        super().kill()
        self._clear_up()

    def terminate(self) -> None:
        super().terminate()
        if self.agent is None or not self.in_program:
            return
        # Some schedulers signal the script's processes, others all that are on the node.
        if self._world.chance.below("who is signalled", 2):
            for run in self.inside:
                run.terminate()
        self.agent.terminate()

    def _clear_up(self) -> None:
        """As a node is when its job has ended."""
        for run in self.inside:
            run.kill()

    def _begin_program(self, program: Program) -> None:
        inner = self._entry("program.sh")
        assert isinstance(inner, File)
        arguments = read_arguments(inner.data.decode())
        assert arguments, "this job holds nothing"
        spool, given = arguments
        text = self._files.entry(f"{spool}/{spools.AGENT}")
        if not isinstance(text, File) or text.data != spools.agent_text().encode():
            self._world.coverage.sometimes("an agent's text is not whole")
            code = _CUT_OFF if isinstance(text, File) else _MISSING
            self._then(lambda: self._program_ends(code, by_itself=True))
            return
        self.began_at = self._world.now
        self.agent = Agent(
            self._world,
            self._files,
            self._node,
            self._job.id,
            spool,
            given,
            partial(self._begin_inside, spool),
            self._agent_ended,
        )
        self.agent.log_is_full = self._log_is_full
        self._may_get_into_trouble(given.walltime)

    def _agent_ended(self, code: int) -> None:
        assert self.agent is not None
        if self.agent.why == "orphan":
            self._cluster.orphaned(self)
        self._program_ends(code, by_itself=True)

    # --- what goes wrong with it

    def _may_get_into_trouble(self, walltime: int) -> None:
        chance, cluster, job = self._world.chance, self._cluster, self._job
        after = chance.number("trouble of an allocation", 0.0, min(walltime, 120.0))
        troubles: tuple[tuple[str, float, Callable[[], None]], ...] = (
            ("an agent is killed", 0.06, self._kill_agent),
            ("a person cancels an allocation", 0.08, lambda: cancel_by_person(cluster, job)),
            ("the node of an allocation dies", 0.06, lambda: cluster.lose_node(job)),
            ("an allocation's walltime is over early", 0.05, lambda: cluster.time_is_up(job)),
        )
        for name, likely, happen in troubles:
            if chance.fault(name, likely):
                self._world.later(after, partial(self._if_it_runs, name, happen))

    def _if_it_runs(self, name: str, happen: Callable[[], None]) -> None:
        if self.in_program and not self._world.chance.fair:
            self._world.note("agent", f"{self._job.id}: {name}")
            self._world.coverage.sometimes(name)
            happen()

    def _kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        # The scheduler clears up a little later what the agent has left behind.
        delay = self._world.chance.number("left behind", 0.05, 3.0)
        self._world.later(delay, self._clear_up)
        self._program_ends(137, by_itself=False)

    def _log_is_full(self) -> bool:
        """Drawn at each line."""
        now, chance = self._world.now, self._world.chance
        if now >= self._log_full_until and chance.fault("an allocation's log is full", 0.02):
            self._world.coverage.sometimes("an allocation's log is full")
            self._log_full_until = now + chance.one_of("log is full", (0.5, 5.0, 60.0))
        return now < self._log_full_until and not chance.fair

    # --- the jobs in it

    def _begin_inside(
        self, spool: str, tag: str, asked: Asked, ended: Callable[[int], None]
    ) -> Child:
        world, cluster = self._world, self._cluster
        text = cluster.script_at(asked.script) or ""
        if not _WHOLE.search(text):
            world.coverage.sometimes("the script of a job in an allocation is not whole")
            self._then(lambda: ended(_CUT_OFF if text else 0))
            return _Nobody()
        script = ScriptText.read(text)
        outputs = cluster.outputs[script.folder.rpartition("/")[2].rpartition("-")[0]]
        job_id = f"{spool.rpartition('/')[2][:8]}.{tag}"
        job = cluster.new_inside(job_id, tag, script, asked.work_dir, outputs, self, self._node)
        if script.members:
            world.coverage.sometimes("members of an array run in an allocation")
        run = (InsideElement if script.members else InsideRun)(cluster, job, ended)
        job.runs.append(run)
        self.inside.append(run)
        world.coverage.sometimes("a job runs in an allocation")
        return run


class _Nobody:
    """A job that has ended at once."""

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class InsideRun(ScriptRun):
    """One start of a job in an allocation: its script is the same as without."""

    def _leave(self, code: int) -> None:
        _over(self._cluster, self._job, "by code", code)
        super()._leave(code)

    def kill(self) -> None:
        super().kill()
        _over(self._cluster, self._job, "killed", 137)


class InsideElement(ElementRun):
    """One start of an array's members in an allocation: to the agent it is a job."""

    def __init__(self, cluster: Cluster, job: BatchJob, ended: Callable[[int], None]) -> None:
        def over(code: int) -> None:
            _over(cluster, job, "by code", code)
            ended(code)

        super().__init__(cluster, job, over)

    def kill(self) -> None:
        super().kill()
        _over(self._cluster, self._job, "killed", 137)


def _over(cluster: Cluster, job: BatchJob, how: str, code: int) -> None:
    if job.open:
        job.state, job.end, job.code, job.ended_at = "ended", how, code, cluster.world.now


def cancel_by_person(cluster: Cluster, job: BatchJob) -> None:
    """With the scheduler's own command."""
    cluster.cancel(job, by="person")


class WithSpools:
    """A scheduler's commands, and what is said to agents."""

    def __init__(self, inside: Any, files: FileServer) -> None:
        self._inside, self._files = inside, files
        self.name, self.options = inside.name, inside.options

    def run(self, command: Command, process: Process, pause: Callable[[float], None]) -> Reply:
        """What a command of a process prints; `pause` is how long it takes."""
        if not SpoolCommands.knows(command):
            reply: Reply = self._inside.run(command, process, pause)
            return reply
        chance = process.world.chance
        left = -1
        if chance.fault("what is said to an agent is broken off", 0.02):
            left = chance.below("broken off", 4)

        def between() -> None:
            nonlocal left
            if left == 0:
                raise _BrokenOff
            left -= 1
            pause(chance.number("a shell's step", 0.001, 0.02))

        try:
            return SpoolCommands(self._files, process.machine.name, between).run(command)
        except _BrokenOff:
            process.world.coverage.sometimes("what is said to an agent is broken off")
            return Reply(None)


class _BrokenOff(Exception):
    """The shell was killed, or did not come to its end in time."""
