"""A flow that holds an allocation and has an array's members run in it.

To the agent each element is a job; to the flow its members are what an array's are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hpc_prefect.executor.arrays.run import ArrayRun
from simulation import mix
from simulation.allocation_life import AllocationLife
from simulation.allocation_world import shape
from simulation.array_life import ArrayLife
from simulation.array_world import array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpc_prefect.executor.service import Handle
    from hpc_prefect.job.members import MemberSpec
    from simulation import allocation_life, array_life
    from simulation.life import Wanted
    from simulation.place import Place
    from simulation.process import Process


class HeldArrayLife(ArrayLife, AllocationLife):
    """A flow whose one call is an array, in the block of an allocation."""

    kind: ClassVar[type[Any]] = ArrayRun

    def __init__(
        self,
        place: Place,
        wanted: tuple[Wanted, Sequence[MemberSpec], array_life.Shape],
        held: allocation_life.Shape,
        starts: int,
    ) -> None:
        job, members, how = wanted
        AllocationLife.__init__(self, place, 1, [job], held, starts)
        self._want(members, how)

    def hand_over(self, job: Wanted, process: Process, run: str) -> Handle[Any]:
        return AllocationLife.hand_over(self, job, process, run)

    def _judge(self, job: Wanted, result: Any) -> Any:
        for each in result:
            # Outside of it, one that its element left no time for is told so: it never started.
            if self.handed_over(each.folder) is not None:
                self.must_be_over_for_good(each, self._work_base(each.key))
        return ArrayLife._judge(self, job, result)


def held_array_lives(place: Place) -> list[HeldArrayLife]:
    """One such flow."""
    chance = place.world.chance
    return [HeldArrayLife(place, array(place, "a1"), shape(chance), mix.starts(chance))]
