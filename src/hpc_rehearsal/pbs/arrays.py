"""Job arrays: a record of the whole, which has the waiting indices, and one for each subjob.

A subjob has a record once it has started. Before that, or if it was deleted before it started, it
is shown with the values of the whole, but with its own state.
"""

from __future__ import annotations

from hpc_rehearsal.common import indices
from hpc_rehearsal.common.state import PARTS
from hpc_rehearsal.common.text import Refusal
from hpc_rehearsal.pbs.formats import SERVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

_TOO_LARGE = ("Array job exceeds server or queue size limit\n", 3)
INDEX_TAG = "^array_index^"
QUEUED, BEGUN = 10, 70  # substates; the second is that of an array that has begun
FINISHED, FAILED, TERMINATED = "finished", "failed", "terminated"
#: How a whole ends, by the end of the first subjob that did not end well.
ENDS = {FINISHED: (92, FINISHED), FAILED: (93, FAILED), TERMINATED: (91, TERMINATED)}


def asked(text: str, most: int) -> Record:
    """The array's part of the whole's record, from the value of `-J`."""
    span, _, at_once = text.partition("%")
    ends, _, every = span.partition(":")
    first, _, last = ends.partition("-")
    step = int(every or 1)
    runs = [[int(first), int(first) + (int(last) - int(first)) // step * step]]
    if indices.count(runs, step) > most:
        raise Refusal(*_TOO_LARGE)
    return {
        "submitted": span,
        "first": runs[0][0],
        "last": runs[0][1],
        "step": step,
        "at_once": int(at_once or 0),
        "waiting": runs,
        **dict.fromkeys(("running", "exiting", "expired"), 0),
        "worst": "",
    }


def known(text: str) -> bool:
    """Whether a text is a value of `-J`. That step and throttle must be numbers is assumed."""
    span, throttled, at_once = text.partition("%")
    ends, stepped, every = span.partition(":")
    first, _, last = ends.partition("-")
    numbers = [first, last, *([every] if stepped else []), *([at_once] if throttled else [])]
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        return False
    return int(first) < int(last) and 0 not in [int(number) for number in numbers[2:]]


def indices_of(whole: Record) -> range:
    array = whole["array"]
    return range(array["first"], array["last"] + 1, array["step"])


def number(whole: Record, index: int) -> int:
    return int(whole["n"]) * PARTS + index


def subjob(whole: Record, index: int) -> Record:
    """The record that a subjob gets at its start."""
    own = {
        "n": number(whole, index),
        "id": f"{whole['n']}[{index}].{SERVER}",
        "parent": whole["n"],
        "index": index,
        "array": None,
        "block": False,
        "stageout": None,
        "exit": None,
    }
    files = {key: whole[key].replace(INDEX_TAG, str(index)) for key in ("out", "err")}
    return {**whole, **own, **files}


def copied(whole: Record, index: int, done: str) -> Record:
    """What is shown of a subjob that has no record."""
    array = whole["array"]
    shown = {**whole, "id": f"{whole['n']}[{index}].{SERVER}", "index": index, "array": None}
    if indices.holds(array["waiting"], index, array["step"]):
        # Recorded with -t; asked for by itself, a waiting one showed the substate of the whole.
        return {**shown, "copied": whole["n"], "state": "Q", "substate": QUEUED}
    state = done if whole["state"] == done else "X"
    return {**shown, "copied": whole["n"], "state": state, "comment": "Subjob finished"}


def waiting(whole: Record) -> int:
    return indices.count(whole["array"]["waiting"], whole["array"]["step"])


def alive(job: Record) -> int:
    """How many jobs of it wait or run."""
    if not (array := job.get("array")):
        return 1
    return int(waiting(job) + array["running"] + array["exiting"])


def note_end(whole: Record, job: Record) -> None:
    """Note a subjob's end in the whole; the next subjob's end replaces the status."""
    array, status = whole["array"], job["exit"]
    whole["stageout"] = job["stageout"]
    whole["exit"] = 0 if not status else 1 if status > 0 else 2
    word = TERMINATED if job["deleted"] else FAILED if status else FINISHED
    if array["worst"] in ("", FINISHED):
        array["worst"] = word


def take(whole: Record, index: int) -> None:
    """Note that a subjob no longer waits."""
    array = whole["array"]
    array["waiting"] = indices.without(array["waiting"], index, array["step"])


def give(whole: Record, index: int) -> None:
    """Note that a subjob waits again."""
    array = whole["array"]
    array["waiting"] = indices.with_one(array["waiting"], index, array["step"])


def expire(whole: Record, index: int) -> None:
    """Note that a waiting subjob will never run."""
    take(whole, index)
    whole["array"]["expired"] += 1


def attributes(job: Record, *, over: bool) -> dict[str, str | int]:
    """The attributes in `qstat -f` that only arrays and subjobs have."""
    if "index" in job and "copied" not in job:
        return {"array_id": f"{job['parent']}[].{SERVER}", "array_index": job["index"]}
    array = job.get("array")
    if not array:
        return {}
    counts = {
        "Queued": waiting(job),
        "Running": array["running"],
        "Exiting": array["exiting"],
        "Expired": 0 if over else array["expired"],
    }
    return {
        "array": "True",
        "array_state_count": " ".join(f"{name}:{value}" for name, value in counts.items()),
        "array_indices_submitted": array["submitted"],
        "array_indices_remaining": indices.text(array["waiting"], array["step"]),
    }
