"""When a loop ends: the rule and its decision, without clock and I/O."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hpc_prefect.errors import ConfigurationError, NotConverged
from hpc_prefect.job.spec import parse_walltime

Reason = Literal["tolerance", "noise", "predicate", "max_iterations", "wall_time"]
#: The reasons that mean convergence.
CONVERGED: tuple[Reason, ...] = ("tolerance", "noise", "predicate")
#: The suffix that makes the name of a standard error's column.
ERROR = "_error"

#: The values that a column may hold.
Cell = float | int | str | bool | None
#: One iteration: `iteration`, the measured columns, `change`, `seconds`, `time`.
Row = Mapping[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When a loop ends. Checked at construction.

    The *change* is that of `value` from one iteration to the next; with `average`, from the mean of
    so many iterations to the mean of the next ones. If standard errors were measured, the change
    has one too, and counts as small only if it is small with its error added.

    Attributes:
        value: the measured column that is watched.
        tolerance: the loop has converged when the |change| stays below this, in the unit of
            `value`. None: not checked.
        relative_tolerance: the same as a fraction of |value|; of both the larger one counts.
        standard_errors: the loop has also converged when the |change| stays below so many of its
            standard errors, so that only noise is left. None: not checked.
        average: the number of iterations over which values are averaged.
        window: for how many consecutive iterations the change must stay small.
        max_iterations: the loop ends after so many iterations, converged or not.
        wall_time: `HH:MM:SS`; the loop ends after the iteration in which the total time of its
            iterations, also those before a resume, reaches this. Empty: no limit. No iteration is
            interrupted.

    Raises:
        ConfigurationError: with all problems at once.
    """

    value: str = "value"
    tolerance: float | None = None
    relative_tolerance: float | None = None
    standard_errors: float | None = None
    average: int = 1
    window: int = 1
    max_iterations: int
    wall_time: str = ""

    def __post_init__(self) -> None:
        _refuse("the stop rule", _problems(dataclasses.asdict(self)))

    @classmethod
    def parse(cls, data: object, source: str) -> StopRule:
        """Make a rule from a JSON object; `source` names its origin in errors.

        Raises:
            ConfigurationError: with all problems at once, unknown keys among them.
        """
        if not isinstance(data, Mapping):
            kind = type(data).__name__
            raise ConfigurationError(f"{source}: must be an object with {_known()}, not a {kind}")
        _refuse(source, _problems(data))
        return cls(**data)

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return dataclasses.asdict(self)

    @property
    def can_converge(self) -> bool:
        """Whether it has a criterion of convergence, and not only limits."""
        return (self.tolerance, self.relative_tolerance, self.standard_errors) != (None, None, None)

    def describe(self) -> str:
        """The rule as half a sentence, for people."""
        ends = [f"after {self.max_iterations} iterations"]
        if self.wall_time:
            ends.append(f"after {self.wall_time} of wall time")
        if self.can_converge:
            over = f" over {self.window} iterations" if self.window > 1 else ""
            mean = f"the mean of {self.average} values of " if self.average > 1 else ""
            ends.insert(0, f"when {mean}{self.value} changes by less than {self._limits()}{over}")
        return "ends " + " or ".join(ends)

    def _limits(self) -> str:
        limits = [] if self.tolerance is None else [f"{self.tolerance:g}"]
        if self.relative_tolerance is not None:
            limits.append(f"{self.relative_tolerance:g} of itself")
        if self.standard_errors is not None:
            limits.append(f"{self.standard_errors:g} of its standard errors")
        return " or ".join(limits)

    def decide(self, history: Sequence[Row], elapsed: float) -> Reason | None:
        """Decide after an iteration whether the loop ends, and why; None to go on.

        Of several reasons returns the first of tolerance, noise, max_iterations, wall_time.

        Args:
            history: every iteration so far, in order.
            elapsed: seconds that these iterations took, in all runs of the loop.

        Raises:
            NotConverged: the watched value is NaN or infinite.
            ConfigurationError: the watched column is missing or no number, or has no standard
                error and the rule needs one.
        """
        if not history:
            return None
        for number, row in enumerate(history, start=1):
            self.watched(row, number)
        ends = range(len(history), len(history) - self.window, -1)
        changes = [self.change(history[: max(end, 0)]) for end in ends]
        known = [each for each in changes if each is not None]
        if self.can_converge and len(known) == self.window:
            if all(each.is_within(self._limit(each)) for each in known):
                return "tolerance"
            if self.standard_errors and all(self._is_noise(each) for each in known):
                return "noise"
        if len(history) >= self.max_iterations:
            return "max_iterations"
        if self.wall_time and elapsed >= parse_walltime(self.wall_time):
            return "wall_time"
        return None

    def change(self, history: Sequence[Row]) -> Change | None:
        """The watched value's change in the last iteration; None if there is none yet.

        Never raises: `decide` reports a value that cannot be used.
        """
        if len(history) < 2 * self.average:
            return None
        new, old = history[-self.average :], history[-2 * self.average : -self.average]
        values = [row.get(self.value) for row in (*old, *new)]
        numbers = [float(v) for v in values if isinstance(v, int | float) and v is not True]
        errors = [row.get(self.value + ERROR) for row in (*old, *new)]
        known = [float(e) for e in errors if isinstance(e, int | float)]
        if len(numbers) < len(values):
            return None
        before, now = (sum(part) / self.average for part in _halves(numbers))
        return Change(now - before, math.hypot(*known) / self.average, now)

    def _limit(self, change: Change) -> float:
        return max(self.tolerance or 0.0, (self.relative_tolerance or 0.0) * abs(change.level))

    def _is_noise(self, change: Change) -> bool:
        noise = change.error * (self.standard_errors or 0.0)
        return abs(change.size) < noise or change.is_within(self._limit(change))

    def watched(self, row: Row, number: int) -> float:
        """The watched value of one iteration.

        Raises:
            NotConverged: it is NaN or infinite.
            ConfigurationError: the column is missing or no number.
        """
        if self.value not in row:
            hint = _near(self.value, row)
            raise ConfigurationError(
                f"iteration {number}: measure returned no column {self.value!r}, which the stop "
                f"rule watches{hint}; it returned {', '.join(map(repr, row)) or 'none'}"
            )
        value = row[self.value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(
                f"iteration {number}: the stop rule watches {self.value!r}, but measure returned "
                f"{value!r} for it; a number is needed"
            )
        if self.standard_errors is not None and self.value + ERROR not in row:
            raise ConfigurationError(
                f"iteration {number}: the stop rule has standard_errors, but measure returned none "
                f"for {self.value!r}; return (value, standard error) for it"
            )
        if not math.isfinite(value):
            raise NotConverged(
                f"iteration {number}: {self.value} is {value}, so the loop cannot go on; nothing "
                f"of this iteration was kept, and running again repeats it from the checkpoint "
                f"before it. Look at what step and measure did there"
            )
        return float(value)


@dataclass(frozen=True, slots=True)
class Change:
    """How a value has changed.

    Attributes:
        error: the standard error of `size`; 0 if none was measured.
        level: the new value or mean.
    """

    size: float
    error: float
    level: float

    def is_within(self, limit: float) -> bool:
        """Whether it is small, with its error added."""
        return abs(self.size) + self.error < limit


def verdict(rule: StopRule, reason: Reason | None, *, has_predicate: bool = False) -> str:
    """The state or end of a loop in words; says plainly when it has not converged."""
    if reason is None:
        return "under way"
    if reason in CONVERGED:
        return f"converged ({reason})"
    if rule.can_converge or has_predicate:
        return f"NOT converged ({reason})"
    return f"ended ({reason}); the rule has no criterion of convergence"


def parse_algorithm(value: object, source: str) -> tuple[StopRule, dict[str, Any]]:
    """Split an algorithm Variable into the stop rule and the flow's own parameters.

    The rule is the object under `stop`; the other entries are parameters. Without `stop` the whole
    object is the rule.

    Raises:
        ConfigurationError: with all problems at once.
    """
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise ConfigurationError(
            f"{source}: must be a JSON object with the stop rule under 'stop', not a {kind}"
        )
    if "stop" in value:
        parameters = {key: item for key, item in value.items() if key != "stop"}
        return StopRule.parse(value["stop"], f"{source}, 'stop'"), parameters
    if not {field.name for field in dataclasses.fields(StopRule)} & set(value):
        near = difflib.get_close_matches("stop", [str(key) for key in value], n=1)
        hint = f" (is {near[0]!r} meant?)" if near else ""
        raise ConfigurationError(
            f"{source}: has no object 'stop'{hint}; its keys are "
            f"{', '.join(map(repr, value)) or 'none'}. Write the stop rule there: {_known()}"
        )
    return StopRule.parse(value, source), {}


def _halves(numbers: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    middle = len(numbers) // 2
    return numbers[:middle], numbers[middle:]


def _known() -> str:
    return ", ".join(field.name for field in dataclasses.fields(StopRule))


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _refuse(source: str, problems: list[str]) -> None:
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigurationError(f"{source}: {count}, nothing was started:{lines}")


def _problems(data: Mapping[str, Any]) -> list[str]:
    """All problems of a rule, as sentences that begin with the key."""
    known = [field.name for field in dataclasses.fields(StopRule)]
    found = [
        f"{key}: there is no such key{_near(str(key), known)}; there are {_known()}"
        for key in data
        if key not in known
    ]
    value = data.get("value", "value")
    if not isinstance(value, str) or not value:
        found.append(f"value: must be the name of a measured column, not {value!r}")
    criteria = ("tolerance", "relative_tolerance", "standard_errors")
    found += [
        f"{key}: must be a number above 0, or null for none, not {data[key]!r}"
        for key in criteria
        if data.get(key) is not None and not _is_positive_number(data[key])
    ]
    judged = any(data.get(key) is not None for key in criteria)
    for key in ("average", "window"):
        count = data.get(key, 1)
        if not _is_count(count):
            found.append(f"{key}: must be a whole number from 1, not {count!r}")
        elif count > 1 and not judged:
            found.append(f"{key}: {count} has no effect without a tolerance; set tolerance too")
    if "max_iterations" not in data:
        found.append("max_iterations: missing; say after how many iterations the loop must end")
    elif not _is_count(data["max_iterations"]):
        was = data["max_iterations"]
        found.append(f"max_iterations: must be a whole number from 1, not {was!r}")
    return found + _wall_time_problems(data.get("wall_time", ""))


def _wall_time_problems(wall_time: object) -> list[str]:
    if wall_time == "":
        return []
    if not isinstance(wall_time, str):
        return [f"wall_time: must be a text such as '01:30:00', not {wall_time!r}"]
    try:
        parse_walltime(wall_time)
    except ValueError as error:
        return [f"wall_time: {str(error).removeprefix('walltime ')}"]
    return []


def _is_positive_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
