#!/usr/bin/env python3
"""ising.py TEMPERATURE SIZE SWEEPS RESULT: the magnetization of a square Ising lattice."""

import json
import math
import random
import sys
from pathlib import Path


def magnetization(temperature: float, size: int, sweeps: int) -> float:
    """The mean absolute value per spin, by Metropolis, over the second half of the sweeps."""
    rng = random.Random(f"{temperature} {size} {sweeps}")
    spins = [[1] * size for _ in range(size)]
    accept = {gain: math.exp(-gain / temperature) for gain in (4, 8)}
    seen = []
    for sweep in range(sweeps):
        for _ in range(size * size):
            x, y = rng.randrange(size), rng.randrange(size)
            around = spins[x - 1][y] + spins[(x + 1) % size][y]
            around += spins[x][y - 1] + spins[x][(y + 1) % size]
            cost = 2 * spins[x][y] * around
            if cost <= 0 or rng.random() < accept[cost]:
                spins[x][y] = -spins[x][y]
        if sweep >= sweeps // 2:
            seen.append(abs(sum(map(sum, spins))) / size**2)
    return sum(seen) / len(seen)


if __name__ == "__main__":
    temperature, size, sweeps = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    found = magnetization(temperature, size, sweeps)
    print(f"T = {temperature}: |m| = {found:.3f}")
    Path(sys.argv[4]).write_text(json.dumps({"magnetization": found}))
