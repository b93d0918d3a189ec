"""One process of the product: an executor of its own on a loop of its own, and its death."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from hpc_prefect.executor.service import Executor
from hpc_prefect.job.dialogue import Command, Reply
from hpc_prefect.ledger.claim import Claimant
from hpc_prefect.transports.host import standing_in
from simulation.loop import Killed, VirtualLoop
from simulation.machines import Machine, ProcessHost
from simulation.mix import looks_of
from simulation.mount import Mount
from simulation.neighbours import Neighbours
from simulation.world import MOST_AT_ONCE

if TYPE_CHECKING:
    from simulation.ground import Ground

T = TypeVar("T")

#: The ways to die at an operation; `power`: with its machine, so that what is not on disk is lost.
_WAYS = ("before", "torn", "after", "power")


class Process:
    """Attributes:
    dead: nothing that it does has any effect any more; since `died_at`; it began at `began_at`.
    on_loop: it runs on its event loop, where nothing may take time.
    draws: the name of its own numbers.
    work_began: when the thread began with what it does now; `resumed_at`: when the process went on
        after it was stopped.
    """

    def __init__(self, place: Ground, machine: Machine, number: int) -> None:
        self.world = place.world
        self.site = place
        self.machine = machine
        self.number = number
        self.name = f"p{number}@{machine.name}"
        self.draws = f"process {number}"
        self.dead = False
        self.died_at = 0.0
        self.began_at = self.world.now
        self.on_loop = False
        self.pid = machine.next_pid()
        machine.living[self.pid] = self
        self._steps = 0
        self._dies_at = self._stops_at = -1
        self._way = ""
        self._stopped_until = -1.0
        self.work_began = 0.0
        self.resumed_at = -1.0
        self._asking: list[int] = []
        self.identity = machine.identity(self.pid) or ""
        self.host = ProcessHost(self)
        self.mount = Mount(self)
        self.loop = VirtualLoop(self)
        self.world.note(self.name, "begins")
        with self.at_work():
            self.executor = Executor(
                self.mount,
                loop=self.loop,
                peers=lambda scheduler, options: Neighbours(self, machine.meeting_place),
                looks=looks_of(self.world.chance.seed),
            )

    def claimant(self, flow_run: str) -> Claimant:
        return Claimant(flow_run=flow_run, host=self.machine.name, process=self.identity)

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Whatever of the product runs now runs as this process."""
        return standing_in(self.host)

    # --- what goes wrong

    def doom(self, steps: int) -> None:
        """Draw how it is going to end, if not by itself: at one of so many steps, or after a while;
        and whether it is stopped for a while before."""
        chance, draws = self.world.chance, self.draws
        at, way = chance.below(draws, steps), chance.one_of(draws, _WAYS)
        after = chance.number(draws, 0.0, 40.0)
        if chance.fault("a process dies at a step", 0.45):
            self._dies_at, self._way = at, way
        elif chance.fault("a process dies after a while", 0.2):
            self.world.later(after, lambda: self.die("killed"))
        if chance.fault("a process is stopped for a while", 0.08):
            self._stops_at = at // 2

    def step(self, what: str) -> str:
        """One operation that changes something: `torn` and `after` say how it dies in it."""
        self.check()
        self._steps += 1
        self.world.note(self.name, what)
        if self._steps == self._stops_at and not self.on_loop:
            seconds = self.world.chance.number("stopped for", 1.0, 700.0)
            self.world.note(self.name, f"is stopped for {seconds:.0f} s, before: {what}")
            self.world.coverage.sometimes("a process is stopped for a while")
            self._stopped_until = self.world.now + seconds
            self.site.stopped(self)
            self.pause(seconds)
            self.resumed_at = self.world.now
        if self._steps != self._dies_at:
            return ""
        self.world.coverage.sometimes(f"a process dies {self._way} a step")
        if self._way == "power":
            self.site.lose_power(self.machine)
            self.check()
        if self._way == "before":
            self.die(f"before: {what}")
            self.check()
        return self._way

    def check(self) -> None:
        """The dead do nothing."""
        if self.dead:
            raise Killed
        world = self.world
        world.at_once += 1
        if world.at_once > MOST_AT_ONCE and world.stuck():
            raise Killed

    def die(self, how: str) -> None:
        """From now on it does nothing."""
        if self.dead:
            return
        self.dead, self.died_at = True, self.world.now
        self.world.note(self.name, f"dies {how}")
        self.site.deaths += how != "at its end"
        self.machine.living.pop(self.pid, None)
        self.loop.bury()
        self.site.died(self)

    def pause(self, seconds: float) -> None:
        """In a thread: meanwhile everybody else goes on."""
        if not self.on_loop:
            self.world.pass_time(seconds)
        self.check()

    def stopped_for(self) -> float:
        left = self._stopped_until - self.world.now
        return left if left > 0.0 else 0.0

    def thread_delay(self) -> float:
        """Until a thread has begun with a piece of work."""
        return self.world.chance.number("threads", 0.0, 0.004)

    # --- commands

    def asking(self, question: Callable[[], T]) -> T:
        """Have a command, or a question, on its way to the other side and back."""
        self._asking.append(began := self._steps)
        try:
            return question()
        finally:
            if not self.dead:  # else it may still be on its way
                self._asking.remove(began)

    @property
    def looked_at(self) -> float | None:
        """Since when the thread must have looked whether its work is its own: when it began, or
        went on after a stop. None for who was stopped when the command was on its way already."""
        if self.resumed_at >= 0.0 and self._stops_at > min(self._asking):
            return None
        return max(self.work_began, self.resumed_at)

    def run_command(self, command: Command) -> Reply:
        """A command on its way to the scheduler and back."""
        return self.asking(partial(self._run_command, command))

    def _run_command(self, command: Command) -> Reply:
        chance, site = self.world.chance, self.site
        what = f"{command.argv[0]} {command.argv[-1]}"
        how = self.step(what)
        self.pause(chance.number("commands", 0.005, 0.2))
        if how == "torn":  # the command goes on without us
            self.world.later(0.1, lambda: site.scheduler.run(command, self, _at_once))
            self.die(f"in the middle of: {what}")
            self.check()
        reply = site.scheduler.run(command, self, self.pause)
        self.world.note(self.name, f"is answered {reply.code}")
        self.pause(chance.number("commands", 0.005, 0.2))
        if how == "after":
            self.die(f"after: {what}")
            self.check()
        return reply

    def in_thread(self, work: Callable[[], object]) -> None:
        """Work of its own beside the executor's, such as a command line's."""
        self.loop.run_in_executor(None, work)


def _at_once(seconds: float) -> None: ...
