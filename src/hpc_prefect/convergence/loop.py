"""The loop itself: it knows a folder and a clock, but no Prefect and no campaign."""

from __future__ import annotations

import asyncio
import copy
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from hpc_prefect.convergence.checkpoint import Checkpoint, Checkpoints
from hpc_prefect.convergence.stop import Cell, Reason, Row, StopRule, change
from hpc_prefect.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy

State = TypeVar("State")

#: Columns of a row that the loop fills itself.
OWN_COLUMNS = ("iteration", "change", "seconds", "time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """What a step is told about the iteration that it computes.

    Attributes:
        number: 1, 2, 3 …
        rng: the loop's generator. An iteration that is repeated after a kill gets it exactly as it
            was when the iteration began, so draw every random number of a step from it.
        name: the loop's name.
        parameters: the entries of the algorithm Variable beside `stop`, as they were when the loop
            started; a copy.
    """

    number: int
    rng: numpy.random.Generator
    name: str = "converge"
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence(Generic[State]):
    """How a loop ended.

    Attributes:
        state: what the last step returned.
        history: one row an iteration: `iteration`, the measured columns, `change` (of the watched
            column; None in the first row), `seconds`, `time` (UTC).
        converged: whether it ended because the tolerance was met.
        reason: why it ended.
        iterations: how many were computed, in all runs of the loop.
        resumed_at: the first iteration that was computed by this run (the number after the last
            one when the loop was found finished); None when this run started the loop.
        plot: the PNG; None without matplotlib.
    """

    state: State
    history: tuple[Row, ...]
    converged: bool
    reason: Reason
    iterations: int
    resumed_at: int | None = None
    plot: Path | None = None


Measured = Mapping[str, Any] | float
Step = Callable[[State, Iteration], State | Awaitable[State]]
Measure = Callable[[State], Measured | Awaitable[Measured]]


class Watcher(Protocol):
    """Is shown the history as it grows; must not raise."""

    async def begin(self, at: Checkpoint, *, resumed: bool) -> None:
        """The loop starts, or goes on from `at` (which may be finished)."""

    async def row(self, history: tuple[Row, ...], rule: StopRule, reason: Reason | None) -> None:
        """An iteration ended and its checkpoint is safe."""

    async def broken(self, history: tuple[Row, ...], rule: StopRule) -> None:
        """The loop cannot go on; the last row, if it is a new one, was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body(Generic[State]):
    """What a loop computes."""

    step: Step[State]
    measure: Measure[State]
    name: str = "converge"


async def _nothing() -> None:
    return


async def run_loop(
    book: Checkpoints,
    body: Body[State],
    begin: Callable[[], Awaitable[Checkpoint]],
    *,
    watcher: Watcher,
    enter: Callable[[str], AbstractContextManager[object]] = nullcontext,
    before: Callable[[], Awaitable[None]] = _nothing,
    clock: Callable[[], float] = time.monotonic,
) -> Convergence[State]:
    """Run the loop from its newest checkpoint, or from `begin()`, to its end.

    Args:
        begin: gives the first checkpoint; only asked when the loop was never started.
        enter: opens a named context around each iteration.
        before: is awaited before each iteration; what it raises ends the loop.
        clock: seconds from any origin.
    """
    at = await asyncio.to_thread(book.load)
    resumed_at = None if at is None else len(at.history) + 1
    if at is None:
        # Saved before the first iteration: that one too is repeated with the same random numbers.
        at = await asyncio.to_thread(book.save, await begin())
    await watcher.begin(at, resumed=resumed_at is not None)
    origin = clock() - at.elapsed
    while at.reason is None:
        await before()
        with enter(f"iter-{len(at.history) + 1}"):
            state, row = await _compute(at, body, watcher, clock)
        history, elapsed = (*at.history, row), clock() - origin
        try:
            reason = at.rule.decide(history, elapsed)
        except Exception:
            await watcher.broken(history, at.rule)
            raise
        done = Checkpoint(
            state=state,
            rng=at.rng,
            rule=at.rule,
            parameters=at.parameters,
            history=history,
            elapsed=elapsed,
            reason=reason,
        )
        at = await asyncio.to_thread(book.save, done)
        await watcher.row(at.history, at.rule, at.reason)
    return Convergence(
        state=at.state,
        history=at.history,
        converged=at.reason == "tolerance",
        reason=at.reason,
        iterations=len(at.history),
        resumed_at=resumed_at,
    )


async def _compute(
    at: Checkpoint, body: Body[State], watcher: Watcher, clock: Callable[[], float]
) -> tuple[State, Row]:
    """One step and its measurement."""
    number, started = len(at.history) + 1, clock()
    iteration = Iteration(
        number=number, rng=at.rng, name=body.name, parameters=copy.deepcopy(at.parameters)
    )
    try:
        state = await _call(body.step, at.state, iteration)
        if state is None and at.state is not None:
            raise ConfigurationError(
                f"iteration {number}: step returned None; it must return the new state"
            )
        measured = _columns(await _call(body.measure, state), at.rule, number)
    except Exception:
        await watcher.broken(at.history, at.rule)
        raise
    row: dict[str, Cell] = {"iteration": number, **measured}
    row["change"] = change(at.rule, at.history, row)
    row["seconds"] = round(clock() - started, 3)
    row["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    return state, row


async def _call(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a sync or async function; a sync one in a thread, so that nothing else waits for it."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    result = await asyncio.to_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result


def _columns(measured: object, rule: StopRule, number: int) -> dict[str, Cell]:
    """The measured columns as plain Python values."""
    if not isinstance(measured, Mapping):
        measured = {rule.value: measured}
    taken = [name for name in measured if name in OWN_COLUMNS or not isinstance(name, str)]
    if taken:
        raise ConfigurationError(
            f"iteration {number}: measure returned a column named {taken[0]!r}; names must be "
            f"texts, and the loop fills {', '.join(OWN_COLUMNS)} itself"
        )
    return {name: _cell(name, value, number) for name, value in measured.items()}


def _cell(name: str, value: Any, number: int) -> Cell:
    if not isinstance(value, Cell) and getattr(value, "shape", None) == ():  # a NumPy scalar
        value = value.item()
    for kind in (bool, int, float, str):  # also of subclasses, numpy.float64 among them
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise ConfigurationError(
        f"iteration {number}: measure returned a {type(value).__name__} for {name!r}; a column "
        f"holds a number, a text or a truth value"
    )
