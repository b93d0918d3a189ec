"""PJM's bulk jobs: `12345` as a whole, and each of its sub jobs, `12345[7]`.

All of this is from the manual (V4.0L20). The row of the whole has no codes, and its state is not
reliable ("even a bulk job in the RUNOUT state may have some sub jobs still in the QUEUED and
RUNNING states"). So the rows of its sub jobs are asked for with it (`pjstat -E`). Sub jobs that
have ended stay in the queue's list, with their codes, until the whole has ended.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from hpc_prefect.job.spec import Array, JobSpec
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.pjm import status as pjstat

#: A bulk number may have six digits; but every question lists all sub jobs, a line each.
DEFAULT_LIMIT = 1000
_LAST_NUMBER = 999_999

_SUB_JOB = re.compile(r"(\d+)\[(\d+)\]", re.ASCII)
_BULK = "BU"
_ACCEPTED = ("ACC", "ACCEPT")
_NOT_BEGUN = {JobState.QUEUED, JobState.HELD}


def limit(options: Mapping[str, object]) -> int:
    """How many sub jobs a bulk job may have."""
    given = options.get("max_array_size", DEFAULT_LIMIT)
    return given if isinstance(given, int) else DEFAULT_LIMIT


def is_element(job_id: str) -> bool:
    return _SUB_JOB.fullmatch(job_id) is not None


def array_of(element_id: str) -> str:
    match = _SUB_JOB.fullmatch(element_id)
    return match[1] if match else element_id


def options(array: Array) -> tuple[str, ...]:
    """The array as options of `pjsub`. The last number must be above the first."""
    return ("--bulk", "--sparam", f"0-{array.size - 1}")


def problems(spec: JobSpec) -> list[str]:
    array = spec.array
    if array is None:
        return []
    found = []
    if array.size > (most := limit(spec.site.options)):
        found.append(
            f"this is an array of {array.size} jobs, but pjm.max_array_size allows {most}: submit"
            " smaller arrays, or set it to what the site takes (`pjacl` tells it)"
        )
    if 0 < array.at_once < array.size:
        found.append(
            f"at most {array.at_once} of the array's {array.size} jobs are to run at once, but PJM"
            " starts as many sub jobs of a bulk job as there is room for: leave that out, or set"
            f" pjm.max_array_size to {array.at_once}, so that one small array follows another"
        )
    return found


def observations(rows: Sequence[pjstat.Record], ids: Collection[str]) -> dict[str, Observation]:
    """What the rows say of these jobs, wholes and sub jobs.

    An answer about a whole may have 100,000 rows of sub jobs: only their states are read.
    """
    parts: dict[str, dict[int, JobState]] = {}
    for row in rows:
        if match := _SUB_JOB.fullmatch(row["JOB_ID"]):
            parts.setdefault(match[1], {})[int(match[2])] = pjstat.state(row)
    found = {}
    for row in rows:
        job_id = row["JOB_ID"]
        if job_id not in ids:
            continue
        if job_id in parts or (row.get("MD") == _BULK and not is_element(job_id)):
            found[job_id] = _whole(pjstat.observation(row), parts.get(job_id, {}))
        else:
            found[job_id] = pjstat.observation(row)
    return found


def _whole(row: Observation, parts: Mapping[int, JobState]) -> Observation:
    """The array as a whole, by its sub jobs; else by its own row, which does not say which wait."""
    seen = replace(row, cause=None, exit_code=None, signal="")
    if not parts:
        state = JobState.RUNNING if row.state is JobState.ENDING else row.state
        every = ((0, _LAST_NUMBER),) if row.word in _ACCEPTED else ()
        return replace(seen, state=state, left=every)
    left = sorted(index for index, each in parts.items() if each is not JobState.ENDED)
    if not left:
        over = row.state is JobState.ENDED
        return replace(seen, state=JobState.ENDED if over else JobState.ENDING)
    states = {parts[index] for index in left}
    if len(left) < len(parts) or states - _NOT_BEGUN:
        state = JobState.RUNNING
    else:
        state = JobState.HELD if states == {JobState.HELD} else JobState.QUEUED
    return replace(seen, state=state, left=_ranges(left))


def _ranges(numbers: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
