"""A long run: its seeds in parts, several at once, each with a line in a file.

A run that was stopped goes on with the parts that the file does not have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from simulation.coverage import Coverage
from simulation.simulate import Outcome, Tally, simulate_all

#: Seeds of a part.
PART = 2000


def run(
    seeds: Callable[[int, int], Sequence[int]],
    numbers: range,
    jobs: int,
    into: Path | None,
    coverage: Coverage,
    *,
    most_found: int,
    meanwhile: Callable[[Tally], None],
    part_size: int = PART,
) -> Tally:
    """All parts, so many at once, until so many seeds have found something.

    Args:
        seeds: those of the worlds of a part, from its first number and its size.
        into: a file to which each part's line is appended.
    """
    tally = Tally()
    done = _read(into) if into else {}
    for part in done.values():
        _add(tally, coverage, part)
    firsts = numbers[::part_size]
    parts = [(first, min(part_size, numbers.stop - first)) for first in firsts]
    left = [part for part in parts if part not in done]
    under_way: set[Future[dict[str, Any]]] = set()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while (left or under_way) and len(tally.found) < most_found:
            while left and len(under_way) < jobs:
                first, size = left.pop(0)
                under_way.add(pool.submit(_part, first, size, seeds(first, size)))
            ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for each in ended:
                part = each.result()
                if into:
                    with into.open("a") as file:
                        file.write(json.dumps(part) + "\n")
                _add(tally, coverage, part)
                meanwhile(tally)
    return tally


def _part(first: int, size: int, seeds: Sequence[int]) -> dict[str, Any]:
    """In a process of its own: what a part came to, as JSON values."""
    coverage = Coverage()
    tally = simulate_all(seeds, coverage, most_found=size)
    return {"first": first, "size": size} | asdict(tally) | {"coverage": coverage.seen}


def _add(tally: Tally, coverage: Coverage, part: dict[str, Any]) -> None:
    for name in ("seeds", "lives", "jobs", "steps", "kills", "seconds"):
        setattr(tally, name, getattr(tally, name) + part[name])
    tally.found += [Outcome(**each) for each in part["found"]]
    for what, often in part["coverage"].items():
        coverage.seen[what] += often


def _read(into: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """The parts that the file has."""
    if not into.exists():
        return {}
    *lines, torn = into.read_text().split("\n")
    if torn:  # by a run that was killed
        into.write_text("".join(f"{line}\n" for line in lines))
    parts = [json.loads(line) for line in lines]
    return {(part["first"], part["size"]): part for part in parts}
