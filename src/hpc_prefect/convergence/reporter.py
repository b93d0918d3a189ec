"""Shows a loop in Prefect, and reads its stop rule."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_prefect.convergence.checkpoint import Checkpoint, Checkpoints, Log
from hpc_prefect.convergence.stop import CONVERGED, Reason, Row, StopRule, parse_algorithm, verdict
from hpc_prefect.convergence.telemetry import Plot, chart, draw, jsonl, line, table
from hpc_prefect.errors import ConfigurationError
from hpc_prefect.extras import missing
from hpc_prefect.job.identity import slug
from hpc_prefect.transports.local import write_atomic

if TYPE_CHECKING:
    from hpc_prefect.flow_runs.artifacts import LiveArtifact

#: Seconds between two updates of a loop's artifacts; an iteration may be shorter.
_EVERY = 2.0
#: The share of the time in which plots are drawn; one takes 0.1 to 0.2 s.
_DRAWING = 0.02


def run_log() -> Log:
    """The Prefect run's logger; the standard one outside of a run."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("hpc_prefect.convergence")


@dataclass(frozen=True)
class Source:
    """The source of the stop rule."""

    stop: StopRule | None
    variable_name: str | None

    async def read(self) -> tuple[StopRule, dict[str, Any]]:
        """The present rule and parameters."""
        if self.stop is not None:
            return self.stop, {}
        name = str(self.variable_name)
        if (then := _then(name)) is not None:
            return parse_algorithm(dict(then), f"Variable {name!r} as it was")
        return parse_algorithm(await _variable(name), f"Variable {name!r}")

    async def changes(self, at: Checkpoint) -> str:
        """How the present rule differs from the one that a resumed loop keeps, in words."""
        where = f"Variable {self.variable_name!r}" if self.stop is None else "stop"
        try:
            rule, parameters = await self.read()
        except ConfigurationError as error:
            return f"{where} cannot be used now ({error}); not needed"
        if self.stop is None and parameters != at.parameters:
            return f"{where} has other parameters now"
        return f"{where} {rule.describe()} now" if rule != at.rule else ""


def _then(variable_name: str) -> Mapping[str, Any] | None:
    """The recorded content of this Variable in the run that is reproduced here."""
    from hpc_prefect.flow_runs.reproduction import recorded

    reproduced = recorded()
    return None if reproduced is None else reproduced.block("loop-variable", variable_name)


def _entropy(generator: Any) -> str:
    """The entropy of the generator's seed; empty if it is not known."""
    sequence = getattr(getattr(generator, "bit_generator", None), "seed_seq", None)
    return "" if sequence is None else str(sequence.entropy)


async def _variable(name: str) -> object:
    from prefect.client.orchestration import get_client
    from prefect.variables import Variable

    value: object = await Variable.aget(name)
    if value is None:
        async with get_client() as client:
            names = [variable.name for variable in await client.read_variables(200)]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; near it there are {', '.join(near)}" if near else "; there is none near it"
        raise ConfigurationError(
            f"there is no Prefect Variable {name!r}{hint}. Make it with `prefect variable set` or "
            f"`hpc-prefect blocks apply`: a JSON object with the stop rule under 'stop'"
        )
    return value


@dataclass(kw_only=True)
class LoopReporter:
    """Shows the loop: log lines, rows on disk, plot and artifacts. A failure here does not stop it.

    Iterations do not wait for a plot, but drawing takes time from their own Python. So it has a
    small share of the time, and quick iterations share one plot. The last state is always shown.
    """

    name: str
    book: Checkpoints
    source: Source
    log: Log
    png: Path
    plot: Plot
    on_iteration: Callable[[Row], object] | None
    seed: int | None = None
    scope: tuple[str, ...] = ()
    n: int = 0
    has_predicate: bool = False
    drawn: Path | None = None  # the PNG, once it is drawn
    _shown: int = 0  # rows in the newest plot
    _not_before: float = 0.0
    _drawing: asyncio.Task[None] | None = None
    _can_draw: bool = True
    _artifacts: dict[str, LiveArtifact] = field(default_factory=dict)

    async def begin(self, at: Checkpoint, *, resumed: bool) -> None:
        done = len(at.history)
        self._record_loop(at)
        if not resumed:
            self.log.info(
                "loop %r starts; it %s; its files: %s",
                *(self.name, self._describe(at.rule), self.book.folder),
            )
            return
        if at.reason is not None:
            self.log.info(
                "loop %r had ended before: %s; %d rows",
                *(self.name, self._verdict(at.rule, at.reason), done),
            )
        else:
            self.log.info(
                "loop %r goes on at iteration %d; it %s; its files: %s",
                *(self.name, done + 1, self._describe(at.rule), self.book.folder),
            )
        self._record(at.history)
        await self._guarded("the comparison of the stop rule", self._compare(at))
        await self._guarded("iterations.jsonl", self._note(at.history))
        await self._show(at.history, at.rule, at.reason, last=True)

    async def kept(self, at: Checkpoint) -> None:
        from hpc_prefect.flow_runs.recording import note_event
        from hpc_prefect.records.write.generators import generator_states

        note_event(
            "generators",
            loop=self.name,
            folder=str(self.book.folder),
            number=len(at.history),
            states=generator_states(
                {"rng": at.rng, "state": at.state, "parameters": at.parameters}
            ),
        )

    async def row(self, history: tuple[Row, ...], rule: StopRule, reason: Reason | None) -> None:
        self._record(history[-1:])
        self.log.info("%s %s", self.name, line(history[-1]))
        if len(history) == 1:
            self._check_columns(history[0])
        await self._guarded("iterations.jsonl", self._note(history))
        if reason is not None:
            said = self._verdict(rule, reason)
            expected = rule.can_converge or self.has_predicate
            level = logging.WARNING if expected and reason not in CONVERGED else logging.INFO
            self.log.log(level, "loop %r after %d iterations: %s", self.name, len(history), said)
        if reason is not None:
            await self.settle()
            await self._show(history, rule, reason, last=True)
        elif self._may_draw():
            self._drawing = asyncio.create_task(self._show(history, rule, None, last=False))
        if self.on_iteration is not None:
            told = self.on_iteration(history[-1])
            if inspect.isawaitable(told):
                await told

    def _may_draw(self) -> bool:
        idle = self._drawing is None or self._drawing.done()
        return idle and time.monotonic() >= self._not_before

    async def settle(self) -> None:
        """Wait for the plot that is being drawn: it must not end after a newer one, or the loop."""
        if self._drawing is not None:
            await self._drawing

    async def broken(self, history: tuple[Row, ...], rule: StopRule) -> None:
        await self.settle()
        if len(history) > self._shown:
            await self._show(history, rule, None, last=True)

    def _record_loop(self, at: Checkpoint) -> None:
        from hpc_prefect.flow_runs.recording import note_blocks, note_event
        from hpc_prefect.records.write.plain import plain_mapping

        if name := self.source.variable_name:
            told = {"name": name, "stop": at.rule.as_dict(), **at.parameters}
            note_blocks({"loop-variable": told})
        note_event(
            "loop",
            loop=self.name,
            folder=str(self.book.folder),
            scope=list(self.scope),
            n=self.n,
            seed=self.seed,
            entropy=_entropy(at.rng),
            stop=at.rule.as_dict(),
            variable=self.source.variable_name,
            parameters=plain_mapping(at.parameters, whole=True),
            watched=at.rule.value,
        )

    def _record(self, rows: tuple[Row, ...]) -> None:
        from hpc_prefect.flow_runs.recording import note_event

        for row in rows:
            note_event(
                "iteration",
                loop=self.name,
                folder=str(self.book.folder),
                number=row["iteration"],
                row=dict(row),
            )

    async def _compare(self, at: Checkpoint) -> None:
        changes = await self.source.changes(at)
        if changes:
            self.log.warning(
                "%s, but loop %r keeps the rule and parameters of its start; for others begin a"
                " new campaign or give the loop another name",
                changes,
                self.name,
            )

    def _check_columns(self, row: Row) -> None:
        missing = [column for column in self.plot.columns if column not in row]
        if missing:
            known = ", ".join(row)
            self.log.warning("plot: measure returned no %s; it has %s", ", ".join(missing), known)

    async def _note(self, history: tuple[Row, ...]) -> None:
        await asyncio.to_thread(self.book.note, "iterations.jsonl", jsonl(history))

    async def _show(
        self, history: tuple[Row, ...], rule: StopRule, reason: Reason | None, *, last: bool
    ) -> None:
        if not history:
            return
        from hpc_prefect.flow_runs.artifacts import Content

        started = time.monotonic()
        self._shown = len(history)
        title = f"{self.name}: iteration {len(history)}, {self._verdict(rule, reason)}"
        about = f"{title}. It {self._describe(rule)}"
        await self._guarded("the plot", self._draw(history, rule, title))
        png = self.drawn
        shown = {
            "iterations": lambda: Content(json.dumps(table(history)), about),
            "plot": lambda: Content(chart(history, rule, self.plot, title, png), about),
        }
        for which, make in shown.items():
            self._artifact(which).show(make, now=last)
        now = time.monotonic()
        self._not_before = now + max(1.0, (now - started) / _DRAWING)

    async def _guarded(self, what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a picture is not worth a loop
            self.log.warning("%s of loop %r failed: %s", what, self.name, error or repr(error))

    async def _draw(self, history: tuple[Row, ...], rule: StopRule, title: str) -> None:
        """Draw the PNG on disk. Prefect serves no files, and shows a chart of text."""
        if told := missing("the plot of the loop", "matplotlib"):
            if self._can_draw:
                self.log.info("%s", told)
            self._can_draw = False
            return
        picture = await asyncio.to_thread(draw, history, rule, self.plot, title)
        await asyncio.to_thread(write_atomic, self.png, picture, mode=0o644)
        self.drawn = self.png

    def _artifact(self, which: str) -> LiveArtifact:
        from hpc_prefect.flow_runs.artifacts import LiveArtifact, home_of_place

        if which not in self._artifacts:
            kind = "table" if which == "iterations" else "markdown"
            key = f"{slug(self.name)}-{which}"
            self._artifacts[which] = LiveArtifact(key, home_of_place(), kind=kind, every=_EVERY)
        return self._artifacts[which]

    def _verdict(self, rule: StopRule, reason: Reason | None) -> str:
        return verdict(rule, reason, has_predicate=self.has_predicate)

    def _describe(self, rule: StopRule) -> str:
        return rule.describe() + (" or when `until` says so" if self.has_predicate else "")
