"""`converge()`: runs the loop in a Prefect flow, with its identity in the campaign."""

from __future__ import annotations

import asyncio
import json
import operator
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol

from hpc_prefect.convergence.checkpoint import Checkpoint, Checkpoints
from hpc_prefect.convergence.loop import (
    Body,
    Convergence,
    Measure,
    Predicate,
    State,
    Step,
    run_loop,
)
from hpc_prefect.convergence.reporter import LoopReporter, Source, run_log
from hpc_prefect.convergence.stop import Row, StopRule
from hpc_prefect.convergence.telemetry import Plot
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing
from hpc_prefect.job.identity import digest

if TYPE_CHECKING:
    from hpc_prefect.flow_runs.campaigns import CallIdentity


class CallsInside(Protocol):
    """What the loop needs of a held allocation."""

    def calls_inside(self) -> AbstractContextManager[object]:
        """A context whose calls are made in the allocation."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


async def converge(
    step: Step[State],
    initial_state: State,
    *,
    measure: Measure[State],
    work_dir: str | os.PathLike[str],
    stop: StopRule | None = None,
    stop_variable_name: str | None = None,
    seed: int | None = None,
    name: str = "converge",
    key: str | None = None,
    plot: Plot | None = None,
    until: Predicate | None = None,
    raise_if_not_converged: bool = False,
    on_iteration: Callable[[Row], object] | None = None,
    allocation: CallsInside | None = None,
) -> Convergence[State]:
    """Repeat `step` until the stop rule ends the loop; resume where an earlier run was stopped.

    A checkpoint is written after every iteration. When the flow is retried, or started again after
    it was killed, the same call goes on after the last complete iteration, with the same random
    numbers; finished jobs and samplings of the interrupted iteration are found, not repeated. A
    loop that had ended returns its result at once.

    The state is stored as a pickle, and step gets a copy: it may contain numbers, arrays, NumPy
    generators, dataclasses of a module. The time of a killed iteration does not count.

    Args:
        step: `step(state, iteration) -> new state`, async or sync (a sync one runs in a thread).
            Every random number must come from `iteration.rng`.
        initial_state: the state before the first iteration.
        measure: `measure(state)` → a number, a pair of a number and its standard error, or a
            mapping of names to these.
        work_dir: where the PNG `<name>.png` and, under `.hpc-prefect`, the checkpoints are.
        stop: the stop rule; or else
        stop_variable_name: a Prefect Variable, a JSON object with the rule under `"stop"`; its
            other entries are `iteration.parameters`. It is read once, when the loop starts: a later
            change of the Variable does not change this loop, also when it is resumed.
        seed: of `iteration.rng`; None for a random one, which `loop.json` in the loop's folder
            records.
        name: of the loop, in files, artifacts and scopes; two loops of one name share the plot's
            file.
        key: identifies the loop, instead of the initial state's digest. Needed if that state is not
            the same to the last bit in every run (threaded linear algebra), or if it has no digest
            (`identity.digest`) and the loop is not the first of its name, seed and scope.
        plot: what the plot shows besides the watched column.
        until: `until(rows so far) -> bool`, async or sync: True ends the loop as converged, in
            addition to the stop rule. A resumed loop uses the one of the present call.
        raise_if_not_converged: call `result.raise_if_not_converged()` at the end.
        on_iteration: is called with each new row once its checkpoint is written; async or sync.
        allocation: the `allocation(…)` for the jobs of all iterations; None for the one around the
            call, if any.

    Raises:
        ConfigurationError: the stop rule, a measured column or the state cannot be used.
        NotConverged: the watched value became NaN or infinite; or with `raise_if_not_converged`.
        LedgerError: the checkpoints cannot be written or are all damaged.
    """
    # Imported here: the loop's core needs no Prefect.
    from hpc_prefect.flow_runs.campaigns import absolute_work_dir
    from hpc_prefect.flow_runs.cancellation import raise_if_cancelled
    from hpc_prefect.flow_runs.scopes import scope

    _check(name, stop, stop_variable_name, {"step": step, "measure": measure, "until": until})
    seed = _whole(seed)
    await raise_if_cancelled()
    folder = Path(absolute_work_dir(work_dir))
    folder.mkdir(parents=True, exist_ok=True)
    place = await _located(folder, name, seed, key, initial_state)
    log = run_log()
    source = Source(stop, stop_variable_name)
    book = Checkpoints(place.folder, log)
    reporter = LoopReporter(
        name=name, book=book, source=source, log=log, png=folder / f"{name}.png",
        plot=plot or Plot(), on_iteration=on_iteration, has_predicate=until is not None,
        seed=seed, scope=place.scope, n=place.n,
    )  # fmt: skip
    start = _Start(name, seed, place, initial_state, source, book)
    body = Body(step=step, measure=measure, name=name, until=until)
    with allocation.calls_inside() if allocation else nullcontext(), scope(_scope_of(name, place)):
        try:
            result = await run_loop(
                book, body, start, watcher=reporter, enter=scope, before=raise_if_cancelled
            )
        finally:
            await reporter.settle()
    if raise_if_not_converged:
        result.raise_if_not_converged()
    return replace(result, plot=reporter.drawn)


def _scope_of(name: str, place: CallIdentity) -> str:
    """The loop's own scope, so that iterations 1 of two loops in one flow differ.

    The same in every campaign, so that the jobs of two runs can be compared.
    """
    return f"{name}-{place.digest[:16]}" + (f"-{place.n}" if place.n else "")


async def _located(
    folder: Path, name: str, seed: int | None, key: str | None, initial_state: object
) -> CallIdentity:
    """The loop's identity in the campaign."""
    from hpc_prefect.flow_runs.campaigns import locate

    identity, told = _loop_digest(name, seed, key, initial_state)
    place = await locate(work_dir=folder, name=name, digest=identity)
    if place.n and not told:
        raise ConfigurationError(
            f"converge: this is another loop {name!r} with the same seed, and its initial state"
            f" has no digest by which a later run could distinguish the two; give each a key="
        )
    return place


@dataclass(frozen=True, slots=True)
class _Start(Generic[State]):
    """Makes the first checkpoint, and for that reads rule, parameters and seed."""

    name: str
    seed: int | None
    place: CallIdentity
    state: State
    source: Source
    book: Checkpoints

    async def __call__(self) -> Checkpoint:
        rule, parameters = await self.source.read()
        seed = self._drawn_before() if self.seed is None else self.seed
        generator, entropy = _generator(seed)
        record = {
            "name": self.name,
            "seed": self.seed,
            "entropy": str(entropy),
            "stop": rule.as_dict(),
            "stop_variable_name": self.source.variable_name,
            "parameters": parameters,
        }
        await asyncio.to_thread(self.book.note, "loop.json", json.dumps(record, indent=2) + "\n")
        return Checkpoint(state=self.state, rng=generator, rule=rule, parameters=parameters)

    def _drawn_before(self) -> int | None:
        """The random seed of the run that is reproduced here; None if there is none."""
        from hpc_prefect.flow_runs.reproduction import recorded

        reproduced = recorded()
        if reproduced is None:
            return None
        return reproduced.entropy(self.name, self.place.scope, self.place.n)


def _whole(seed: int | None) -> int | None:
    """A seed as a plain integer, also one of NumPy's.

    Raises:
        ConfigurationError: it is not a whole number.
    """
    try:
        number = None if seed is None else operator.index(seed)
    except TypeError:
        number = -1
    if number is not None and number < 0:
        raise ConfigurationError(f"converge: seed {seed!r}: give a whole number from 0")
    return number


def _check(
    name: str,
    stop: StopRule | None,
    stop_variable_name: str | None,
    functions: Mapping[str, object],
) -> None:
    problems = [
        f"{which}: must be a function, not a {type(function).__name__}"
        for which, function in functions.items()
        if not callable(function) and (which, function) != ("until", None)
    ]
    if not _NAME.fullmatch(name):
        problems.append(f"name {name!r}: it names files; use letters, digits and . _ -")
    if (stop is None) == (stop_variable_name is None):
        what = "neither was" if stop is None else "both were"
        problems.append(f"give either stop or stop_variable_name; {what} given")
    if stop is not None and not isinstance(stop, StopRule):
        kind = type(stop).__name__
        problems.append(f"stop: must be a StopRule (StopRule.parse makes one), not a {kind}")
    if told := missing("the loop's random generator", "numpy"):
        problems.append(told)
    if problems:
        raise ConfigurationError("converge: " + "; ".join(problems))


def _loop_digest(name: str, seed: int | None, key: str | None, state: object) -> tuple[str, bool]:
    """The digest of a loop, and whether it includes the initial state."""
    told_apart_by = {"loop": name, "seed": seed, "key": key}
    if key is None:
        try:
            return digest(told_apart_by | {"state": state}), True
        except TypeError:  # the state has no digest; see the docstring of `converge`
            return digest(told_apart_by), False
    return digest(told_apart_by), True


def _generator(seed: int | None) -> tuple[Any, object]:
    """A NumPy generator, and the entropy of its seed."""
    from numpy.random import SeedSequence, default_rng

    sequence = SeedSequence(seed)
    return default_rng(sequence), sequence.entropy
