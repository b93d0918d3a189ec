"""Which of several identical calls is this? Numbers that hold whatever is entered when.

Task runs of one name, function and parameters in one place share that place: their identical calls
are numbered over all of them, in the order in which they are made. So no number says which of two
identical runs was entered first, and one that is not entered (Prefect had its result) or is entered
by another thread moves no call of another kind. Calls with equal numbers in two starts are equal
work in the same place: which of identical runs gets which of identical results is the only thing
that an order can change.

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
    """One run of a flow or task, with the numbers that its calls have.

    Attributes:
        around: the run in which this one was called; None for the outermost.
        attempt: of the run; each begins its calls anew.
        drawn: the numbers that this run's calls have, in their order.
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
        """The number of a call among its likes: 0, 1, 2 …"""
        mine = self.drawn.setdefault(call, [])
        index = self.used[call]
        if index == len(mine):
            mine.append(index if self.around is None else self.around.next_number(call))
        self.used[call] = index + 1
        return mine[index]

    def number_itself(self, what: str) -> int:
        """Tell this run from identical ones: calls in it are numbered in it alone from now on.

        Only right where every such run does this, also those that are not carried out.
        """
        step = self.path[-1]
        if step.number is None:
            number = 0 if self.around is None else self.around.next_number((self.path, what))
            self.path = (*self.path[:-1], Step(*step[:-1], number))
            return number
        return step.number
