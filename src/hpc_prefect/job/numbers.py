"""Numbers that tell identical calls apart, whatever the order in which runs are entered.

Task runs of one name, function and parameters in one place share that place. Their identical calls
are numbered together, in the order in which they are made. So a number does not tell which of two
identical runs was entered first. A run that is skipped (Prefect had its result), or that another
thread enters, shifts no number of other kinds of calls. Calls with equal numbers in two starts of a
flow are equal work in the same place: the order decides only which of several identical runs gets
which of several identical results.

A run draws its numbers from the run around it. When it is retried, it draws the same ones again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hpc_prefect.job.identity import Path, Step

#: A kind of calls: where they are made, and what they do.
Call = tuple[Path, str]


@dataclass(eq=False, slots=True)
class Entry:
    """One run of a flow or task, with the numbers of its calls.

    Attributes:
        around: the run in which this one was called; None for the outermost.
        attempt: the attempt of the run; each makes its calls again from the first.
        drawn: the numbers of this run's calls, in their order.
        used: how many of them the present attempt has used.
    """

    around: Entry | None = None
    path: Path = ()
    attempt: int = 1
    drawn: dict[Call, list[int]] = field(default_factory=dict)
    used: Counter[Call] = field(default_factory=Counter)

    def begin(self, attempt: int) -> None:
        """A retry makes the calls of the attempt before it again."""
        if attempt != self.attempt:
            self.attempt = attempt
            self.used.clear()

    def next_number(self, call: Call) -> int:
        """The number of a call among identical ones: 0, 1, 2 …"""
        mine = self.drawn.setdefault(call, [])
        index = self.used[call]
        if index == len(mine):
            mine.append(index if self.around is None else self.around.next_number(call))
        self.used[call] = index + 1
        return mine[index]

    def number_itself(self, what: str) -> int:
        """Give this run a number of its own. From now on its calls are numbered apart from others.

        This is right only if every identical run does it, also runs that are not carried out.
        """
        step = self.path[-1]
        if step.number is None:
            number = 0 if self.around is None else self.around.next_number((self.path, what))
            self.path = (*self.path[:-1], Step(*step[:-1], number))
            return number
        return step.number
