"""Which world a seed has: of what it is, and whether it is a small one.

A million small worlds find more than a hundred thousand large ones. So most seeds of a run are
small: few jobs, few starts, and looks at a job's records that are further apart. The others are as
before, with the looks of the product.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc_prefect.executor.looks import USUAL, Looks
from simulation.chance import Chance

#: A seed from here on is a small world; so the worlds below it stay as they are.
SMALL = 100_000_000
#: The first seeds of arrays, of held allocations, of calls that are alike, and of arrays in held
#: allocations, in worlds of any size.
ARRAYS, ALLOCATIONS, BRANCHES, HELD_ARRAYS = 10_000_000, 20_000_000, 30_000_000, 40_000_000
#: Of so many seeds of a run one is not small.
_ONE_OF = 47
#: More jobs than this no life has.
MOST_JOBS = 40
#: The same times in fewer looks.
_RARE = 2.0
_SELDOM = Looks(eager=1.0, patient=1.0, soonest=0.2, latest=20.0)


def is_small(seed: int) -> bool:
    """Whether its world is a small one."""
    return seed >= SMALL


def is_of_arrays(seed: int) -> bool:
    """Whether a seed's world is one of arrays."""
    return ARRAYS <= seed % SMALL < ALLOCATIONS


def is_of_allocations(seed: int) -> bool:
    """Whether a seed's world is one of held allocations."""
    return ALLOCATIONS <= seed % SMALL < BRANCHES or is_of_held_arrays(seed)


def is_of_branches(seed: int) -> bool:
    """Whether a seed's world is one of equal calls in several places."""
    return BRANCHES <= seed % SMALL < HELD_ARRAYS


def is_of_held_arrays(seed: int) -> bool:
    """Whether a seed's world is one of arrays in held allocations."""
    return seed % SMALL >= HELD_ARRAYS


def is_quantum(seed: int) -> bool:
    """Whether it has a quantum service, and no scheduler."""
    return seed % 10 == 4 and seed % SMALL < ARRAYS


def world_of(seed: int) -> int:
    """The seed of the world that a run of many takes for this one: of six one is of arrays, of
    twelve one of allocations, and of 24 one of equal calls and one of arrays in allocations; of 47
    all but one are small."""
    if is_small(seed):
        return seed
    size = 0 if seed % _ONE_OF == 0 else SMALL
    if is_quantum(seed) or seed >= ARRAYS:
        return size + seed
    if seed % 6 == 0:
        return size + ARRAYS + seed
    if seed % 12 == 5:
        return size + ALLOCATIONS + seed
    first = {7: BRANCHES, 19: HELD_ARRAYS}.get(seed % 24, 0)
    return size + first + seed


def looks_of(seed: int) -> Looks:
    """How often a job's records are looked at there."""
    return _SELDOM if is_small(seed) else USUAL


def rare(seed: int) -> float:
    """How many times as likely a rare fault is there: few jobs and few starts meet few of them."""
    return _RARE if is_small(seed) else 1.0


def ids_again(seed: int) -> float:
    """How likely a number is given again. In a small world few jobs are there whose it may be."""
    return 0.2 if is_small(seed) else 0.03


def jobs(chance: Chance, usual: Sequence[int]) -> int:
    """How many jobs a flow wants; in a small world each further one is less likely."""
    if not is_small(chance.seed):
        return chance.one_of("jobs", usual)
    return _up_to(chance, MOST_JOBS, "one more job", 4)


def starts(chance: Chance, most: int = 5) -> int:
    """How often a flow is started while things go wrong, at most."""
    if not is_small(chance.seed):
        return 1 + chance.below("starts", most)
    return _up_to(chance, most, "one more start", 2)


def are_many(chance: Chance) -> bool:
    """Whether a flow has as many jobs as it may have."""
    return chance.below("many jobs", 1000 if is_small(chance.seed) else 200) == 0


def _up_to(chance: Chance, most: int, name: str, one_of: int) -> int:
    count = 1
    while count < most and chance.below(name, one_of) == 0:
        count += 1
    return count
