"""The loop itself, with a folder and a clock, but without Prefect and campaigns."""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import math
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from hpc_prefect.convergence.checkpoint import Checkpoint, Checkpoints
from hpc_prefect.convergence.stop import CONVERGED, ERROR, Cell, Reason, Row, StopRule, verdict
from hpc_prefect.errors import ConfigurationError, NotConverged
from hpc_prefect.job import notebook

if TYPE_CHECKING:
    import numpy

State = TypeVar("State")

#: The columns of a row that the loop itself fills.
OWN_COLUMNS = ("iteration", "change", "seconds", "time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """The iteration that a step computes.

    Attributes:
        number: 1, 2, 3 …
        rng: the loop's generator. Draw every random number of a step from it: then an iteration
            that is repeated after a kill gets the same numbers.
        name: the loop's name.
        parameters: the entries of the algorithm Variable besides `stop`, from when the loop
            started; a copy.
        loop_folder: the folder of the loop's own files.
    """

    number: int
    rng: numpy.random.Generator
    name: str = "converge"
    parameters: dict[str, Any] = field(default_factory=dict)
    loop_folder: Path = field(default_factory=Path)

    @property
    def folder(self) -> Path:
        """A folder for this iteration's files, the same one when it is repeated.

        It is made at first use, in the loop's own folder. After an interruption it still contains
        the files of the first try.
        """
        folder = self.loop_folder / f"iter-{self.number}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence(Generic[State]):
    """How a loop ended.

    Attributes:
        state: the result of the last step.
        history: one row an iteration: `iteration`, the measured columns, `change` (of the watched
            column; None in the first row), `seconds`, `time` (UTC).
        converged: whether it ended by convergence, of the stop rule or the predicate.
        reason: why it ended.
        verdict: the end in words, such as `NOT converged (max_iterations)`.
        iterations: how many iterations were computed, in all runs of the loop.
        resumed_at: the first iteration of this run (if the loop had ended, the number after its
            last); None if this run started the loop.
        folder: the loop's own: its rows, checkpoints, and the folders of iterations.
        plot: the PNG; None without matplotlib.
    """

    state: State
    history: tuple[Row, ...]
    converged: bool
    reason: Reason
    iterations: int
    resumed_at: int | None = None
    plot: Path | None = None
    verdict: str = ""
    name: str = "converge"
    folder: Path = field(default_factory=Path)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the last rows and the plot."""
        names = [name for name in (self.history[-1] if self.history else {}) if name != "time"]
        rows = [[notebook.number(row.get(name)) for name in names] for row in self.history[-10:]]
        count = f"{self.iterations} iterations"
        found = [notebook.heading(self.name, self.verdict, (count,)), notebook.table(names, rows)]
        if self.plot is not None and self.plot.is_file():
            picture = base64.b64encode(self.plot.read_bytes()).decode()
            found.append(f'<img style="max-width:100%" src="data:image/png;base64,{picture}">')
        return "".join(found)

    def raise_if_not_converged(self) -> None:
        """Raise an error if the loop ended for another reason than convergence.

        Raises:
            NotConverged: with the reason.
        """
        if self.converged:
            return
        last = self.history[-1].get("change") if self.history else None
        raise NotConverged(
            f"loop {self.name!r} ended after {self.iterations} iterations: {self.verdict}; its last"
            f" change is {last}. Its rows are in {self.folder / 'iterations.jsonl'}. To start it"
            f" again with another stop rule, begin a new campaign"
        )


#: A number, or a number with its standard error, or a mapping of names to these.
Measured = Mapping[str, Any] | float | tuple[float, float]
Step = Callable[[State, Iteration], State | Awaitable[State]]
Measure = Callable[[State], Measured | Awaitable[Measured]]
Predicate = Callable[[tuple[Row, ...]], bool]


class Watcher(Protocol):
    """Is called as the loop goes on; must not raise."""

    async def begin(self, at: Checkpoint, *, resumed: bool) -> None:
        """The loop starts, or goes on from `at` (which may be finished)."""

    async def kept(self, at: Checkpoint) -> None:
        """A checkpoint was written: the first one, or that of an iteration."""

    async def row(self, history: tuple[Row, ...], rule: StopRule, reason: Reason | None) -> None:
        """An iteration ended and its checkpoint was written."""

    async def broken(self, history: tuple[Row, ...], rule: StopRule) -> None:
        """The loop failed; its newest row may not be in a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body(Generic[State]):
    """What a loop computes.

    Attributes:
        until: whether the loop has converged, judged by all rows so far; in addition to the stop
            rule.
    """

    step: Step[State]
    measure: Measure[State]
    name: str = "converge"
    until: Predicate | None = None


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
        begin: makes the first checkpoint; only called if the loop was never started.
        enter: opens a named context around each iteration.
        before: is awaited before each iteration; an exception of it ends the loop.
        clock: seconds from any origin.
    """
    at = await asyncio.to_thread(book.load)
    resumed_at = None if at is None else len(at.history) + 1
    if at is None:
        # Saved before the first iteration, so that this one is also repeated with the same numbers.
        at = await asyncio.to_thread(book.save, await begin())
    await watcher.begin(at, resumed=resumed_at is not None)
    await watcher.kept(at)
    origin = clock() - at.elapsed
    while at.reason is None:
        await before()
        with enter(f"iter-{len(at.history) + 1}"):
            state, row = await _compute(at, body, book.folder, watcher, clock)
        history, elapsed = (*at.history, row), clock() - origin
        try:
            reason = await _reason(at.rule, body.until, history, elapsed)
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
        await watcher.kept(at)
        await watcher.row(at.history, at.rule, at.reason)
    return Convergence(
        state=at.state,
        history=at.history,
        converged=at.reason in CONVERGED,
        reason=at.reason,
        verdict=verdict(at.rule, at.reason, has_predicate=body.until is not None),
        name=body.name,
        folder=book.folder,
        iterations=len(at.history),
        resumed_at=resumed_at,
    )


async def _reason(
    rule: StopRule, until: Predicate | None, history: tuple[Row, ...], elapsed: float
) -> Reason | None:
    """Why the loop ends; convergence counts before a limit."""
    reason = rule.decide(history, elapsed)
    if until is None or reason in CONVERGED:
        return reason
    said = await _call("until", until, history)
    if getattr(said, "shape", None) == ():  # NumPy's truth values
        said = said.item()
    if not isinstance(said, bool):
        # NaN and texts are true, so a mistake would end the loop as converged.
        raise ConfigurationError(
            f"iteration {len(history)}: until returned {said!r}; it must return True or False"
        )
    return "predicate" if said else reason


async def _compute(
    at: Checkpoint,
    body: Body[State],
    folder: Path,
    watcher: Watcher,
    clock: Callable[[], float],
) -> tuple[State, Row]:
    """One step and its measurement."""
    number, started = len(at.history) + 1, clock()
    iteration = Iteration(
        number=number,
        rng=at.rng,
        name=body.name,
        parameters=copy.deepcopy(at.parameters),
        loop_folder=folder,
    )
    try:
        state = await _call("step", body.step, at.state, iteration)
        if state is None and at.state is not None:
            raise ConfigurationError(
                f"iteration {number}: step returned None; it must return the new state"
            )
        measured = _columns(await _call("measure", body.measure, state), at.rule, number)
    except Exception:
        await watcher.broken(at.history, at.rule)
        raise
    row: dict[str, Cell] = {"iteration": number, **measured}
    changed = at.rule.change((*at.history, row))
    row["change"] = None if changed is None else changed.size
    row["seconds"] = round(clock() - started, 3)
    row["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    return state, row


async def _call(name: str, function: Callable[..., Any], *arguments: object) -> Any:
    """Call a sync or async function; a sync one in a thread, so that it blocks nothing else."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    result = await asyncio.to_thread(_not_stopping, name, function, *arguments)
    return await result if inspect.isawaitable(result) else result


def _not_stopping(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Turn a StopIteration into an error: a future does not accept it, and would never end."""
    try:
        return function(*arguments)
    except StopIteration as error:
        raise RuntimeError(f"{name} raised StopIteration") from error


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
    columns: dict[str, Cell] = {}
    for name, value in measured.items():
        if not isinstance(value, tuple):
            columns[name] = _cell(name, value, number)
            continue
        columns[name], columns[name + ERROR] = _with_error(name, value, number)
        if name + ERROR in measured:
            raise ConfigurationError(
                f"iteration {number}: measure returned {name!r} with a standard error and a column"
                f" {name + ERROR!r} too; leave one of them out"
            )
    return columns


def _with_error(name: str, pair: tuple[Any, ...], number: int) -> tuple[Cell, Cell]:
    """A value and its standard error."""
    cells = [_cell(name, each, number) for each in pair]
    if len(cells) == 2 and all(isinstance(c, int | float) and c is not True for c in cells):
        error = cells[1]
        if isinstance(error, int | float) and 0 <= error < math.inf:
            return cells[0], float(error)
    raise ConfigurationError(
        f"iteration {number}: measure returned {pair!r} for {name!r}; a pair is a value and its "
        f"standard error, a number from 0"
    )


def _cell(name: str, value: Any, number: int) -> Cell:
    if not isinstance(value, Cell) and getattr(value, "shape", None) == ():  # a NumPy scalar
        value = value.item()
    for kind in (bool, int, float, str):  # also of subclasses, numpy.float64 among them
        if isinstance(value, kind):
            plain = kind(value)
            if isinstance(plain, int) and abs(plain) > sys.float_info.max:
                raise ConfigurationError(
                    f"iteration {number}: the number that measure returned for {name!r} is too"
                    " large for a float"
                )
            return plain
    if value is None:
        return None
    raise ConfigurationError(
        f"iteration {number}: measure returned a {type(value).__name__} for {name!r}; a column "
        f"holds a number, a text or a truth value"
    )
