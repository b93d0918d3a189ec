"""A small loop with state, randomness and a seam for everything; also run as a program.

python loops.py FOLDER KILL_AT      ends itself with SIGKILL in the middle of that iteration
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpc_prefect.convergence.checkpoint import Checkpoint, Checkpoints
from hpc_prefect.convergence.loop import Body, Convergence, Iteration, Predicate, run_loop
from hpc_prefect.convergence.stop import StopRule

LOG = logging.getLogger("tests.converge")


@dataclass
class Silent:
    """A watcher that only counts."""

    began: list[bool] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    broke: list[int] = field(default_factory=list)

    async def begin(self, at, *, resumed):
        self.began.append(resumed)

    async def row(self, history, rule, reason):
        self.rows.append(len(history))

    async def kept(self, at):
        pass

    async def broken(self, history, rule):
        self.broke.append(len(history))


def initial() -> dict[str, Any]:
    # A Fortran-ordered view and a generator of its own: both must come back exactly.
    return {"x": np.asfortranarray(np.full((7, 3), 0.1)).T[:, ::2], "own": np.random.default_rng(5)}


def step(state: dict[str, Any], it: Iteration) -> dict[str, Any]:
    noise = it.rng.normal(size=state["x"].shape) + state["own"].random()
    return {"x": state["x"] / 3 + noise / 4**it.number, "own": state["own"]}


def measure(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "energy": np.float64(np.sum(np.tanh(state["x"]))),
        "dimension": np.int64(state["x"].size),
    }


async def run(
    folder: Path,
    *,
    step: Callable[..., Any] = step,
    measure: Callable[..., Any] = measure,
    rule: StopRule | None = None,
    state: Any = None,
    watcher: Silent | None = None,
    until: Predicate | None = None,
    **options: Any,
) -> Convergence[Any]:
    async def begin() -> Checkpoint:
        return Checkpoint(
            state=initial() if state is None else state,
            rng=np.random.default_rng(11),
            rule=rule or StopRule(value="energy", max_iterations=6),
            parameters={"samples": [1, 2]},
        )

    return await run_loop(
        Checkpoints(folder, LOG),
        Body(step=step, measure=measure, until=until),
        begin,
        watcher=watcher or Silent(),
        **options,
    )


def values(result: Convergence[Any]) -> list[str]:
    """The watched values, exactly."""
    return [float(row["energy"]).hex() for row in result.history]


if __name__ == "__main__":

    async def dying(state: dict[str, Any], it: Iteration) -> dict[str, Any]:
        it.rng.random(3)  # used up before the end: the repeated iteration must not see it
        if it.number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(state, it)

    asyncio.run(run(Path(sys.argv[1]), step=dying))
