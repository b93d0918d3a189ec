"""Differential evolution, one generation at a time: `initial`, or `trials`; evaluate; `select`.

Strategy DE/rand/1/bin of R. Storn and K. Price, "Differential Evolution – A Simple and Efficient
Heuristic for Global Optimization over Continuous Spaces", Journal of Global Optimization 11 (1997)
341–359. SciPy has it too, but as one call that owns its loop: it cannot be left between two
generations and gone on with in another process (the class that could is private).

Pure functions: what is random comes from the generator that they are given. Lower values are
better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: A mutant is made of three vectors that are not its parent.
FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class Population:
    """Evaluated parameter vectors, (walkers, parameters), and the value of each, (walkers,)."""

    vectors: np.ndarray
    values: np.ndarray


def bounds(center: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of each parameter: at most `spread` from `center`."""
    return center - spread, center + spread


def initial(
    center: np.ndarray, spread: float, walkers: int, rng: np.random.Generator
) -> np.ndarray:
    """The first generation's vectors: `center` itself, the others anywhere within the bounds.

    Raises:
        ValueError: there are too few walkers for a mutant.
    """
    if walkers < FEWEST:
        raise ValueError(f"differential evolution needs at least {FEWEST} walkers, not {walkers}")
    low, high = bounds(center, spread)
    others = rng.uniform(low, high, size=(walkers - 1, len(center)))
    return np.vstack([center, np.clip(others, low, high)])


def trials(
    parents: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
    *,
    weight: float,
    crossover: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """One vector to try for each parent: parameters of the parent and of a mutant, mixed.

    Args:
        limits: of each parameter; where a mutant leaves them its value is drawn anew within them.
        weight: of the difference of two vectors that is added to a third one (F in the paper).
        crossover: the probability that a parameter is the mutant's (CR); one always is.
    """
    low, high = limits
    tried = parents.copy()
    for i, trial in enumerate(tried):
        others = np.delete(np.arange(len(parents)), i)
        base, plus, minus = parents[rng.choice(others, size=3, replace=False)]
        mutant = base + weight * (plus - minus)
        anew = np.clip(rng.uniform(low, high), low, high)
        mutant = np.where((low <= mutant) & (mutant <= high), mutant, anew)
        taken = rng.random(len(trial)) < crossover
        taken[rng.integers(len(trial))] = True
        trial[taken] = mutant[taken]
    return tried


def select(parents: Population | None, vectors: np.ndarray, values: np.ndarray) -> Population:
    """The better of each parent and its trial, of equal ones the trial; all, if no parents are."""
    if parents is None:
        return Population(vectors=vectors, values=values)
    better = values <= parents.values
    return Population(
        vectors=np.where(better[:, None], vectors, parents.vectors),
        values=np.where(better, values, parents.values),
    )
