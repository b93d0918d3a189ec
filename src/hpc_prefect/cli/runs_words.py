"""Runs in words, for people: a table of many, and everything about one."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any, TextIO

from hpc_prefect.records import query
from hpc_prefect.records.fold import DIFF, Record, begun_in_words, label_of
from hpc_prefect.records.read import RUNNING
from hpc_prefect.records.runs import RunSummary
from hpc_prefect.terminal import moment, printable

#: How many letters of an id are shown at least, and of a value in a list at most.
_SHORT, _LONG = 8, 24
#: How many parameters, and how many measures, a list shows unasked.
_MOST = 4
#: Columns that are left out, in this order, when a line does not fit even without parameters and
#: measures.
_LESS = ("UPDATED", "QPU S", "NODE-HOURS", "FLOW", "WALL", "JOBS")
#: Of one run: its newest jobs, and the first and last rows of a loop.
_JOBS, _FIRST, _LAST = 20, 1, 4
#: Cells without information; `[]` is the `argv` of a script without arguments.
_NOTHING = {"-", "", "[]", "{}"}
#: Longer than anything takes, in hours or seconds: a damaged record may have any number.
_ABSURD = 1e15

#: Columns by the names that `--columns` takes, and the value that CSV has for each.
HEADS = {
    "run": ("RUN", "name"),
    "name": ("RUN", "name"),
    "id": ("ID", "id"),
    "flow": ("FLOW", "flow"),
    "campaign": ("CAMPAIGN", "campaign"),
    "state": ("STATE", "state"),
    "started": ("STARTED", "started"),
    "ended": ("ENDED", "ended"),
    "updated": ("UPDATED", "updated"),
    "wall": ("WALL", "wall_seconds"),
    "jobs": ("JOBS", "jobs"),
    "node-hours": ("NODE-HOURS", "node_hours"),
    "qpu-s": ("QPU S", "qpu_seconds"),
    "host": ("HOST", "host"),
    "folder": ("FOLDER", "folder"),
}
_USUAL = (
    *("run", "id", "flow", "state", "updated", "started", "wall", "jobs", "node-hours", "qpu-s"),
)


def table(
    runs: Sequence[RunSummary],
    ids: Sequence[str],
    names: Sequence[str] = (),
    *,
    beside: bool = True,
    width: int = 0,
) -> str:
    """A line for each run; columns that would be empty are left out.

    Args:
        ids: of all known runs; the beginnings that are shown are unique among them.
        names: of columns beside the usual ones; without `beside`, of all columns.
        width: of the terminal, on which less important columns make room; 0: there is none.
    """
    short = short_ids(ids)
    if not beside:
        # Columns that were asked for are shown also when they are empty.
        return lay_out({_head(name): _cells(name, runs, short) for name in names})
    columns = {_head(name): _cells(name, runs, short) for name in _USUAL}
    wholes = [run.as_dict() for run in runs]
    extra = [*query.varying(wholes, _MOST), *query.measured(wholes, _MOST)]
    extra = [name for name in dict.fromkeys(extra) if name not in names]
    columns |= {name: _cells(name, runs, short, _LONG) for name in extra if name not in columns}
    columns |= {_head(name): _cells(name, runs, short) for name in names}
    filled = {head: cells for head, cells in columns.items() if set(cells) - _NOTHING}
    return lay_out(_fitting(filled, [*reversed(extra), *_LESS], width))


def _head(name: str) -> str:
    return HEADS[name][0] if name in HEADS else name


def _cells(
    name: str, runs: Iterable[RunSummary], short: Mapping[str, str], most: int = 0
) -> list[str]:
    if name in ("id", "node-hours", "qpu-s", *_WORDS):
        return [_tried(partial(_word, name, run, short)) for run in runs]
    return [_cell(run.value(name), most) for run in runs]


def _tried(make: Callable[[], str], otherwise: str = "?") -> str:
    """The result of `make`, or `otherwise` where the record is damaged, to show the rest."""
    try:
        return make()
    except Exception:  # noqa: BLE001 - anything may be in a record
        return otherwise


def _word(name: str, run: RunSummary, short: Mapping[str, str]) -> str:
    if name == "id":
        return short.get(run.id, run.id)
    if name in ("node-hours", "qpu-s"):
        return _cost(run.totals, HEADS[name][1])
    return _WORDS[name](run)


def _updated(run: RunSummary) -> str:
    from socket import gethostname

    elsewhere = run.state == RUNNING and run.host != gethostname()
    return moment(run.updated) if elsewhere else "-"


_WORDS: dict[str, Callable[[RunSummary], str]] = {
    "run": lambda run: printable(run.name) or "-",
    "name": lambda run: printable(run.name) or "-",
    "flow": lambda run: printable(run.flow) or "-",
    "campaign": lambda run: printable(run.campaign) or "-",
    "state": lambda run: printable(run.state),
    "started": lambda run: moment(run.started),
    "ended": lambda run: moment(run.ended),
    "updated": _updated,
    "wall": lambda run: duration(run.totals.get("wall_seconds")),
    "jobs": lambda run: _jobs_in_words(run.totals),
    "host": lambda run: printable(run.host) or "-",
    "folder": lambda run: printable(run.folder),
}


def _jobs_in_words(totals: Mapping[str, Any]) -> str:
    """`24 ok, 1 failed, 3 reused`: the reused ones are counted once."""
    jobs = totals.get("jobs")
    counts = dict(jobs) if isinstance(jobs, Mapping) else {}
    reused = int(totals.get("reused") or 0)
    own = {"ok": max(0, counts.pop("succeeded", 0) - reused), **counts, "reused": reused}
    return ", ".join(f"{count} {state}" for state, count in own.items() if count) or "-"


def _cost(totals: Mapping[str, Any], name: str) -> str:
    """A sum of what is known; with `+` where more was spent than is known."""
    costs, unknown = totals.get("costs") or {}, totals.get("unknown") or {}
    known = costs.get(name)
    more = "+" if unknown.get(name) else ""
    if known is None:
        return "?" if more else "-"
    return f"{known:.4g}{more}" if known < 1000 else f"{known:.0f}{more}"


def _cell(found: Any, most: int = 0) -> str:
    """A value in a list."""
    if found is None or found is query.MISSING:
        return "-"
    text = f"{found:.10g}" if isinstance(found, float) else printable(query.as_text(found))
    return f"{text[: most - 1]}…" if most and len(text) > most else text


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """For each id its shortest beginning that no other id has, at least 8 letters."""
    ordered = sorted(set(ids))
    same = [0, *(_same(one, other) for one, other in pairwise(ordered)), 0]
    return {
        ident: ident[: max(_SHORT, 1 + max(same[number : number + 2]))]
        for number, ident in enumerate(ordered)
    }


def _same(one: str, other: str) -> int:
    """How many letters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def lay_out(columns: Mapping[str, Sequence[str]]) -> str:
    """A table. Not by rich, which takes seconds for some thousand lines."""
    laid = []
    for head, cells in columns.items():
        text = [printable(head), *cells]
        widths = [*map(_width, text)]
        widest = max(widths)
        blanks = [" " * (widest - width) for width in widths]
        pairs = zip(text, blanks, strict=True)
        if head not in _NAMES and all(map(_NUMERIC.fullmatch, cells)):
            laid.append([f"{blank}{each}" for each, blank in pairs])
        else:
            laid.append([f"{each}{blank}" for each, blank in pairs])
    return "\n".join("  ".join(line).rstrip() for line in zip(*laid, strict=True))


#: Columns of text, though it may consist of digits only.
_NAMES = ("RUN", "ID", "JOB", "KEY", "FLOW", "CAMPAIGN")
_NUMERIC = re.compile(r"-|\?|-?[\d.]+([eE][+-]?\d+)?\+?|-?(inf|nan)")


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # late: some tables have no such text

    return cell_len(text)


def _fitting(
    columns: dict[str, list[str]], less: Iterable[str], width: int
) -> dict[str, list[str]]:
    """The columns for which the terminal has room."""
    if not width:
        return columns
    needs = {head: max(map(_width, [head, *cells])) + 2 for head, cells in columns.items()}
    for head in less:
        if sum(needs.values()) - 2 > width:
            columns.pop(head, None)
            needs.pop(head, None)
    return columns


# For other programs


def write_csv(runs: Sequence[RunSummary], names: Sequence[str], target: TextIO) -> None:
    """A line for each run, after one with the names of the columns: all, or those given."""
    if names:
        fields = {name: HEADS[name][1] if name in HEADS else name for name in names}
        rows = [{name: run.value(at) for name, at in fields.items()} for run in runs]
    else:
        rows = [query.flat(run.as_dict()) for run in runs]
        fields = {name: name for row in rows or [query.flat({})] for name in row}
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(map(_escaped, fields))
    for row in rows:
        writer.writerow([_escaped(_plain(fields[name], row.get(name))) for name in fields])


def _plain(name: str, found: Any) -> str:
    if name in ("started", "ended", "updated") and isinstance(found, int | float):
        with contextlib.suppress(OverflowError, ValueError, OSError):  # a parameter of that name
            return datetime.fromtimestamp(found, UTC).isoformat(timespec="seconds") if found else ""
    return "" if found is None else query.as_text(found)


#: Control characters, which a terminal would obey, and surrogates, which UTF-8 cannot encode; line
#: ends and tabs stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


# One run


def details(record: Record, state: str, *, blocks: bool = False) -> str:
    """Everything about one run.

    Args:
        state: as `standing` tells it.
        blocks: with the content of the blocks.
    """
    parts: dict[str, Callable[[], str]] = {
        "facts": lambda: _facts(record, state),
        "parameters": lambda: _section("parameters", _flat(record.parameters)),
        "measures": lambda: _section("measures", _flat(_measures(record))),
        "iterations": lambda: _loops(record),
        "jobs": lambda: _jobs(list(record.jobs.values())),
        "totals": lambda: _section("totals", _totals(record)),
        "blocks": lambda: _blocks(record, whole=blocks),
    }
    shown = [
        _tried(make, f"{head}: cannot be shown, the record is damaged here; see --json")
        for head, make in parts.items()
    ]
    return "\n\n".join(part for part in shown if part)


def _measures(record: Record) -> dict[str, Any]:
    """The measures that are not shown with the iterations."""
    of_loops = set(query.OF_LOOPS) - set(record.recorded)
    return {name: found for name, found in record.measures.items() if name not in of_loops}


def _facts(record: Record, state: str) -> str:
    run, environment = record.run, record.environment
    ended = f"{state}: {record.message}" if record.message else state
    where = [environment.get("user"), environment.get("host")]
    python = [f"Python {environment['python']}"] if environment.get("python") else []
    packages = found if isinstance(found := environment.get("packages"), Mapping) else {}
    argv = found if isinstance(found := environment.get("argv"), list) else []
    python += [f"{name} {version}" for name, version in packages.items() if name in _TOLD]
    facts = {
        "state": ended,
        "updated": moment(record.updated) if state == RUNNING else "",
        "flow": record.flow,
        "entrypoint": run.get("entrypoint"),
        "deployment": run.get("deployment"),
        "begun": begun_in_words(run.get("attempt")),
        **_code(record),
        "started": moment(record.started),
        "ended": moment(record.ended) if record.ended else "",
        "took": duration(record.wall_seconds),
        "where": "@".join(str(each) for each in where if each),
        "pid": environment.get("pid"),
        "folder": environment.get("cwd"),
        "command": " ".join(map(str, argv)),
        "with": ", ".join([*python, str(environment.get("platform") or "")]).rstrip(", "),
        "packages": f"{len(packages)}, all in --json" if packages else "",
        **_campaigns(record),
        "record": record.folder,
    }
    head = f"{record.name or 'a run'}  {record.id}"
    return "\n".join([printable(head), *_pairs(facts)])


#: Packages whose versions are shown beside Python's.
_TOLD = ("prefect", "hpc-prefect", "qiskit")


def _code(record: Record) -> dict[str, Any]:
    code = record.code
    commit = str(code.get("commit") or "")
    branch = f" on {code['branch']}" if code.get("branch") else ""
    changed = ", with changes that were not committed" if code.get("dirty") else ""
    kept = f": {record.folder}/{DIFF}" if changed and code.get("diff_kept") else ""
    return {
        "file": code.get("file"),
        "sha256": code.get("sha256"),
        "commit": f"{commit}{branch}{changed}{kept}" if commit else "",
        "remote": code.get("remote"),
    }


def _campaigns(record: Record) -> dict[str, str]:
    facts = {}
    for number, campaign in enumerate(record.campaigns.values()):
        again = f" {number + 1}" if number else ""
        facts[f"campaign{again}"] = f"{campaign.get('name')}  {campaign.get('folder')}"
        facts[f"work_dir{again}"] = str(campaign.get("work_dir") or "")
    return facts


def _pairs(facts: Mapping[str, Any]) -> list[str]:
    told = {name: str(found) for name, found in facts.items() if found not in ("", None, 0)}
    width = max(map(len, told), default=0)
    return [f"  {name:<{width}}  {printable(found)}" for name, found in told.items()]


def _section(head: str, lines: Iterable[str]) -> str:
    found = [f"  {line}" for line in lines]
    return "\n".join([f"{head}:", *found]) if found else ""


def _flat(values: Mapping[str, Any]) -> Iterator[str]:
    """`molecule.basis  sto-3g`, a line for each value."""
    told = dict(query.leaves(values))
    width = max(map(len, told), default=0)
    for name, found in told.items():
        yield f"{printable(name):<{width}}  {_cell(found, 200) if found is not None else 'null'}"


def _loops(record: Record) -> str:
    parts = [_loop(name, rows) for name, rows in record.iterations.items()]
    return "\n\n".join(part for part in parts if part)


def _loop(name: str, rows: Mapping[int, Mapping[str, Any]]) -> str:
    """The first iteration and the last few."""
    numbers = sorted(rows)
    left_out = len(numbers) - _FIRST - _LAST
    if left_out > 1:
        numbers = [*numbers[:_FIRST], *numbers[-_LAST:]]
    heads = [head for head in dict.fromkeys(h for n in numbers for h in rows[n]) if head != "time"]
    cells = {head: [_cell(rows[n].get(head), _LONG) for n in numbers] for head in heads}
    lines = lay_out(cells).splitlines() if cells else []
    if left_out > 1:
        lines.insert(1 + _FIRST, f"… {left_out} more, all in --json")
    return _section(f"iterations of {printable(name)}" if name else "iterations", lines)


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> str:
    """The newest ones."""
    ordered = sorted(jobs, key=_when)
    shown = ordered[-_JOBS:]
    if not shown:
        return ""
    short = short_ids(str(job.get("key", "")) for job in jobs)
    columns = {
        "JOB": [_text(label_of(job)) for job in shown],
        "KIND": [_text(job.get("kind")) for job in shown],
        "KEY": [printable(short[str(job.get("key", ""))]) for job in shown],
        "ID": [_text(job.get("job_id")) for job in shown],
        "STATE": [_text(job.get("state")) for job in shown],
        "ENDED": [moment(job.get("ended_at")) for job in shown],
        "WHERE": [_text(job.get("device") or job.get("queue") or job.get("host")) for job in shown],
        "WAITED": [duration(job.get("queue_seconds"), "-") for job in shown],
        "RAN": [duration(job.get("run_seconds"), "-") for job in shown],
        "NODE-HOURS": [_brief(job.get("node_hours")) for job in shown],
        "QPU S": [_brief(job.get("qpu_seconds")) for job in shown],
        "REASON": [_reason(job) for job in shown],
    }
    filled = {head: cells for head, cells in columns.items() if set(cells) - {"-"}}
    lines = lay_out(filled).splitlines()
    more = f", the newest {_JOBS}; all in --json" if len(jobs) > _JOBS else ""
    return _section(f"jobs ({len(jobs)}{more})", lines)


def _when(job: Mapping[str, Any]) -> float:
    return float(job.get("ended_at") or job.get("wanted_at") or 0)


def _text(found: object) -> str:
    return printable(str(found)) if found not in (None, "") else "-"


def _brief(found: object) -> str:
    if not isinstance(found, int | float):
        return "-"
    return f"{found:.4g}" if abs(found) < _ABSURD else "?"


def _reason(job: Mapping[str, Any]) -> str:
    if job.get("collected"):
        return "reused: done by an earlier run"
    return "-" if job.get("state") in ("succeeded", "wanted") else _text(job.get("reason"))


def _totals(record: Record) -> Iterator[str]:
    totals = record.totals.as_dict()
    facts: dict[str, str] = {"jobs": _jobs_in_words(totals) if record.totals.jobs else ""}
    for name, unit in _UNITS.items():
        spent = _cost(totals, name)
        saved = totals["saved"].get(name)
        words = [] if spent in ("-", "0") else [f"{spent} {unit}" if spent != "?" else "not known"]
        words += [f"{saved:.4g} {unit} saved by reusing"] if saved else []
        facts[name.rpartition("_")[0].replace("_", " ")] = ", ".join(words)
    yield from (line[2:] for line in _pairs(facts))


#: The costs by their names in a record, and as they are called here.
_UNITS = {
    "queue_seconds": "s waited for by jobs",
    "run_seconds": "s run by jobs",
    "node_hours": "node-hours",
    "core_hours": "core-hours",
    "gpu_hours": "GPU-hours",
    "qpu_seconds": "QPU s",
}


def _blocks(record: Record, *, whole: bool) -> str:
    lines: list[str] = []
    for block in record.blocks.values():
        name, digest = block.get("name") or "(not saved)", str(block.get("digest"))[:12]
        lines.append(printable(f"{block.get('kind')}  {name}  {digest}"))
        values = block.get("values")
        if whole and isinstance(values, Mapping):
            lines += [f"  {line}" for line in _flat(values)]
    return _section("blocks" if whole else "blocks (--blocks shows what is in them)", lines)


# Words


def duration(seconds: object, otherwise: str = "-") -> str:
    """`3.2s`, `12m05s`, `3h12m`, `2d03h`."""
    if not isinstance(seconds, int | float):
        return otherwise
    if not abs(seconds) < _ABSURD:  # NaN, too
        return "?"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m{rest:02}s"
    days, hours_left = divmod(hours, 24)
    return f"{days}d{hours_left:02}h" if days else f"{hours}h{minutes_left:02}m"


__all__ = ["details", "lay_out", "table", "write_csv"]
