"""What a generation of walkers is, and what of it is arithmetic: proposals, subspaces, selection.

Pure functions, as in `evolution` and `recovery`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from chemistry import NELEC, Molecule
from evolution import Population, bounds, initial, select, trials
from qiskit.primitives import BitArray
from recovery import Estimate, determinants

NOTHING = Estimate(energy=float("inf"))


class Found(NamedTuple):
    """What one walker found.

    Attributes:
        fitness: energy in the subspace of its own samples alone. What is carried over improves
            every later walker's energy whatever its couplings are; this it leaves alone.
        estimate: the best with what is carried over.
    """

    fitness: float
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one generation hands to the next; the random generator is the loop's.

    Attributes:
        population: couplings and fitness of each walker; None before the first generation.
        replaced: how many walkers have new couplings.
        best: of each kind of sample, the estimate with the lowest energy of all generations.
    """

    population: Population | None
    replaced: int
    best: dict[str, Estimate]


def proposed(
    population: Population | None,
    center: np.ndarray,
    parameters: Mapping[str, Any],
    rng: np.random.Generator,
) -> np.ndarray:
    """The couplings that this generation's walkers try."""
    spread = parameters["spread"]
    if population is None:
        return initial(center, spread, parameters["walkers"], rng)
    return trials(
        population.vectors,
        bounds(center, spread),
        weight=parameters["weight"],
        crossover=parameters["crossover"],
        rng=rng,
    )


def subspaces(
    samples: BitArray, best: Estimate, parameters: dict[str, Any], rng: np.random.Generator
) -> tuple[int, list[np.ndarray]]:
    """How many batches are of this walker's own samples, and all: those and, after them, the same
    with the best walker's determinants.
    """
    alone = replace(best, carryover=NOTHING.carryover)
    own = determinants(samples, alone, NELEC, parameters, copy.deepcopy(rng))
    if best.carryover.size == 0:
        return len(own), own
    return len(own), own + determinants(samples, best, NELEC, parameters, rng)


def succeeded(
    before: Generation, vectors: np.ndarray, found: Mapping[tuple[str, int], Found]
) -> Generation:
    """The next generation: selection among the walkers, and the best estimates so far."""
    fitness = np.array([found["lucj", i].fitness for i in range(len(vectors))])
    population = select(before.population, vectors, fitness)
    best = dict(before.best)
    for (kind, _), each in found.items():
        best[kind] = min(best[kind], each.estimate, key=lambda estimate: estimate.energy)
    replaced = int((population.values == fitness).sum())
    return Generation(population=population, replaced=replaced, best=best)


def columns(generation: Generation, molecule: Molecule) -> dict[str, float | int]:
    """The columns of the table of generations; errors and the walkers' spread in millihartree."""
    assert generation.population is not None  # the first generation has made one
    fitness = generation.population.values
    row: dict[str, float | int] = {}
    for kind, prefix in (("lucj", ""), ("uniform", "uniform_")):
        best = generation.best[kind]
        row[f"{prefix}energy"] = best.energy
        row[f"{prefix}error_mha"] = 1e3 * (best.energy - molecule.e_exact)
        row[f"{prefix}dimension"] = best.dimension
    row["best_walker"] = float(fitness.min())
    row["best_walker_error_mha"] = 1e3 * (row["best_walker"] - molecule.e_exact)
    row["spread_mha"] = 1e3 * float(np.ptp(fitness))
    row["replaced"] = generation.replaced
    return row
