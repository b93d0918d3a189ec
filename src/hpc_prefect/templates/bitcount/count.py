#!/usr/bin/env python3
"""count.py BITS COUNTS: how often each bitstring of a file occurs; each rank counts its share."""

import json
import sys
from collections import Counter
from pathlib import Path

try:
    from mpi4py import MPI
except ImportError:  # one process counts all
    rank, ranks, world = 0, 1, None
else:
    world = MPI.COMM_WORLD
    rank, ranks = world.rank, world.size


def main(bits: Path, counts: Path) -> None:
    mine = Counter(bits.read_text().split()[rank::ranks])
    print(f"rank {rank} of {ranks} counted {mine.total()} bitstrings", flush=True)
    parts = world.gather(mine) if world else [mine]
    if parts is not None:  # on rank 0
        counts.write_text(json.dumps(sum(parts, Counter())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
