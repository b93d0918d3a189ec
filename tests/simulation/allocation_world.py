"""Worlds of held allocations: seeds from `mix.ALLOCATIONS` on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation import mix
from simulation.allocation_life import AllocationLife, Shape

if TYPE_CHECKING:
    from simulation.chance import Chance
    from simulation.place import Place


def allocation_lives(place: Place) -> list[AllocationLife]:
    """One flow whose jobs run in an allocation of its own, or two of them."""
    chance = place.world.chance
    return [_life(place, n) for n in range(1, 2 + (chance.below("lives", 5) == 0))]


def _life(place: Place, number: int) -> AllocationLife:
    chance = place.world.chance
    count = chance.one_of("jobs", (1, 2, 2, 3, 3, 4, 6))
    wanted = [place.wanted(f"{chr(96 + number)}{n}") for n in range(count)]
    return AllocationLife(place, number, wanted, shape(chance), mix.starts(chance))


def shape(chance: Chance) -> Shape:
    """What is held, and how jobs are handed to it."""
    return Shape(
        cores=chance.one_of("cores held", (1, 2, 4)),
        walltime=chance.one_of("walltime held", (160, 300, 400, 1200, 3600)),
        idle_timeout=chance.one_of("idle timeout", (5, 60, 600)),
        orphan_timeout=chance.one_of("orphan timeout", (120, 120, 300, 600)),
        renew=chance.below("renew", 2) == 1,
        in_turn=chance.below("in turn", 2) == 1,
        pause=chance.one_of("between jobs", (0.0, 0.0, 3.0, 30.0, 90.0)),
    )
