"""Lives of the product in a world in memory.

python -m simulation --seeds 1000     many of them; the last line counts
python -m simulation --seed 27        one, as a timeline
python -m simulation --seed 27 --shrink [--keep NAME]    the few faults that it takes
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from itertools import count, islice
from pathlib import Path

from simulation import parts
from simulation.coverage import EXPECTED, QUANTUM, RARE, Coverage
from simulation.mix import SMALL, is_quantum, world_of
from simulation.shrink import shrink
from simulation.simulate import Tally, simulate, simulate_all
from simulation.story import STORIES, Story, timeline


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument(
        "--first", type=int, default=1, help="the first; all kinds of worlds below 10,000,000 only"
    )
    parser.add_argument("--quantum", action="store_true", help="those with a quantum service alone")
    parser.add_argument("--large", action="store_true", help="none of them in a small world")
    parser.add_argument("--jobs", type=int, default=1, help="processes beside each other")
    parser.add_argument("--into", type=Path, help="go on with a long run; a line for each part")
    parser.add_argument("--most", type=int, default=10, help="stop when so many found something")
    parser.add_argument("--coverage", action="store_true", help="tell what happened how often")
    parser.add_argument("--seed", type=int, help="this one alone, as a timeline")
    parser.add_argument("--all", action="store_true", help="with what changed nothing")
    parser.add_argument("--shrink", action="store_true", help="as few faults as possible")
    parser.add_argument("--story", metavar="NAME", help="one that is kept, as a timeline")
    parser.add_argument("--keep", metavar="NAME", help="write them as a story")
    given = parser.parse_args()
    if given.story:
        outcome = Story.read(STORIES / f"{given.story}.json").happen()
        print(timeline(outcome, dull=given.all))
        return bool(outcome.wrong)
    if given.seed is not None:
        return _one(given)
    coverage = Coverage()
    worlds = partial(_worlds, quantum=given.quantum, large=given.large)
    more = {"most_found": given.most, "meanwhile": _so_far}
    if given.jobs > 1 or given.into:
        numbers = range(given.first, given.first + given.seeds)
        tally = parts.run(worlds, numbers, given.jobs, given.into, coverage, **more)
    else:
        tally = simulate_all(worlds(given.first, given.seeds), coverage, **more)
    for outcome in tally.found:
        print(f"seed {outcome.seed}: {outcome.wrong[0][0]}: {outcome.wrong[0][1]}")
    if given.coverage:
        for what, often in sorted(coverage.seen.items()):
            print(f"{often:9}  {what}")
    expected = QUANTUM if given.quantum else EXPECTED + QUANTUM
    rare = () if given.quantum else RARE
    for what, wanted in (("never happened", expected), ("did not happen, and is rare", rare)):
        if missing := coverage.missing(wanted):
            print(f"{what}: " + "; ".join(missing))
    print(tally.line())
    return bool(tally.found)


def _worlds(first: int, size: int, *, quantum: bool, large: bool) -> list[int]:
    """The seeds of so many worlds."""
    numbers = filter(is_quantum, count(first)) if quantum else count(first)
    worlds = map(world_of, islice(numbers, size))
    return [seed % SMALL for seed in worlds] if large else [*worlds]


def _so_far(tally: Tally) -> None:
    seeds = [outcome.seed for outcome in tally.found]
    print(f"so far: {tally.line()} {seeds or ''}", file=sys.stderr, flush=True)


def _one(given: argparse.Namespace) -> int:
    outcome = simulate(given.seed, keep=True)
    if given.shrink and outcome.wrong:
        kind = outcome.wrong[0][0]
        outcome = shrink(given.seed, kind)
        if given.keep:
            story = Story("", given.seed, outcome.faults, ": ".join(outcome.wrong[0]))
            story.write(STORIES / f"{given.keep}.json")
    print(timeline(outcome, dull=given.all))
    print(f"TRACE {outcome.trace}")
    return bool(outcome.wrong)


if __name__ == "__main__":
    sys.exit(main())
