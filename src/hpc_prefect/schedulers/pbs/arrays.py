"""PBS's arrays: `65[].opbs` as a whole, and each of its subjobs, `65[7].opbs`.

Seen on OpenPBS 23.06. The record of the whole says which subjobs wait. It does not say how they
ended: its Exit_status was 0 after subjobs had ended with 4 and with 137. A subjob has a record of
its own once it has started. Before that, and if it was deleted before it started, `qstat` shows the
record of the whole under the subjob's id, with the whole's Exit_status and the subjob's state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import GUARD_CODE
from hpc_prefect.job.spec import Array, JobSpec
from hpc_prefect.job.state import JobState, Observation
from hpc_prefect.schedulers.pbs import qstat

#: The server's own default of max_array_size.
DEFAULT_LIMIT = 10_000

_WHOLE, _SUBJOB = re.compile(r"\d+\[\]", re.ASCII), re.compile(r"\d+\[\d+\]", re.ASCII)
_RANGE = re.compile(r"(\d{1,7})(?:-(\d{1,7})(?::([1-9]\d{0,6}))?)?", re.ASCII)
#: The attributes of the whole's record that hold for a subjob without a record of its own.
_SHARED = ("job_state", "Job_Name", "ctime", "comment")


def limit(options: Mapping[str, object]) -> int:
    """How many subjobs an array may have.

    0 where a site's own table is read: nobody here has seen how one shows arrays.
    """
    if options.get("status_dialect") == "table":
        return 0
    given = options.get("max_array_size", DEFAULT_LIMIT)
    return given if isinstance(given, int) else DEFAULT_LIMIT


def element_id(array_id: str, index: int) -> str:
    number, _, server = array_id.partition("[]")
    return f"{number}[{index}]{server}"


def array_of(element_id: str) -> str:
    return _SUBJOB.sub(lambda match: match[0].partition("[")[0] + "[]", element_id, count=1)


def directives(array: Array) -> list[str]:
    """The array as options of `qsub`.

    `qsub` takes an array only if PBS may start its subjobs again (read in the source of 23.06, and
    in a site's guide). The script refuses a second start; see `PBSScheduler.preamble`.
    """
    throttle = f"%{array.at_once}" if 0 < array.at_once < array.size else ""
    return [f"-J 0-{array.size - 1}{throttle}", "-r y"]


def problems(spec: JobSpec) -> list[str]:
    array, options = spec.array, spec.site.options
    if array is None or array.size <= (most := limit(options)):
        return []
    if options.get("status_dialect") == "table":
        return [
            "this is an array, but pbs.status_dialect is 'table', and how such a qstat shows arrays"
            " is not known: submit the jobs one by one"
        ]
    return [
        f"this is an array of {array.size} jobs, but pbs.max_array_size allows {most}: submit"
        " smaller arrays, or set it to what the site's server takes"
    ]


def read_indices(text: str) -> tuple[tuple[int, int], ...] | None:
    """The pairs (first, last) in `0-4,7,9-13:2`; none in `-`; None when it cannot be read."""
    pairs: list[tuple[int, int]] = []
    for part in text.split(",") if text != "-" else ():
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first:
            return None
        if step == 1:
            pairs.append((first, last))
        else:
            pairs += [(index, index) for index in range(first, last + 1, step)]
    return tuple(pairs)


def observation(
    job_id: str, record: Mapping[str, str], *, codes: bool = True, history: bool = True
) -> Observation:
    """What a record says of a job, of an array as a whole or of a subjob.

    Args:
        codes: as in `qstat.record_observation`.
        history: the server keeps records of ended jobs, and was asked for them.
    """
    if _WHOLE.match(job_id):
        return _whole(job_id, record)
    if not (codes and _SUBJOB.match(job_id)):
        return qstat.record_observation(job_id, record, codes=codes)
    if "array_index" not in record:
        return _absent(job_id, record, history=history)
    return _own(job_id, record)


def _whole(job_id: str, record: Mapping[str, str]) -> Observation:
    seen = qstat.record_observation(job_id, record, codes=False)
    left = read_indices(record.get("array_indices_remaining", "-"))
    ended = seen.state is JobState.ENDED
    return replace(seen, signal="", left=() if ended else left or ())


def _absent(job_id: str, record: Mapping[str, str], *, history: bool) -> Observation:
    """A subjob without a record of its own.

    If there is a history, a subjob that has run has a record; so one that ended without a record
    was deleted before it started.
    """
    shared = {name: record[name] for name in _SHARED if name in record}
    seen = qstat.record_observation(job_id, shared, codes=False)
    if seen.state is JobState.ENDED and history:
        return replace(seen, cause=Reason.CANCELLED, message="it was deleted before it began")
    return seen


def _own(job_id: str, record: Mapping[str, str]) -> Observation:
    seen = qstat.record_observation(job_id, record)
    again = record.get("run_count", "0") not in ("0", "1")
    if again and seen.exit_code == GUARD_CODE:
        said = "PBS started it again after its first run had failed, and its script refused to"
        return replace(seen, cause=Reason.NODE_FAILURE, exit_code=None, message=said)
    return seen
