"""What differs between runs, in sections; and the names of the sections in which nothing does.

What no run's record has is in neither list: it is not known to be the same.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hpc_prefect.records.compare.diffs import (
    LINES,
    Jobs,
    Scripts,
    TextDiff,
    code_diffs,
    script_diffs,
)
from hpc_prefect.records.compare.leaves import (
    Leaves,
    leaves_of,
    plainly_same,
    shortened,
    varied_leaves,
)
from hpc_prefect.records.compare.values import (
    ABSENT,
    canonical,
    flat,
    is_too_deep,
    json_value,
    natural,
    varied,
)
from hpc_prefect.records.fold import CLOCK, Record
from hpc_prefect.records.job_events import place_names


@dataclass(frozen=True, slots=True)
class Contrast:
    """One thing that is not the same in all runs.

    Attributes:
        what: its dotted path.
        values: one for each run; `ABSENT` where a run has none.
        jobs: in how many jobs it differs; 0 where it is not about jobs.
        alike: in how many of these it has just these values.
        example: the first job that has them.
    """

    what: str
    values: tuple[Any, ...]
    jobs: int = 0
    alike: int = 0
    example: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `absent` has the places of the runs that have no value."""
        about = {"jobs": self.jobs, "alike": self.alike, "example": self.example}
        return {
            "what": self.what,
            "values": [json_value(each) for each in self.values],
            "absent": [place for place, each in enumerate(self.values) if each is ABSENT],
            **(about if self.jobs else {}),
        }


@dataclass(frozen=True, slots=True)
class Section:
    """What differs in one regard; without rows and notes: nothing does.

    Attributes:
        name: of the section.
        rows: the differences.
        diffs: of texts.
        notes: sentences beside them.
    """

    name: str
    rows: tuple[Contrast, ...] = ()
    diffs: tuple[TextDiff, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "section": self.name,
            "rows": [row.as_dict() for row in self.rows],
            "diffs": [diff.as_dict() for diff in self.diffs],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Differences:
    """Sections that differ, and the names of those that do not.

    Attributes:
        sections: that differ, or have something to say.
        same: those that are the same in all runs.
        likely: those that are the same as far as is known, each with what is not.
    """

    sections: tuple[Section, ...] = ()
    same: tuple[str, ...] = ()
    likely: dict[str, str] = field(default_factory=dict)

    def section(self, name: str) -> Section:
        """The section of that name; one without rows where nothing differs in it."""
        return next((each for each in self.sections if each.name == name), Section(name))


#: The sections about jobs, each with the fields of a job's event that it compares.
_JOB_SECTIONS: dict[str, tuple[str, ...]] = {
    "executables": ("command", "executable", "images", "modules"),
    "inputs": ("inputs", "member_inputs"),
    "arguments": ("arguments", "member_arguments"),
    "resources": ("asked", "scheduler", "queue"),
    "devices": ("device", "backend"),
    "calibration": ("calibrated_at",),
    "quantum options": ("shots", "options"),
    "seeds": ("seed",),
    "circuits": ("circuits",),
    # Of everything that was asked: it tells angles apart, where depths are the same.
    "quantum requests": ("digest",),
    "outputs": ("outputs", "data_sha256"),
    "results": ("state", "reason", "attempt"),
}
#: The fields that are files: as long as no digest tells their content, they are not known.
_FILES_OF = {"executables": ("executable", "images"), "inputs": ("inputs",),
             "outputs": ("outputs",)}  # fmt: skip
_NO_DIGEST, _SAMPLED, _DEEP = "no digest", "digests of samples", "nested too deep"
#: A record has an array as one job, with what its members share; older ones have no more.
_SHARED = "of arrays, what their members share"
#: The sections of what each member of an array has for itself, and by which field that is told.
_OF_MEMBERS = {"arguments": "member_arguments", "inputs": "member_arguments", "outputs": ""}
_HOST = ("host", "user", "platform", "cwd", "argv", "variables")


#: Whether any run tells something of a section, the section, and what of it is not known.
_Found = tuple[bool, Section, str]


def differences(
    records: Sequence[Record], *, texts: bool = True, lines: int | None = LINES, seeds: bool = True
) -> Differences:
    """Compare runs in every regard.

    Args:
        records: with their jobs; a record without them is compared without.
        texts: compare code and scripts as texts too, for which files are read and git is asked.
        lines: of each diff; None for all.
        seeds: False for repeats: scripts are compared without seeds, and code by its digests.
    """
    jobs = _matched(records)
    common = {name: each for name, each in jobs.items() if _count(each) > 1}
    sections: dict[str, Callable[[], _Found]] = {
        "flow": lambda: _of("flow", map(_flow, records)),
        "parameters": lambda: _of("parameters", (record.parameters for record in records)),
        "blocks": lambda: _blocks(records),
        "code": lambda: _code(records, texts and seeds, lines),
        "versions": lambda: _of("versions", map(_versions, records)),
        "host": lambda: _of("host", map(_host, records)),
        "jobs": lambda: _jobs(records, jobs),
    }
    if texts:
        sections["scripts"] = lambda: _scripts(records, common, lines, seeds)
    for name, fields in _JOB_SECTIONS.items():
        sections[name] = partial(_job_section, name, fields, records, common)
    found = {name: _tried(name, section) for name, section in sections.items()}
    found["results"] = _results(found["results"], found["outputs"], records, jobs)
    alike = [each for each in found.values() if each[0] and not each[1].rows]
    return Differences(
        sections=tuple(each for _, each, _ in found.values() if each.rows or each.notes),
        same=tuple(each.name for _, each, doubt in alike if not doubt),
        likely={each.name: doubt for _, each, doubt in alike if doubt},
    )


def _tried(name: str, section: Callable[[], _Found]) -> _Found:
    try:
        return section()
    except Exception as error:  # noqa: BLE001 - anybody may have written anything there
        told = f"{name} could not be compared: {type(error).__name__}: {error}"
        return False, Section(name, notes=(told,)), ""


def _count(values: Iterable[object]) -> int:
    return sum(each is not None for each in values)


def _of(name: str, sides: Iterable[Mapping[str, Any]]) -> _Found:
    """A section of what differs in mappings."""
    each = list(sides)
    rows = tuple(Contrast(path, values) for path, values in varied(each).items())
    return any(each), *_with_depth(Section(name, rows), each)


def _with_depth(section: Section, values: Iterable[object]) -> tuple[Section, str]:
    """With a note where there is more in values than was compared."""
    if not any(map(is_too_deep, values)):
        return section, ""
    note = f"{section.name} are nested too deep to be compared as a whole"
    return replace(section, notes=(*section.notes, note)), _DEEP


def _picked(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if values.get(name) not in (None, "")}


def _flow(record: Record) -> dict[str, Any]:
    campaign = next((str(each.get("name") or "") for each in record.campaigns.values()), "")
    found = _picked(record.run, ("kind", "flow", "entrypoint", "deployment"))
    return found | ({"campaign": campaign} if campaign else {})


def _versions(record: Record) -> dict[str, Any]:
    found = _picked(record.environment, ("python",))
    packages = record.environment.get("packages")
    return found | (dict(packages) if isinstance(packages, Mapping) else {})


def _host(record: Record) -> dict[str, Any]:
    return _picked(record.environment, _HOST)


def _code(records: Sequence[Record], texts: bool, lines: int | None) -> _Found:
    told = ("file", "sha256", "commit", "branch", "dirty", "diff_sha256", "remote")
    known, section, doubt = _of("code", (_picked(record.code, told) for record in records))
    doubt = doubt or next(filter(None, map(_code_doubt, records)), "")
    if not texts or not section.rows:
        return known, section, doubt
    diffs, notes = code_diffs(records, lines)
    changed = {row.what for row in section.rows}
    if "sha256" not in changed and all(record.code.get("sha256") for record in records):
        notes.insert(0, "the flow's own file is the same in all of them")
    return known, Section("code", section.rows, tuple(diffs), tuple(notes)), ""


def _code_doubt(record: Record) -> str:
    code = record.code
    if not code.get("sha256"):
        return _NO_DIGEST
    if not code.get("commit"):
        return "the flow's file alone"
    return "" if code.get("diff_sha256") or not code.get("dirty") else "changes not committed"


def _results(found: _Found, outputs: _Found, records: Sequence[Record], jobs: Jobs) -> _Found:
    """States of runs and jobs: the same are results only where outputs and measures are, too."""
    sides = [{"run": {"state": each.state, "message": each.message}} for each in records]
    rows = tuple(Contrast(path, values) for path, values in varied(sides).items())
    section = replace(found[1], rows=rows + found[1].rows)
    measures = [_without_clock(each.measures) for each in records]
    known = not (section.notes or outputs[1].rows or outputs[1].notes or varied(measures))
    told = all(job and _tells_outputs(job) for row in jobs.values() for job in row)
    deep = _DEEP if any(map(is_too_deep, measures)) else ""
    return known, section, deep or outputs[2] or ("" if told else "not every output is known")


def _without_clock(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in CLOCK}


def _tells_outputs(job: Mapping[str, Any]) -> bool:
    return bool(job.get("outputs") or job.get("data_sha256"))


# --- blocks


def _blocks(records: Sequence[Record]) -> _Found:
    """By kind and name. A kind of which each run has just one is compared whatever its name is."""
    sides = [_named_blocks(record) for record in records]
    alone = {
        kind
        for kind in {kind for side in sides for kind, _ in side}
        if all(sum(each == kind for each, _ in side) == 1 for side in sides)
    }
    groups: dict[tuple[str, str], list[Any]] = {}
    for place, side in enumerate(sides):
        for (kind, name), values in side.items():
            # Without its name where it has another one in another run.
            renamed = kind in alone and any((kind, name) not in other for other in sides)
            group = groups.setdefault((kind, "" if renamed else name), [None] * len(records))
            group[place] = {"name": name, **values} if renamed else values
    rows: list[Contrast] = []
    for (kind, name), group in sorted(groups.items()):
        rows += _block_rows(f"{kind} {name}".strip(), group)
    section, doubt = _with_depth(
        Section("blocks", tuple(rows)), (values for side in sides for values in side.values())
    )
    return bool(groups), section, doubt


def _named_blocks(record: Record) -> dict[tuple[str, str], dict[str, Any]]:
    """What the run's calls were given; a block that changed meanwhile is there once a version."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for block in record.blocks.values():
        kind, name = str(block.get("kind", "")), str(block.get("name", ""))
        seen[kind, name] += 1
        version = f" (version {count})" if (count := seen[kind, name]) > 1 else ""
        values = block.get("values")
        found[kind, name + version] = (
            dict(values) if isinstance(values, Mapping) else {"value": values}
        )
    return found


def _block_rows(title: str, group: Sequence[dict[str, Any] | None]) -> list[Contrast]:
    there = [values for values in group if values is not None]
    rows = []
    if len(there) < len(group):
        presence = tuple(ABSENT if values is None else "given" for values in group)
        rows.append(Contrast(title, presence))
    for path in varied(there):
        values = tuple(ABSENT if one is None else flat(one).get(path, ABSENT) for one in group)
        rows.append(Contrast(f"{title}: {path}", values))
    return rows


# --- jobs


_Row = list[dict[str, Any] | None]


def _matched(records: Sequence[Record]) -> dict[str, _Row]:
    """The jobs of all runs by kind, scope and name; None where a run has none."""
    alike: dict[str, list[list[dict[str, Any]]]] = {}
    for place, record in enumerate(records):
        for job in record.jobs.values():
            alike.setdefault(_stem(job), [[] for _ in records])[place].append(job)
    found: dict[str, _Row] = {}
    again: Counter[str] = Counter()  # two loops of one name, apart only by their digests
    for sides in alike.values():
        for row in _rows(records, sides):
            label = min((job_label(job) for job in row if job is not None), key=natural)
            again[label] += 1
            found[f"{label} ({again[label]})" if again[label] > 1 else label] = row
    return {label: found[label] for label in sorted(found, key=natural)}


def _rows(records: Sequence[Record], sides: Sequence[Sequence[dict[str, Any]]]) -> list[_Row]:
    """Jobs of one name and scope: those of the same content are one, then those of one number."""
    numbers = {_number(job) for side in sides for job in side}
    if len(numbers) == 1 and all(len(side) < 2 for side in sides):  # most are so
        return [[side[0] if side else None for side in sides]]
    equal: dict[tuple[str, int], _Row] = {}
    for place, side in enumerate(sides):
        again: Counter[str] = Counter()
        for job in sorted(side, key=_number):
            content = _content(records[place], job)
            again[content] += 1
            equal.setdefault((content, again[content]), [None] * len(sides))[place] = job
    rows = [row for row in equal.values() if _count(row) > 1]
    by_number: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        for number in {_number(job) for job in row if job is not None}:
            by_number[number].append(row)
    for single in (row for row in equal.values() if _count(row) == 1):
        place, job = next((i, job) for i, job in enumerate(single) if job is not None)
        free = next((row for row in by_number[_number(job)] if row[place] is None), None)
        if free is not None:
            free[place] = job
        else:
            rows.append(single)
            by_number[_number(job)].append(single)
    # By their numbers, whatever the runs' order is.
    return sorted(rows, key=lambda row: min(_number(job) for job in row if job is not None))


def _content(record: Record, job: Mapping[str, Any]) -> str:
    """What a job was given, by which it differs from another job of the same name."""
    fields = ("arguments", "inputs", "member_arguments", "member_inputs")
    given = [name for name in fields if job.get(name) is not None]
    return canonical([leaves_of(name, record, job) for name in given])


def _number(job: Mapping[str, Any]) -> int:
    number = job.get("n")
    return number if isinstance(number, int) else 0


def _stem(job: Mapping[str, Any]) -> str:
    return job_label({**job, "n": 0})


def job_label(job: Mapping[str, Any]) -> str:
    """`loop/iter-3/evaluate`: where a job stands in its run, the same in every run."""
    label = "/".join(
        [*place_names(job.get("scope")), str(job.get("name") or job.get("kind") or "job")]
    )
    label += f"#{_number(job)}" if _number(job) else ""
    return label if job.get("kind", "batch") == "batch" else f"{label} ({job['kind']})"


def _jobs(records: Sequence[Record], jobs: Jobs) -> _Found:
    """How many there are, and those that are not in every run."""
    counts = [Counter(str(job.get("kind", "batch")) for job in each.jobs.values())
              for each in records]  # fmt: skip
    rows = [Contrast(path, values) for path, values in varied(counts).items()]
    partly = {name: each for name, each in jobs.items() if _count(each) < len(records)}
    if partly:
        alone = tuple(sum(each[i] is not None for each in partly.values())
                      for i in range(len(records)))  # fmt: skip
        example = next(iter(partly))
        rows.append(Contrast("not in every run", alone, len(partly), 1, example))
    return bool(jobs), Section("jobs", tuple(rows)), ""


def _scripts(records: Sequence[Record], jobs: Jobs, lines: int | None, seeds: bool) -> _Found:
    batch = {
        name: each
        for name, each in jobs.items()
        if any(job and job.get("kind", "batch") == "batch" for job in each)
    }
    found = script_diffs(records, batch, lines, seeds=seeds)
    notes = []
    if found.compared and found.unread:
        notes.append(f"the scripts of {found.compared} of {len(batch)} jobs were compared")
    elif found.unread:
        notes.append(
            f"the scripts of {found.unread} jobs cannot be read here, so they were not compared"
        )
    rows = (_script_row(found),) if found.differing else ()
    doubt = "not all can be read here" if found.unread else ""
    return found.compared > 0, Section("scripts", rows, found.diffs, tuple(notes)), doubt


def _script_row(found: Scripts) -> Contrast:
    values = tuple(f"script {each}" if each else ABSENT for each in found.variants)
    return Contrast("script", values, len(found.differing), found.alike, found.differing[0])


def _job_section(name: str, fields: Sequence[str], records: Sequence[Record], jobs: Jobs) -> _Found:
    """What differs in some fields of jobs that two runs or more have, alike ones in one row."""
    known, doubt = False, ""
    rows: list[Contrast] = []
    for one in fields:
        leaves: Leaves = defaultdict(dict)
        for label, row in jobs.items():
            # A job that has not ended has none of these, which is no difference.
            held = [job is not None and _has(job, one) for job in row]
            if sum(held) < 2:
                continue
            known = (
                known or one not in ("inputs", "outputs") or any(job and job[one] for job in row)
            )
            if one in _FILES_OF.get(name, ()):
                doubt = doubt or next(
                    filter(None, (_doubt(job[one]) for job in row if job and job.get(one))), ""
                )
            if plainly_same(one, row):
                continue
            for path, values in varied_leaves(one, records, row, held).items():
                leaves[path][label] = values
            if any(is_too_deep(job.get(one)) for job in row if job):
                doubt = _DEEP
        rows += _grouped(shortened(leaves, one))
    if name == "executables" and not all(job.get("executable") for job in _batch_jobs(jobs)):
        doubt = doubt or _NO_DIGEST
    if name in _OF_MEMBERS:
        arrays = (job for job in _batch_jobs(jobs) if job.get("members"))
        if any(not job.get(_OF_MEMBERS[name]) for job in arrays):
            doubt = doubt or _SHARED
    notes = (f"{name} are nested too deep to be compared as a whole",) if doubt == _DEEP else ()
    return known, Section(name, tuple(rows), notes=notes), doubt


def _has(job: Mapping[str, Any], one: str) -> bool:
    """Whether a job has a field; of an array's submissions the number says nothing of a retry."""
    return job.get(one) is not None and not (one == "attempt" and job.get("members"))


def _batch_jobs(jobs: Jobs) -> Iterable[Mapping[str, Any]]:
    there = (job for row in jobs.values() for job in row if job)
    return (job for job in there if job.get("kind", "batch") == "batch")


def _doubt(files: Any) -> str:
    """Why files that look the same may differ all the same; empty if they have digests."""
    if isinstance(files, list):
        return next(filter(None, map(_doubt, files)), "")
    if not isinstance(files, Mapping):
        return _NO_DIGEST
    if files and all(isinstance(each, Mapping) for each in files.values()):
        return next(filter(None, map(_doubt, files.values())), "")  # by their paths
    if not files.get("sha256"):
        return _NO_DIGEST
    return _SAMPLED if files.get("sampled") else ""


def _grouped(leaves: Leaves) -> list[Contrast]:
    """A row for each leaf, with the values that most of its jobs have; list places are one leaf."""
    alike: Leaves = defaultdict(dict)
    for path, by_job in leaves.items():
        merged = re.sub(r"\.\d+(?=\.|$)", ".*", path)
        for label, values in by_job.items():
            alike[merged].setdefault(label, values)
    rows = []
    for path, by_job in sorted(alike.items(), key=lambda each: natural(each[0])):
        keys = {label: tuple(map(canonical, values)) for label, values in by_job.items()}
        count = Counter(keys.values())
        most = max(count.values())
        # Of those with the most, the one whose first job comes first: whatever the runs' order.
        example = min((label for label in keys if count[keys[label]] == most), key=natural)
        rows.append(Contrast(path, by_job[example], len(by_job), most, example))
    return rows
