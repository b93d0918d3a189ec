"""The dialect of this machine's own batch system (`hpc_prefect.local_batch`).

This machine stands for all nodes of a job: a job of 2 nodes with 2 cores each takes 4 of its slots.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from hpc_prefect.job.dialogue import Command, Dialogue, Reply
from hpc_prefect.job.failure import Reason
from hpc_prefect.job.script import Preamble
from hpc_prefect.job.spec import JobSpec
from hpc_prefect.job.state import JobState, Observation, Patience
from hpc_prefect.schedulers.base import (
    Accepted,
    Answer,
    Found,
    NoAnswer,
    Refused,
    Submission,
    Ticket,
    Told,
    Unclear,
    by_name,
)

_ENGINE = str(resources.files("hpc_prefect.local_batch") / "engine.py")

_STATES = {
    "QUEUED": JobState.QUEUED,
    "RUNNING": JobState.RUNNING,
    "ENDED": JobState.ENDED,
}

#: By the engine's word for how a job ended; None: the script's exit code says why.
_CAUSES = {
    "EXITED": None,
    "SIGNALED": Reason.PROGRAM_FAILED,
    "TIMEOUT": Reason.WALLTIME,
    "OUT_OF_MEMORY": Reason.OUT_OF_MEMORY,
    "CANCELLED": Reason.CANCELLED,
    "NODE_FAIL": Reason.NODE_FAILURE,
    "LAUNCH_FAILED": Reason.SETUP_FAILED,
}


class LocalScheduler:
    """`Scheduler` for this machine."""

    name = "local"
    runs_here = True
    # All files are on one machine: one that is not there now does not appear later.
    patience = Patience(
        absent=2.0, lost=5.0, record=2.0, outputs=1.0, more=1.0, silent=60.0, find=2.0
    )
    ids_per_question = 500
    searchable = True
    throttles_arrays = True
    hurry = 0.05

    def problems(self, spec: JobSpec) -> list[str]:
        found = []
        slots = _slots(spec.site.options)
        if _cpus(spec) > slots:
            found.append(
                f"{spec.resources.num_nodes} nodes × {spec.resources.cores_per_node} cores = "
                f"{_cpus(spec)} cores, but this machine has {slots} slots; ask for "
                "less, or set local.slots in the HPC profile"
            )
        if spec.site.project:
            found.append(
                f"project {spec.site.project!r}: the queue of this machine has no projects; leave "
                "project_cpu and project_gpu of the HPC profile empty"
            )
        return found

    def environment_problems(self, spec: JobSpec, environment: Mapping[str, str]) -> list[str]:
        return []

    def array_limit(self, options: Mapping[str, object]) -> int:
        limit = options.get("max_array_size", 10000)
        return limit if isinstance(limit, int) else 0

    def element_id(self, array_id: str, index: int) -> str:
        return f"{array_id}_{index}"

    def array_of(self, element_id: str) -> str:
        return element_id.rpartition("_")[0]

    def preamble(self, spec: JobSpec, ticket: Ticket) -> Preamble:
        index = '"$HPC_LOCAL_ARRAY_INDEX"' if spec.array else ""
        return Preamble(id_expression='"$HPC_LOCAL_JOBID"', restarts="0", index=index)

    def submit(self, spec: JobSpec, ticket: Ticket) -> Dialogue[Submission]:
        resources_ = spec.resources
        memory = resources_.memory_per_node * resources_.num_nodes
        reply = yield _engine(
            "submit",
            spec.site.options,
            *("--name", ticket.tag, "--queue", spec.site.queue or "local"),
            *("--slots", str(_slots(spec.site.options)), "--cpus", str(_cpus(spec))),
            *("--walltime", str(resources_.walltime)),
            *(("--memory", str(memory)) if memory else ()),
            *("--kill-grace", str(spec.site.options.get("kill_grace", 5.0))),
            *_array(spec),
            *("--out", ticket.scheduler_out, "--err", ticket.scheduler_err),
            *("--cwd", spec.work_dir, ticket.script),
        )
        job_id = reply.stdout.strip()
        if reply.code == 0 and job_id:
            return Accepted(job_id)
        # 1 refused, 2 wrong usage: no job was made. If the engine was killed, there may be one.
        return Refused(reply.said) if reply.code in (1, 2) else Unclear(reply.said)

    def observe(
        self, ids: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Answer | NoAnswer]:
        reply = yield _engine("jobs", options, *ids)
        found = _read(reply)
        return found if isinstance(found, NoAnswer) else {**found}

    def find(
        self, tags: Sequence[str], options: Mapping[str, object]
    ) -> Dialogue[Found | NoAnswer]:
        found = _read((yield _engine("find", options, *tags)))
        return found if isinstance(found, NoAnswer) else by_name(tags, found.values())

    def cancel(
        self, jobs: Mapping[str, str], options: Mapping[str, object]
    ) -> Dialogue[NoAnswer | None]:
        reply = yield _engine("cancel", options, *jobs)
        return None if reply.code == 0 else NoAnswer(reply.said)

    def read_output(self, text: str) -> Told | None:
        return None  # the engine writes nothing there: `observe` says how a job ended


def _slots(options: Mapping[str, Any]) -> int:
    return int(options.get("slots", 0)) or 1


def _cpus(spec: JobSpec) -> int:
    return spec.resources.num_nodes * spec.resources.cores_per_node


def _array(spec: JobSpec) -> tuple[str, ...]:
    if spec.array is None:
        return ()
    at_once = ("--at-once", str(spec.array.at_once)) if spec.array.at_once else ()
    return ("--array", str(spec.array.size), *at_once)


def _engine(verb: str, options: Mapping[str, object], *arguments: str) -> Command:
    # -I and -S: the engine needs nothing but the standard library, and starts in half the time.
    spool = ("--spool", str(options["spool"])) if options.get("spool") else ()
    return Command((sys.executable, "-I", "-S", _ENGINE, verb, *spool, *arguments), timeout=30.0)


def _read(reply: Reply) -> dict[str, Observation] | NoAnswer:
    if reply.code != 0:
        return NoAnswer(reply.said)
    found = {}
    # Only at newlines: `splitlines` would also cut at other characters inside a text.
    for line in reply.stdout.split("\n"):
        if not line:
            continue
        try:
            entry = json.loads(line)
            seen = _observation(entry)
            found[seen.id] = seen
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return NoAnswer(f"the local engine printed a line that cannot be read: {line[:200]!r}")
    return found


def _observation(entry: dict[str, Any]) -> Observation:
    end = entry.get("end") or ""
    code = entry.get("exit_code")
    used = {name: float(entry[name]) for name in ("max_rss", "cpu_seconds") if entry.get(name)}
    return Observation(
        id=str(entry["id"]),
        state=_STATES.get(entry["state"], JobState.UNKNOWN),
        word=str(end or entry["state"]),
        cause=_cause(entry),
        tag=str(entry.get("name") or ""),
        exit_code=None if code is None else int(code),
        signal=str(entry.get("signal") or ""),
        message=_message(entry),
        host=str(entry.get("host") or ""),
        queued_at=float(entry.get("submitted") or 0),
        started_at=float(entry.get("started") or 0),
        ended_at=float(entry.get("ended") or 0),
        used=used,
        left=tuple((int(first), int(last)) for first, last in entry.get("left") or ()),
    )


def _cause(entry: dict[str, Any]) -> Reason | None:
    end = entry.get("end") or ""
    if not end:
        return None
    if "left" in entry:  # an array as a whole fails in its elements only
        return Reason.CANCELLED if end == "CANCELLED" else None
    # An end that this version does not know is no success.
    return _CAUSES.get(end, Reason.PROGRAM_FAILED)


def _message(entry: dict[str, Any]) -> str:
    if entry.get("by"):
        return f"cancelled by {entry['by']}"
    return str(entry.get("message") or entry.get("reason") or "")
