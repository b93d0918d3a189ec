"""From samples to determinants: noise, configuration recovery, batches, carry-over.

Pure functions: every random number comes from the generator that they are given. A row of a bit
matrix is one sample, `[b_N … b_1, a_N … a_1]`: spin down left, spin up right, lowest orbital last,
as qiskit-addon-sqd has it. A determinant of one spin is an integer with orbital i in bit i.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qiskit.primitives import BitArray
from qiskit_addon_sqd.configuration_recovery import recover_configurations
from qiskit_addon_sqd.counts import bit_array_to_arrays, bitstring_matrix_to_integers
from qiskit_addon_sqd.subsampling import postselect_by_hamming_right_and_left, subsample


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one iteration hands to the next.

    Attributes:
        energy: total energy in hartree of the best batch; NaN before the first iteration.
        dimension: determinants (pairs of one spin-up and one spin-down) that it was found in.
        occupancies: of the orbitals, (2, norb), spin up first; None before the first iteration.
        carryover: one-spin determinants that weigh most, heaviest first; always kept.
    """

    energy: float = float("nan")
    dimension: int = 0
    occupancies: np.ndarray | None = None
    carryover: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))


def fork(rng: np.random.Generator) -> np.random.Generator:
    """A generator of its own, seeded by draws from `rng`.

    `rng.spawn` would not do: its counter is not part of a generator's saved state.
    """
    return np.random.default_rng(rng.integers(2**63, size=4))


def flip_bits(samples: BitArray, rate: float, rng: np.random.Generator) -> BitArray:
    """Each bit flipped with probability `rate`: a stand-in for a real device's errors."""
    flips = rng.random((samples.num_shots, samples.num_bits)) < rate
    return samples ^ BitArray.from_bool_array(flips)


def determinants(
    samples: BitArray,
    before: Estimate,
    nelec: tuple[int, int],
    parameters: dict[str, Any],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """The batches of one-spin determinants that span this iteration's subspaces.

    Before there are occupancies, only samples with the right number of electrons of each spin are
    used; then all, the wrong ones repaired towards the occupancies (configuration recovery).

    Args:
        parameters: of the algorithm: `bit_flip_rate`, `batches`, `samples_per_batch`, and
            `max_strings`, the most one-spin determinants of a batch.

    Raises:
        ValueError: no sample has the right number of electrons.
    """
    bits, weights = bit_array_to_arrays(flip_bits(samples, parameters["bit_flip_rate"], rng))
    up, down = nelec
    if before.occupancies is not None:
        occupancies = (before.occupancies[0], before.occupancies[1])
        bits, weights = recover_configurations(bits, weights, occupancies, up, down, rand_seed=rng)
    else:
        right = bits[:, bits.shape[1] // 2 :].sum(axis=1) == up
        left = bits[:, : bits.shape[1] // 2].sum(axis=1) == down
        if not (left & right).any():
            raise ValueError(
                f"none of {samples.num_shots} samples has {up} + {down} electrons: use more shots"
            )
        bits, weights = postselect_by_hamming_right_and_left(
            bits, weights, hamming_right=up, hamming_left=down
        )
    batches = subsample(
        bits,
        weights,
        samples_per_batch=parameters["samples_per_batch"],
        num_batches=parameters["batches"],
        rand_seed=rng,
    )
    return [strings(batch, before.carryover, parameters["max_strings"]) for batch in batches]


def strings(batch: np.ndarray, carryover: np.ndarray, limit: int) -> np.ndarray:
    """The one-spin determinants of a batch, sorted: the carry-over first, then the most frequent.

    One list serves both spins: N₂ is a singlet, and its subspace stays symmetric under exchange.
    """
    norb = batch.shape[1] // 2
    halves = np.concatenate([batch[:, norb:], batch[:, :norb]])
    sampled, counts = np.unique(bitstring_matrix_to_integers(halves), return_counts=True)
    by_frequency = sampled[np.argsort(-counts, kind="stable")]
    ranked = np.concatenate([carryover, by_frequency[~np.isin(by_frequency, carryover)]])
    return np.sort(ranked[:limit])
