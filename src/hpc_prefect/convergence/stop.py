"""When a loop ends: one frozen rule and one judgement, without clock and without I/O."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hpc_prefect.errors import ConfigurationError, NotConverged
from hpc_prefect.job.spec import parse_walltime

Reason = Literal["tolerance", "max_iterations", "wall_time"]

#: What one column of one iteration may hold.
Cell = float | int | str | bool | None
#: One iteration: `iteration`, the measured columns, `change`, `seconds`, `time`.
Row = Mapping[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """When a loop ends. Checked when it is made.

    Attributes:
        value: the measured column that is watched.
        tolerance: the loop has converged when |change of `value|` from one iteration to the next
            stays below this, in the unit of `value`. None: there is no such end.
        window: over how many consecutive changes it must stay below.
        max_iterations: the loop ends after so many iterations, converged or not.
        wall_time: `HH:MM:SS`; the loop ends after the iteration in which its iterations have taken
            this long, those before a resume included. Empty: no limit. It never cuts an iteration.

    Raises:
        ConfigurationError: naming every problem at once.
    """

    value: str = "value"
    tolerance: float | None = None
    window: int = 1
    max_iterations: int
    wall_time: str = ""

    def __post_init__(self) -> None:
        _refuse("the stop rule", _problems(dataclasses.asdict(self)))

    @classmethod
    def parse(cls, data: object, source: str) -> StopRule:
        """Make a rule of a JSON object; `source` says in errors where it came from.

        Raises:
            ConfigurationError: naming every problem at once, unknown keys among them.
        """
        if not isinstance(data, Mapping):
            kind = type(data).__name__
            raise ConfigurationError(f"{source}: must be an object with {_known()}, not a {kind}")
        _refuse(source, _problems(data))
        return cls(**data)

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """The rule as half a sentence, for people."""
        ends = [f"after {self.max_iterations} iterations"]
        if self.wall_time:
            ends.append(f"after {self.wall_time} of wall time")
        if self.tolerance is not None:
            over = f" over {self.window} iterations" if self.window > 1 else ""
            ends.insert(0, f"when {self.value} changes by less than {self.tolerance:g}{over}")
        return "ends " + " or ".join(ends)

    def decide(self, history: Sequence[Row], elapsed: float) -> Reason | None:
        """Judge after an iteration whether the loop ends, and why; None means go on.

        Of several reasons the first of tolerance, max_iterations, wall_time is given.

        Args:
            history: every iteration so far, in order.
            elapsed: seconds that these iterations have taken, in all runs of the loop.

        Raises:
            NotConverged: the watched value is NaN or infinite.
            ConfigurationError: the watched column is missing or no number.
        """
        if not history:
            return None
        values = [self.watched(row, number) for number, row in enumerate(history, start=1)]
        recent = values[-self.window - 1 :]
        if self.tolerance is not None and len(recent) == self.window + 1:
            changes = (abs(b - a) for a, b in itertools.pairwise(recent))
            if all(change < self.tolerance for change in changes):
                return "tolerance"
        if len(values) >= self.max_iterations:
            return "max_iterations"
        if self.wall_time and elapsed >= parse_walltime(self.wall_time):
            return "wall_time"
        return None

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
        if not math.isfinite(value):
            raise NotConverged(
                f"iteration {number}: {self.value} is {value}, so the loop cannot go on; nothing "
                f"of this iteration was kept, and running again repeats it from the checkpoint "
                f"before it. Look at what step and measure did there"
            )
        return float(value)


def parse_algorithm(value: object, source: str) -> tuple[StopRule, dict[str, Any]]:
    """Split an algorithm Variable into the stop rule and the flow's own parameters.

    The rule is the object under `stop`; everything beside it are parameters. Without `stop` the
    whole object is the rule.

    Raises:
        ConfigurationError: naming every problem at once.
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


def change(rule: StopRule, history: Sequence[Row], now: Row) -> float | None:
    """The watched value's change from the last iteration to `now`; None in the first one.

    Never raises: a value that cannot be used is for `decide` to name.
    """
    pair = [row.get(rule.value) for row in (*history[-1:], now)]
    numbers = [v for v in pair if isinstance(v, int | float) and not isinstance(v, bool)]
    return float(numbers[1] - numbers[0]) if len(numbers) == 2 else None


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
    """Everything that is wrong with a rule, as sentences that begin with the key."""
    known = [field.name for field in dataclasses.fields(StopRule)]
    found = [
        f"{key}: there is no such key{_near(str(key), known)}; there are {_known()}"
        for key in data
        if key not in known
    ]
    value = data.get("value", "value")
    if not isinstance(value, str) or not value:
        found.append(f"value: must be the name of a measured column, not {value!r}")
    tolerance = data.get("tolerance")
    if tolerance is not None and not _is_positive_number(tolerance):
        found.append(f"tolerance: must be a number above 0, or null for none, not {tolerance!r}")
    window = data.get("window", 1)
    if not _is_count(window):
        found.append(f"window: must be a whole number from 1, not {window!r}")
    elif window > 1 and tolerance is None:
        found.append(f"window: {window} means nothing without a tolerance; set tolerance too")
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
