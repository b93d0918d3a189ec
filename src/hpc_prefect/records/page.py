"""One run on one page, in Markdown: what Prefect's UI shows of it, during the run and after it.

Jobs             the rows of its jobs, as many as a page has room for
page(record, …)  the page
summary(record)  the same in a line
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from hpc_prefect.job.failure import Reason
from hpc_prefect.records.compare.values import flat, number, words
from hpc_prefect.records.fold import RUNS, Record, begun_in_words, label_of
from hpc_prefect.records.markdown import escaped, fenced, table
from hpc_prefect.terminal import printable

#: The most rows in the table of jobs; the record has all of them.
MOST_ROWS = 1000
#: The most parameters or measures, iterations of a loop, points of its line, columns of its table,
#: and names of jobs under way.
_VALUES, _ITERATIONS, _POINTS, _COLUMNS, _NAMED = 40, 5, 48, 8, 8
_LINE = "▁▂▃▄▅▆▇█"
#: The columns of a loop's row that are no measures.
_NO_MEASURE = ("iteration", "change", "seconds", "time")
#: The unit of each cost.
_UNITS = {
    "node_hours": "node-hours",
    "core_hours": "core-hours",
    "gpu_hours": "GPU-hours",
    "qpu_seconds": "QPU seconds",
}

Job = Mapping[str, Any]


@dataclass
class Jobs:
    """The jobs of a run: those under way, and those ended ones that a page shows.

    Its size is bounded: of failed jobs, and of others, the newest `MOST_ROWS` are kept.
    """

    under_way: dict[str, str] = field(default_factory=dict)
    failed: dict[tuple[str, ...], Job] = field(default_factory=dict)
    others: dict[tuple[str, ...], Job] = field(default_factory=dict)

    def add(self, event: Mapping[str, Any], record: Record) -> None:
        """Take an event in. The record must have taken it in before."""
        if event.get("event") == "job":
            self.under_way[str(event.get("key"))] = str(event.get("name"))
        if event.get("event") != "job-ended":
            return
        self.under_way.pop(str(event.get("key")), None)
        job = {**event, "collected": record.is_reused(event)}
        rows = self.others if job.get("state") == "succeeded" else self.failed
        rows[(str(job.get("key")), str(job.get("attempt")), str(job.get("job_id")))] = job
        while len(rows) > MOST_ROWS:
            del rows[next(iter(rows))]

    def ended(self, *, quantum: bool) -> list[Job]:
        """Failed jobs first, then the newest others in their order; at most `MOST_ROWS`."""
        failed, others = (
            sorted(
                (job for job in each.values() if _is_quantum(job) == quantum),
                key=lambda job: number(job.get("time")) or 0.0,
            )
            for each in (self.failed, self.others)
        )
        room = max(0, MOST_ROWS - len(failed))
        return [*failed, *others[len(others) - min(room, len(others)) :]]


def _is_quantum(job: Job) -> bool:
    return job.get("kind") in ("sampler", "estimator")


def summary(record: Record, under_way: int = 0) -> str:
    """`running; 5 jobs: 1 failed, 4 succeeded; 0.25 node-hours`."""
    parts = [record.state, _jobs_in_words(record, under_way)]
    parts += [f"{spent} {_UNITS[name]}" for name, (spent, _) in _costs(record).items() if spent]
    return "; ".join(part for part in parts if part)


def page(record: Record, jobs: Jobs, notes: Iterable[str] = ()) -> str:
    """The page.

    Args:
        notes: further sentences for the top, about facts that are not in the record.
    """
    parts = [
        f"## {escaped(printable(record.name or record.id))}: {record.state}",
        _text(record.message),
        _facts(record, jobs),
        *(escaped(printable(note)) for note in notes),
        _values("parameter", record.parameters),
        _values("measure", record.recorded),
        *_loops(record),
        _job_table("Jobs", jobs.ended(quantum=False), _BATCH, record),
        _job_table("Quantum jobs", jobs.ended(quantum=True), _QUANTUM, record),
        _go_on(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(record: Record, jobs: Jobs) -> str:
    costs = {_UNITS[name]: _spent(*pair) for name, pair in _costs(record).items()}
    campaigns = dict.fromkeys(str(each.get("name")) for each in record.campaigns.values())
    facts = {
        "flow": _text(record.flow),
        "campaign": ", ".join(map(_text, islice(campaigns, _NAMED))),
        "begun": begun_in_words(record.run.get("attempt")),
        "started": _moment(record.started),
        "ended": _moment(record.ended),
        "as of": "" if record.ended else _moment(record.updated),
        "took": _duration(record.wall_seconds),
        "code": _code(record),
        "jobs": escaped(_jobs_in_words(record, len(jobs.under_way))),
        "under way": _named(jobs.under_way.values()),
        "in queues": _duration(record.totals.costs.get("queue_seconds")),
        **costs,
        "saved by resuming": _saved(record),
    }
    head, *rows = [(name, value) for name, value in facts.items() if value]
    return table(head, rows)


def _text(value: object) -> str:
    return "" if value in (None, "") else escaped(words(value, 200))


def _moment(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC" if seconds else ""
    except (OverflowError, ValueError, OSError):  # a record that makes no sense
        return ""


def _duration(seconds: float | None) -> str:
    if seconds is None or not 0 <= seconds < 1e15:
        return ""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 120 else f"{minutes} min"


def _code(record: Record) -> str:
    commit = str(record.code.get("commit") or "")[:12]
    changed = ", changed since" if record.code.get("dirty") else ""
    return _text(f"{record.code.get('file') or ''}{f' at {commit}{changed}' if commit else ''}")


def _named(names: Iterable[str]) -> str:
    called = list(names)
    more = f" and {len(called) - _NAMED} more" if len(called) > _NAMED else ""
    return ", ".join(_text(name) for name in called[:_NAMED]) + more


def _jobs_in_words(record: Record, under_way: int) -> str:
    """`5 jobs: 1 failed, 4 succeeded, 2 of them in an earlier run; 3 under way`."""
    count = record.totals.jobs
    order = dict.fromkeys(("failed", "lost", "cancelled", "succeeded", *sorted(count)))
    parts = [f"{count[state]} {state}" for state in order if count[state]]
    earlier = record.totals.reused
    parts += [f"{earlier} of them in an earlier run"] if earlier else []
    ended = count.total()
    told = [f"{ended} job{'s' if ended != 1 else ''}: {', '.join(parts)}"] if ended else []
    return "; ".join([*told, *([f"{under_way} under way"] if under_way else [])])


def _costs(record: Record) -> dict[str, tuple[str, int]]:
    """For each cost: the known sum, and the number of jobs whose cost is not known."""
    costs, unknown = record.totals.costs, record.totals.unknown
    named = [name for name in _UNITS if costs.get(name) or unknown[name]]
    return {name: (str(_hours(costs.get(name))), unknown[name]) for name in named}


def _spent(known: str, unknown: int) -> str:
    if not unknown:
        return escaped(known)
    those = f"those of {unknown} job{'s' if unknown > 1 else ''} not known"
    return f"{escaped(known)}, {those}" if known else those


def _saved(record: Record) -> str:
    saved = record.totals.saved
    parts = [f"{_hours(saved[name])} {unit}" for name, unit in _UNITS.items() if saved.get(name)]
    parts += [f"{_duration(saved['run_seconds'])} of running"] if saved.get("run_seconds") else []
    return escaped(", ".join(parts))


def _values(what: str, values: Mapping[str, Any]) -> str:
    every = flat(values)
    if not every:
        return ""
    rows = [(_text(name), escaped(words(each, 120))) for name, each in every.items()]
    left = len(rows) - _VALUES
    more = f"\n\n… and {left} more in the record" if left > 0 else ""
    return f"### {what.title()}s\n\n{table((what, 'value'), rows[:_VALUES])}{more}"


# --- loops


def _loops(record: Record) -> list[str]:
    return [_loop(record, loop) for loop in record.iterations]


def _loop(record: Record, loop: str) -> str:
    """A loop: its watched measure as a line of blocks, and its newest iterations."""
    rows = [row for _, row in sorted(record.iterations[loop].items())]
    newest = rows[-_ITERATIONS:]
    names = list(dict.fromkeys(name for row in newest for name in row if name != "time"))
    measured = [n for n in names if n not in _NO_MEASURE and number(newest[-1].get(n)) is not None]
    told = record.loops.get(loop, {}).get("watched")
    watched = str(told) if told in names else measured[0] if measured else ""
    # The watched measure and the change stay if there are too many columns.
    first = [name for name in ("iteration", watched, "change") if name in names]
    columns = [*first, *(name for name in names if name not in first)][:_COLUMNS]
    cells = [[_cell(row.get(name)) for name in columns] for row in newest]
    count = f"{len(rows)} iteration{'s' if len(rows) != 1 else ''}"
    values = [row.get(watched) for row in rows][-_POINTS:]
    line = sparkline(values)
    ends = f"{_cell(values[0])} `{line}` {_cell(values[-1])}"
    shown = f"\n\n{_text(watched)}: {ends}" if line else ""
    head = [*map(_text, columns)]
    return f"### Loop {_text(loop)}: {count}{shown}\n\n{table(head, cells[::-1], right=head)}" + (
        "\n\nThe newest first." if len(rows) > 1 else ""
    )


def _cell(value: object) -> str:
    return "" if value is None else escaped(words(value, 40))


def sparkline(values: Sequence[object]) -> str:
    """Values as a line of blocks, scaled from the smallest to the largest; empty without values.

    A value that is no finite number is a blank.
    """
    numbers = [number(value) for value in values]
    finite = [value for value in numbers if value is not None]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    return "".join(" " if value is None else _LINE[_step(value, low, high)] for value in numbers)


def _step(value: float, low: float, high: float) -> int:
    if high <= low:
        return 0
    share = (value / 2 - low / 2) / (high / 2 - low / 2)  # no overflow
    return min(len(_LINE) - 1, math.floor(share * len(_LINE)))


# --- jobs


def _job_table(
    title: str, jobs: Sequence[Job], columns: Mapping[str, Callable[[Job], object]], record: Record
) -> str:
    """A table of jobs. Columns without any value are left out."""
    if not jobs:
        return ""
    cells = {name: [_text(make(job)) for job in jobs] for name, make in columns.items()}
    base = _campaign_folder(record)
    cells["folder"] = [_text(str(job.get("folder") or "").removeprefix(base)) for job in jobs]
    filled = {name: each for name, each in cells.items() if any(each) or name == "job"}
    most = "; what failed, and the newest of the others" if len(jobs) >= MOST_ROWS else ""
    shown = table(list(filled), zip(*filled.values(), strict=True), right=_NUMBERS)
    return f"### {title}{most}\n\n{shown}"


def _result(job: Job) -> str:
    if _is_quantum(job):
        return str(job.get("state"))
    try:
        return str(Reason(str(job.get("reason"))))
    except ValueError:
        return str(job.get("reason") or job.get("state"))


def _seconds(value: object) -> float | str:
    seconds = number(value)
    if seconds is None:
        return ""
    return round(seconds) if seconds >= 100 else round(seconds, 2)


def _hours(value: object) -> float | str:
    hours = number(value)
    if hours is None:
        return ""
    return "< 0.001" if 0 < hours < 0.001 else round(hours, 3 if hours < 1 else 1)


def _qpu(job: Job) -> str:
    seconds = number(job.get("qpu_seconds"))
    if seconds is None:
        return ""
    estimated = " (estimated)" if job.get("qpu_seconds_are") == "estimated" else ""
    return f"{seconds:,.1f}{estimated}"


def _circuits(job: Job, what: str) -> str:
    found = job.get("circuits")
    known = [each.get(what) for each in found if isinstance(each, Mapping)] if found else []
    return ", ".join(str(each) for each in known[:3] if each is not None) + (
        ", …" if len(known) > 3 else ""
    )


_BATCH: dict[str, Callable[[Job], object]] = {
    "job": label_of,
    "result": _result,
    "exit code": lambda job: job.get("exit_code"),
    "id": lambda job: job.get("job_id"),
    "times submitted": lambda job: job.get("attempt"),
    "in queue (s)": lambda job: _seconds(job.get("queue_seconds")),
    "on nodes (s)": lambda job: _seconds(job.get("run_seconds")),
    "node-hours": lambda job: _hours(job.get("node_hours")),
    "host": lambda job: job.get("host"),
    "earlier run": lambda job: "yes" if job.get("collected") else "",
}
_QUANTUM: dict[str, Callable[[Job], object]] = {
    "job": label_of,
    "result": _result,
    "why": lambda job: job.get("summary"),
    "id": lambda job: job.get("job_id"),
    "device": lambda job: job.get("device"),
    "shots": lambda job: job.get("shots"),
    "depth": lambda job: _circuits(job, "depth"),
    "two-qubit gates": lambda job: _circuits(job, "two_qubit_gates"),
    "QPU seconds": _qpu,
    "simulated (s)": lambda job: _seconds(job.get("run_seconds")),
    "earlier run": lambda job: "yes" if job.get("collected") else "",
}
_NUMBERS = (
    *("exit code", "times submitted", "in queue (s)", "on nodes (s)", "node-hours"),
    *("shots", "depth", "two-qubit gates", "QPU seconds", "simulated (s)"),
)


def _campaign_folder(record: Record) -> str:
    """The folder of the record's campaign, in which most of the jobs are."""
    return record.folder.partition(f"/{RUNS}/")[0] + "/"


def _go_on(record: Record) -> str:
    lines = [f"hpc-prefect runs show {record.id}"]
    if record.state in ("failed", "crashed", "cancelled"):
        lines.append(f"hpc-prefect resume {record.id}")
    campaign = escaped(printable(_campaign_folder(record)))
    folder = escaped(printable(record.folder))
    told = f"The record: {folder}\n\nFolders of jobs that begin with no / are in {campaign}"
    return f"### Go on\n\n{told}\n\n{fenced(lines)}"
