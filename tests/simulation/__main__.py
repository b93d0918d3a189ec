"""`python -m simulation`: see `--help`."""

from __future__ import annotations

import argparse
import sys

from simulation.coverage import Coverage
from simulation.simulate import simulate, simulate_all


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, as a timeline")
    parser.add_argument(
        "--most", type=int, default=10, help="stop after so many that found something"
    )
    parser.add_argument("--coverage", action="store_true", help="tell what happened how often")
    given = parser.parse_args()
    coverage = Coverage()
    if given.seed is not None:
        outcome = simulate(given.seed, coverage, keep=True)
        print(outcome.facts)
        for when, who, what in outcome.timeline:
            print(f"{when:12.3f}  {who:12}  {what}")
        print(outcome.trace, outcome.faults, outcome.wrong)
        return bool(outcome.wrong)
    tally = simulate_all(
        range(given.first, given.first + given.seeds), coverage, most_found=given.most
    )
    for outcome in tally.found:
        print(f"seed {outcome.seed}: {outcome.wrong[0]}")
    if given.coverage:
        for what, count in sorted(coverage.seen.items()):
            print(f"{count:9}  {what}")
    print(tally.line())
    return bool(tally.found)


if __name__ == "__main__":
    sys.exit(main())
