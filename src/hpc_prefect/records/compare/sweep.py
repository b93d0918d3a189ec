"""Many runs in one table: what varies against what was measured, repeats of a setting together.

A setting is what a person chose: parameters without seeds and work_dirs, and the content of blocks.
Runs of one setting are repeats, and have a mean and a spread. One run has no spread, and none is
made up.
"""

from __future__ import annotations

import copy
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_prefect.records.compare.differences import Contrast, Differences, differences
from hpc_prefect.records.compare.diffs import without_seeds
from hpc_prefect.records.compare.values import (
    ABSENT,
    AtLeast,
    apart_at_a_glance,
    canonical,
    differ,
    flat,
    is_seed,
    json_value,
    number,
    words,
)
from hpc_prefect.records.fold import COSTS, Record

#: Of a loop's row, what was not measured. `iteration` is shown: how many it took is a result.
FRAME = ("change", "seconds", "time")
#: What is behind the name of a measure in that of its standard error.
ERROR = "_error"
WALL = "wall_seconds"

#: So many parameters are all in a run's label; of more only those that tell runs apart.
_LABEL = 3
#: What must not differ between repeats, though it is no parameter.
_MIXED = (
    *("flow", "code", "versions", "scripts", "executables", "inputs", "arguments"),
    *("devices", "quantum options"),
)


@dataclass(frozen=True, slots=True)
class Varying:
    """What is not the same in all runs, and was chosen.

    Attributes:
        name: the parameter's dotted path, or the block's field.
        values: one for each run; `ABSENT` where a run has none.
        origin: `parameter`, `seed`, `work_dir` (where the run's jobs ran) or `block`.
    """

    name: str
    values: tuple[Any, ...]
    origin: str = "parameter"

    def as_dict(self) -> dict[str, Any]:
        values = [json_value(each) for each in self.values]
        return {"name": self.name, "origin": self.origin, "values": values}


@dataclass(frozen=True, slots=True)
class Spread:
    """A measure in the runs of one setting.

    Attributes:
        n: how many completed runs have a finite number.
        mean: None without any.
        deviation: the sample's standard deviation; None with fewer than two.
        left_out: how many completed runs have none: nothing, NaN or no number.
        text: what all runs have, where that is no number.
        provisional: what a run that has not completed has, where no completed one has a number.
    """

    n: int = 0
    mean: float | None = None
    deviation: float | None = None
    left_out: int = 0
    text: str = ""
    provisional: float | None = None

    @property
    def error(self) -> float | None:
        """The mean's standard error."""
        return None if self.deviation is None else self.deviation / float(self.n) ** 0.5

    def as_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "standard_error": self.error,
            "left_out": self.left_out,
            "text": self.text,
            "provisional": self.provisional,
        }


@dataclass(frozen=True, slots=True)
class Setting:
    """Runs with the same parameters (but for seeds and work_dirs) and blocks.

    Attributes:
        values: of what varies, in the order of `Sweep.columns`.
        runs: the places of its runs among those that were compared.
        unfinished: the states of those that have not completed; they are in no mean.
        measures: by their names.
        mixed: the regards in which its runs differ all the same, so that their spread is not that
            of repeats alone: code, versions …
    """

    values: tuple[Any, ...]
    runs: tuple[int, ...]
    unfinished: tuple[str, ...]
    measures: dict[str, Spread]
    mixed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sweep:
    """The table of many runs.

    Attributes:
        varying: everything chosen that varies.
        measures: names of what was measured or paid, those of the flow's own first.
        settings: in the order of their values.
    """

    varying: tuple[Varying, ...]
    measures: tuple[str, ...]
    settings: tuple[Setting, ...]

    @property
    def columns(self) -> tuple[Varying, ...]:
        """What tells settings apart."""
        return tuple(_parted(self.varying)[0])

    @property
    def of_repeats(self) -> tuple[str, ...]:
        """The names of what varies, and tells no settings apart."""
        return tuple(each.name for each in _parted(self.varying)[1])

    def as_dict(self) -> dict[str, Any]:
        return {
            "varying": [each.as_dict() for each in self.varying],
            "measures": list(self.measures),
            "settings": [
                {
                    "values": {
                        column.name: json_value(value)
                        for column, value in zip(self.columns, setting.values, strict=True)
                        if value is not ABSENT
                    },
                    "runs": list(setting.runs),
                    "unfinished": list(setting.unfinished),
                    "mixed": list(setting.mixed),
                    "measures": {
                        name: json_value(spread.as_dict())
                        for name, spread in setting.measures.items()
                    },
                }
                for setting in self.settings
            ],
        }


def figures(record: Record) -> dict[str, Any]:
    """What a run has measured, then what it has cost and taken. A measure's own name wins.

    A cost of which a part alone is known is `AtLeast` that.
    """
    measured = {str(name): value for name, value in record.measures.items()
                if name in record.recorded or name not in FRAME}  # fmt: skip
    known, unknown = record.totals.costs, record.totals.unknown
    costs: dict[str, float] = {
        name: AtLeast(known.get(name, 0.0)) if unknown.get(name) else float(known[name])
        for name in COSTS
        if name in known or unknown.get(name)
    }
    return measured | {
        name: value
        for name, value in (costs | {WALL: record.wall_seconds}).items()
        if name not in measured
    }


def sweep(
    records: Sequence[Record], different: Differences | None = None, *, against: str = ""
) -> Sweep:
    """Settings and their measures.

    Args:
        different: what `differences(records)` said, if that was asked already.
        against: a seed that is wanted as a parameter.
    """
    different = different or differences(records)
    varying = _varying(records, different, against)
    columns, _ = _parted(varying)
    each_ones = [figures(record) for record in records]
    names = _names(records, each_ones)
    groups: dict[tuple[str, ...], list[int]] = {}
    for place in range(len(records)):
        key = tuple(canonical(column.values[place]) for column in columns)
        groups.setdefault(key, []).append(place)
    settings = [
        Setting(
            values=tuple(column.values[places[0]] for column in columns),
            runs=tuple(places),
            unfinished=tuple(records[i].state for i in places if records[i].state != "completed"),
            measures={name: _spread(name, places, records, each_ones) for name in names},
            mixed=_mixed([records[i] for i in places], different),
        )
        for places in groups.values()
    ]
    settings.sort(key=lambda setting: tuple(map(in_order, setting.values)))
    return Sweep(tuple(varying), names, tuple(settings))


def _varying(records: Sequence[Record], different: Differences, against: str) -> list[Varying]:
    found = [
        Varying(row.what, row.values, "parameter" if row.what == against else _origin(row, records))
        for row in different.section("parameters").rows
    ]
    return found + [
        Varying(row.what, row.values, "block") for row in different.section("blocks").rows
    ]


def _origin(row: Contrast, records: Sequence[Record]) -> str:
    if is_seed(row.what):
        return "seed"
    places = all(is_place(value, record) for value, record in zip(row.values, records, strict=True))
    return "work_dir" if places else "parameter"


def is_place(value: object, record: Record) -> bool:
    """Whether it is the folder in which the run's jobs ran, or one around it."""
    if not isinstance(value, str) or not value or not record.campaigns:
        return False
    start = str(record.environment.get("cwd") or os.sep)
    path = os.path.normpath(os.path.join(start, os.path.expanduser(value)))
    work_dirs = [str(each.get("work_dir") or "") for each in record.campaigns.values()]
    return all(each == path or each.startswith(f"{path}{os.sep}") for each in work_dirs)


def _names(records: Sequence[Record], each_ones: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Measures by their names, then costs that any run had."""
    paid = (*COSTS, WALL)
    own = {str(name) for record in records for name in record.measures}
    known = {name for one in each_ones for name in one}
    measured = sorted(known - (set(paid) - own), key=lambda name: (name == "iteration", name))
    costs = [name for name in paid if name in known and name not in own]
    return (*measured, *(name for name in costs if any(one.get(name) for one in each_ones)))


def _spread(
    name: str,
    places: Sequence[int],
    records: Sequence[Record],
    each_ones: Sequence[Mapping[str, Any]],
) -> Spread:
    completed = [i for i in places if records[i].state == "completed"]
    others = [i for i in places if records[i].state != "completed"]
    numbers = [found for i in completed if (found := number(each_ones[i].get(name))) is not None]
    early = [found for i in others if (found := number(each_ones[i].get(name))) is not None]
    told = [each_ones[i][name] for i in places if each_ones[i].get(name) is not None]
    is_text = bool(told) and not numbers and not early
    return Spread(
        n=len(numbers),
        mean=mean(numbers),
        deviation=deviation(numbers),
        left_out=len(completed) - len(numbers),
        text=("various" if differ(told) else words(told[0])) if is_text else "",
        provisional=mean(early) if len(early) == 1 and not numbers else None,
    )


def mean(numbers: Sequence[float]) -> float | None:
    """Exact, so that the order of the runs does not matter."""
    return float(statistics.mean(numbers)) if numbers else None


def deviation(numbers: Sequence[float]) -> float | None:
    """The sample's standard deviation (n - 1); one run has none."""
    if len(numbers) < 2:
        return None
    try:
        return float(statistics.stdev(numbers))
    except OverflowError:
        return None


def _mixed(records: Sequence[Record], different: Differences) -> tuple[str, ...]:
    """In what regards repeats differ; only where all runs together do."""
    chosen = ("parameters", "blocks")
    suspect = any(different.section(name).rows for name in _MIXED)
    if len(records) < 2 or not (suspect or any(name in different.likely for name in chosen)):
        return ()
    # Scripts are read only where some are known to differ.
    texts = bool(different.section("scripts").rows)
    own = differences(list(map(_without_seeds, records)), texts=texts, seeds=False)
    maybe = [f"{name}, maybe ({own.likely[name]})" for name in chosen if name in own.likely]
    return (*(name for name in _MIXED if own.section(name).rows), *maybe)


def _without_seeds(record: Record) -> Record:
    """A record without the seeds that jobs were given: in these repeats differ."""
    found = copy.copy(record)
    found.jobs = {key: dict(job) for key, job in record.jobs.items()}
    for job in found.jobs.values():
        if isinstance(job.get("arguments"), list):
            job["arguments"] = [without_seeds(" ".join(map(str, job["arguments"])))]
        if isinstance(job.get("options"), dict):
            job["options"] = {
                path: value for path, value in flat(job["options"]).items() if not is_seed(path)
            }
    return found


def in_order(value: object) -> tuple[int, float, str]:
    """To sort by: what is absent, numbers by their size, the rest by its text."""
    if value is ABSENT:
        return (0, 0.0, "")
    found = number(value)
    return (1, found, "") if found is not None else (2, 0.0, canonical(value))


def side_by_side(records: Sequence[Record]) -> dict[str, tuple[Any, ...]]:
    """Each figure of every run; `ABSENT` where a run has none."""
    each_ones = [figures(record) for record in records]
    return {
        name: tuple(one.get(name, ABSENT) for one in each_ones)
        for name in _names(records, each_ones)
    }


#: Of each loop each measured column: for every run its iterations' numbers and values.
Curves = dict[str, dict[str, tuple[tuple[tuple[int, float], ...], ...]]]


def curves(records: Sequence[Record]) -> Curves:
    """The finite numbers that loops measured, iteration by iteration."""
    found: Curves = {}
    for loop in dict.fromkeys(loop for record in records for loop in record.iterations):
        rows = [
            {
                i: {str(name): value for name, value in row.items()}
                for i, row in record.iterations.get(loop, {}).items()
                if number(i) is not None
            }
            for record in records
        ]
        names = dict.fromkeys(
            name
            for run in rows
            for row in run.values()
            for name in row
            if name not in (*FRAME, "iteration")
        )
        columns = {
            name: tuple(
                tuple(
                    (i, value)
                    for i in sorted(run)
                    if (value := number(run[i].get(name))) is not None
                )
                for run in rows
            )
            for name in names
        }
        found[loop] = {name: column for name, column in columns.items() if any(column)}
    return found


def labels(records: Sequence[Record], varying: Iterable[Varying]) -> list[str]:
    """A short name for each run: what varies, as far as it tells them apart; else its own name."""
    settings, repeats = _parted(varying)
    chosen = [each for each in settings if each.origin == "parameter"]
    if len(chosen) > _LABEL or not chosen:
        chosen = []
        _choose(chosen, settings, len(records))
    _choose(chosen, repeats, len(records))  # last: each run has its own, but they say nothing
    columns = [
        [f"{_short(each.name)}={text}" for text in apart_at_a_glance(_cells(each))]
        for each in chosen
    ]
    texts = [", ".join(column[i] for column in columns) for i in range(len(records))]
    texts = _apart(texts, lambda i: records[i].name)
    return _apart(texts, lambda i: records[i].id[:8] or str(i + 1))


def _cells(column: Varying) -> list[str]:
    return [words(each, 120) for each in column.values]


def _choose(chosen: list[Varying], left: list[Varying], count: int) -> None:
    """Add what tells most runs apart, until nothing tells more of them."""
    while left:
        best = max(left, key=lambda one: _classes([*chosen, one], count))
        if _classes([*chosen, best], count) == _classes(chosen, count):
            return
        chosen.append(best)
        left.remove(best)


def _parted(varying: Iterable[Varying]) -> tuple[list[Varying], list[Varying]]:
    """What tells settings apart, and in what their repeats differ."""
    known = list(varying)
    repeats = [each for each in known if each.origin in ("seed", "work_dir")]
    return [each for each in known if each not in repeats], repeats


def _classes(chosen: Sequence[Varying], count: int) -> int:
    return len({tuple(canonical(each.values[i]) for each in chosen) for i in range(count)})


def _short(name: str) -> str:
    """`molecule.bond.length` is `length` in a label."""
    return name.rpartition(".")[2]


def _apart(texts: Sequence[str], more: Callable[[int], str]) -> list[str]:
    """Those that are not the only one of their kind are told apart by something else beside."""
    return [
        ", ".join(filter(None, [text, more(i)])) if texts.count(text) > 1 or not text else text
        for i, text in enumerate(texts)
    ]
